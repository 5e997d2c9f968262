//! How much higher the waves of the newest season are than those of its shape.
//!
//! A shape is a mean of several seasons. When a load grows, or a service gets
//! slower under it, the season keeps its form and changes its height (the rank-one
//! level × shape of FLAIR). The slope of a line from the shape to the values of
//! about one season says by how much; it is a ridge regression towards 1, what
//! is usual.

use serde::{Deserialize, Serialize};

/// Seasons as high as their shape that are believed to have been.
const BELIEF: f64 = 0.3;
/// Most that a season is stretched: more is another one.
const STRETCH_MAX: f64 = 4.0;

/// Weighted moments of a shape and of the values that came in its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Stretch {
    weight: f32,
    shape: f32,
    value: f32,
    /// Mean square of the shape around its mean.
    square: f32,
    /// Mean product of that with the values around theirs.
    product: f32,
}

impl Stretch {
    /// Takes a value in whose place the shape was expected; `keep` is what one
    /// weighs after the next.
    pub(super) fn learn(&mut self, keep: f64, shape: f64, value: f64, weight: f64) {
        let all = f64::from(self.weight) * keep + weight;
        let share = weight / all;
        let above = shape - f64::from(self.shape);
        let off = value - f64::from(self.value);
        let moment = |old: f32, new: f64| ((1.0 - share) * (f64::from(old) + share * new)) as f32;
        self.square = moment(self.square, above * above);
        self.product = moment(self.product, above * off);
        self.shape += (share * above) as f32;
        self.value += (share * off) as f32;
        self.weight = all as f32;
    }

    /// What is to be expected in the place of a shape, but for the level;
    /// `length` is that of the season in steps.
    pub(super) fn at(&self, shape: f64, length: f64) -> f64 {
        let [square, product] = [self.square, self.product].map(f64::from);
        let belief = BELIEF * length / f64::from(self.weight);
        let slope = (product / square + belief) / (1.0 + belief);
        if slope.is_finite() {
            let above = shape - f64::from(self.shape);
            shape + (slope.clamp(0.0, STRETCH_MAX) - 1.0) * above
        } else {
            shape
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(length: usize, steps: usize, value: impl Fn(f64) -> f64) -> Stretch {
        let keep = (-1.0 / length as f64).exp();
        let mut stretch = Stretch::default();
        for step in 0..steps {
            let shape = (step as f64 / length as f64 * std::f64::consts::TAU).sin();
            stretch.learn(keep, shape, value(shape), 1.0);
        }
        stretch
    }

    #[test]
    fn a_higher_season_is_expected_higher() {
        let stretch = learned(48, 480, |shape| 10.0 + 2.0 * shape);
        // Ridge: (2 + 0.3) / 1.3 of the shape around its mean.
        let expected = 2.3 / 1.3;
        let found = stretch.at(1.0, 48.0) - stretch.at(0.0, 48.0);
        assert!((found - expected).abs() < 0.02, "{found}");
        assert!(stretch.at(0.0, 48.0).abs() < 0.2);
    }

    #[test]
    fn what_is_as_usual_or_unknown_is_not_stretched() {
        for stretch in [Stretch::default(), learned(48, 300, |shape| shape - 3.0)] {
            for shape in [-1.0, 0.0, 0.7] {
                assert!((stretch.at(shape, 48.0) - shape).abs() < 1e-5);
            }
        }
        let flat = learned(48, 300, |_| 2.0);
        assert!(flat.at(1.0, 48.0) < 0.5);
        assert!(Stretch::default().at(f64::NAN, 48.0).is_nan());
    }
}
