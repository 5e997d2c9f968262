//! A known incident: two services, each in a partition of its own. The run
//! queue of one is in trouble for a while; the other is slow all the time.

use std::path::Path;

use honeyguide_bus::{Record, Topic, recording::RecordingWriter};
use honeyguide_proto::{
    ServiceId, ServiceKind,
    batch::{Header, SeriesRef, encode},
};
use sensor_common::{Histogram, Signal};

pub const STEP_SECS: u64 = 10;
/// 2023, at the begin of a step.
pub const EPOCH_SECS: u64 = 1_700_000_000;
const STEPS: u64 = 70;

/// Its records, as they were published.
pub fn records() -> Vec<Record> {
    let records = (0..STEPS).flat_map(|step| {
        let of_victim = if (30..40).contains(&step) {
            40_000_000
        } else {
            100_000
        };
        [
            window(0, "victim", step, of_victim),
            window(1, "slow", step, 4_000_000),
        ]
    });
    records.collect()
}

/// Writes them to a file.
pub fn record(file: &Path) {
    let mut writer = RecordingWriter::create(file).unwrap();
    for record in records() {
        writer.write(&record).unwrap();
    }
}

/// A window of 1000 events of about `latency_ns`.
fn window(partition: u32, service: &str, step: u64, latency_ns: u64) -> Record {
    let mut histogram = Histogram::new();
    for event in 0..1000 {
        histogram.record(latency_ns + event * latency_ns / 10_000);
    }
    let header = Header {
        sensor_id: "node".to_owned(),
        boot_id: [1; 16],
        seq: step + 1,
        partition,
        window_start_ns: (EPOCH_SECS + step * STEP_SECS) * 1_000_000_000,
        window_duration_ns: STEP_SECS * 1_000_000_000,
    };
    let services = [ServiceId::named(ServiceKind::Process, service)];
    let series = vec![SeriesRef {
        service: 0,
        signal: Signal::RunQueue,
        histogram: &histogram,
    }];
    Record {
        topic: Topic::Histograms,
        partition,
        key: b"node".to_vec(),
        timestamp_ns: header.window_end_ns(),
        payload: encode(&header, &services, series, &[], None),
    }
}
