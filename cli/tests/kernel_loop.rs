//! The loop: what looking costs, and what is forecast, decides how closely a
//! sensor looks. Real kernel events, in one process and over a real Kafka.
//! Needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(all(feature = "broker-tests", feature = "kernel-tests"))]

mod running;

use std::sync::{Mutex, PoisonError};

use kafka_node::Lent;
use running::{
    Running,
    loads::{Switches, VICTIM, hogs, leave_cpu_0, victim},
    wait_for,
};
use serde_json::Value;
use tokio::runtime::Runtime;

/// Windows of one second, and a budget that some 100,000 switches a second
/// are beyond.
const CONFIG: &str = r#"
[sensor]
flush_interval = "1s"
cost_measurement = "100ms"
cost_ceiling = 1.0
probes = ["runq"]
[analyzer]
step = "1s"
lateness = "500ms"
[analyzer.hints]
budget = 0.0001
[[analyzer.objectives]]
name = "run-queue"
service = "process/hg-victim"
signal = "runq"
target = "p99"
threshold = "12ms"
horizon = "1m"
"#;

/// One at a time: the load of one is the bottleneck of the other.
static QUIET: Mutex<()> = Mutex::new(());

fn sampling_ratio(running: &Running, service: &str) -> Option<f64> {
    running.forecast(service, "runq")?["sampling_ratio"].as_f64()
}

fn hint(running: &Running, service: &str) -> Option<Value> {
    let mut hints = running.ask(&["hints", "--json"]).into_iter();
    hints.find(|hint| hint["service"] == service && hint["signal"] == "runq")
}

/// Under load the node is told to sample, and does; when the victim's tail
/// rises, it is seen whole again, and the load is not.
fn check_loop(running: &Running, directory: &std::path::Path) {
    let _victim = victim(directory);
    let _load = Switches::begin();
    wait_for("a hint for the node", 60, || hint(running, "").is_some());
    let of_node = hint(running, "").unwrap();
    assert!(of_node["sampling_shift"].as_u64() >= Some(1), "{of_node}");
    wait_for("a sampled victim", 30, || {
        sampling_ratio(running, VICTIM).is_some_and(|ratio| ratio <= 0.5)
    });
    let applied = r#"sensor_hints_total{outcome="applied",reason="new"}"#;
    assert!(running.sensor_metric(applied) >= Some(1.0));

    let hogs = hogs(directory);
    wait_for("a hint for the victim", 60, || {
        hint(running, VICTIM).is_some()
    });
    let of_victim = hint(running, VICTIM).unwrap();
    assert_eq!(of_victim["sampling_shift"], 0, "{of_victim}");
    assert!(of_victim["reason"].as_str().unwrap().len() > 10);
    wait_for("a victim that is seen whole", 30, || {
        sampling_ratio(running, VICTIM) == Some(1.0)
    });
    let others = running.ask(&["forecast", "process/hg-hog", "--json"]);
    let sampled = |forecast: &Value| forecast["sampling_ratio"].as_f64() <= Some(0.5);
    assert!(others.iter().any(sampled), "{others:?}");
    drop(hogs);
    let node = running.ask(&["hints", "--json"]).pop().unwrap();
    assert!(
        node["full_cost_ratio"].as_f64() > node["budget_ratio"].as_f64(),
        "{node}"
    );
}

#[test]
fn a_node_over_its_budget_samples_and_sees_what_is_at_risk() {
    let _quiet = QUIET.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    let running = Running::up(directory.path(), CONFIG, &[]);
    check_loop(&running, directory.path());
    running.terminate();
}

#[test]
fn the_loop_is_closed_over_kafka() {
    let _quiet = QUIET.lock().unwrap_or_else(PoisonError::into_inner);
    leave_cpu_0();
    let directory = tempfile::tempdir().unwrap();
    let broker = Runtime::new().unwrap().block_on(Lent::take()).unwrap();
    let running = Running::on_kafka(directory.path(), CONFIG, &broker);
    check_loop(&running, directory.path());
    running.terminate();
}

#[test]
fn a_dry_run_is_counted_and_changes_nothing() {
    let _quiet = QUIET.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    let settings = ["analyzer.hints.mode=dry-run"];
    let running = Running::up(directory.path(), CONFIG, &settings);
    let _victim = victim(directory.path());
    let _load = Switches::begin();
    wait_for("a hint for the node", 60, || hint(&running, "").is_some());
    assert_eq!(hint(&running, "").unwrap()["dry_run"], true);
    let counted = r#"sensor_hints_total{outcome="dry_run",reason="dry_run"}"#;
    wait_for("a dry run", 30, || {
        running.sensor_metric(counted) >= Some(1.0)
    });
    let windows = running.history_windows();
    wait_for("further windows", 30, || {
        running.history_windows() >= windows + 3
    });
    assert_eq!(sampling_ratio(&running, VICTIM), Some(1.0));
    running.terminate();
}
