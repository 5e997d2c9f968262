//! `honeyguide eval breach --incidents` as a user runs it, on a recording that is
//! in the repository.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

const RUN: &str = "slow-disk-1";

fn eval(folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_honeyguide"))
        .args(["eval", "breach", "--json", "--incidents"])
        .arg(folder)
        .current_dir(folder)
        .env_remove("HONEYGUIDE_CONFIG")
        .output()
        .unwrap()
}

fn committed(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    root.join("bench-data/incidents").join(name)
}

/// A folder with one committed run.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for extension in ["hgr", "json"] {
        let name = format!("{RUN}.{extension}");
        fs::copy(committed(&name), folder.path().join(&name)).unwrap();
    }
    folder
}

fn fails(folder: &Path, expected: &[&str]) {
    let output = eval(folder);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{error}");
    for expected in expected {
        assert!(error.contains(expected), "{expected:?} is not in {error:?}");
    }
}

#[test]
fn a_recording_gives_the_same_figures_every_time() {
    let folder = folder();
    let [first, second] = [eval(folder.path()), eval(folder.path())];
    let error = String::from_utf8_lossy(&first.stderr);
    assert!(first.status.success(), "{error}");
    assert_eq!(first.stdout, second.stdout);
    let outcome: Value = serde_json::from_slice(&first.stdout).unwrap();
    let metrics = &outcome["metrics"];
    // What `docs/accuracy.md` is made of; another figure is another model.
    let expected = [
        ("quiet_windows", 1937.0),
        ("recall_lead5", 1.0),
        ("median_lead_windows", 97.0),
        ("median_lead_windows_at_10s", 97.0),
        ("ece_recorded", 0.0232),
        ("brier_recorded", 0.0450),
        ("anomaly_quiet_per_10000", 5.1626),
        ("incident_cause_top1", 1.0),
    ];
    for (key, value) in expected {
        let got = metrics[key].as_f64().unwrap();
        assert!((got - value).abs() < 5e-4, "{key}: {got}, not {value}");
    }
}

#[test]
fn what_is_wrong_with_a_recording_or_its_truth_is_said() {
    let folder = folder();
    let recording = folder.path().join(RUN).with_extension("hgr");
    let truth = folder.path().join(RUN).with_extension("json");
    let (records, text) = (fs::read(&recording).unwrap(), fs::read(&truth).unwrap());

    fs::write(&recording, &records[..records.len() / 2]).unwrap();
    fails(folder.path(), &["slow-disk-1.hgr", "cut off at byte"]);
    fs::write(&recording, b"something else altogether").unwrap();
    fails(
        folder.path(),
        &["slow-disk-1.hgr", "no honeyguide recording"],
    );
    fs::write(&recording, &records).unwrap();

    fs::write(&truth, &text[..text.len() / 2]).unwrap();
    fails(folder.path(), &["slow-disk-1.json as JSON", "EOF"]);
    let mut other: Value = serde_json::from_slice(&text).unwrap();
    other["services"][0]["breach"] = 3.into();
    fs::write(&truth, other.to_string()).unwrap();
    fails(folder.path(), &["slow-disk-1.json has a time of breach"]);
    let mut other: Value = serde_json::from_slice(&text).unwrap();
    other["first_window_ns"] = 1.into();
    fs::write(&truth, other.to_string()).unwrap();
    fails(folder.path(), &["no requests of process/shop in the time"]);
    fs::remove_file(&truth).unwrap();
    fails(folder.path(), &["failed to read", "slow-disk-1.json"]);

    let empty = tempfile::tempdir().unwrap();
    fails(empty.path(), &["holds no recordings"]);
}
