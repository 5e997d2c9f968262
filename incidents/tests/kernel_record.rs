//! A short incident with real servers and kernel events. Needs root and BPF.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "kernel-tests")]

use std::{path::Path, process::Command};

use honeyguide_bus::recording::RecordingReader;
use honeyguide_evaluation::incidents::Truth;
use honeyguide_proto::batch::Batch;
use sensor_common::Signal;

const WINDOWS: usize = 12;

/// Requests that the sensor saw a service answer within the windows of the truth.
fn answered(recording: &Path, truth: &Truth, service: &str) -> u64 {
    let begin = truth.first_window_ns;
    let end = begin + WINDOWS as u64 * 1_000_000_000;
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
    assert!(truth.onset.is_some_and(|onset| onset < WINDOWS));
    let recording = folder.path().join("load-growth-3.hgr");
    for service in &truth.services {
        assert!(
            service.p99_us.iter().all(|p99_us| *p99_us > 0),
            "{service:?}"
        );
        let asked: u64 = service.count.iter().map(|count| u64::from(*count)).sum();
        let seen = answered(&recording, &truth, &service.service);
        // What is asked of the shop at the end of so short a run is answered later.
        let share = match service.service.as_str() {
            "process/shop" => 0.3,
            _ => 0.05,
        };
        let expected = asked as f64;
        assert!(
            (seen as f64 - expected).abs() < share * expected,
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
