//! Nodes of one cluster.

use std::{
    fs::{self, File},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{Jars, Network};

/// Sixteen bytes in base64url, as KRaft wants them.
const CLUSTER_ID: &str = "aG9uZXlndWlkZS1rYWZrYQ";
const START_TIMEOUT: Duration = Duration::from_secs(90);
/// The line of the log after which a node serves.
const STARTED: &str = "Kafka Server started";

/// How nodes are run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Nodes; with three or more, topics are replicated threefold.
    pub nodes: usize,
    /// Java heap of each in megabytes.
    pub heap_mb: u32,
    /// Protocol of the listener for clients: `PLAINTEXT`, `SSL`, `SASL_SSL`, ….
    pub protocol: String,
    /// Further lines of `server.properties`.
    pub properties: Vec<(String, String)>,
    /// Credentials made when the storage is formatted, as
    /// `SCRAM-SHA-512=[name=…,password=…]`.
    pub scram: Vec<String>,
    /// Whether clients reach nodes through a [`Network`] that can be disturbed.
    pub has_network: bool,
    /// Whether nodes end with the [`Cluster`].
    pub end_with_owner: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 1,
            heap_mb: 512,
            protocol: "PLAINTEXT".to_owned(),
            properties: Vec::new(),
            scram: Vec::new(),
            has_network: false,
            end_with_owner: true,
        }
    }
}

/// Running nodes; see the crate.
#[derive(Debug)]
pub struct Cluster {
    jars: Jars,
    options: Options,
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    directory: PathBuf,
    port: u16,
    /// For nodes among themselves.
    internal_port: u16,
    network: Option<Network>,
    process: Option<Child>,
}

impl Cluster {
    /// Formats storage in `directory` (which must be empty or absent), starts
    /// the nodes, and returns when they serve.
    ///
    /// # Errors
    /// When Java is missing, or a node does not start; with the end of its log.
    pub fn start(jars: &Jars, directory: &Path, options: Options) -> Result<Cluster> {
        ensure!(options.nodes > 0, "a cluster needs a node");
        let ports = free_ports(3 * options.nodes)?;
        let (client_ports, ports) = ports.split_at(options.nodes);
        let (controller_ports, internal_ports) = ports.split_at(options.nodes);
        let voters: Vec<String> = (1..)
            .zip(controller_ports)
            .map(|(id, port)| format!("{id}@127.0.0.1:{port}"))
            .collect();
        let mut nodes = Vec::new();
        for (index, port) in client_ports.iter().enumerate() {
            let node = Node {
                directory: directory.join(format!("node-{}", index + 1)),
                port: *port,
                internal_port: internal_ports[index],
                network: options
                    .has_network
                    .then(|| Network::start(*port))
                    .transpose()?,
                process: None,
            };
            fs::create_dir_all(&node.directory)
                .with_context(|| format!("failed to create {}", node.directory.display()))?;
            let properties = node.properties(
                index + 1,
                controller_ports[index],
                &voters.join(","),
                &options,
            );
            fs::write(node.directory.join("server.properties"), properties)?;
            nodes.push(node);
        }
        let mut cluster = Cluster {
            jars: jars.clone(),
            options,
            nodes,
        };
        cluster.format()?;
        for index in 0..cluster.nodes.len() {
            cluster.spawn(index)?;
        }
        for index in 0..cluster.nodes.len() {
            cluster.wait_until_started(index)?;
        }
        Ok(cluster)
    }

    /// `host:port` of every node, separated by commas.
    pub fn bootstrap(&self) -> String {
        let addresses = self
            .nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.advertised_port()));
        addresses.collect::<Vec<_>>().join(",")
    }

    /// The same of the listener for nodes among themselves: without TLS, and
    /// for a client without a name (`User:ANONYMOUS`).
    pub fn internal_bootstrap(&self) -> String {
        let addresses = self
            .nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.internal_port));
        addresses.collect::<Vec<_>>().join(",")
    }

    /// What is between clients and a node.
    ///
    /// # Panics
    /// Without [`Options::has_network`].
    pub fn network(&self, node: usize) -> &Network {
        let network = self.nodes[node].network.as_ref();
        network.expect("the cluster was started with a network")
    }

    /// Process ids of the nodes that run.
    pub fn pids(&self) -> Vec<u32> {
        let running = self.nodes.iter().filter_map(|node| node.process.as_ref());
        running.map(Child::id).collect()
    }

    /// Ends a node at once, as `kill -9`.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill(&mut self, node: usize) -> Result<()> {
        if let Some(mut process) = self.nodes[node].process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// Starts a killed node again, on its data and port.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn restart(&mut self, node: usize) -> Result<()> {
        self.kill(node)?;
        self.spawn(node)?;
        self.wait_until_started(node)
    }

    /// Formats the storage of all nodes, side by side.
    fn format(&self) -> Result<()> {
        let started = self.nodes.iter().map(|node| {
            let mut format = self.jars.java(&["-XX:TieredStopAtLevel=1".to_owned()]);
            format
                .args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"])
                .arg(node.directory.join("server.properties"))
                .args(
                    self.options
                        .scram
                        .iter()
                        .flat_map(|scram| ["--add-scram", scram]),
                )
                .stdin(Stdio::null())
                .stdout(File::create(node.directory.join("format.log"))?)
                .stderr(File::create(node.directory.join("format.err"))?);
            let child = format
                .spawn()
                .context("failed to start `java`: install a JDK of version 17 or newer")?;
            Ok((node, child))
        });
        for (node, mut child) in started.collect::<Result<Vec<_>>>()? {
            let status = child.wait()?;
            ensure!(
                status.success(),
                "Kafka's storage could not be formatted ({status}):\n{}\n{}",
                tail(&node.directory.join("format.log")),
                tail(&node.directory.join("format.err"))
            );
        }
        Ok(())
    }

    fn spawn(&mut self, index: usize) -> Result<()> {
        let node = &self.nodes[index];
        let log = File::create(node.directory.join("broker.log"))?;
        let options = [
            "-Xms128m".to_owned(),
            format!("-Xmx{}m", self.options.heap_mb),
            "-XX:+UseSerialGC".to_owned(),
            "-Djava.awt.headless=true".to_owned(),
        ];
        let mut command = self.jars.java(&options);
        command
            .arg("kafka.Kafka")
            .arg(node.directory.join("server.properties"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        apart_from_the_terminal(&mut command);
        self.nodes[index].process = Some(command.spawn()?);
        Ok(())
    }

    fn wait_until_started(&mut self, index: usize) -> Result<()> {
        let node = &mut self.nodes[index];
        let log = node.directory.join("broker.log");
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let is_started = fs::read_to_string(&log).is_ok_and(|log| log.contains(STARTED));
            if is_started && TcpStream::connect(("127.0.0.1", node.port)).is_ok() {
                return Ok(());
            }
            let ended = match &mut node.process {
                Some(process) => process.try_wait()?,
                None => None,
            };
            if let Some(status) = ended {
                bail!("the Kafka node ended with {status}:\n{}", tail(&log));
            }
            if Instant::now() > deadline {
                bail!("the Kafka node does not serve:\n{}", tail(&log));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.options.end_with_owner {
            for node in 0..self.nodes.len() {
                let _ = self.kill(node);
            }
        }
    }
}

impl Node {
    fn advertised_port(&self) -> u16 {
        self.network.as_ref().map_or(self.port, Network::port)
    }

    fn properties(
        &self,
        id: usize,
        controller_port: u16,
        voters: &str,
        options: &Options,
    ) -> String {
        let replicas = if options.nodes >= 3 { 3 } else { 1 };
        let in_sync = if options.nodes >= 3 { 2 } else { 1 };
        let protocol = &options.protocol;
        let port = self.port;
        let advertised = self.advertised_port();
        let internal = self.internal_port;
        let data = self.directory.join("data");
        let lines = [
            ("process.roles", "broker,controller".to_owned()),
            ("node.id", id.to_string()),
            ("controller.quorum.voters", voters.to_owned()),
            (
                "listeners",
                format!(
                    "CLIENT://127.0.0.1:{port},INTERNAL://127.0.0.1:{internal},\
                     CONTROLLER://127.0.0.1:{controller_port}"
                ),
            ),
            (
                "advertised.listeners",
                format!("CLIENT://127.0.0.1:{advertised},INTERNAL://127.0.0.1:{internal}"),
            ),
            ("controller.listener.names", "CONTROLLER".to_owned()),
            ("inter.broker.listener.name", "INTERNAL".to_owned()),
            (
                "listener.security.protocol.map",
                format!("CLIENT:{protocol},INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT"),
            ),
            ("log.dirs", data.display().to_string()),
            ("default.replication.factor", replicas.to_string()),
            ("min.insync.replicas", in_sync.to_string()),
            ("offsets.topic.replication.factor", replicas.to_string()),
            ("offsets.topic.num.partitions", "4".to_owned()),
            (
                "transaction.state.log.replication.factor",
                replicas.to_string(),
            ),
            ("transaction.state.log.min.isr", in_sync.to_string()),
            ("transaction.state.log.num.partitions", "4".to_owned()),
            (
                "share.coordinator.state.topic.replication.factor",
                replicas.to_string(),
            ),
            ("share.coordinator.state.topic.min.isr", in_sync.to_string()),
            ("group.initial.rebalance.delay.ms", "0".to_owned()),
            // A killed node may come back only when its session has ended.
            ("broker.session.timeout.ms", "3000".to_owned()),
            ("broker.heartbeat.interval.ms", "500".to_owned()),
            ("num.network.threads", "2".to_owned()),
            ("num.io.threads", "4".to_owned()),
            ("log.cleaner.dedupe.buffer.size", "33554432".to_owned()),
            ("auto.create.topics.enable", "false".to_owned()),
        ];
        let own = lines.map(|(key, value)| format!("{key}={value}\n"));
        let further = options
            .properties
            .iter()
            .map(|(key, value)| format!("{key}={value}\n"));
        own.into_iter().chain(further).collect()
    }
}

/// Ctrl-C in a terminal is not for the broker; its owner ends it.
fn apart_from_the_terminal(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    command.process_group(0);
}

/// Ports that were free, each once.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let listeners = (0..count).map(|_| TcpListener::bind("127.0.0.1:0"));
    let listeners = listeners.collect::<std::io::Result<Vec<_>>>()?;
    let ports = listeners.iter().map(|one| Ok(one.local_addr()?.port()));
    ports.collect()
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
