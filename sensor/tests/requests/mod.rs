//! Servers, clients, and what the sensor published of them.
#![allow(dead_code, reason = "each test uses a part")]

#[path = "../programs/mod.rs"]
mod programs;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use honeyguide_bus::{
    Consumer, ConsumerEvent, Topic,
    memory::{self, MemoryBus, MemoryConsumer},
};
use honeyguide_proto::batch::Batch;
use honeyguide_sensor::{AttachedSensor, Config, Metrics, Sensor, program::probe::Probe};
use prometheus_client::registry::Registry;
use sensor_common::{Histogram, Signal};

/// What was published of services whose key ends in a name.
#[derive(Debug)]
pub struct Published {
    /// Requests by route and status class.
    pub by_route: BTreeMap<(String, u8), u64>,
    /// Those that it made, likewise.
    pub by_client_route: BTreeMap<(String, u8), u64>,
    /// Requests of the service as a whole.
    pub requests: u64,
    /// Those that it made.
    pub client_requests: u64,
    /// Their latency, and that of those in routes.
    pub latency: Histogram,
    pub latency_in_routes: Histogram,
    /// Kernel losses by reason number.
    pub losses: BTreeMap<u32, u64>,
    /// Requests to each address.
    pub by_peer: BTreeMap<String, u64>,
    /// Who answers there: address, service, and whether only for this service.
    pub endpoints: BTreeSet<(String, String, bool)>,
}

impl Published {
    /// `by_route` with borrowed names.
    pub fn routes(&self) -> BTreeMap<(&str, u8), u64> {
        borrowed(&self.by_route)
    }

    /// `by_client_route`, likewise.
    pub fn client_routes(&self) -> BTreeMap<(&str, u8), u64> {
        borrowed(&self.by_client_route)
    }

    /// Every request is in a route, with the same latency.
    pub fn check_whole(&self) {
        assert_eq!(self.by_route.values().sum::<u64>(), self.requests);
        let [in_routes, all] = [&self.latency_in_routes, &self.latency]
            .map(|latency| (latency.buckets(), latency.sum_ns(), latency.max_ns()));
        assert_eq!(in_routes, all);
    }
}

fn borrowed(routes: &BTreeMap<(String, u8), u64>) -> BTreeMap<(&str, u8), u64> {
    let routes = routes.iter();
    routes
        .map(|((route, class), count)| ((route.as_str(), *class), *count))
        .collect()
}

pub fn config() -> Config {
    Config {
        flush_interval: Duration::from_secs(1),
        // Exact counts, whatever else this machine does.
        cost_ceiling: 1.0,
        probes: vec![Probe::Tcp],
        ..Config::default()
    }
}

/// The side that makes requests is looked at, too.
pub fn client_config() -> Config {
    Config {
        client_routes: true,
        ..config()
    }
}

/// One request in sixteen of a server is looked at.
pub fn sampled_config() -> Config {
    Config {
        sampling_shift: BTreeMap::from([("server_request".to_owned(), 4)]),
        ..config()
    }
}

/// `counted` in samples of 1 to 16 stands for `requests`, which come in `batches`
/// that are sampled as one: within five standard deviations.
pub fn check_sampled(counted: u64, requests: u64, batches: u64) {
    assert_eq!(counted % 16, 0);
    let deviation = (requests as f64) * (15.0 / batches as f64).sqrt();
    let difference = counted.abs_diff(requests) as f64;
    assert!(difference < 5.0 * deviation, "{counted} of {requests}");
}

/// A copy of a program under another name, in a directory of its own: a service
/// that nothing else on the machine is.
pub struct Copy {
    directory: tempfile::TempDir,
    name: &'static str,
}

impl Copy {
    /// `program` is looked for where Debian has programs, unless it is a path.
    pub fn of(program: impl AsRef<Path>, name: &'static str) -> Self {
        assert!(name.len() < 16, "longer than names of the kernel");
        let directory = tempfile::tempdir().unwrap();
        let from = Path::new("/usr/bin").join(program);
        programs::copy(from, &directory.path().join(name));
        Self { directory, name }
    }

    /// To run it.
    pub fn command(&self) -> Command {
        Command::new(self.directory.path().join(self.name))
    }

    /// As keys of published services end.
    pub fn service(&self) -> String {
        format!("/{}", self.name)
    }
}

/// A sensor and what it publishes to.
pub struct Running {
    pub sensor: Sensor,
    bus: MemoryBus,
    consumer: MemoryConsumer,
}

impl Running {
    pub fn start(config: Config) -> Self {
        let bus = MemoryBus::new(memory::Config::default());
        let consumer = bus.consumer("test", Topic::Histograms);
        let attached = AttachedSensor::attach(config.validate().unwrap()).unwrap();
        let metrics = Metrics::register(&mut Registry::default());
        let sensor = attached.start(Arc::new(bus.clone()), metrics).unwrap();
        Self {
            sensor,
            bus,
            consumer,
        }
    }

    /// Ends it; returns what it published of `name`.
    pub async fn stop(mut self, name: &str) -> Published {
        self.sensor.stop().await;
        self.bus.close();
        let mut published = Published {
            by_route: BTreeMap::new(),
            by_client_route: BTreeMap::new(),
            requests: 0,
            client_requests: 0,
            latency: Histogram::new(),
            latency_in_routes: Histogram::new(),
            losses: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            endpoints: BTreeSet::new(),
        };
        while let Ok(event) = self.consumer.next().await {
            if let ConsumerEvent::Delivery(delivery) = event {
                add(&mut published, &delivery.record.payload, name);
            }
        }
        published
    }
}

/// Runs `work` under the sensor; returns what it published of `name`.
pub async fn published<W: FnOnce() + Send + 'static>(
    config: Config,
    name: &str,
    work: W,
) -> Published {
    let running = Running::start(config);
    tokio::task::spawn_blocking(work).await.unwrap();
    running.stop(name).await
}

pub fn add(published: &mut Published, payload: &[u8], name: &str) {
    let batch = Batch::decode(payload).unwrap();
    assert_eq!(batch.unknown_routes, 0);
    let is_of = |service: u32| batch.services[service as usize].key().ends_with(name);
    for series in batch.series.iter().filter(|series| is_of(series.service)) {
        if series.signal == Signal::ServerRequest {
            published.requests += series.count;
            published.latency.merge(&batch.histogram(series));
        } else if series.signal == Signal::ClientRequest {
            published.client_requests += series.count;
        }
    }
    for of in &batch.route_series {
        if !is_of(of.series.service) {
            continue;
        }
        if let Some(peer) = batch.route(of).peer() {
            assert_eq!(of.series.signal, Signal::ClientRequest);
            *published.by_peer.entry(peer.to_owned()).or_default() += of.series.count;
            continue;
        }
        let key = (batch.route(of).to_string(), of.status_class);
        if of.series.signal == Signal::ClientRequest {
            *published.by_client_route.entry(key).or_default() += of.series.count;
        } else if of.series.signal == Signal::ServerRequest {
            *published.by_route.entry(key).or_default() += of.series.count;
            let histogram = batch.histogram(&of.series);
            published.latency_in_routes.merge(&histogram);
        }
    }
    for endpoint in &batch.endpoints {
        if endpoint.asked_by.is_none_or(is_of) {
            let service = endpoint.service.key().to_owned();
            let only_for_us = endpoint.asked_by.is_some();
            let entry = (endpoint.address.clone(), service, only_for_us);
            published.endpoints.insert(entry);
        }
    }
    for (reason, count) in &batch.losses {
        *published.losses.entry(*reason).or_default() += count;
    }
}

/// A server in another process, killed at the end.
pub struct Server {
    pub child: Child,
    pub address: SocketAddr,
}

impl Server {
    /// Starts a program under a name of its own; it prints its port.
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = format!("127.0.0.1:{}", line.trim()).parse().unwrap();
        Self { child, address }
    }
}

impl Server {
    /// nginx without workers, everything it writes in `directory`; how it listens,
    /// and what else its server is to do.
    ///
    /// `DIRECTORY` in that is the directory; in it is a `file` of 100,000 bytes.
    pub fn nginx(directory: &Path, listen: &str, server: &str) -> Self {
        const CONFIGURATION: &str = r#"
daemon off; master_process off; error_log stderr emerg; pid DIRECTORY/pid;
events {}
http {
    access_log off; sendfile on; keepalive_requests 1000000;
    client_body_temp_path DIRECTORY/1; proxy_temp_path DIRECTORY/2; fastcgi_temp_path DIRECTORY/3;
    uwsgi_temp_path DIRECTORY/4; scgi_temp_path DIRECTORY/5;
    server {
        listen 127.0.0.1:PORT LISTEN;
        SERVER
    }
}
"#;
        std::fs::write(directory.join("file"), vec![b'x'; 100_000]).unwrap();
        let port = free_port();
        let text = CONFIGURATION
            .replace("SERVER", server)
            .replace("LISTEN", listen)
            .replace("DIRECTORY", &directory.display().to_string())
            .replace("PORT", &port.to_string());
        let configuration = directory.join("nginx.conf");
        std::fs::write(&configuration, text).unwrap();
        let mut command = Command::new("nginx");
        let child = command.arg("-c").arg(&configuration).spawn().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let server = Self { child, address };
        wait_for(address);
        server
    }
}

/// 404 for what begins with `/missing`, 503 for `/error`, a few bytes for `/api`,
/// else the file.
pub const LOCATIONS: &str = r#"
        location /missing { return 404; }
        location /error { return 503; }
        location /api { return 200 "ok"; }
        location / { root DIRECTORY; rewrite ^ /file break; }
"#;

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client that keeps its connection; panics unless the status is as expected.
pub struct Client(pub BufReader<TcpStream>);

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        Self(BufReader::new(socket))
    }

    pub fn request(&mut self, line: &str, status: u16) {
        let (method, path) = line.split_once(' ').unwrap();
        self.send(&[format!(
            "{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n"
        )
        .as_bytes()]);
        assert_eq!(self.response(), status, "{line}");
    }

    pub fn send(&mut self, parts: &[&[u8]]) {
        for (number, part) in parts.iter().enumerate() {
            if number > 0 {
                thread::sleep(Duration::from_millis(5));
            }
            self.0.get_mut().write_all(part).unwrap();
        }
    }

    /// Reads a response with its body; returns its status.
    pub fn response(&mut self) -> u16 {
        let (status, length) = self.response_head();
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        status
    }

    /// Reads a response to HEAD, which has no body; returns its status.
    pub fn head(&mut self) -> u16 {
        self.response_head().0
    }

    fn response_head(&mut self) -> (u16, usize) {
        let mut status = 0;
        let mut length = 0;
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "no response");
            let line = line.trim_end();
            if status == 0 {
                status = line.split(' ').nth(1).unwrap().parse().unwrap();
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap();
            }
            if line.is_empty() {
                return (status, length);
            }
        }
    }
}

/// Lets the tests of a file take turns: servers of one name are one service.
pub async fn turn() -> tokio::sync::MutexGuard<'static, ()> {
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    TURN.lock().await
}

/// The name of this test's executable, of which its own servers are a service.
pub fn own_name() -> String {
    let executable = std::env::current_exe().unwrap();
    executable
        .file_name()
        .unwrap()
        .to_string_lossy()
        .into_owned()
}

/// A server in this process that answers each request after its head with
/// what `respond` gives for its first line, until the client closes.
pub fn serve(connections: usize, respond: fn(&str) -> Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for _ in 0..connections {
            let (socket, _) = listener.accept().unwrap();
            thread::spawn(move || serve_connection(socket, respond));
        }
    });
    address
}

/// A server in this process that answers all requests of one read with one write.
pub fn serve_at_once(respond: fn(&str) -> Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let (mut pending, mut buffer) = (Vec::new(), vec![0; 65_536]);
        while let Ok(read @ 1..) = socket.read(&mut buffer) {
            pending.extend_from_slice(&buffer[..read]);
            let mut responses = Vec::new();
            while let Some(end) = pending.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&pending[..end]).into_owned();
                pending.drain(..end + 4);
                responses.extend(respond(head.lines().next().unwrap_or_default()));
            }
            if socket.write_all(&responses).is_err() {
                return;
            }
        }
    });
    address
}

pub fn serve_connection(mut socket: TcpStream, respond: fn(&str) -> Vec<u8>) {
    socket.set_nodelay(true).unwrap();
    let (mut pending, mut buffer) = (Vec::new(), vec![0; 65_536]);
    loop {
        let Ok(read @ 1..) = socket.read(&mut buffer) else {
            return;
        };
        pending.extend_from_slice(&buffer[..read]);
        while let Some(end) = pending.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&pending[..end]).into_owned();
            pending.drain(..end + 4);
            let response = respond(head.lines().next().unwrap_or_default());
            if socket.write_all(&response).is_err() {
                return;
            }
        }
    }
}

/// Waits until something listens there.
pub fn wait_for(address: SocketAddr) {
    let listens = (0..200).any(|_| {
        thread::sleep(Duration::from_millis(50));
        TcpStream::connect(address).is_ok()
    });
    assert!(listens, "nothing listens at {address}");
}

/// A port that nothing listens on.
pub fn free_port() -> u16 {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().port()
}

/// The service of a process, as keys of published services end.
pub fn name_of(child: &Child) -> String {
    let comm = std::fs::read_to_string(format!("/proc/{}/comm", child.id())).unwrap();
    format!("/{}", comm.trim_end())
}

/// Asks `server`, a scheme and an address, for paths in turns by HTTP/2: on two
/// connections, of so many streams at once each. `h2load` is that, with whatever
/// else it is to do.
pub fn load_http2(
    mut h2load: Command,
    server: &str,
    (requests, streams): (u32, u32),
    paths: &[&str],
) {
    h2load
        .args(["-n", &requests.to_string(), "-c", "2"])
        .args(["-m", &streams.to_string()])
        .args(paths.iter().map(|path| format!("{server}{path}")))
        .stdout(Stdio::null());
    assert!(h2load.status().unwrap().success());
    // The response is counted before the client has it; the drain is later.
    thread::sleep(Duration::from_millis(100));
}
