//! Whether a quantity is on its way, and how far it gets.
//!
//! Levels expect what is to stay. A line through the newest values, weighted
//! exponentially, says where a quantity goes if it goes on as it
//! does. Noise has slopes, too, and so does a step: a slope counts for the share
//! `1 − SIGNIFICANT²·se²/b²` of it, and for nothing below (the positive part of
//! James and Stein's estimator, with the bar set higher because many series are
//! looked at). Its standard error takes the autocorrelation of what the line did
//! not foresee into account: (1 + ρ)/(1 − ρ) (Bartlett 1946).

use serde::{Deserialize, Serialize};

/// Memory in steps: as a line through about 3.6 times as many values.
const MEMORY: f64 = 20.0;
/// Standard errors that a slope must have to be one at all.
const SIGNIFICANT: f64 = 3.0;
/// Steps for which a trend is expected to go on, in weights of what was seen: half as
/// long as it was.
const ONWARD: f64 = 1.8;
/// Weight of what was seen until the line says something: that of one memory.
const SEEN: f64 = 0.6 * MEMORY;
/// What a line did not foresee counts as so many usual such errors at most.
const CLIP: f64 = 3.0;
/// Autocorrelation beyond which every step is a trend.
const AUTOCORRELATION_MAX: f32 = 0.98;

/// A line through the newest values of a quantity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Trend {
    /// The first value since the weight was 0, from which distances are.
    origin: f32,
    /// Weights times age to the power of 0, 1 and 2.
    weights: [f32; 3],
    /// Distances, weighted, times age to the power of 0 and 1.
    sums: [f32; 2],
    /// Mean square of what was not foreseen, and mean product with the one before.
    squares: f32,
    products: f32,
    /// The newest of it.
    error: f32,
}

/// Where a line stands now, and how fast it moves.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Fit {
    level: f64,
    slope: f64,
}

impl Trend {
    /// A step passes in which nothing was seen.
    pub(crate) fn pass(&mut self) {
        let keep = keep() as f32;
        let [w0, w1, w2] = self.weights;
        self.weights = [w0, w1 + w0, w2 + 2.0 * w1 + w0].map(|sum| keep * sum);
        let [x0, x1] = self.sums;
        self.sums = [x0, x1 + x0].map(|sum| keep * sum);
    }

    /// Takes the value of the next step.
    pub(crate) fn learn(&mut self, value: f64) {
        if self.weights[0] == 0.0 {
            self.origin = value as f32;
        }
        self.pass();
        let mut taken = value - f64::from(self.origin);
        if let Some(fit) = self.fit() {
            let usual = f64::from(self.squares).sqrt();
            let most = if usual > 0.0 {
                CLIP * usual
            } else {
                f64::INFINITY
            };
            let error = (taken - fit.level).clamp(-most, most);
            taken = fit.level + error;
            self.note(error as f32);
        }
        self.weights[0] += 1.0;
        self.sums[0] += taken as f32;
    }

    fn note(&mut self, error: f32) {
        let new = 1.0 - keep() as f32;
        self.squares += new * (error * error - self.squares);
        self.products += new * (error * self.error - self.products);
        self.error = error;
        if !self.squares.is_finite() || !self.products.is_finite() {
            // Too large to be squared: as if it were the first of its size.
            (self.squares, self.products) = (0.0, 0.0);
        }
    }

    /// What is expected `steps` ahead, given that `median` is without a trend:
    /// further, if it does not go as far as the trend does.
    pub(crate) fn carry(&self, median: f64, steps: usize) -> f64 {
        let seen = f64::from(self.weights[0]) >= SEEN;
        let Some(fit) = self.fit().filter(|_| seen) else {
            return median;
        };
        let onward = ONWARD * f64::from(self.weights[0]);
        let lasting = onward * (1.0 - (-(steps as f64) / onward).exp());
        let then = f64::from(self.origin) + fit.level + fit.slope * lasting;
        let further = then - median;
        if further * fit.slope > 0.0 {
            median + self.share(&fit) * further
        } else {
            median
        }
    }

    /// The line, at the newest step.
    fn fit(&self) -> Option<Fit> {
        let [w0, w1, w2] = self.weights.map(f64::from);
        let [x0, x1] = self.sums.map(f64::from);
        let spread = w0 * w2 - w1 * w1;
        if spread <= 1e-3 * w0 * w2 {
            return None;
        }
        let by_age = (w0 * x1 - w1 * x0) / spread;
        Some(Fit {
            level: (x0 - by_age * w1) / w0,
            slope: -by_age,
        })
    }

    /// The share of its slope that is no noise, 0..=1.
    fn share(&self, fit: &Fit) -> f64 {
        if self.squares <= 0.0 {
            // No noise at all.
            return 1.0;
        }
        let autocorrelation = (self.products / self.squares).clamp(0.0, AUTOCORRELATION_MAX);
        let inflation = f64::from((1.0 + autocorrelation) / (1.0 - autocorrelation));
        // Of exponentially weighted least squares in the long run.
        let variance = f64::from(self.squares) * inflation / (4.0 * MEMORY.powi(3));
        (1.0 - SIGNIFICANT * SIGNIFICANT * variance / (fit.slope * fit.slope)).max(0.0)
    }
}

/// What a value weighs after the next one.
fn keep() -> f64 {
    (-1.0 / MEMORY).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Noise;

    fn trend(values: impl IntoIterator<Item = f64>) -> Trend {
        let mut trend = Trend::default();
        values.into_iter().for_each(|value| trend.learn(value));
        trend
    }

    /// Noise of deviation 1 around 5, then a climb of 0.2 a step.
    fn climb(noise: &mut Noise, steps: usize) -> Vec<f64> {
        let quiet = (0..300).map(|_| 0.0);
        let slope = (0..steps).map(|i| 0.2 * i as f64);
        let values: Vec<f64> = quiet.chain(slope).collect();
        values
            .into_iter()
            .map(|v| 5.0 + v + noise.normal())
            .collect()
    }

    #[test]
    fn noise_has_no_trend() {
        let (mut carried, mut worst) = (0, 0.0f64);
        for seed in 0..400 {
            let mut noise = Noise::new(seed);
            let trend = trend((0..300).map(|_| noise.normal()));
            let by = trend.carry(0.0, 90).abs();
            carried += u32::from(by > 0.5);
            worst = worst.max(by);
        }
        assert!(carried <= 8, "{carried} of 400, worst {worst}");
    }

    #[test]
    fn neither_has_a_walk_nor_a_step() {
        let (mut walks, mut steps) = (0, 0);
        for seed in 0..400 {
            let mut noise = Noise::new(seed);
            let mut at = 0.0;
            let walk = trend((0..300).map(|_| {
                at += noise.normal();
                at
            }));
            // Half-way to where it would be after 90 steps, one time in three.
            walks += u32::from((walk.carry(at, 90) - at).abs() > 9.5);
            let after = 1 + seed as usize % 60;
            let step = (0..300 + after).map(|i| if i < 300 { 0.0 } else { 10.0 });
            let step = trend(step.map(|level| level + noise.normal()));
            steps += u32::from(step.carry(10.0, 90) > 15.0);
        }
        assert!(walks <= 60, "{walks} of 400");
        assert!(steps <= 40, "{steps} of 400");
    }

    #[test]
    fn a_climb_goes_on_for_a_while() {
        let mut told = 0;
        for seed in 0..100 {
            let mut noise = Noise::new(seed);
            let values = climb(&mut noise, 60);
            let by = trend(values).carry(16.0, 30) - 16.0;
            // 6 if it goes on for all of 30 steps.
            told += u32::from((2.0..9.0).contains(&by));
        }
        assert!(told >= 90, "{told} of 100");
    }

    #[test]
    fn one_spike_is_no_trend() {
        for seed in 0..50 {
            let mut noise = Noise::new(seed);
            for after in 0..40 {
                let mut values: Vec<f64> = (0..300).map(|_| noise.normal()).collect();
                values[299 - after] += 40.0;
                let by = trend(values).carry(0.0, 90);
                assert!(by.abs() < 4.0, "{by} {after} after it");
            }
        }
    }

    #[test]
    fn what_is_not_seen_passes() {
        let mut noise = Noise::new(3);
        let mut sparse = Trend::default();
        for (i, value) in climb(&mut noise, 60).into_iter().enumerate() {
            match i % 3 {
                1 => sparse.pass(),
                _ => sparse.learn(value),
            }
        }
        let by = sparse.carry(16.0, 30) - 16.0;
        assert!((1.5..9.0).contains(&by), "{by}");
    }
}
