//! Weighted ridge regression of one target at one horizon, on linfa.
//!
//! linfa's least squares knows neither weights nor a penalty, so both are rows
//! of the problem: each row is scaled by the root of its weight, columns are
//! centred and standardised, and √ridge·I is appended (Hoerl and Kennard 1970;
//! the augmented form is in Hastie et al., *Elements of Statistical Learning*,
//! exercise 3.12). linfa's elastic net costs a hundred times as much.

use linfa::Dataset;
use linfa::traits::Fit;
use linfa_linear::LinearRegression;
use ndarray::{Array1, Array2, ShapeBuilder};
use serde::{Deserialize, Serialize};

use crate::features::FEATURES;

/// A column that varies less than this carries no information.
const SD_MIN: f64 = 1e-6;

/// One observation: a row of features, what came of it, and its weight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Example {
    pub(crate) row: [f64; FEATURES],
    pub(crate) change: f64,
    pub(crate) weight: f64,
}

/// A fitted change: `intercept + row · slopes`, shrunk and limited.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Coefficients {
    intercept: f32,
    /// In 1/32767 of the steepest, to which they are exact enough.
    slopes: [i16; FEATURES],
    steepest: f32,
    /// Largest change, either way, that the examples support.
    limit: f32,
}

impl Coefficients {
    /// Predicted change from the origin's fast level.
    #[inline]
    pub(crate) fn predict(&self, row: &[f64; FEATURES]) -> f64 {
        let sum: f64 = self.slopes().zip(row).map(|(slope, x)| slope * x).sum();
        let limit = f64::from(self.limit);
        (f64::from(self.intercept) + sum).clamp(-limit, limit)
    }

    fn slopes(&self) -> impl Iterator<Item = f64> {
        let unit = f64::from(self.steepest) / f64::from(i16::MAX);
        self.slopes
            .iter()
            .map(move |slope| unit * f64::from(*slope))
    }

    /// The same forecast, `by` (0..=1) as bold.
    pub(crate) fn shrunk(mut self, by: f64) -> Self {
        let by = by as f32;
        self.intercept *= by;
        self.limit *= by;
        self.steepest *= by;
        self
    }
}

/// Fits the examples. `None` when linfa finds no finite solution.
///
/// `limit` bounds every prediction. Cost: O(n · FEATURES²).
pub(crate) fn fit(examples: &[Example], ridge: f64, limit: f64) -> Option<Coefficients> {
    let total: f64 = examples.iter().map(|e| e.weight).sum();
    if total.is_nan() || total <= 0.0 {
        return None;
    }
    let mut means = [0.0; FEATURES];
    let mut squares = [0.0; FEATURES];
    let mut change_mean = 0.0;
    for example in examples {
        change_mean += example.weight / total * example.change;
        for j in 0..FEATURES {
            means[j] += example.weight / total * example.row[j];
            squares[j] += example.weight / total * example.row[j] * example.row[j];
        }
    }
    let sds: [f64; FEATURES] =
        std::array::from_fn(|j| (squares[j] - means[j] * means[j]).max(0.0).sqrt());
    let used: Vec<usize> = (0..FEATURES).filter(|j| sds[*j] > SD_MIN).collect();
    let (n, p) = (examples.len(), used.len());
    if p == 0 {
        return None;
    }
    // Column-major: linfa's Householder steps walk columns.
    let mut records = Array2::zeros((n + p, p).f());
    let mut changes = Array1::zeros(n + p);
    for (i, example) in examples.iter().enumerate() {
        let root = example.weight.sqrt();
        for (column, j) in used.iter().enumerate() {
            records[[i, column]] = root * (example.row[*j] - means[*j]) / sds[*j];
        }
        changes[i] = root * (example.change - change_mean);
    }
    for column in 0..p {
        records[[n + column, column]] = ridge.sqrt();
    }
    let model = LinearRegression::new()
        .with_intercept(false)
        .fit(&Dataset::new(records, changes))
        .ok()?;
    let mut slopes = [0.0; FEATURES];
    let mut intercept = change_mean;
    for (standardised, j) in model.params().iter().zip(&used) {
        let slope = standardised / sds[*j];
        intercept -= slope * means[*j];
        slopes[*j] = slope;
    }
    let steepest = slopes
        .iter()
        .fold(0.0, |most: f64, slope| most.max(slope.abs()));
    let finite = intercept.is_finite() && slopes.iter().all(|slope| slope.is_finite());
    let share = |slope: f64| slope / steepest.max(f64::MIN_POSITIVE) * f64::from(i16::MAX);
    finite.then_some(Coefficients {
        intercept: intercept as f32,
        slopes: slopes.map(|slope| share(slope).round() as i16),
        steepest: steepest as f32,
        limit: limit as f32,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Noise;

    fn examples(n: usize, noise_sd: f64) -> Vec<Example> {
        let mut noise = Noise::new(2);
        (0..n)
            .map(|_| {
                let mut row = [0.0; FEATURES];
                row[..4].fill_with(|| noise.normal());
                let change = 0.5 + 2.0 * row[0] - row[2] + noise_sd * noise.normal();
                Example {
                    row,
                    change,
                    weight: 1.0,
                }
            })
            .collect()
    }

    #[test]
    fn a_linear_law_is_recovered() {
        let fitted = fit(&examples(200, 0.0), 1e-6, 100.0).unwrap();
        let expected = [2.0, 0.0, -1.0, 0.0];
        for (slope, expected) in fitted.slopes().zip(expected) {
            assert!((slope - expected).abs() < 1e-4, "{slope} {expected}");
        }
        assert!((fitted.intercept - 0.5).abs() < 1e-5);
        assert!(fitted.slopes().skip(4).all(|slope| slope == 0.0));
    }

    /// One standardised feature has the closed form β = Sxy/(Sxx + ridge).
    #[test]
    fn the_penalty_is_that_of_ridge_regression() {
        let mut noise = Noise::new(4);
        let examples: Vec<Example> = (0..50)
            .map(|_| {
                let mut row = [0.0; FEATURES];
                row[0] = noise.normal();
                Example {
                    row,
                    change: row[0] + noise.normal(),
                    weight: 1.0,
                }
            })
            .collect();
        let n = examples.len() as f64;
        let mean_x = examples.iter().map(|e| e.row[0]).sum::<f64>() / n;
        let mean_y = examples.iter().map(|e| e.change).sum::<f64>() / n;
        let sxx: f64 = examples.iter().map(|e| (e.row[0] - mean_x).powi(2)).sum();
        let sxy: f64 = examples
            .iter()
            .map(|e| (e.row[0] - mean_x) * (e.change - mean_y))
            .sum();
        let ridge = 25.0;
        let expected = sxy / (sxx + ridge * sxx / n);
        let fitted = fit(&examples, ridge, 10.0).unwrap();
        let slope = fitted.slopes().next().unwrap();
        assert!((slope - expected).abs() < 1e-6);
    }

    #[test]
    fn a_row_of_no_weight_counts_for_nothing() {
        let clean = fit(&examples(100, 0.1), 1.0, 9.0).unwrap();
        let mut dirty = examples(100, 0.1);
        dirty.push(Example {
            row: [50.0; FEATURES],
            change: -99.0,
            weight: 0.0,
        });
        let dirty = fit(&dirty, 1.0, 9.0).unwrap();
        for (clean, dirty) in clean.slopes().zip(dirty.slopes()) {
            assert!((clean - dirty).abs() < 1e-5);
        }
    }

    #[test]
    fn predictions_stay_within_the_limit_and_shrink() {
        let fitted = fit(&examples(100, 0.1), 1.0, 3.0).unwrap();
        let far = [1e9; FEATURES];
        assert_eq!(fitted.predict(&far).abs(), 3.0);
        assert_eq!(fitted.shrunk(0.5).predict(&far).abs(), 1.5);
        assert_eq!(fitted.shrunk(0.0).predict(&far), 0.0);
    }

    #[test]
    fn nothing_to_learn_from_gives_no_fit() {
        assert!(fit(&[], 1.0, 1.0).is_none());
        let constant = Example {
            row: [1.0; FEATURES],
            change: 2.0,
            weight: 1.0,
        };
        assert!(fit(&[constant; 20], 1.0, 1.0).is_none());
        let broken = Example {
            row: [f64::NAN; FEATURES],
            change: f64::NAN,
            weight: 1.0,
        };
        assert!(fit(&[broken; 20], 1.0, 1.0).is_none());
    }
}
