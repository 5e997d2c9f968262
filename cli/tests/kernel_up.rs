//! `honeyguide up` as a user runs it, with a real bottleneck. Needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "kernel-tests")]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
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
        Self::start_with(directory, &[])
    }

    fn start_with(directory: &Path, settings: &[&str]) -> Up {
        let config = directory.join("honeyguide.toml");
        std::fs::write(&config, CONFIG).unwrap();
        let (grpc, http) = (free_port(), free_port());
        let process = Command::new(env!("CARGO_BIN_EXE_honeyguide"))
            .args(["up", "--plain", "--config"])
            .arg(&config)
            .args(["--set", &format!("analyzer.grpc_listen=127.0.0.1:{grpc}")])
            .args(["--set", &format!("analyzer.http_listen=127.0.0.1:{http}")])
            .args(settings.iter().flat_map(|setting| ["--set", *setting]))
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

    fn page(&self, path: &str) -> String {
        let mut socket = TcpStream::connect(("127.0.0.1", self.http)).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }

    /// A metric without labels.
    fn metric(&self, name: &str) -> Option<f64> {
        let page = self.page("/metrics");
        let mut lines = page.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value?.parse().ok()
    }

    /// Windows behind the best founded forecast.
    fn history_windows(&self) -> u64 {
        let forecasts = self.ask(&["forecast", "--json"]);
        let windows = forecasts
            .iter()
            .filter_map(|f| f["history_windows"].as_u64());
        windows.max().unwrap_or(0)
    }

    fn terminate(mut self) {
        let pid = self.process.0.id() as libc::pid_t;
        // SAFETY: the pid is our child's, which has not been waited for.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let status = self.process.0.wait().unwrap();
        assert!(status.success(), "{status}");
    }

    fn victim_p99(&self) -> Option<f64> {
        let answer = self.ask(&["forecast", "process/hg-victim", "runq", "--json"]);
        answer.first()?["latency"]["p99"].as_f64()
    }

    /// The victim's median p99 over ten seconds in which nothing disturbed it,
    /// and which were ten seconds after its first window: what else runs on
    /// this machine (the build before, the probes' own start) is over.
    fn calm_p99(&self, at_most: Duration) -> f64 {
        let deadline = Instant::now() + at_most;
        let mut last = Vec::new();
        loop {
            thread::sleep(Duration::from_secs(1));
            last.extend(self.victim_p99());
            if last.len() < 20 {
                continue;
            }
            let mut sorted = last.split_off(last.len() - 10);
            last.extend(&sorted);
            sorted.sort_by(f64::total_cmp);
            let median = sorted[sorted.len() / 2];
            if median < 0.0005 {
                return median;
            }
            assert!(Instant::now() < deadline, "never calm: {sorted:?}");
        }
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
    let usual = up.calm_p99(Duration::from_secs(180));

    // Above the victim's weight, so that each of them runs for its whole slice
    // before the victim's turn comes.
    let hogs: Vec<Process> = (0..16)
        .map(|_| pinned_bash(directory.path(), "hg-hog", -5, "while :; do :; done"))
        .collect();
    let mut raised = 0.0;
    let what = format!("p99 ten times its usual {usual} s");
    up.wait_for(&what, 90, |up| {
        let last = up.victim_p99().unwrap_or(0.0);
        if last > raised {
            raised = last;
            eprintln!("p99: usually {usual} s, now {raised} s");
        }
        raised >= 10.0 * usual
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
    let up = Up::start(directory.path());
    assert!(up.page("/ready").contains("200 OK"));
    let metrics = up.page("/metrics");
    for name in [
        "honeyguide_latency_seconds_bucket",
        "sensor_windows_total",
        "analyzer_steps_total",
        "process_resident_memory_bytes",
        "bus_publish_waits_total",
    ] {
        assert!(metrics.contains(name), "{name} is missing");
    }
    up.terminate();
}

#[test]
fn killed_and_started_again_it_goes_on_with_its_history() {
    let _quiet = QUIET.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("history");
    let data_dir = format!("analyzer.data_dir={}", data_dir.display());
    let settings = [data_dir.as_str(), "analyzer.store_interval=2s"];
    let mut up = Up::start_with(directory.path(), &settings);
    up.wait_for("a history", 60, |up| up.history_windows() >= 12);
    up.process.0.kill().unwrap();
    up.process.0.wait().unwrap();
    let up = Up::start_with(directory.path(), &settings);
    // Two seconds may be missing, and the first window after the start.
    assert!(up.history_windows() >= 10, "{}", up.history_windows());
    up.terminate();
}

/// A small file system of its own, unmounted with the test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Self {
        std::fs::create_dir(at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(at);
        assert!(mount.status().unwrap().success());
        Self(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_stops_nothing_and_costs_no_history() {
    let _quiet = QUIET.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(&directory.path().join("history"));
    let filler = disk.0.join("filler");
    let full = std::fs::write(&filler, vec![0; 2 << 20]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    let data_dir = format!("analyzer.data_dir={}", disk.0.display());
    let settings = [data_dir.as_str(), "analyzer.store_interval=2s"];
    let up = Up::start_with(directory.path(), &settings);
    up.wait_for("failed stores", 60, |up| {
        up.metric("analyzer_store_failures_total") >= Some(2.0)
    });
    let windows = up.history_windows();
    up.wait_for("further forecasts", 30, |up| {
        up.history_windows() >= windows + 3
    });
    std::fs::remove_file(&filler).unwrap();
    let segments = || std::fs::read_dir(&disk.0).unwrap().count();
    up.wait_for("a segment", 30, |_| segments() > 0);
    assert_eq!(up.metric("analyzer_history_rows_given_up_total"), Some(0.0));
    let before = up.history_windows();
    up.terminate();
    let up = Up::start_with(directory.path(), &settings);
    assert!(up.history_windows() >= before, "{before} windows before");
    up.terminate();
}
