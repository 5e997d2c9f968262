//! `honeyguide up` as a user runs it, with a real bottleneck. Needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "kernel-tests")]

mod running;

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use running::{
    Running, get,
    loads::{hogs, victim},
    wait_for,
};
use serde_json::Value;

/// Windows of one second, and an objective that a test machine can break: four times
/// what is calm here at most.
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
threshold = "2ms"
horizon = "1m"
fire_after = 2
resolve_after = 3
"#;

/// The victim's median p99 over ten seconds in which nothing disturbed it,
/// and which were ten seconds after its first window: what else runs on
/// this machine (the build before, the probes' own start) is over.
fn calm_p99(up: &Running, at_most: Duration) -> f64 {
    let deadline = Instant::now() + at_most;
    let mut last = Vec::new();
    loop {
        thread::sleep(Duration::from_secs(1));
        last.extend(up.victim_p99());
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

fn newest_alert(up: &Running) -> Option<Value> {
    up.ask(&["alerts", "--all", "--json"]).into_iter().next()
}

/// One at a time: the calm of one is disturbed by the load of the other.
static QUIET: Mutex<()> = Mutex::new(());

#[test]
fn contention_raises_the_tail_fires_an_alert_with_the_reason_and_resolves() {
    let _quiet = QUIET.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    let _victim = victim(directory.path());
    let up = Running::up(directory.path(), CONFIG, &[]);
    let usual = calm_p99(&up, Duration::from_secs(180));
    // This series began with the start of everything else, and after a short past it is
    // long until another such time seems unlikely.
    wait_for("a past that is calm for the most part", 90, || {
        up.history_windows() >= 75
    });

    let hogs = hogs(directory.path());
    let mut raised = 0.0;
    let what = format!("p99 ten times its usual {usual} s");
    wait_for(&what, 90, || {
        let last = up.victim_p99().unwrap_or(0.0);
        if last > raised {
            raised = last;
            eprintln!("p99: usually {usual} s, now {raised} s");
        }
        raised >= 10.0 * usual
    });
    wait_for("a firing alert", 30, || {
        newest_alert(&up).is_some_and(|alert| alert["firing"] == true)
    });
    let alert = newest_alert(&up).unwrap();
    assert_eq!(alert["key"]["service"], "process/hg-victim");
    assert_eq!(alert["reasons"][0]["key"]["signal"], "runq", "{alert}");
    drop(hogs);
    wait_for("the alert to resolve", 150, || {
        newest_alert(&up).is_some_and(|alert| alert["firing"] == false)
    });
}

#[test]
fn metrics_are_ready_and_sigterm_ends_cleanly() {
    let _quiet = QUIET.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    let up = Running::up(directory.path(), CONFIG, &[]);
    assert!(get(up.analyzer_http, "/ready").is_some());
    let metrics = get(up.analyzer_http, "/metrics").unwrap();
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
    let mut up = Running::up(directory.path(), CONFIG, &settings);
    wait_for("a history", 60, || up.history_windows() >= 12);
    up.processes[0].0.kill().unwrap();
    up.processes[0].0.wait().unwrap();
    let up = Running::up(directory.path(), CONFIG, &settings);
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
    let up = Running::up(directory.path(), CONFIG, &settings);
    wait_for("failed stores", 60, || {
        up.analyzer_metric("analyzer_store_failures_total") >= Some(2.0)
    });
    let windows = up.history_windows();
    wait_for("further forecasts", 30, || {
        up.history_windows() >= windows + 3
    });
    std::fs::remove_file(&filler).unwrap();
    let segments = || std::fs::read_dir(&disk.0).unwrap().count();
    wait_for("a segment", 30, || segments() > 0);
    assert_eq!(
        up.analyzer_metric("analyzer_history_rows_given_up_total"),
        Some(0.0)
    );
    let before = up.history_windows();
    up.terminate();
    let up = Running::up(directory.path(), CONFIG, &settings);
    assert!(up.history_windows() >= before, "{before} windows before");
    up.terminate();
}
