//! What a model reads: regularly spaced windows of one series, and the other
//! series that may explain it.
//!
//! Everything is in *model space*: latencies as ln seconds, rates as
//! ln(1 + events/s), so that a change of +0.1 is about +10 % everywhere.

use sensor_common::histogram::Histogram;
use serde::{Deserialize, Serialize};

/// Number of [`Target`]s.
pub const TARGETS: usize = 5;

/// Number of forecast horizons.
pub const HORIZONS: usize = 5;

/// Forecast horizons in seconds: 1, 5, 15, 30 and 60 minutes.
pub const HORIZON_SECS: [u32; HORIZONS] = [60, 300, 900, 1800, 3600];

/// What is forecast for each series, in the order of all arrays here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// Median latency.
    P50,
    /// 90th percentile of latency.
    P90,
    /// 99th percentile of latency.
    P99,
    /// 99.9th percentile of latency.
    P999,
    /// Events per second.
    Rate,
}

impl Target {
    /// Every target, in array order.
    pub const ALL: [Target; TARGETS] = [
        Target::P50,
        Target::P90,
        Target::P99,
        Target::P999,
        Target::Rate,
    ];

    /// Position in arrays of [`TARGETS`].
    #[inline]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// `p50`, `p90`, `p99`, `p999` or `rate`.
    pub const fn name(self) -> &'static str {
        match self {
            Target::P50 => "p50",
            Target::P90 => "p90",
            Target::P99 => "p99",
            Target::P999 => "p999",
            Target::Rate => "rate",
        }
    }

    /// The fraction of events at or below a latency target; `None` for the rate.
    pub const fn quantile(self) -> Option<f64> {
        match self {
            Target::P50 => Some(0.5),
            Target::P90 => Some(0.9),
            Target::P99 => Some(0.99),
            Target::P999 => Some(0.999),
            Target::Rate => None,
        }
    }

    /// Model space to seconds or events per second.
    pub fn to_natural(self, value: f64) -> f64 {
        match self {
            Target::Rate => value.exp_m1().max(0.0),
            _ => value.exp(),
        }
    }

    /// Seconds or events per second to model space; NaN below 0 (latency: at 0 too).
    pub fn to_model(self, value: f64) -> f64 {
        match self {
            Target::Rate if value >= 0.0 => value.ln_1p(),
            Target::Rate => f64::NAN,
            _ if value > 0.0 => value.ln(),
            _ => f64::NAN,
        }
    }
}

/// Latencies outside e^±`LOG_LIMIT` s (below 1e-13 s or above 2e13 s) and rates
/// above e^`LOG_LIMIT`/s are not measurements; they count as missing.
const LOG_LIMIT: f32 = 30.0;

/// One window of one series. What was not observed is NaN, never invented.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// In model space, by [`Target::index`]. A window without events has a rate
    /// of 0 and NaN latencies; a window that was lost is all NaN.
    pub y: [f32; TARGETS],
    /// Events that were actually observed (after sampling), at least 0.
    pub samples: f32,
    /// Share of the window that was received, 0 (nothing) to 1 (all of it).
    pub completeness: f32,
}

impl Window {
    /// A window nothing is known about.
    pub const MISSING: Window = Window {
        y: [f32::NAN; TARGETS],
        samples: 0.0,
        completeness: 0.0,
    };

    /// Reads a window off its histogram.
    ///
    /// `window_secs` is the window's length; `completeness` the share of it
    /// that was received, by which the rate is corrected.
    pub fn from_histogram(histogram: &Histogram, window_secs: f64, completeness: f64) -> Window {
        let completeness = completeness.clamp(0.0, 1.0);
        if completeness.is_nan()
            || completeness == 0.0
            || window_secs.is_nan()
            || window_secs <= 0.0
        {
            return Window::MISSING;
        }
        let mut y = [f32::NAN; TARGETS];
        if let Some(quantiles_ns) = histogram.quantiles_ns([0.5, 0.9, 0.99, 0.999]) {
            for (value, ns) in y.iter_mut().zip(quantiles_ns) {
                *value = (ns.max(1.0) * 1e-9).ln() as f32;
            }
        }
        let rate = histogram.count() as f64 / (window_secs * completeness);
        y[Target::Rate.index()] = rate.ln_1p() as f32;
        Window {
            y,
            samples: histogram.samples() as f32,
            completeness: completeness as f32,
        }
    }

    /// The target's value in model space, if it was observed and is one.
    #[inline]
    pub fn value(&self, target: Target) -> Option<f64> {
        let value = self.y[target.index()];
        (value.abs() <= LOG_LIMIT && self.completeness > 0.0).then_some(f64::from(value))
    }

    /// How much the target's value tells, 0 (nothing) to 1.
    ///
    /// Completeness times n/(n + 1/(1 − q)): the quantile q of fewer than
    /// 1/(1 − q) samples is hardly more than their maximum. A rate weighs its
    /// completeness alone: "no events" is an observation.
    #[inline]
    pub fn weight(&self, target: Target) -> f64 {
        if self.value(target).is_none() {
            return 0.0;
        }
        let completeness = f64::from(self.completeness).min(1.0);
        match target.quantile() {
            None => completeness,
            Some(q) => {
                let samples = f64::from(self.samples).clamp(0.0, 1e12);
                completeness * samples / (samples + 1.0 / (1.0 - q))
            }
        }
    }
}

/// A run of windows that ends at the newest one. The caller owns the storage
/// (for instance a quantised ring) and decodes single windows on demand.
pub trait History {
    /// Number of windows from the oldest to the newest, missing ones included.
    fn len(&self) -> usize;

    /// Whether there is no window at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The window `ago` steps before the newest (0 is the newest);
    /// [`Window::MISSING`] where there is none.
    fn window(&self, ago: usize) -> Window;

    /// [`Window::value`] of that window; for histories that need not decode
    /// all of it.
    fn value(&self, ago: usize, target: Target) -> Option<f64> {
        self.window(ago).value(target)
    }
}

/// Oldest first, as in a time series file.
impl History for [Window] {
    fn len(&self) -> usize {
        <[Window]>::len(self)
    }

    fn window(&self, ago: usize) -> Window {
        let position = <[Window]>::len(self).checked_sub(ago.saturating_add(1));
        position.map_or(Window::MISSING, |position| self[position])
    }
}

/// The caller's name for another series that may explain the modelled one,
/// e.g. the signal's number. Where all else is equal, the smaller ranks first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DriverId(pub u32);

/// What kind of time a series measures; decides what may explain what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Waiting for a resource of the machine: run queue, block I/O, memory
    /// reclaim, retransmission. A cause in itself.
    Saturation,
    /// Doing work: requests, connects, system calls. Suffers from saturation.
    Work,
    /// Waiting for another service to do its work.
    Downstream,
}

/// Another series of the same service, aligned with the modelled one:
/// `history.window(0)` is the same window of time. A driver without data there
/// answers [`Window::MISSING`].
#[derive(Debug)]
pub struct Driver<'a, H: ?Sized> {
    /// Who it is.
    pub id: DriverId,
    /// What it measures.
    pub role: Role,
    /// Its windows.
    pub history: &'a H,
}

impl<H: ?Sized> Clone for Driver<'_, H> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<H: ?Sized> Copy for Driver<'_, H> {}

/// All that a model reads at one step.
#[derive(Debug)]
pub struct SeriesInput<'a, H: ?Sized> {
    /// Number of the newest window since the epoch: its start time divided by
    /// the step. Seasons take their phase from it.
    pub step: u64,
    /// The modelled series.
    pub own: &'a H,
    /// The service's other series; the order does not matter.
    pub drivers: &'a [Driver<'a, H>],
}

impl<H: ?Sized> Clone for SeriesInput<'_, H> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<H: ?Sized> Copy for SeriesInput<'_, H> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_reads_quantiles_and_rate_off_its_histogram() {
        let mut histogram = Histogram::new();
        for _ in 0..1000 {
            histogram.record(1_000_000);
        }
        let window = Window::from_histogram(&histogram, 10.0, 0.5);
        for target in &Target::ALL[..4] {
            let secs = target.to_natural(window.value(*target).unwrap());
            assert!((secs / 1e-3 - 1.0).abs() < 0.09, "{target:?} {secs}");
        }
        let rate = Target::Rate.to_natural(window.value(Target::Rate).unwrap());
        assert!((rate - 200.0).abs() < 1e-3, "{rate}");
        assert!(window.weight(Target::P50) > window.weight(Target::P999));
    }

    #[test]
    fn an_empty_window_has_a_rate_and_no_latency() {
        let window = Window::from_histogram(&Histogram::new(), 10.0, 1.0);
        assert_eq!(window.value(Target::Rate), Some(0.0));
        assert_eq!(window.value(Target::P50), None);
        assert_eq!(window.weight(Target::P50), 0.0);
    }

    #[test]
    fn nothing_received_is_missing() {
        for completeness in [0.0, -1.0, f64::NAN] {
            let window = Window::from_histogram(&Histogram::new(), 10.0, completeness);
            assert!(
                Target::ALL.iter().all(|t| window.value(*t).is_none()),
                "{completeness}"
            );
        }
    }

    #[test]
    fn values_that_are_no_measurement_are_missing() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e9] {
            let window = Window {
                y: [bad; TARGETS],
                samples: f32::NAN,
                completeness: 1.0,
            };
            assert_eq!(window.value(Target::P99), None);
        }
    }

    #[test]
    fn a_slice_is_read_from_its_end() {
        let mut windows = [Window::MISSING; 3];
        windows[2].samples = 7.0;
        assert_eq!(windows[..].window(0).samples, 7.0);
        assert_eq!(windows[..].window(2).samples, 0.0);
        assert_eq!(windows[..].window(3).completeness, 0.0);
        assert_eq!(windows[..].window(usize::MAX).completeness, 0.0);
    }
}
