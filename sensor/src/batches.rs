//! One window → numbered records for the bus.

use std::collections::BTreeMap;

use honeyguide_bus::{PartitionId, Record, Topic, partition_of};
use honeyguide_proto::{
    Route, ServiceId,
    batch::{Contents, Endpoint, Header, RouteSeriesRef, SERVICES_MAX, SeriesRef},
    v1::SensorCost,
};
use sensor_common::Signal;

use crate::drain::{Drained, DrainedEndpoint, DrainedRoute, DrainedSeries};

/// Bytes of a payload at most: a record with its key and headers stays below
/// the 1,048,588 that brokers accept by default (`message.max.bytes`).
const PAYLOAD_LEN_MAX: usize = 1_000_000;

/// Where and when a window was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Nanoseconds since the Unix epoch.
    pub start_ns: u64,
    /// Nanoseconds.
    pub duration_ns: u64,
}

/// A batch, ready for the bus.
#[derive(Clone, Debug)]
pub struct EncodedBatch {
    /// What the bus carries.
    pub record: Record,
    /// Events in it.
    pub events: u64,
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
    pub fn encode(
        &mut self,
        window: Window,
        drained: &Drained,
        cost: &SensorCost,
    ) -> Vec<EncodedBatch> {
        let partitions = self.seqs.len() as u32;
        let mut by_partition: BTreeMap<PartitionId, Vec<Entry<'_>>> = BTreeMap::new();
        let mut partition_of_service: BTreeMap<u32, PartitionId> = BTreeMap::new();
        let series = drained.series().iter().map(Entry::Series);
        let routes = drained.routes().iter().map(|series| {
            let (service, signal, route) = drained.route(series.route);
            Entry::Route(service, signal, route, series)
        });
        let answerers = drained.endpoints().iter();
        let answerers = answerers.filter_map(|of| Some(Entry::Answerer(of.asked_by?, of)));
        for entry in series.chain(routes).chain(answerers) {
            let service = entry.service();
            let partition = *partition_of_service.entry(service).or_insert_with(|| {
                partition_of(drained.service(service).key().as_bytes(), partitions)
            });
            by_partition.entry(partition).or_default().push(entry);
        }
        let losses: Vec<(u32, u64)> = drained
            .losses
            .iter()
            .map(|(reason, count)| (*reason as u32, *count))
            .collect();
        let listeners = drained.endpoints().iter();
        let listeners: Vec<_> = listeners
            .filter(|of| of.asked_by.is_none())
            .map(|of| endpoint(of, None))
            .collect();
        let mut batches = Vec::new();
        for partition in 0..partitions {
            let mut entries = by_partition.remove(&partition).unwrap_or_default();
            entries.sort_by_key(Entry::service);
            // Halved until each part fits; the first comes out first.
            let mut parts: Vec<&[Entry<'_>]> = vec![&entries];
            let (mut first, mut listeners) = (partition == 0, &listeners[..]);
            while let Some(part) = parts.pop() {
                let (losses, cost) = if first {
                    (&losses[..], Some(cost.clone()))
                } else {
                    (&[][..], None)
                };
                let mut content = Content::of(drained, part, losses, cost);
                content.endpoints.extend_from_slice(listeners);
                let many = content.services.len() > SERVICES_MAX;
                let more = !parts.is_empty();
                let record = self.record(window, (partition, more), content);
                if (many || record.payload.len() > PAYLOAD_LEN_MAX) && part.len() > 1 {
                    let (front, back) = part.split_at(part.len() / 2);
                    parts.extend([back, front]);
                    continue;
                }
                self.seqs[partition as usize] += 1;
                (first, listeners) = (false, &[]);
                let events = part.iter().map(Entry::events).sum();
                batches.push(EncodedBatch { record, events });
            }
        }
        batches
    }

    /// The next record of `partition`, and whether `more` of the window follow.
    fn record(
        &self,
        window: Window,
        (partition, more): (PartitionId, bool),
        content: Content<'_>,
    ) -> Record {
        let header = Header {
            sensor_id: self.sensor_id.clone(),
            boot_id: self.boot_id,
            seq: self.seqs[partition as usize] + 1,
            partition,
            window_start_ns: window.start_ns,
            window_duration_ns: window.duration_ns,
            more,
        };
        Record {
            topic: Topic::Histograms,
            partition,
            key: self.sensor_id.clone().into_bytes(),
            timestamp_ns: header.window_end_ns(),
            payload: content.encode(&header),
        }
    }
}

/// What goes into a batch as a whole.
#[derive(Clone, Copy)]
enum Entry<'a> {
    Series(&'a DrainedSeries),
    /// Number of the service, the side's signal, route.
    Route(u32, Signal, &'a Route, &'a DrainedRoute),
    /// Number of the service that asks.
    Answerer(u32, &'a DrainedEndpoint),
}

impl Entry<'_> {
    fn service(&self) -> u32 {
        match self {
            Entry::Series(series) => series.service,
            Entry::Route(service, ..) | Entry::Answerer(service, _) => *service,
        }
    }

    /// Requests by route are events of their service's series already.
    fn events(&self) -> u64 {
        match self {
            Entry::Series(series) => series.histogram.count(),
            Entry::Route(..) | Entry::Answerer(..) => 0,
        }
    }
}

fn endpoint(of: &DrainedEndpoint, asked_by: Option<u32>) -> Endpoint {
    Endpoint {
        address: of.address.clone(),
        service: of.service.clone(),
        asked_by,
    }
}

/// What one batch holds.
struct Content<'a> {
    services: Vec<ServiceId>,
    series: Vec<SeriesRef<'a>>,
    route_series: Vec<RouteSeriesRef<'a>>,
    endpoints: Vec<Endpoint>,
    losses: &'a [(u32, u64)],
    cost: Option<SensorCost>,
}

impl<'a> Content<'a> {
    /// `part` is in the order of services.
    fn of(
        drained: &Drained,
        part: &[Entry<'a>],
        losses: &'a [(u32, u64)],
        cost: Option<SensorCost>,
    ) -> Self {
        let mut content = Self {
            services: Vec::new(),
            series: Vec::with_capacity(part.len()),
            route_series: Vec::new(),
            endpoints: Vec::new(),
            losses,
            cost,
        };
        let mut previous = None;
        for entry in part {
            if previous != Some(entry.service()) {
                previous = Some(entry.service());
                content
                    .services
                    .push(drained.service(entry.service()).clone());
            }
            let service = content.services.len() as u32 - 1;
            match *entry {
                Entry::Series(series) => content.series.push(SeriesRef {
                    service,
                    signal: series.signal,
                    histogram: &series.histogram,
                }),
                Entry::Route(_, signal, route, series) => {
                    content.route_series.push(RouteSeriesRef {
                        service,
                        route,
                        signal,
                        status_class: series.status_class,
                        buckets: series.histogram.buckets(),
                        totals: series.histogram.totals(),
                    })
                }
                Entry::Answerer(_, of) => content.endpoints.push(endpoint(of, Some(service))),
            }
        }
        content
    }

    fn encode(self, header: &Header) -> Vec<u8> {
        let contents = Contents {
            services: &self.services,
            series: self.series,
            route_series: self.route_series,
            endpoints: &self.endpoints,
            losses: self.losses,
            cost: self.cost,
        };
        contents.encode(header)
    }
}

#[cfg(test)]
mod tests {
    use honeyguide_proto::{
        ServiceKind,
        batch::Batch,
        route::{Protocol, Template},
    };
    use sensor_common::{
        histogram::{BUCKETS, Totals},
        http::Method,
    };

    use super::*;

    fn drained(services: usize) -> Drained {
        let mut drained = Drained::default();
        for index in 0..services {
            let service = ServiceId::named(ServiceKind::Process, &format!("service-{index}"));
            let histogram = drained.histogram_of(service, Signal::RunQueue);
            histogram.add(40, 1);
            histogram.add_totals(Totals {
                samples: 1,
                sum_ns: 30_000 + index as u64,
                max_ns: 30_000 + index as u64,
            });
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
        let records = batches.encode(WINDOW, &drained(50), &SensorCost::default());
        let mut found = 0;
        for EncodedBatch { record, events } in &records {
            let batch = Batch::decode(&record.payload).unwrap();
            for service in &batch.services {
                assert_eq!(partition_of(service.key().as_bytes(), 4), record.partition);
            }
            found += batch.series.len();
            assert_eq!(*events, batch.series.len() as u64);
        }
        assert_eq!(found, 50);
    }

    #[test]
    fn requests_by_route_are_with_their_service_and_no_events_of_their_own() {
        let mut drained = drained(50);
        let template = Template::new("/users/{id}").unwrap();
        for index in 0..50 {
            let service = ServiceId::named(ServiceKind::Process, &format!("service-{index}"));
            for route in [
                Route::other(Protocol::Http),
                Route::http(Method::Get, template.clone()),
            ] {
                let histogram = drained.requests_of(service.clone(), route, 2);
                histogram.add(40, 3);
                histogram.add_totals(Totals {
                    samples: 3,
                    sum_ns: 90_000,
                    max_ns: 40_000,
                });
            }
        }
        let mut batches = Batches::new("node".to_owned(), [1; 16], 4);
        let (mut found, mut events) = (0, 0);
        for batch in batches.encode(WINDOW, &drained, &SensorCost::default()) {
            let decoded = Batch::decode(&batch.record.payload).unwrap();
            for of in &decoded.route_series {
                let service = &decoded.services[of.series.service as usize];
                assert_eq!(
                    partition_of(service.key().as_bytes(), 4),
                    batch.record.partition
                );
                assert_eq!(of.series.count, 3);
            }
            found += decoded.route_series.len();
            events += batch.events;
        }
        assert_eq!((found, events), (100, 50));
    }

    /// As large as series get: every bucket occupied, counts of all sizes.
    #[test]
    fn records_stay_below_what_brokers_accept() {
        let mut full = Drained::default();
        for index in 0..6000u64 {
            let service = ServiceId::named(ServiceKind::Process, &format!("{index:->200}"));
            let histogram = full.histogram_of(service, Signal::RunQueue);
            for position in 0..BUCKETS {
                histogram.add(position as u8, (index << 20) + position as u64 + 1);
            }
            histogram.add_totals(Totals {
                samples: histogram.count(),
                sum_ns: u64::MAX / 3,
                max_ns: u64::MAX / 3,
            });
        }
        let mut batches = Batches::new("node".to_owned(), [1; 16], 1);
        let encoded = batches.encode(WINDOW, &full, &SensorCost::default());
        let mut names = std::collections::BTreeSet::new();
        for (seq, batch) in (1..).zip(&encoded) {
            assert!(batch.record.payload.len() <= PAYLOAD_LEN_MAX);
            let decoded = Batch::decode(&batch.record.payload).unwrap();
            assert_eq!(decoded.header.seq, seq);
            assert_eq!(decoded.cost.is_some(), seq == 1);
            assert_eq!(decoded.header.more, seq < encoded.len() as u64);
            names.extend(decoded.services.iter().map(ServiceId::key));
        }
        assert_eq!(names.len(), 6000);
        assert!(encoded.len() >= 4, "{}", encoded.len());
    }

    #[test]
    fn numbers_have_no_gaps_even_when_nothing_happened() {
        let mut batches = Batches::new("node".to_owned(), [1; 16], 2);
        let mut seqs = [Vec::new(), Vec::new()];
        for services in [5, 0, 40_000, 1] {
            for EncodedBatch { record, .. } in
                batches.encode(WINDOW, &drained(services), &SensorCost::default())
            {
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
