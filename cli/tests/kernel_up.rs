//! `honeyguide up` as a user runs it, with a real bottleneck. Needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "kernel-tests")]

use std::{
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// A child that is ended with the test, by its pid.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

struct Up {
    process: Process,
    grpc: u16,
    http: u16,
}

/// Windows of one second, and an objective that a test machine can break.
const CONFIG: &str = r#"
[sensor]
flush_interval = "1s"
cost_measurement = "100ms"
[analyzer]
step = "1s"
lateness = "500ms"
[[analyzer.objectives]]
name = "run-queue"
service = "process/hg-victim"
signal = "runq"
target = "p99"
times_usual = 10.0
floor = "1ms"
horizon = "1m"
fire_after = 2
resolve_after = 3
"#;

impl Up {
    fn start(directory: &Path) -> Up {
        let config = directory.join("honeyguide.toml");
        std::fs::write(&config, CONFIG).unwrap();
        let (grpc, http) = (free_port(), free_port());
        let process = Command::new(env!("CARGO_BIN_EXE_honeyguide"))
            .args(["up", "--plain", "--config"])
            .arg(&config)
            .args(["--set", &format!("analyzer.grpc_listen=127.0.0.1:{grpc}")])
            .args(["--set", &format!("analyzer.http_listen=127.0.0.1:{http}")])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let up = Up {
            process: Process(process),
            grpc,
            http,
        };
        up.wait_for("the first forecasts", 60, |up| {
            !up.ask(&["forecast", "--json"]).is_empty()
        });
        up
    }

    /// Objects that a subcommand prints, one a line.
    fn ask(&self, args: &[&str]) -> Vec<Value> {
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

    fn victim_p99(&self) -> Option<f64> {
        let answer = self.ask(&["forecast", "process/hg-victim", "runq", "--json"]);
        answer.first()?["latency"]["p99"].as_f64()
    }

    fn alert(&self) -> Option<Value> {
        self.ask(&["alerts", "--all", "--json"]).into_iter().next()
    }

    fn wait_for(&self, what: &str, secs: u64, mut reached: impl FnMut(&Up) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(secs);
        while !reached(self) {
            assert!(Instant::now() < deadline, "{what}: not within {secs} s");
            thread::sleep(Duration::from_millis(250));
        }
    }
}

/// bash under a name of its own, pinned to CPU 0.
fn pinned_bash(directory: &Path, name: &str, nice: i32, script: &str) -> Process {
    let path: PathBuf = directory.join(name);
    if !path.exists() {
        std::fs::copy("/bin/bash", &path).unwrap();
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

/// One at a time: the calm of one is disturbed by the load of the other.
static QUIET: Mutex<()> = Mutex::new(());

#[test]
fn contention_raises_the_tail_fires_an_alert_with_the_reason_and_resolves() {
    let _quiet = QUIET.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    // Wakes up every five milliseconds.
    let script = "exec 3<> <(:); while :; do read -t 0.005 -u 3; done";
    let _victim = pinned_bash(directory.path(), "hg-victim", 10, script);
    let up = Up::start(directory.path());
    let calm = |up: &Up| up.victim_p99().is_some_and(|p99| p99 < 0.001);
    up.wait_for("the victim's series, calm", 180, calm);
    thread::sleep(Duration::from_secs(15));
    let calm: Vec<f64> = (0..5)
        .filter_map(|_| {
            thread::sleep(Duration::from_secs(1));
            up.victim_p99()
        })
        .collect();
    let mut sorted = calm.clone();
    sorted.sort_by(f64::total_cmp);
    let usual = sorted[sorted.len() / 2];

    let hogs: Vec<Process> = (0..8)
        .map(|_| pinned_bash(directory.path(), "hg-hog", 0, "while :; do :; done"))
        .collect();
    up.wait_for("p99 ten times its usual", 60, |up| {
        up.victim_p99().is_some_and(|p99| p99 >= 10.0 * usual)
    });
    up.wait_for("a firing alert", 30, |up| {
        up.alert().is_some_and(|alert| alert["firing"] == true)
    });
    let alert = up.alert().unwrap();
    assert_eq!(alert["key"]["service"], "process/hg-victim");
    assert_eq!(alert["reasons"][0]["key"]["signal"], "runq", "{alert}");
    drop(hogs);
    up.wait_for("the alert to resolve", 60, |up| {
        up.alert().is_some_and(|alert| alert["firing"] == false)
    });
}

#[test]
fn metrics_are_ready_and_sigterm_ends_cleanly() {
    let _quiet = QUIET.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    let mut up = Up::start(directory.path());
    let page = |path: &str| {
        use std::io::{Read, Write};
        let mut socket = std::net::TcpStream::connect(("127.0.0.1", up.http)).unwrap();
        write!(
            socket,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(page("/ready").contains("200 OK"));
    let metrics = page("/metrics");
    for name in [
        "honeyguide_latency_seconds_bucket",
        "sensor_windows_total",
        "analyzer_steps_total",
    ] {
        assert!(metrics.contains(name), "{name} is missing");
    }
    let pid = up.process.0.id() as libc::pid_t;
    // SAFETY: the pid is our child's, which has not been waited for.
    unsafe { libc::kill(pid, libc::SIGTERM) };
    let status = up.process.0.wait().unwrap();
    assert!(status.success(), "{status}");
}
