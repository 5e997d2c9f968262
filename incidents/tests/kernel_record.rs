//! A short incident with real servers and kernel events. Needs root and BPF.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "kernel-tests")]

use std::{path::Path, process::Command};

use honeyguide_bus::recording::RecordingReader;
use honeyguide_evaluation::incidents::Truth;
use honeyguide_proto::batch::Batch;
use sensor_common::Signal;

const WINDOWS: usize = 12;

/// Requests that the sensor saw a service answer within the first windows of the truth.
fn answered(recording: &Path, truth: &Truth, service: &str, windows: usize) -> u64 {
    let begin = truth.first_window_ns;
    let end = begin + windows as u64 * 1_000_000_000;
    let mut count = 0;
    for record in RecordingReader::open(recording).unwrap() {
        let batch = Batch::decode(&record.unwrap().payload).unwrap();
        let middle = batch.header.window_start_ns + batch.header.window_duration_ns / 2;
        for series in &batch.series {
            let of_service = batch.services[series.service as usize].key() == service;
            if of_service
                && series.signal == Signal::ServerRequest
                && (begin..end).contains(&middle)
            {
                count += series.count;
            }
        }
    }
    count
}

#[test]
fn what_the_sensor_recorded_is_what_the_clients_asked() {
    let folder = tempfile::tempdir().unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_honeyguide-incidents"))
        .args(["record", "load-growth", "--seeds", "3", "--slot", "9"])
        .args(["--windows", &WINDOWS.to_string(), "--out"])
        .arg(folder.path())
        .status()
        .unwrap();
    assert!(status.success());
    let truth = Truth::read(&folder.path().join("load-growth-3.json")).unwrap();
    assert_eq!((truth.windows(), truth.services.len()), (WINDOWS, 9));
    let onset = truth.onset.unwrap();
    assert!((3..WINDOWS).contains(&onset), "{onset}");
    let recording = folder.path().join("load-growth-3.hgr");
    for service in &truth.services {
        assert!(
            service.p99_us.iter().all(|p99_us| *p99_us > 0),
            "{service:?}"
        );
        // What is asked of the shop when its load has grown is answered later.
        let windows = match service.service.as_str() {
            "process/shop" => onset,
            _ => WINDOWS,
        };
        let counts = service.count[..windows].iter();
        let asked: u64 = counts.map(|count| u64::from(*count)).sum();
        let seen = answered(&recording, &truth, &service.service, windows);
        let expected = asked as f64;
        assert!(
            (seen as f64 - expected).abs() < 0.05 * expected,
            "{} was asked {asked} times, and {seen} were seen",
            service.service
        );
    }
    let table = std::fs::read_to_string(folder.path().join("README.md")).unwrap();
    assert!(
        table.contains("| `load-growth-3` | predictable |"),
        "{table}"
    );
}
