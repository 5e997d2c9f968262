//! How far out a deviation is, among those that its stream has shown.
//!
//! A declared rate of false alarms is far out in the tail, so the threshold is
//! extrapolated (peaks over threshold; Siffer et al., "Anomaly detection in streams
//! with extreme value theory", KDD 2017): excesses over the 98 % quantile are taken as
//! generalised Pareto with a fixed shape, and their mean is tracked.

use serde::{Deserialize, Serialize};

use crate::level::Level;

/// No score before so many deviations; half of it after twice as many.
const QUIET: u32 = 6;
/// The quantile of deviations above which they are excesses.
const EXCESS_RATE: f64 = 0.02;
/// Shape of the generalised Pareto tail: heavier than exponential, as
/// Student's t with 7 degrees of freedom.
const SHAPE: f64 = 0.15;
/// Step of the quantile tracker, in ln, …
const QUANTILE_GAIN: f64 = 0.05;
/// … and the share of it that an anomalous window moves it by: an incident
/// must not become normal, yet a series that turned wild must be re-learned.
const ANOMALY_GAIN: f64 = 0.03;
/// What an excess weighs after the next one.
const KEEP_EXCESS: f64 = 0.98;

/// What is believed of a stream that has shown nothing yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Belief {
    /// The 98 % quantile of its deviations.
    pub(crate) quantile: f64,
    /// The mean excess over it, and what that weighs in excesses.
    pub(crate) excess: (f64, f64),
}

/// The tail of a stream of deviations.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tail {
    quantile: f64,
    excess: Level,
    seen: u32,
}

impl Tail {
    pub(crate) fn believed(belief: Belief) -> Self {
        let (mean, weight) = belief.excess;
        Tail {
            quantile: belief.quantile,
            excess: Level::believed(mean, weight),
            seen: 0,
        }
    }

    /// A deviation over what is exceeded at `rate`, and learns from it; 0 at first.
    pub(crate) fn score(&mut self, deviation: f64, rate: f64) -> f64 {
        let threshold = self.threshold(rate);
        self.update(deviation, threshold);
        self.seen = self.seen.saturating_add(1);
        if self.seen <= QUIET {
            return 0.0;
        }
        let learned = f64::from(self.seen - QUIET);
        learned / (learned + f64::from(QUIET)) * deviation / threshold
    }

    /// The deviation that is exceeded at `rate`.
    fn threshold(&self, rate: f64) -> f64 {
        let scale = self.excess.or(0.0) * (1.0 - SHAPE);
        let ratio = (EXCESS_RATE / rate).powf(SHAPE);
        (self.quantile + scale * (ratio - 1.0) / SHAPE).max(self.quantile * 0.5)
    }

    /// Learns a deviation; what lies beyond the threshold counts as being on it.
    fn update(&mut self, deviation: f64, threshold: f64) {
        if deviation > self.quantile {
            let weight = if deviation > threshold {
                ANOMALY_GAIN
            } else {
                1.0
            };
            let excess = deviation.min(threshold.max(self.quantile)) - self.quantile;
            let keep = 1.0 - (1.0 - KEEP_EXCESS) * weight;
            self.excess.update(keep, excess, weight);
            self.quantile *= (QUANTILE_GAIN * weight * (1.0 - EXCESS_RATE)).exp();
        } else {
            self.quantile *= (-QUANTILE_GAIN * EXCESS_RATE).exp();
        }
        self.quantile = self.quantile.clamp(1.0, 30.0);
    }
}
