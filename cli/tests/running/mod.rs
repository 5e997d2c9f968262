//! Honeyguide as processes, and loads for it: shared by the kernel tests and
//! the bench `loop`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(dead_code, reason = "each of those who share it uses a part")]

use std::{
    fs,
    io::{PipeReader, PipeWriter, Read, Write, pipe},
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// Who is put under load.
pub const VICTIM: &str = "process/hg-victim";

/// A child that is ended with the test, by its pid.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

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
    pub fn on_kafka(directory: &Path, config: &str, settings: &[&str], brokers: &str) -> Self {
        // One partition: all series keep to the machine's pace together.
        let brokers = format!("kafka.brokers={brokers}");
        let settings = [settings, &[&brokers, "kafka.partitions=1"]].concat();
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

/// bash under a name of its own, pinned to CPU 0.
pub fn pinned_bash(directory: &Path, name: &str, nice: i32, script: &str) -> Process {
    let path: PathBuf = directory.join(name);
    if !path.exists() {
        fs::copy("/bin/bash", &path).unwrap();
    }
    let mut command = Command::new(path);
    command.args(["-c", script]).stdin(Stdio::null());
    // SAFETY: both calls are async-signal-safe and touch only this child.
    unsafe {
        command.pre_exec(move || {
            let mut cpus: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(0, &mut cpus);
            libc::sched_setaffinity(0, size_of_val(&cpus), &raw const cpus);
            libc::setpriority(libc::PRIO_PROCESS, 0, nice);
            Ok(())
        });
    }
    Process(command.spawn().unwrap())
}

/// [`VICTIM`]: wakes up every five milliseconds.
pub fn victim(directory: &Path) -> Process {
    let script = "exec 3<> <(:); while :; do read -t 0.005 -u 3; done";
    pinned_bash(directory, "hg-victim", 10, script)
}

/// Above the victim's weight, so that each of them runs for its whole slice
/// before the victim's turn comes; few enough that it comes more often than 20
/// times a second, even where others have work as well.
pub fn hogs(directory: &Path) -> Vec<Process> {
    (0..8)
        .map(|_| pinned_bash(directory, "hg-hog", -5, "while :; do :; done"))
        .collect()
}

/// Two threads of this process that wake each other without a pause, off CPU 0
/// where there is another. Ended by dropping it.
pub struct Switches(Option<PipeWriter>);

impl Switches {
    pub fn begin() -> Self {
        let (reader, there) = pipe().unwrap();
        let (back_reader, back) = pipe().unwrap();
        let first = there.try_clone().unwrap();
        thread::spawn(move || pass_on(reader, back));
        thread::spawn(move || pass_on(back_reader, there));
        (&first).write_all(&[1]).unwrap();
        Self(Some(first))
    }
}

impl Drop for Switches {
    fn drop(&mut self) {
        // A zero ends both.
        let _ = self.0.take().map(|mut writer| writer.write_all(&[0]));
    }
}

fn pass_on(mut reader: PipeReader, mut writer: PipeWriter) {
    leave_cpu_0();
    let mut byte = [0];
    while reader.read_exact(&mut byte).is_ok() && writer.write_all(&byte).is_ok() {
        if byte == [0] {
            return;
        }
    }
}

/// Keeps this thread, and what it starts, off the CPU that the hogs crowd, if
/// there is another: a broker that gets no turn for ten seconds loses its
/// consumers.
pub fn leave_cpu_0() {
    // SAFETY: an all-zero set is a valid one, and outlives both calls.
    unsafe {
        let mut cpus: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size_of_val(&cpus), &raw mut cpus);
        libc::CPU_CLR(0, &mut cpus);
        if libc::CPU_COUNT(&cpus) > 0 {
            libc::sched_setaffinity(0, size_of_val(&cpus), &raw const cpus);
        }
    }
}
