//! What a model answers.

use serde::{Deserialize, Serialize};

use crate::change_point::ChangePoint;
use crate::series::{HORIZONS, TARGETS, Target};

/// The forecast of one target at one horizon, in seconds or events/s.
///
/// `lower_95 <= lower_80 <= yhat <= upper_80 <= upper_95`, all finite.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The median of what is expected.
    pub yhat: f32,
    /// Lower end of the 80 % interval.
    pub lower_80: f32,
    /// Upper end of the 80 % interval.
    pub upper_80: f32,
    /// Lower end of the 95 % interval.
    pub lower_95: f32,
    /// Upper end of the 95 % interval.
    pub upper_95: f32,
}

/// Levels of [`Forecast::quantiles`]: finer above, where thresholds are.
pub const QUANTILE_LEVELS: [f64; 10] = [0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99, 0.995];

/// All that is forecast for one series from its newest window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// By horizon ([`crate::HORIZON_SECS`]), then by [`Target::index`]. Within
    /// a horizon `yhat` never falls from p50 to p99.9. `None` as long as nothing
    /// of the target was ever observed.
    pub points: [[Option<Interval>; TARGETS]; HORIZONS],
    /// What is expected at each [`QUANTILE_LEVELS`], in model space, never
    /// falling; by horizon and target as `points`. Intervals are conformal, these
    /// are plain quantiles of past residuals with the prior.
    pub quantiles: [[Option<[f32; QUANTILE_LEVELS.len()]>; TARGETS]; HORIZONS],
    /// The newest window as observed, in seconds and events/s; `None` where
    /// nothing was.
    pub y: [Option<f32>; TARGETS],
    /// At least 0; above 1.0 is anomalous at the declared false-alarm rate.
    pub anomaly_score: f32,
    /// The newest lasting change of level, if one is remembered.
    pub change_point: Option<ChangePoint>,
    /// Windows with data that the model has learned from.
    pub history_windows: u32,
    /// Standard deviation of what is gone after one window, in model
    /// space (natural logarithm).
    pub noise_sd: [f32; TARGETS],
}

impl Forecast {
    /// The forecast of a target at the horizon at this position of
    /// [`crate::HORIZON_SECS`].
    ///
    /// # Panics
    /// If `horizon` ≥ [`HORIZONS`].
    pub fn point(&self, horizon: usize, target: Target) -> Option<&Interval> {
        self.points[horizon][target.index()].as_ref()
    }
}
