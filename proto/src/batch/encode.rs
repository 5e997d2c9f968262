//! Series to bytes.

use std::collections::HashMap;

use prost::Message;
use sensor_common::{Histogram, Signal, histogram::Totals};

use super::{Header, MIXED, SHIFT_MAX, expected_max_ns, expected_sum_ns};
use crate::{Route, ServiceId, ServiceKind, v1};

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

/// One series by route to encode.
#[derive(Clone, Copy, Debug)]
pub struct RouteSeriesRef<'a> {
    /// Index in the services of the batch.
    pub service: u32,
    /// Which requests of the service.
    pub route: &'a Route,
    /// What was measured.
    pub signal: Signal,
    /// First digit of the status, or the outcome; 0 where it is not known.
    pub status_class: u8,
    /// Occupied buckets in ascending order: (position, count), count > 0.
    pub buckets: &'a [(u8, u64)],
    /// Samples, sum and maximum.
    pub totals: Totals,
}

/// What a batch holds.
#[derive(Clone, Debug, Default)]
pub struct Contents<'a> {
    /// Services that series refer to.
    pub services: &'a [ServiceId],
    /// Each (service, signal) may stand once.
    pub series: Vec<SeriesRef<'a>>,
    /// Each (service, route, signal, status class) may stand once.
    pub route_series: Vec<RouteSeriesRef<'a>>,
    /// Events lost, by reason number.
    pub losses: &'a [(u32, u64)],
    /// What the sensor cost.
    pub cost: Option<v1::SensorCost>,
}

/// Encodes a batch without series by route. `series` is sorted by (service,
/// signal) here; each pair may stand once.
pub fn encode(
    header: &Header,
    services: &[ServiceId],
    series: Vec<SeriesRef<'_>>,
    losses: &[(u32, u64)],
    cost: Option<v1::SensorCost>,
) -> Vec<u8> {
    let contents = Contents {
        services,
        series,
        route_series: Vec::new(),
        losses,
        cost,
    };
    contents.encode(header)
}

impl Contents<'_> {
    /// Encodes a batch. Series are sorted here; empty ones are left out.
    pub fn encode(mut self, header: &Header) -> Vec<u8> {
        self.series.retain(|series| !series.histogram.is_empty());
        self.series
            .sort_unstable_by_key(|series| (series.service, series.signal));
        self.route_series
            .retain(|series| !series.buckets.is_empty());
        self.route_series.sort_unstable_by_key(|series| {
            (
                series.service,
                series.route,
                series.signal,
                series.status_class,
            )
        });
        let mut dictionary = Dictionary::default();
        let services = self
            .services
            .iter()
            .map(|service| dictionary.service(service))
            .collect();
        let (routes, route_series) = route_columns(&self.route_series, &mut dictionary);
        let message = v1::HistogramBatch {
            sensor_id: header.sensor_id.clone(),
            boot_id: header.boot_id.to_vec(),
            seq: header.seq,
            partition: header.partition,
            window_start_ns: header.window_start_ns,
            window_duration_ns: header.window_duration_ns,
            services,
            strings: dictionary.strings,
            series: Some(columns(&self.series)),
            losses: self
                .losses
                .iter()
                .map(|(reason, count)| v1::Loss {
                    reason: *reason,
                    count: *count,
                })
                .collect(),
            cost: self.cost,
            more: header.more,
            routes,
            route_series,
        };
        message.encode_to_vec()
    }
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

    fn route(&mut self, service: u32, route: &Route) -> v1::Route {
        let method = route.http_method();
        let operation = if method.is_some() { "" } else { route.method() };
        v1::Route {
            service,
            protocol: route.protocol().number().into(),
            method: method.map_or(0, |method| method as i32),
            template: self.index(route.template()),
            operation: self.index(operation),
            peer: self.index(route.peer().unwrap_or_default()),
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
    let mut columns = Columns::default();
    let mut occupied: Vec<(u8, u64)> = Vec::new();
    for series in series {
        occupied.clear();
        occupied.extend(
            series
                .histogram
                .occupied()
                .map(|(position, count)| (position as u8, count)),
        );
        let totals = series.histogram.totals();
        columns.push(series.service, series.signal, &occupied, totals);
    }
    columns.columns
}

/// The routes and their series; nothing at all where there are none.
fn route_columns(
    series: &[RouteSeriesRef<'_>],
    dictionary: &mut Dictionary,
) -> (Vec<v1::Route>, Option<v1::RouteSeriesColumns>) {
    if series.is_empty() {
        return (Vec::new(), None);
    }
    let mut routes = Vec::new();
    let mut columns = Columns::default();
    let mut status_class = Vec::with_capacity(series.len());
    let mut previous = None;
    for series in series {
        if previous != Some((series.service, series.route)) {
            previous = Some((series.service, series.route));
            routes.push(dictionary.route(series.service, series.route));
        }
        let route = routes.len() as u32 - 1;
        columns.push(route, series.signal, series.buckets, series.totals);
        status_class.push(series.status_class);
    }
    let columns = v1::RouteSeriesColumns {
        series: Some(columns.columns),
        status_class,
    };
    (routes, Some(columns))
}

#[derive(Default)]
struct Columns {
    columns: v1::SeriesColumns,
    previous_owner: u32,
}

impl Columns {
    fn push(&mut self, owner: u32, signal: Signal, occupied: &[(u8, u64)], totals: Totals) {
        let columns = &mut self.columns;
        columns.service_delta.push(owner - self.previous_owner);
        self.previous_owner = owner;
        columns.signal.push(signal.number());

        let count = occupied.iter().map(|(_, count)| count).sum();
        let shift = even_shift(count, totals.samples);
        columns.sampling_shift.push(shift.unwrap_or(MIXED));
        if shift.is_none() {
            columns.samples.push(totals.samples);
        }
        push_buckets(columns, occupied);

        let weight = 1u64 << shift.unwrap_or(0);
        let sum_ns = expected_sum_ns(occupied, weight, totals.max_ns);
        columns
            .sum_difference_ns
            .push(totals.sum_ns.wrapping_sub(sum_ns).cast_signed());
        let max_ns = expected_max_ns(occupied);
        columns
            .max_difference_ns
            .push(totals.max_ns.wrapping_sub(max_ns).cast_signed());
    }
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
