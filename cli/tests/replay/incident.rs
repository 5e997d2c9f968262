//! A known incident: two services, each in a partition of its own. The run
//! queue of one is in trouble for a while; the other is slow all the time.

use std::{ops::Range, path::Path};

use honeyguide_bus::{Record, Topic, recording::RecordingWriter};
use honeyguide_proto::{
    ServiceId, ServiceKind,
    batch::{Header, SeriesRef, encode},
};
use sensor_common::{Histogram, Signal};

pub const STEP_SECS: u64 = 10;

/// When it was, and how long.
pub struct Incident {
    /// Begin of the first step.
    pub epoch_secs: u64,
    pub steps: u64,
    /// Steps in which there is trouble.
    pub trouble: Range<u64>,
}

impl Incident {
    /// Its records, as they were published.
    pub fn records(&self) -> Vec<Record> {
        let records = (0..self.steps).flat_map(|step| {
            let start_ns = (self.epoch_secs + step * STEP_SECS) * 1_000_000_000;
            let of_victim = if self.trouble.contains(&step) {
                40_000_000
            } else {
                100_000
            };
            [
                window(0, "victim", step + 1, start_ns, of_victim),
                window(1, "slow", step + 1, start_ns, 4_000_000),
            ]
        });
        records.collect()
    }

    /// Writes them to a file.
    pub fn record(&self, file: &Path) {
        let mut writer = RecordingWriter::create(file).unwrap();
        for record in self.records() {
            writer.write(&record).unwrap();
        }
    }
}

/// A window of 1000 events of about `latency_ns`.
fn window(partition: u32, service: &str, seq: u64, start_ns: u64, latency_ns: u64) -> Record {
    let mut histogram = Histogram::new();
    for event in 0..1000 {
        histogram.record(latency_ns + event * latency_ns / 10_000);
    }
    let header = Header {
        sensor_id: "node".to_owned(),
        boot_id: [1; 16],
        seq,
        partition,
        window_start_ns: start_ns,
        window_duration_ns: STEP_SECS * 1_000_000_000,
        more: false,
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
