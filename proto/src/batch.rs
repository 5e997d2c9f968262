//! Histogram batches: what one sensor saw in one window, for one partition.
//!
//! [`encode()`] writes columns (see `telemetry.proto`); [`Batch::decode`] checks
//! everything and keeps buckets sparse in one flat vector, because the
//! analyzer decodes tens of thousands of series a second.

mod decode;
mod encode;

use std::ops::{Range, RangeInclusive};

use sensor_common::{Signal, histogram, histogram::Totals};

pub use decode::DecodeError;
pub use encode::{Contents, RouteSeriesRef, SeriesRef, encode};

use crate::{Route, ServiceId, v1};

/// Bytes of an encoded batch at most; larger payloads are refused unread.
pub const PAYLOAD_LEN_MAX: usize = 4 << 20;
/// Services of a batch at most.
pub const SERVICES_MAX: usize = 16_384;
/// Series of a batch at most.
pub const SERIES_MAX: usize = 131_072;
/// Routes of a batch at most.
pub const ROUTES_MAX: usize = 65_536;
/// Count of a bucket at most: 2^48 events, beyond any window.
pub const COUNT_MAX: u64 = 1 << 48;
/// Shortest and longest window in nanoseconds: 1 ms to a day. Flushes are at
/// most a minute apart, but a window that the bus did not take goes on.
pub const WINDOW_DURATION_NS: RangeInclusive<u64> = 1_000_000..=86_400_000_000_000;
/// Marks mixed sampling ratios in `sampling_shift`.
const MIXED: u8 = u8::MAX;
/// Largest sampling shift.
const SHIFT_MAX: u8 = 32;

/// Which batch, of which window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Stable across restarts of the sensor.
    pub sensor_id: String,
    /// New at each start.
    pub boot_id: [u8; 16],
    /// From 1, no gaps, per sensor, boot and partition.
    pub seq: u64,
    /// Partition it was made for.
    pub partition: u32,
    /// Nanoseconds since the Unix epoch.
    pub window_start_ns: u64,
    /// Nanoseconds.
    pub window_duration_ns: u64,
    /// Whether another batch of the same window follows in this partition.
    pub more: bool,
}

impl Header {
    /// End of the window in nanoseconds since the Unix epoch.
    pub fn window_end_ns(&self) -> u64 {
        self.window_start_ns.saturating_add(self.window_duration_ns)
    }
}

/// A decoded batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Which batch, of which window.
    pub header: Header,
    /// Services that series refer to.
    pub services: Vec<ServiceId>,
    /// Series in the order of (service, signal), each at most once.
    pub series: Vec<SeriesWindow>,
    /// Series by route in the order of (service, route, signal, status class),
    /// each at most once. Their requests are in [`series`](Self::series) too.
    pub route_series: Vec<RouteSeriesWindow>,
    /// Routes that those refer to; `None` for one this reader does not know.
    routes: Vec<(u32, Option<Route>)>,
    /// Occupied buckets of all series: (position, count), count > 0.
    buckets: Vec<(u8, u64)>,
    /// Events lost by the sensor in this window, by reason number.
    pub losses: Vec<(u32, u64)>,
    /// What the sensor cost in this window.
    pub cost: Option<v1::SensorCost>,
    /// Series left out because this reader does not know their signal.
    pub unknown_signals: usize,
    /// Series by route left out because this reader does not know their
    /// protocol, method, signal or status class.
    pub unknown_routes: usize,
}

/// One series by route; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSeriesWindow {
    /// Place of the route, for [`Batch::route`].
    route: u32,
    /// First digit of the status; of other protocols than HTTP 2 = ok, 4 = the
    /// client's error, 5 = the server's error. 0 where it is not known.
    pub status_class: u8,
    /// The histogram; its service is the route's.
    pub series: SeriesWindow,
}

/// One series of a batch; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesWindow {
    /// Index in [`Batch::services`].
    pub service: u32,
    /// What was measured.
    pub signal: Signal,
    /// Estimated events.
    pub count: u64,
    /// Samples, sum and maximum.
    pub totals: Totals,
    buckets: Range<u32>,
}

impl Batch {
    /// Occupied buckets of a series: (position, count) in ascending order.
    pub fn buckets(&self, series: &SeriesWindow) -> &[(u8, u64)] {
        &self.buckets[series.buckets.start as usize..series.buckets.end as usize]
    }

    /// The histogram of a series.
    pub fn histogram(&self, series: &SeriesWindow) -> sensor_common::Histogram {
        let mut histogram = sensor_common::Histogram::new();
        for (position, count) in self.buckets(series) {
            histogram.add(usize::from(*position), *count);
        }
        histogram.add_totals(series.totals);
        histogram
    }

    /// The route of a series by route.
    pub fn route(&self, series: &RouteSeriesWindow) -> &Route {
        let (_, route) = &self.routes[series.route as usize];
        route
            .as_ref()
            .expect("series of unknown routes were left out")
    }

    /// Decodes a payload of the topic `honeyguide.histograms.v1`.
    ///
    /// # Errors
    /// [`DecodeError`] says which field is wrong; nothing of the batch is used then.
    pub fn decode(payload: &[u8]) -> Result<Batch, DecodeError> {
        decode::decode(payload)
    }
}

/// What the sum is expected to be: one event of `weight` at the maximum, all
/// others in the middle of their bucket. Wraps; both sides compute the same.
fn expected_sum_ns(buckets: &[(u8, u64)], weight: u64, max_ns: u64) -> u64 {
    let mut expected = 0u64;
    for (position, count) in buckets {
        expected = expected.wrapping_add(count.wrapping_mul(middle_ns(*position)));
    }
    match buckets.last() {
        Some((top, count)) if *count >= weight => expected
            .wrapping_sub(weight.wrapping_mul(middle_ns(*top)))
            .wrapping_add(weight.wrapping_mul(max_ns)),
        _ => expected,
    }
}

/// What the maximum is expected to be at least.
fn expected_max_ns(buckets: &[(u8, u64)]) -> u64 {
    buckets.last().map_or(0, |(top, _)| {
        histogram::lower_bound_ns(usize::from(*top)) as u64
    })
}

fn middle_ns(position: u8) -> u64 {
    let position = usize::from(position);
    ((histogram::lower_bound_ns(position) + histogram::lower_bound_ns(position + 1)) / 2.0) as u64
}

#[cfg(test)]
mod tests;
