//! Local levels: exponentially weighted means over four spans.
//!
//! Differences of neighbouring spans are the trend at that scale, so levels
//! replace a ring of lags. Weights (see [`Window::weight`]) make a mean ignore
//! what was missing and lean on what was observed well; a mean is unbiased from
//! its first value on. There is no longer span than an hour on purpose: a
//! regression that knows an older level expects every lasting change to revert.

use serde::{Deserialize, Serialize};

use crate::series::{TARGETS, Target, Window};

/// Number of spans.
pub(crate) const SPANS: usize = 4;
/// Time constants in seconds, [`FAST`] to [`LONG`].
pub(crate) const SPAN_SECS: [f64; SPANS] = [30.0, 180.0, 900.0, 3600.0];
pub(crate) const FAST: usize = 0;
pub(crate) const MEDIUM: usize = 1;
pub(crate) const SLOW: usize = 2;
pub(crate) const LONG: usize = 3;

/// A mean never loses all weight, so that after a long gap the old level stays
/// until something new is observed, which then outweighs it at once.
const WEIGHT_MIN: f64 = 1e-12;

/// An exponentially weighted mean and the weight behind it. A model has some
/// eighty of them: single precision is plenty for what is in model space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Level {
    mean: f32,
    weight: f32,
}

impl Level {
    /// A level that starts from a belief worth `weight` observations.
    pub(crate) fn believed(mean: f64, weight: f64) -> Self {
        Level {
            mean: mean as f32,
            weight: weight as f32,
        }
    }

    /// Ages by one window and takes a value of a weight; weight 0 only ages.
    #[inline]
    pub(crate) fn update(&mut self, decay: f64, value: f64, weight: f64) {
        let (mean, before) = (f64::from(self.mean), f64::from(self.weight));
        let aged = (before * decay).max(if before > 0.0 { WEIGHT_MIN } else { 0.0 });
        if weight > 0.0 {
            let all = aged + weight;
            self.weight = all as f32;
            self.mean = (mean + weight / all * (value - mean)) as f32;
        } else {
            self.weight = aged as f32;
        }
    }

    /// The mean, if anything was ever observed.
    #[inline]
    pub(crate) fn get(&self) -> Option<f64> {
        (self.weight > 0.0).then_some(f64::from(self.mean))
    }

    /// What the mean weighs: the values behind it, old ones less.
    #[inline]
    pub(crate) fn weight(&self) -> f64 {
        self.weight.into()
    }

    /// The mean, or `otherwise` before anything was observed.
    #[inline]
    pub(crate) fn or(&self, otherwise: f64) -> f64 {
        self.get().unwrap_or(otherwise)
    }
}

/// One quantity at all spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Levels([Level; SPANS]);

impl Levels {
    /// Ages by one window and takes a value; weight 0 only ages.
    #[inline]
    pub(crate) fn update(&mut self, decays: &[f64; SPANS], value: f64, weight: f64) {
        for (level, decay) in self.0.iter_mut().zip(decays) {
            level.update(*decay, value, weight);
        }
    }

    /// The means, all 0 before anything was observed.
    #[inline]
    pub(crate) fn means(&self) -> [f64; SPANS] {
        self.0.map(|level| level.or(0.0))
    }

    /// The mean at one span, if anything was observed.
    #[inline]
    pub(crate) fn get(&self, span: usize) -> Option<f64> {
        self.0[span].get()
    }
}

/// Levels of every target of one series, and the last observed values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SeriesLevels {
    pub(crate) levels: [Levels; TARGETS],
    pub(crate) last: [Option<f64>; TARGETS],
    /// Windows since anything was observed.
    pub(crate) stale_windows: [u32; TARGETS],
    /// Mean completeness at the fast span; a missing window counts as 0.
    pub(crate) completeness: Level,
}

impl SeriesLevels {
    /// Takes the newest window.
    pub(crate) fn update(&mut self, decays: &[f64; SPANS], window: &Window) {
        for target in Target::ALL {
            let k = target.index();
            let value = window.value(target);
            let weight = window.weight(target);
            self.levels[k].update(decays, value.unwrap_or(0.0), weight);
            if weight > 0.0 {
                self.last[k] = value;
                self.stale_windows[k] = 0;
            } else {
                self.stale_windows[k] = self.stale_windows[k].saturating_add(1);
            }
        }
        let completeness = f64::from(window.completeness);
        let completeness = if completeness.is_finite() {
            completeness.clamp(0.0, 1.0)
        } else {
            0.0
        };
        self.completeness.update(decays[FAST], completeness, 1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_is_the_level() {
        let mut level = Level::default();
        assert_eq!(level.get(), None);
        level.update(0.9, 5.0, 0.01);
        assert_eq!(level.get(), Some(5.0));
    }

    #[test]
    fn a_level_is_the_exponentially_weighted_mean() {
        let (values, decay) = ([1.0, 4.0, 2.0, 8.0], 0.8f64);
        let mut level = Level::default();
        values.iter().for_each(|v| level.update(decay, *v, 1.0));
        let weights = [0.8f64.powi(3), 0.64, 0.8, 1.0];
        let expected = values.iter().zip(weights).map(|(v, w)| v * w).sum::<f64>()
            / weights.iter().sum::<f64>();
        assert!((level.or(0.0) - expected).abs() < 1e-6);
    }

    #[test]
    fn after_a_long_gap_the_old_level_stays_until_a_new_value() {
        let mut level = Level::default();
        level.update(0.5, 3.0, 1.0);
        (0..5000).for_each(|_| level.update(0.5, 0.0, 0.0));
        assert_eq!(level.get(), Some(3.0));
        level.update(0.5, 7.0, 0.1);
        assert!((level.or(0.0) - 7.0).abs() < 1e-6);
    }
}
