//! Detectors that everything must beat.

use crate::{bootstrap::SplitMix64, nab::Labelled};

/// Scores the points of a series.
pub(super) type Baseline = fn(&Labelled) -> Vec<f64>;

/// All, by name.
pub(super) const ALL: [(&str, Baseline); 3] = [
    ("random", random),
    ("static threshold on z-score", |series| {
        z_score(&series.values)
    }),
    ("windowed Gaussian", |series| {
        windowed_gaussian(&series.values)
    }),
];
/// Values of the windowed Gaussian.
const WINDOW: usize = 500;
/// Lines tried for a baseline.
const LINES: usize = 60;

/// Alerts (1.0) of scores with our rest after each, at the line for which `worth`
/// of them is highest. Lines are ranks among all scores, from one in two to the
/// highest.
pub(super) fn rested(scores: &[Vec<f64>], worth: impl Fn(&[Vec<f64>]) -> f64) -> Vec<Vec<f64>> {
    let mut all: Vec<f64> = scores.iter().flatten().copied().collect();
    all.sort_by(|a, b| b.total_cmp(a));
    let mut best: Option<(f64, Vec<Vec<f64>>)> = None;
    for k in 0..LINES {
        let rank = (all.len() as f64 / 2.0) * 0.85f64.powi(k as i32);
        let Some(line) = all.get(rank as usize) else {
            continue;
        };
        let alerts: Vec<Vec<f64>> = scores.iter().map(|scores| rest(scores, *line)).collect();
        let worth = worth(&alerts);
        if best.as_ref().is_none_or(|best| worth > best.0) {
            best = Some((worth, alerts));
        }
    }
    best.map(|best| best.1).unwrap_or_default()
}

/// Alerts (1.0) of scores at a line, with our rest after each.
pub(super) fn rest(scores: &[f64], line: f64) -> Vec<f64> {
    let mut left = 0;
    let alert = |score: &f64| {
        if left > 0 || score.is_nan() || *score < line {
            left = u32::saturating_sub(left, 1);
            return 0.0;
        }
        left = honeyguide_models::detector::REST;
        1.0
    };
    scores.iter().map(alert).collect()
}

fn random(series: &Labelled) -> Vec<f64> {
    let seed = series.name.bytes().fold(1, |seed: u64, byte| {
        seed.wrapping_mul(31).wrapping_add(u64::from(byte))
    });
    let mut random = SplitMix64(seed);
    series.values.iter().map(|_| random.uniform()).collect()
}

/// Distance from the mean of all before, in their standard deviations.
pub(crate) fn z_score(values: &[f64]) -> Vec<f64> {
    let (mut n, mut mean, mut squares) = (0.0, 0.0, 0.0);
    let score = |value: &f64| {
        if value.is_nan() {
            return 0.0;
        }
        let deviation = value - mean;
        let sd = f64::sqrt(squares / f64::max(n, 1.0));
        n += 1.0;
        mean += deviation / n;
        squares += deviation * (value - mean);
        if sd > 0.0 { deviation.abs() / sd } else { 0.0 }
    };
    values.iter().map(score).collect()
}

/// The same over the last [`WINDOW`] values.
pub(crate) fn windowed_gaussian(values: &[f64]) -> Vec<f64> {
    let score = |i: usize| {
        let window = &values[i.saturating_sub(WINDOW)..i];
        let known = || window.iter().filter(|value| !value.is_nan());
        let n = known().count().max(1) as f64;
        let mean = known().sum::<f64>() / n;
        let variance = known().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        if variance > 0.0 && !values[i].is_nan() {
            (values[i] - mean).abs() / variance.sqrt()
        } else {
            0.0
        }
    };
    (0..values.len()).map(score).collect()
}
