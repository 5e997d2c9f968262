//! Bytes to series, with every check.

use std::ops::Range;

use prost::Message;
use sensor_common::{
    Signal,
    histogram::{BUCKETS, Totals},
    http::{Method, STATUS_CLASSES},
    signal::SIGNALS_MAX,
};

use super::{
    Batch, COUNT_MAX, Header, MIXED, PAYLOAD_LEN_MAX, ROUTES_MAX, RouteSeriesWindow, SERIES_MAX,
    SERVICES_MAX, SHIFT_MAX, SeriesWindow, WINDOW_DURATION_NS, expected_max_ns, expected_sum_ns,
};
use crate::{
    Route, ServiceId, ServiceKind,
    route::{Protocol, Template},
    service::{PART_LEN_MAX, ServiceIdError},
    v1,
};

/// Why a payload is no batch.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// Longer than a batch may be.
    #[error("payload of {len} bytes exceeds {PAYLOAD_LEN_MAX}; split the batch")]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// Not a protobuf message of this kind.
    #[error("not a HistogramBatch: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// A field has a value that it cannot have.
    #[error("{field} is {value}, expected {expected}")]
    Field {
        /// Name in `telemetry.proto`.
        field: &'static str,
        /// What it holds.
        value: u64,
        /// What it may hold.
        expected: &'static str,
    },
    /// A column has another length than its neighbours need.
    #[error("column {column} has {len} entries, expected {expected}")]
    Column {
        /// Name in `telemetry.proto`.
        column: &'static str,
        /// Its length.
        len: usize,
        /// The length of the others.
        expected: usize,
    },
    /// A service is no service.
    #[error("service {index}: {source}")]
    Service {
        /// Its place in the batch.
        index: usize,
        /// What is wrong.
        source: ServiceIdError,
    },
    /// A route is not as it must be.
    #[error("route {index}: {what}")]
    Route {
        /// Its place in the batch.
        index: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// A series by route is not as it must be.
    #[error("series by route {index}: {what}")]
    RouteSeries {
        /// Its place in the columns.
        index: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// A series is not as it must be.
    #[error("series {index}: {what}")]
    Series {
        /// Its place in the columns.
        index: usize,
        /// What is wrong.
        what: &'static str,
    },
}

impl DecodeError {
    /// The kind of error as a metric label.
    pub fn reason(&self) -> &'static str {
        match self {
            DecodeError::TooLong { .. } => "too_long",
            DecodeError::Protobuf(_) => "not_protobuf",
            DecodeError::Field { .. } => "bad_field",
            DecodeError::Column { .. } => "bad_column",
            DecodeError::Service { .. } => "bad_service",
            DecodeError::Series { .. } => "bad_series",
            DecodeError::Route { .. } => "bad_route",
            DecodeError::RouteSeries { .. } => "bad_route_series",
        }
    }
}

pub(super) fn decode(payload: &[u8]) -> Result<Batch, DecodeError> {
    if payload.len() > PAYLOAD_LEN_MAX {
        return Err(DecodeError::TooLong { len: payload.len() });
    }
    let message = v1::HistogramBatch::decode(payload)?;
    let header = header(&message)?;
    if message.services.len() > SERVICES_MAX {
        return Err(field(
            "services",
            message.services.len() as u64,
            "at most 16384 entries",
        ));
    }
    let services = (0..).zip(&message.services).map(|(index, service)| {
        decode_service(service, &message.strings)
            .map_err(|source| DecodeError::Service { index, source })
    });
    let services = services.collect::<Result<Vec<_>, _>>()?;
    let mut batch = Batch {
        header,
        services,
        series: Vec::new(),
        buckets: Vec::new(),
        losses: message
            .losses
            .iter()
            .map(|loss| (loss.reason, loss.count))
            .collect(),
        cost: message.cost.map(cost).transpose()?,
        route_series: Vec::new(),
        routes: Vec::new(),
        unknown_signals: 0,
        unknown_routes: 0,
    };
    decode_series(&mut batch, &message.series.unwrap_or_default())?;
    decode_routes(&mut batch, &message.routes, &message.strings)?;
    if let Some(columns) = &message.route_series {
        decode_route_series(&mut batch, columns)?;
    }
    Ok(batch)
}

fn field(field: &'static str, value: u64, expected: &'static str) -> DecodeError {
    DecodeError::Field {
        field,
        value,
        expected,
    }
}

fn header(message: &v1::HistogramBatch) -> Result<Header, DecodeError> {
    let id_len = message.sensor_id.len();
    if id_len == 0 || id_len > PART_LEN_MAX || message.sensor_id.contains(char::is_control) {
        return Err(field(
            "length of sensor_id",
            id_len as u64,
            "1 to 253 printable bytes",
        ));
    }
    let boot_id = <[u8; 16]>::try_from(message.boot_id.as_slice())
        .map_err(|_| field("length of boot_id", message.boot_id.len() as u64, "16"))?;
    if message.seq == 0 {
        return Err(field("seq", 0, "1 or more"));
    }
    if !WINDOW_DURATION_NS.contains(&message.window_duration_ns) {
        return Err(field(
            "window_duration_ns",
            message.window_duration_ns,
            "1 ms to 24 h",
        ));
    }
    if message
        .window_start_ns
        .checked_add(message.window_duration_ns)
        .is_none()
    {
        return Err(field(
            "window_start_ns",
            message.window_start_ns,
            "a time before the year 2554",
        ));
    }
    Ok(Header {
        sensor_id: message.sensor_id.clone(),
        boot_id,
        seq: message.seq,
        partition: message.partition,
        window_start_ns: message.window_start_ns,
        window_duration_ns: message.window_duration_ns,
        more: message.more,
    })
}

/// Bounds what there is by signal: each at most once, in the order of numbers.
fn cost(cost: v1::SensorCost) -> Result<v1::SensorCost, DecodeError> {
    let signals = &cost.signals;
    if signals.len() > SIGNALS_MAX {
        let expected = "at most 32 entries";
        return Err(field("cost.signals", signals.len() as u64, expected));
    }
    if let Some(pair) = signals
        .windows(2)
        .find(|pair| pair[0].signal >= pair[1].signal)
    {
        let expected = "more than the one before";
        let signal = u64::from(pair[1].signal);
        return Err(field("cost.signals.signal", signal, expected));
    }
    Ok(cost)
}

fn decode_service(service: &v1::Service, strings: &[String]) -> Result<ServiceId, ServiceIdError> {
    let part = |index: u32, part: &'static str| match index {
        0 => Ok(""),
        index => strings
            .get(index as usize - 1)
            .map(String::as_str)
            .ok_or(ServiceIdError::Part { part }),
    };
    let kind = match service.kind() {
        v1::ServiceKind::Kubernetes => ServiceKind::Kubernetes,
        v1::ServiceKind::Container => ServiceKind::Container,
        v1::ServiceKind::Systemd => ServiceKind::Systemd,
        v1::ServiceKind::Process => ServiceKind::Process,
        v1::ServiceKind::Host => ServiceKind::Host,
        v1::ServiceKind::Unspecified => return Err(ServiceIdError::Part { part: "kind" }),
    };
    let parts = [
        part(service.namespace, "namespace")?,
        part(service.name, "name")?,
        part(service.container, "container")?,
    ];
    ServiceId::from_parts(kind, parts)
}

fn decode_series(batch: &mut Batch, columns: &v1::SeriesColumns) -> Result<(), DecodeError> {
    let mut cursor = Cursor::new(columns, None, &mut batch.buckets)?;
    batch.series.reserve(columns.signal.len());
    for index in 0..columns.signal.len() {
        let decoded = cursor
            .next(index, batch.services.len(), &mut batch.buckets)
            .map_err(|what| DecodeError::Series { index, what })?;
        match decoded.series(decoded.owner) {
            Some(series) => batch.series.push(series),
            None => {
                batch.buckets.truncate(decoded.buckets.start as usize);
                batch.unknown_signals += 1;
            }
        }
    }
    Ok(())
}

fn decode_routes(
    batch: &mut Batch,
    routes: &[v1::Route],
    strings: &[String],
) -> Result<(), DecodeError> {
    if routes.len() > ROUTES_MAX {
        return Err(field(
            "routes",
            routes.len() as u64,
            "at most 65536 entries",
        ));
    }
    let mut previous = None;
    for (index, route) in routes.iter().enumerate() {
        let error = |what| DecodeError::Route { index, what };
        if route.service as usize >= batch.services.len() {
            return Err(error("refers to no service"));
        }
        let text = |index: u32| match index {
            0 => Ok(""),
            index => strings
                .get(index as usize - 1)
                .map(String::as_str)
                .ok_or_else(|| error("refers to no string")),
        };
        let texts = [
            text(route.operation)?,
            text(route.template)?,
            text(route.peer)?,
        ];
        let key = (route.service, route.protocol, route.method, texts);
        if previous.is_some_and(|previous| previous >= key) {
            return Err(error("is not after its predecessor in order"));
        }
        previous = Some(key);
        let known = known_route(route, texts).map_err(error)?;
        batch.routes.push((route.service, known));
    }
    Ok(())
}

/// `None` if this reader does not know such routes: their protocol, their
/// method, or what this protocol has not had so far.
fn known_route(
    route: &v1::Route,
    [operation, template, peer]: [&str; 3],
) -> Result<Option<Route>, &'static str> {
    let number = |number: i32| u8::try_from(number).ok();
    let Some(protocol) = number(route.protocol).and_then(Protocol::from_number) else {
        return Ok(None);
    };
    let path = || Template::new(template).map_err(|_| "has no template of paths");
    let known = match (protocol, route.method, operation) {
        (Protocol::Http, 0, "") if !template.is_empty() => {
            return Err("has a template without a method");
        }
        (_, 0, "") if template.is_empty() => Route::other(protocol),
        (Protocol::Http, method, "") => {
            let template = path()?;
            match number(method).and_then(Method::from_number) {
                Some(method) => Route::http(method, template),
                None => return Ok(None),
            }
        }
        (Protocol::Grpc, 0, "") => Route::grpc(path()?),
        (Protocol::Http | Protocol::Grpc, ..) => return Ok(None),
        (_, 0, "") => return Err("has a template without an operation"),
        (_, 0, operation) => Route::operation(protocol, operation, template)
            .map_err(|_| "has no operation, or no template")?,
        _ => return Ok(None),
    };
    if peer.is_empty() {
        return Ok(Some(known));
    }
    let known = known.with_peer(peer);
    known.map(Some).map_err(|_| "has no peer of address:port")
}

fn decode_route_series(
    batch: &mut Batch,
    columns: &v1::RouteSeriesColumns,
) -> Result<(), DecodeError> {
    let classes = &columns.status_class;
    let none = v1::SeriesColumns::default();
    let columns = columns.series.as_ref().unwrap_or(&none);
    let mut cursor = Cursor::new(columns, Some(classes), &mut batch.buckets)?;
    for (index, status_class) in classes.iter().enumerate() {
        let decoded = cursor
            .next(index, batch.routes.len(), &mut batch.buckets)
            .map_err(|what| DecodeError::RouteSeries { index, what })?;
        let status_class = *status_class;
        let (service, route) = &batch.routes[decoded.owner as usize];
        let is_known = route.is_some() && usize::from(status_class) < STATUS_CLASSES;
        match decoded.series(*service).filter(|_| is_known) {
            Some(series) => batch.route_series.push(RouteSeriesWindow {
                route: decoded.owner,
                status_class,
                series,
            }),
            None => {
                batch.buckets.truncate(decoded.buckets.start as usize);
                batch.unknown_routes += 1;
            }
        }
    }
    Ok(())
}

/// Checks that columns have the lengths that their neighbours need.
fn check_lengths(
    columns: &v1::SeriesColumns,
    status_class: Option<&[u8]>,
) -> Result<(), DecodeError> {
    let series = columns.signal.len();
    if series > SERIES_MAX {
        return Err(field("series", series as u64, "at most 131072 entries"));
    }
    let mixed = columns
        .sampling_shift
        .iter()
        .filter(|shift| **shift == MIXED)
        .count();
    let occupied = columns
        .occupied
        .iter()
        .map(|count| usize::from(*count))
        .sum();
    let gaps = columns
        .bucket
        .iter()
        .filter(|bucket| *bucket & 1 == 1)
        .count();
    let classes = status_class.map_or(series, <[u8]>::len);
    for (column, len, expected) in [
        ("service_delta", columns.service_delta.len(), series),
        ("sampling_shift", columns.sampling_shift.len(), series),
        ("sum_difference_ns", columns.sum_difference_ns.len(), series),
        ("max_difference_ns", columns.max_difference_ns.len(), series),
        ("occupied", columns.occupied.len(), series),
        ("samples", columns.samples.len(), mixed),
        ("bucket", columns.bucket.len(), occupied),
        ("bucket_gap", columns.bucket_gap.len(), gaps),
        ("status_class", classes, series),
    ] {
        if len != expected {
            return Err(DecodeError::Column {
                column,
                len,
                expected,
            });
        }
    }
    Ok(())
}

/// One series as the columns have it.
struct Decoded {
    /// Index of its service or route.
    owner: u32,
    signal: u8,
    count: u64,
    totals: Totals,
    buckets: Range<u32>,
}

impl Decoded {
    /// `None` if this reader does not know the signal.
    fn series(&self, service: u32) -> Option<SeriesWindow> {
        Some(SeriesWindow {
            service,
            signal: Signal::from_number(self.signal)?,
            count: self.count,
            totals: self.totals,
            buckets: self.buckets.clone(),
        })
    }
}

/// Places in the columns that are not one entry per series.
struct Cursor<'a> {
    columns: &'a v1::SeriesColumns,
    status_class: Option<&'a [u8]>,
    owner: u32,
    /// Signal and status class of the series before.
    previous: Option<(u8, u8)>,
    samples: usize,
    bucket: usize,
    gap: usize,
}

impl<'a> Cursor<'a> {
    /// At the begin of columns whose lengths are right.
    fn new(
        columns: &'a v1::SeriesColumns,
        status_class: Option<&'a [u8]>,
        buckets: &mut Vec<(u8, u64)>,
    ) -> Result<Self, DecodeError> {
        check_lengths(columns, status_class)?;
        buckets.reserve(columns.bucket.len());
        Ok(Self {
            columns,
            status_class,
            owner: 0,
            previous: None,
            samples: 0,
            bucket: 0,
            gap: 0,
        })
    }

    /// Decodes series `index`, of one of `owners`; its buckets go to `buckets`.
    fn next(
        &mut self,
        index: usize,
        owners: usize,
        buckets: &mut Vec<(u8, u64)>,
    ) -> Result<Decoded, &'static str> {
        let columns = self.columns;
        let delta = columns.service_delta[index];
        let signal = columns.signal[index];
        let key = (signal, self.status_class.map_or(0, |class| class[index]));
        if delta == 0 && self.previous.is_some_and(|previous| previous >= key) {
            return Err("is not after its predecessor in order");
        }
        self.previous = Some(key);
        self.owner = self
            .owner
            .checked_add(delta)
            .filter(|owner| (*owner as usize) < owners)
            .ok_or("refers to no service or route")?;
        let begin = buckets.len();
        let count = self.buckets(buckets, columns.occupied[index])?;
        let shift = columns.sampling_shift[index];
        let samples = self.samples(shift, count)?;

        let occupied = &buckets[begin..];
        let max_ns =
            expected_max_ns(occupied).wrapping_add_signed(columns.max_difference_ns[index]);
        let weight = if shift == MIXED { 1 } else { 1 << shift };
        let sum_ns = expected_sum_ns(occupied, weight, max_ns)
            .wrapping_add_signed(columns.sum_difference_ns[index]);
        Ok(Decoded {
            owner: self.owner,
            signal,
            count,
            totals: Totals {
                samples,
                sum_ns,
                max_ns,
            },
            buckets: begin as u32..buckets.len() as u32,
        })
    }

    fn samples(&mut self, shift: u8, count: u64) -> Result<u64, &'static str> {
        let samples = match shift {
            MIXED => {
                self.samples += 1;
                self.columns.samples[self.samples - 1]
            }
            shift if shift <= SHIFT_MAX && count.trailing_zeros() >= u32::from(shift) => {
                count >> shift
            }
            _ => return Err("has a sampling shift that does not divide its count"),
        };
        if samples == 0 || samples > count {
            return Err("has more samples than events, or none");
        }
        Ok(samples)
    }

    fn buckets(&mut self, buckets: &mut Vec<(u8, u64)>, occupied: u8) -> Result<u64, &'static str> {
        let columns = self.columns;
        if occupied == 0 {
            return Err("is empty");
        }
        let mut total = 0;
        let mut previous: Option<usize> = None;
        for _ in 0..occupied {
            let bucket = columns.bucket[self.bucket];
            self.bucket += 1;
            let position = if bucket & 1 == 1 {
                let gap = usize::from(columns.bucket_gap[self.gap]);
                self.gap += 1;
                match previous {
                    Some(_) if gap == 0 => return Err("has a bucket twice"),
                    Some(previous) => previous + gap,
                    None => gap,
                }
            } else {
                previous.ok_or("has no first bucket")? + 1
            };
            let count = bucket >> 1;
            if position >= BUCKETS {
                return Err("has a bucket past the last one");
            }
            if count == 0 || count > COUNT_MAX {
                return Err("has a bucket with no events, or too many");
            }
            buckets.push((position as u8, count));
            previous = Some(position);
            total += count;
        }
        Ok(total)
    }
}
