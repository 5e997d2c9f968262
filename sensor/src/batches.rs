//! One window → numbered records for the bus.

use std::collections::BTreeMap;

use honeyguide_bus::{PartitionId, Record, Topic, partition_of};
use honeyguide_proto::{
    ServiceId,
    batch::{Header, SeriesRef, encode},
    v1::SensorCost,
};

use crate::drain::{Drained, DrainedSeries};

/// Series of one batch at most: about 100 bytes each, so that a record stays
/// below the megabyte that brokers accept by default.
const BATCH_SERIES_MAX: usize = 4096;

/// Where and when a window was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Nanoseconds since the Unix epoch.
    pub start_ns: u64,
    /// Nanoseconds.
    pub duration_ns: u64,
}

/// Numbers and encodes the batches of one start of a sensor.
#[derive(Debug)]
pub struct Batches {
    sensor_id: String,
    boot_id: [u8; 16],
    /// Number of the last batch of each partition.
    seqs: Vec<u64>,
}

impl Batches {
    /// Numbers begin at 1 in each of `partitions`.
    pub fn new(sensor_id: String, boot_id: [u8; 16], partitions: u32) -> Self {
        Self {
            sensor_id,
            boot_id,
            seqs: vec![0; partitions as usize],
        }
    }

    /// Encodes `drained`: one batch or more per partition. Every partition
    /// gets at least one, even if empty, so that time advances everywhere and
    /// a missing number always means a loss.
    pub fn encode(&mut self, window: Window, drained: &Drained, cost: SensorCost) -> Vec<Record> {
        let partitions = self.seqs.len() as u32;
        let mut by_partition: BTreeMap<PartitionId, Vec<&DrainedSeries>> = BTreeMap::new();
        let mut partition_of_service: BTreeMap<u32, PartitionId> = BTreeMap::new();
        for series in drained.series() {
            let partition = *partition_of_service
                .entry(series.service)
                .or_insert_with(|| {
                    partition_of(drained.service(series.service).key().as_bytes(), partitions)
                });
            by_partition.entry(partition).or_default().push(series);
        }
        let losses: Vec<(u32, u64)> = drained
            .losses
            .iter()
            .map(|(reason, count)| (*reason as u32, *count))
            .collect();
        let mut records = Vec::new();
        for partition in 0..partitions {
            let mut entries = by_partition.remove(&partition).unwrap_or_default();
            entries.sort_unstable_by_key(|series| (series.service, series.signal));
            let mut parts: Vec<&[&DrainedSeries]> = entries.chunks(BATCH_SERIES_MAX).collect();
            if parts.is_empty() {
                parts.push(&[]);
            }
            for (number, part) in parts.into_iter().enumerate() {
                let first = partition == 0 && number == 0;
                let (losses, cost) = if first {
                    (&losses[..], Some(cost))
                } else {
                    (&[][..], None)
                };
                let content = Content::of(drained, part, losses, cost);
                records.push(self.record(window, partition, content));
            }
        }
        records
    }

    fn record(&mut self, window: Window, partition: PartitionId, content: Content<'_>) -> Record {
        let seq = &mut self.seqs[partition as usize];
        *seq += 1;
        let header = Header {
            sensor_id: self.sensor_id.clone(),
            boot_id: self.boot_id,
            seq: *seq,
            partition,
            window_start_ns: window.start_ns,
            window_duration_ns: window.duration_ns,
        };
        Record {
            topic: Topic::Histograms,
            partition,
            key: self.sensor_id.clone().into_bytes(),
            timestamp_ns: header.window_end_ns(),
            payload: encode(
                &header,
                &content.services,
                content.series,
                content.losses,
                content.cost,
            ),
        }
    }
}

/// What one batch holds.
struct Content<'a> {
    services: Vec<ServiceId>,
    series: Vec<SeriesRef<'a>>,
    losses: &'a [(u32, u64)],
    cost: Option<SensorCost>,
}

impl<'a> Content<'a> {
    /// `part` is in the order of services.
    fn of(
        drained: &Drained,
        part: &[&'a DrainedSeries],
        losses: &'a [(u32, u64)],
        cost: Option<SensorCost>,
    ) -> Self {
        let mut services: Vec<ServiceId> = Vec::new();
        let mut series = Vec::with_capacity(part.len());
        let mut previous = None;
        for one in part {
            if previous != Some(one.service) {
                previous = Some(one.service);
                services.push(drained.service(one.service).clone());
            }
            series.push(SeriesRef {
                service: services.len() as u32 - 1,
                signal: one.signal,
                histogram: &one.histogram,
            });
        }
        Self {
            services,
            series,
            losses,
            cost,
        }
    }
}

#[cfg(test)]
mod tests {
    use honeyguide_proto::{ServiceKind, batch::Batch};
    use sensor_common::Signal;

    use super::*;

    fn drained(services: usize) -> Drained {
        let mut drained = Drained::default();
        for index in 0..services {
            let service = ServiceId::named(ServiceKind::Process, &format!("service-{index}"));
            drained
                .histogram_of(service, Signal::RunQueue)
                .record(1000 + index as u64);
        }
        drained
    }

    const WINDOW: Window = Window {
        start_ns: 1_000_000_000,
        duration_ns: 10_000_000_000,
    };

    #[test]
    fn each_service_is_in_the_partition_of_its_key_once() {
        let mut batches = Batches::new("node".to_owned(), [1; 16], 4);
        let records = batches.encode(WINDOW, &drained(50), SensorCost::default());
        let mut found = 0;
        for record in &records {
            let batch = Batch::decode(&record.payload).unwrap();
            for service in &batch.services {
                assert_eq!(partition_of(service.key().as_bytes(), 4), record.partition);
            }
            found += batch.series.len();
        }
        assert_eq!(found, 50);
    }

    #[test]
    fn numbers_have_no_gaps_even_when_nothing_happened() {
        let mut batches = Batches::new("node".to_owned(), [1; 16], 2);
        let mut seqs = [Vec::new(), Vec::new()];
        for services in [5, 0, BATCH_SERIES_MAX * 3, 1] {
            for record in batches.encode(WINDOW, &drained(services), SensorCost::default()) {
                let batch = Batch::decode(&record.payload).unwrap();
                seqs[record.partition as usize].push(batch.header.seq);
            }
        }
        for seqs in seqs {
            assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
            assert!(seqs.len() > 4, "the large window was split");
        }
    }
}
