//! `honeyguide replay` as a user runs it, on recordings.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "replay/incident.rs"]
mod incident;
#[path = "replay/tables.rs"]
mod tables;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use incident::{Incident, STEP_SECS};
use serde_json::Value;

/// 2023, at the begin of a step.
const EPOCH_SECS: u64 = 1_700_000_000;

/// Runs `honeyguide replay` with nothing but defaults around it.
fn replay(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_honeyguide"))
        .arg("replay")
        .args(args)
        .env_remove("HONEYGUIDE_CONFIG")
        .output()
        .unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let values = text.lines().map(|line| serde_json::from_str(line).unwrap());
    values.collect()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A recording of the incident, in its directory.
fn recorded(directory: &Path) -> String {
    let file = directory.join("incident.hgr");
    let incident = Incident {
        epoch_secs: EPOCH_SECS,
        steps: 70,
        trouble: 30..40,
    };
    incident.record(&file);
    file.to_str().unwrap().to_owned()
}

/// A configuration that alerts from 3 ms on.
fn stricter(directory: &Path) -> PathBuf {
    let file = directory.join("stricter.toml");
    let text = r#"
        [[analyzer.objectives]]
        name = "run-queue"
        service = "*"
        signal = "runq"
        target = "p99"
        threshold = "3ms"
        horizon = "15m"
    "#;
    std::fs::write(&file, text).unwrap();
    file
}

/// RFC 3339 of the begin of a step.
fn time_of(step: u64) -> String {
    let secs = EPOCH_SECS + step * STEP_SECS;
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(secs);
    humantime::format_rfc3339(time).to_string()
}

#[test]
fn the_same_recording_gives_the_same_bytes() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench-data/nginx.hgr");
    let shipped = shipped.to_str().unwrap();
    // The first 20 seconds: a thousand series of a busy machine.
    let args = [shipped, "--to", "4", "--all", "--json"];
    let [first, second] = [replay(&args), replay(&args)];
    assert!(first.status.success(), "{}", stderr(&first));
    assert!(first.stdout.len() > 100_000);
    assert!(first.stdout == second.stdout, "the output differs");
    assert_eq!(first.stderr, second.stderr);
}

#[test]
fn a_range_is_replayed_with_what_was_before_as_history() {
    let directory = tempfile::tempdir().unwrap();
    let file = recorded(directory.path());
    let all = replay(&[&file, "--all", "--json"]);
    let [from, to] = [time_of(20), time_of(50)];
    let of_range = ["--from", &from, "--to", &to, "--all", "--json"];
    let part = replay(&[&[file.as_str()], of_range.as_slice()].concat());
    assert!(part.status.success(), "{}", stderr(&part));
    let made_at = |line: &Value| line["made_at"].as_u64();
    let in_range = |line: &&Value| {
        let steps = EPOCH_SECS + 20 * STEP_SECS..EPOCH_SECS + 49 * STEP_SECS;
        made_at(line).is_some_and(|at| steps.contains(&at))
    };
    let expected: Vec<_> = lines(&all).iter().filter(in_range).cloned().collect();
    let read = lines(&part);
    let read: Vec<_> = read.iter().filter(in_range).cloned().collect();
    assert_eq!(expected.len(), 2 * 29);
    assert_eq!(read, expected);
    let before = |line: &Value| made_at(line).is_some_and(|at| at < EPOCH_SECS + 20 * STEP_SECS);
    assert!(!lines(&part).iter().any(before));

    // Without history the same range is another.
    let cold = [&of_range, ["--warm-up", "0s"].as_slice()].concat();
    let cold = replay(&[&[file.as_str()], cold.as_slice()].concat());
    let windows = |output: &Output| lines(output)[0]["history_windows"].as_u64().unwrap();
    assert!(windows(&part) > 15, "{}", windows(&part));
    assert_eq!(windows(&cold), 1);

    // By offset, and only one partition.
    let offsets = replay(&["--from", &file, "--to", "1:10", "--all", "--json"]);
    assert!(stderr(&offsets).starts_with("10 batches"), "{offsets:?}");
}

#[test]
fn diff_shows_the_alert_that_only_another_threshold_gives() {
    let directory = tempfile::tempdir().unwrap();
    let file = recorded(directory.path());
    let stricter = stricter(directory.path());
    let stricter = stricter.to_str().unwrap();
    let output = replay(&[&file, "--diff", "--json", "--config", stricter]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    let differences = lines(&output);
    let only: Vec<_> = differences
        .iter()
        .filter(|one| one["difference"] == "only_other")
        .collect();
    assert_eq!(only.len(), 1, "{differences:?}");
    assert_eq!(only[0]["id"], "run-queue/process/slow/runq");
    assert_eq!(only[0]["baseline"], Value::Null);
    assert!(
        stderr(&output).contains("alerts: 1 baseline, 2 other"),
        "{}",
        stderr(&output)
    );
    let text = replay(&[&file, "--diff", "--config", stricter]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("only other  "), "{text}");

    let same = ["--diff", "--baseline", stricter, "--config", stricter];
    let same = replay(&[&[file.as_str()], same.as_slice()].concat());
    assert_eq!(same.status.code(), Some(0), "{}", stderr(&same));
    assert!(same.stdout.is_empty());
}

#[test]
fn what_cannot_be_replayed_is_an_error_that_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let file = recorded(directory.path());
    let check = |args: &[&str], expected: &str| {
        let output = replay(args);
        assert!(!output.status.success(), "{args:?}");
        let said = stderr(&output);
        assert!(said.contains(expected), "{args:?}: {said}");
    };
    check(&[], "give a recording, or --from");
    check(&["/none.hgr"], "failed to open /none.hgr");
    check(&["--from", "none.hgr"], "failed to open none.hgr");
    check(&["--from", "2h"], "kafka.brokers is not set");
    check(&["--from", "yesterday"], "--from: \"yesterday\": expected");
    check(&[&file, "--from", "1h", "--to", "2h"], "is not before --to");
    check(&[&file, "--from", "1h"], "no records between");
    check(&[&file, "--diff"], "give --config OTHER, or kafka.brokers");
    check(&[&file, "--diff", "--baseline", &file], "--config OTHER");

    let bytes = std::fs::read(&file).unwrap();
    let cut = directory.path().join("cut.hgr");
    std::fs::write(&cut, &bytes[..bytes.len() - 5]).unwrap();
    let cut = cut.to_str().unwrap();
    check(&[cut], "cut off");
    // What is whole was replayed before.
    assert!(stderr(&replay(&[cut])).starts_with("139 batches"));
}
