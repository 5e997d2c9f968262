//! `cargo xtask kafka`: a real broker on loopback, for development.

use std::{fs, path::PathBuf, thread, time::Duration};

use anyhow::{Context, Result, bail};
use kafka_node::{Cluster, Jars, Options};
use serde_json::{Value, json};

use crate::{
    cargo,
    setup::{self, KAFKA, Purpose},
    step::{show, step},
};

/// Arguments of `cargo xtask kafka`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Start nodes with empty data, and print their addresses.
    Start {
        /// Nodes; three replicate every topic.
        #[arg(long, default_value_t = 1)]
        nodes: usize,
        /// Java heap of each node in megabytes.
        #[arg(long, default_value_t = 512)]
        heap_mb: u32,
    },
    /// End the nodes; their data is removed.
    Stop,
    /// Say whether they run, and where.
    Status,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    match args.command {
        Command::Start { nodes, heap_mb } => start(nodes, heap_mb),
        Command::Stop => stop(),
        Command::Status => {
            match Running::read()? {
                Some(running) if running.is_alive() => println!("running at {}", running.bootstrap),
                _ => println!("not running; `cargo xtask kafka start` starts it"),
            }
            Ok(())
        }
    }
}

fn start(nodes: usize, heap_mb: u32) -> Result<()> {
    if let Some(running) = Running::read()?.filter(Running::is_alive) {
        bail!(
            "Kafka runs already at {}; `cargo xtask kafka stop` ends it",
            running.bootstrap
        );
    }
    setup::prepare(Purpose::Test, &[KAFKA])?;
    let directory = directory()?;
    let _ = fs::remove_dir_all(&directory);
    let jars = Jars::find()?;
    let options = Options {
        nodes,
        heap_mb,
        end_with_owner: false,
        ..Options::default()
    };
    let cluster = step("starting Apache Kafka", || {
        Cluster::start(&jars, &directory, options)
    })?;
    let running = Running {
        bootstrap: cluster.bootstrap(),
        pids: cluster.pids(),
    };
    running.write()?;
    println!("{}", running.bootstrap);
    Ok(())
}

fn stop() -> Result<()> {
    let Some(running) = Running::read()? else {
        println!("not running");
        return Ok(());
    };
    for pid in running.alive() {
        show(std::process::Command::new("kill").arg(pid.to_string()))?;
    }
    for _ in 0..100 {
        if !running.is_alive() {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    for pid in running.alive() {
        show(std::process::Command::new("kill").args(["-9", &pid.to_string()]))?;
    }
    fs::remove_dir_all(directory()?).context("failed to remove Kafka's data")
}

fn directory() -> Result<PathBuf> {
    Ok(cargo::target_dir()?.join("kafka"))
}

/// What `start` left for `stop`.
struct Running {
    bootstrap: String,
    pids: Vec<u32>,
}

impl Running {
    fn read() -> Result<Option<Self>> {
        let path = directory()?.join("running.json");
        let Ok(text) = fs::read_to_string(&path) else {
            return Ok(None);
        };
        let value: Value = serde_json::from_str(&text)
            .with_context(|| format!("{} is damaged; remove it", path.display()))?;
        let pids = value["pids"].as_array().cloned().unwrap_or_default();
        Ok(Some(Self {
            bootstrap: value["bootstrap"].as_str().unwrap_or_default().to_owned(),
            pids: pids
                .iter()
                .filter_map(|pid| u32::try_from(pid.as_u64()?).ok())
                .collect(),
        }))
    }

    fn write(&self) -> Result<()> {
        let text = json!({ "bootstrap": self.bootstrap, "pids": self.pids });
        Ok(fs::write(
            directory()?.join("running.json"),
            text.to_string(),
        )?)
    }

    /// Those that still run and are Kafka: a pid may have been given anew.
    fn alive(&self) -> Vec<u32> {
        let is_kafka = |pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.contains("kafka.Kafka"))
        };
        self.pids.iter().copied().filter(is_kafka).collect()
    }

    fn is_alive(&self) -> bool {
        !self.alive().is_empty()
    }
}
