//! Series to bytes.

use std::collections::HashMap;

use prost::Message;
use sensor_common::{Histogram, Signal};

use super::{Header, MIXED, SHIFT_MAX, expected_max_ns, expected_sum_ns};
use crate::{ServiceId, ServiceKind, v1};

/// One series to encode.
#[derive(Clone, Copy, Debug)]
pub struct SeriesRef<'a> {
    /// Index in the services of the batch.
    pub service: u32,
    /// What was measured.
    pub signal: Signal,
    /// Empty ones are left out.
    pub histogram: &'a Histogram,
}

/// Encodes a batch. `series` is sorted by (service, signal) here; each pair
/// may stand once.
pub fn encode(
    header: &Header,
    services: &[ServiceId],
    mut series: Vec<SeriesRef<'_>>,
    losses: &[(u32, u64)],
    cost: Option<v1::SensorCost>,
) -> Vec<u8> {
    series.retain(|series| !series.histogram.is_empty());
    series.sort_unstable_by_key(|series| (series.service, series.signal));
    let mut dictionary = Dictionary::default();
    let services = services
        .iter()
        .map(|service| dictionary.service(service))
        .collect();
    let message = v1::HistogramBatch {
        sensor_id: header.sensor_id.clone(),
        boot_id: header.boot_id.to_vec(),
        seq: header.seq,
        partition: header.partition,
        window_start_ns: header.window_start_ns,
        window_duration_ns: header.window_duration_ns,
        services,
        strings: dictionary.strings,
        series: Some(columns(&series)),
        losses: losses
            .iter()
            .map(|(reason, count)| v1::Loss {
                reason: *reason,
                count: *count,
            })
            .collect(),
        cost,
        more: header.more,
    };
    message.encode_to_vec()
}

#[derive(Default)]
struct Dictionary {
    strings: Vec<String>,
    indexes: HashMap<String, u32>,
}

impl Dictionary {
    fn service(&mut self, service: &ServiceId) -> v1::Service {
        let [namespace, name, container] = service.parts();
        v1::Service {
            kind: kind(service.kind()).into(),
            namespace: self.index(namespace),
            name: self.index(name),
            container: self.index(container),
        }
    }

    /// Index plus 1; 0 for the empty string.
    fn index(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        if let Some(index) = self.indexes.get(text) {
            return *index;
        }
        self.strings.push(text.to_owned());
        let index = self.strings.len() as u32;
        self.indexes.insert(text.to_owned(), index);
        index
    }
}

fn kind(kind: ServiceKind) -> v1::ServiceKind {
    match kind {
        ServiceKind::Kubernetes => v1::ServiceKind::Kubernetes,
        ServiceKind::Container => v1::ServiceKind::Container,
        ServiceKind::Systemd => v1::ServiceKind::Systemd,
        ServiceKind::Process => v1::ServiceKind::Process,
        ServiceKind::Host => v1::ServiceKind::Host,
    }
}

fn columns(series: &[SeriesRef<'_>]) -> v1::SeriesColumns {
    let mut columns = v1::SeriesColumns::default();
    let mut previous_service = 0;
    let mut occupied: Vec<(u8, u64)> = Vec::new();
    for series in series {
        columns
            .service_delta
            .push(series.service - previous_service);
        previous_service = series.service;
        columns.signal.push(series.signal.number());

        let totals = series.histogram.totals();
        let shift = even_shift(series.histogram.count(), totals.samples);
        columns.sampling_shift.push(shift.unwrap_or(MIXED));
        if shift.is_none() {
            columns.samples.push(totals.samples);
        }
        occupied.clear();
        occupied.extend(
            series
                .histogram
                .occupied()
                .map(|(position, count)| (position as u8, count)),
        );
        push_buckets(&mut columns, &occupied);

        let weight = 1u64 << shift.unwrap_or(0);
        let sum_ns = expected_sum_ns(&occupied, weight, totals.max_ns);
        columns
            .sum_difference_ns
            .push(totals.sum_ns.wrapping_sub(sum_ns).cast_signed());
        let max_ns = expected_max_ns(&occupied);
        columns
            .max_difference_ns
            .push(totals.max_ns.wrapping_sub(max_ns).cast_signed());
    }
    columns
}

/// k if `count` is exactly `samples` · 2^k.
fn even_shift(count: u64, samples: u64) -> Option<u8> {
    (0..=SHIFT_MAX).find(|shift| samples.checked_mul(1 << shift) == Some(count))
}

fn push_buckets(columns: &mut v1::SeriesColumns, occupied: &[(u8, u64)]) {
    columns.occupied.push(occupied.len() as u8);
    let mut expected = None;
    for (position, count) in occupied {
        let follows = expected == Some(*position);
        columns.bucket.push(count << 1 | u64::from(!follows));
        if !follows {
            // The first gap of a series counts from 0, later ones from the predecessor.
            let origin = expected.map_or(0, |next| next - 1);
            columns.bucket_gap.push(position - origin);
        }
        expected = Some(position + 1);
    }
}
