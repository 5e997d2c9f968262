//! A service that used up its CPU quota, from cgroup files to forecasts. Needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "kernel-tests")]

#[path = "../../sensor/tests/cgroups/mod.rs"]
mod cgroups;
mod running;

use cgroups::Group;
use running::{Running, wait_for};
use serde_json::Value;

const CONFIG: &str = r#"
[sensor]
flush_interval = "1s"
cost_measurement = "100ms"
[analyzer]
step = "1s"
lateness = "500ms"
"#;

#[test]
fn a_used_up_quota_is_forecast_as_throttling_and_pressure() {
    let directory = tempfile::tempdir().unwrap();
    let mut group = Group::new("throttled", "service");
    group.allow_a_fifth();
    group.run("while :; do :; done");
    let up = Running::up(directory.path(), CONFIG, &[]);
    let service = format!("systemd/{}", group.name);
    for signal in ["cpu_throttled", "cpu_pressure"] {
        let median = |forecast: Value| forecast["latency"]["p50"].as_f64();
        let mut value = 0.0;
        // Of each 100 ms the quota is 20 ms, which one task has on one CPU.
        let expected = match signal {
            "cpu_throttled" => 0.04..0.1,
            _ => 0.4..1.0,
        };
        wait_for(&format!("{signal} in {expected:?}"), 60, || {
            value = up
                .forecast(&service, signal)
                .and_then(median)
                .unwrap_or(0.0);
            expected.contains(&value)
        });
        eprintln!("{signal}: {value} s");
    }
    let alerts = up.ask(&["alerts", "--all", "--json"]);
    let of_stalls = |alert: &Value| {
        let signal = alert["key"]["signal"].as_str().unwrap_or("");
        signal.contains("pressure") || signal.contains("throttled")
    };
    assert!(!alerts.iter().any(of_stalls), "{alerts:?}");
    up.terminate();
}
