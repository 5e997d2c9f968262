//! Honeyguide as processes, and loads for it: shared by the kernel tests.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(dead_code, reason = "each of those who share it uses a part")]

pub mod loads;
#[path = "../ports/mod.rs"]
mod ports;

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use kafka_node::Lent;
use serde_json::Value;

use loads::{Process, VICTIM};
pub use ports::free_port;

pub fn wait_for(what: &str, secs: u64, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(secs);
    while !reached() {
        assert!(Instant::now() < deadline, "{what}: not within {secs} s");
        thread::sleep(Duration::from_millis(250));
    }
}

/// What an HTTP server on loopback answers, once it does.
pub fn get(port: u16, path: &str) -> Option<String> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let timeout = Some(Duration::from_secs(10));
    socket.set_read_timeout(timeout).ok()?;
    // Version 1.0, so that the answer does not come in chunks.
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    socket.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.contains(" 200 ").then(|| body.to_owned())
}

/// Sensor and analyzer, in one process or in two.
pub struct Running {
    pub processes: Vec<Process>,
    pub sensor_http: u16,
    pub analyzer_http: u16,
    grpc: u16,
}

impl Running {
    /// `honeyguide up` with this configuration and further settings.
    pub fn up(directory: &Path, config: &str, settings: &[&str]) -> Self {
        let [http, grpc] = [(); 2].map(|()| free_port());
        let mut up = command(directory, config, "up", settings);
        up.arg("--plain");
        up.args(["--set", &format!("analyzer.grpc_listen=127.0.0.1:{grpc}")]);
        up.args(["--set", &format!("analyzer.http_listen=127.0.0.1:{http}")]);
        let running = Self {
            processes: vec![Process(up.spawn().unwrap())],
            sensor_http: http,
            analyzer_http: http,
            grpc,
        };
        wait_for("the first forecasts", 60, || {
            !running.ask(&["forecast", "--json"]).is_empty()
        });
        running
    }

    /// `honeyguide sensor` and `honeyguide analyzer` on Kafka.
    pub fn on_kafka(directory: &Path, config: &str, broker: &Lent) -> Self {
        // One partition: all series keep to the machine's pace together.
        let brokers = format!("kafka.brokers={}", broker.bootstrap());
        let group = format!("kafka.group={}", broker.group());
        let settings = [&brokers, &group, "kafka.partitions=1"];
        let run = |name| command(directory, config, name, &settings);
        assert!(run("topics").arg("apply").status().unwrap().success());
        let [sensor_http, analyzer_http, grpc] = [(); 3].map(|()| free_port());
        let mut sensor = run("sensor");
        let spool = directory.join("spool");
        sensor.args(["--set", &format!("sensor.spool_dir={}", spool.display())]);
        let address = format!("sensor.http_listen=127.0.0.1:{sensor_http}");
        sensor.args(["--set", &address]);
        let mut analyzer = run("analyzer");
        let address = format!("analyzer.http_listen=127.0.0.1:{analyzer_http}");
        analyzer.args(["--set", &address]);
        analyzer.args(["--set", &format!("analyzer.grpc_listen=127.0.0.1:{grpc}")]);
        let processes = [sensor, analyzer].map(|mut command| Process(command.spawn().unwrap()));
        for port in [sensor_http, analyzer_http] {
            wait_for("readiness", 90, || get(port, "/ready").is_some());
        }
        Self {
            processes: processes.into(),
            sensor_http,
            analyzer_http,
            grpc,
        }
    }

    /// Objects that a subcommand prints, one a line.
    pub fn ask(&self, args: &[&str]) -> Vec<Value> {
        let output = Command::new(env!("CARGO_BIN_EXE_honeyguide"))
            .args(args)
            .args(["--server", &format!("http://127.0.0.1:{}", self.grpc)])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The newest forecast of a series.
    pub fn forecast(&self, service: &str, signal: &str) -> Option<Value> {
        self.ask(&["forecast", service, signal, "--json"]).pop()
    }

    /// The run queue of [`VICTIM`] in its newest window, in seconds.
    pub fn victim_p99(&self) -> Option<f64> {
        self.forecast(VICTIM, "runq")?["latency"]["p99"].as_f64()
    }

    /// Windows behind the best founded forecast.
    pub fn history_windows(&self) -> u64 {
        let forecasts = self.ask(&["forecast", "--json"]);
        let windows = forecasts
            .iter()
            .filter_map(|f| f["history_windows"].as_u64());
        windows.max().unwrap_or(0)
    }

    /// A metric of the sensor by its name and labels.
    pub fn sensor_metric(&self, series: &str) -> Option<f64> {
        metric(self.sensor_http, series)
    }

    /// A metric of the analyzer by its name and labels.
    pub fn analyzer_metric(&self, series: &str) -> Option<f64> {
        metric(self.analyzer_http, series)
    }

    /// Ends all processes as a service manager would.
    pub fn terminate(mut self) {
        for Process(child) in &mut self.processes {
            let pid = child.id() as libc::pid_t;
            // SAFETY: the pid is our child's, which has not been waited for.
            unsafe { libc::kill(pid, libc::SIGTERM) };
            let status = child.wait().unwrap();
            assert!(status.success(), "{status}");
        }
    }
}

fn command(directory: &Path, config: &str, name: &str, settings: &[&str]) -> Command {
    let path = directory.join("honeyguide.toml");
    fs::write(&path, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_honeyguide"));
    command.arg(name).arg("--config").arg(path);
    command.args(settings.iter().flat_map(|setting| ["--set", *setting]));
    command.stdout(Stdio::null());
    command
}

fn metric(port: u16, series: &str) -> Option<f64> {
    let page = get(port, "/metrics")?;
    let mut lines = page.lines();
    let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value?.parse().ok()
}
