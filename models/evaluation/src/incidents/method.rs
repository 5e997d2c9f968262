//! Who says how likely a breach is: the analyzer, and what needs no model.

use super::{HORIZON, Replayed, Seen};
use crate::{bootstrap::SplitMix64, breach::past_frequency};

/// Whose scores are compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// The analyzer's probability.
    Honeyguide,
    /// The same as if windows were of the default length.
    HoneyguideAtDefault,
    /// The 99th percentile, the mean of so many windows, as a share of the objective.
    Static(usize),
    /// Prometheus' `predict_linear` over so many windows, as a share of the objective.
    Linear(usize),
    /// How often a breach followed a value at least as large.
    PastFrequency,
    /// Numbers at random.
    Random,
}

impl Method {
    /// The analyzer first; of baselines with a length, several.
    pub const ALL: [Method; 11] = [
        Method::Honeyguide,
        Method::HoneyguideAtDefault,
        Method::Static(1),
        Method::Static(5),
        Method::Static(15),
        Method::Linear(30),
        Method::Linear(60),
        Method::Linear(90),
        Method::Linear(120),
        Method::PastFrequency,
        Method::Random,
    ];

    /// For tables.
    pub fn name(self) -> String {
        match self {
            Method::Honeyguide => "honeyguide".to_owned(),
            Method::HoneyguideAtDefault => "honeyguide, as if at 10 s".to_owned(),
            Method::Static(1) => "static threshold".to_owned(),
            Method::Static(windows) => format!("static threshold, mean of {windows}"),
            Method::Linear(windows) => format!("predict_linear over {windows}"),
            Method::PastFrequency => "past frequency".to_owned(),
            Method::Random => "random".to_owned(),
        }
    }

    /// What it says at each window of a service, given what was seen until then;
    /// NaN where it says nothing.
    pub fn say(self, run: &Replayed, service: usize) -> Vec<f64> {
        let seen = &run.services[service];
        let objective = run.truth.services[service].objective_secs;
        let values = held(seen);
        let from_values = |at: usize| {
            let past = &values[..=at];
            match self {
                Method::Honeyguide => seen[at].risk.unwrap_or(f64::NAN),
                Method::HoneyguideAtDefault => seen[at].risk_at_default.unwrap_or(f64::NAN),
                Method::Static(windows) => mean(last(past, windows)) / objective,
                Method::Linear(windows) => linear(last(past, windows)) / objective,
                Method::PastFrequency => past_frequency(past, objective, HORIZON),
                Method::Random => random(run.truth.seed, service, at),
            }
        };
        let said = |at: usize| match seen[at].judged {
            true => from_values(at),
            false => f64::NAN,
        };
        (0..seen.len()).map(said).collect()
    }
}

/// Values in seconds; the last one known where a window has none.
fn held(seen: &[Seen]) -> Vec<f64> {
    let mut last = 0.0;
    seen.iter()
        .map(|seen| {
            last = seen.p99_secs.unwrap_or(last);
            last
        })
        .collect()
}

fn last(values: &[f64], count: usize) -> &[f64] {
    &values[values.len().saturating_sub(count)..]
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The least-squares line through values, continued for [`HORIZON`] windows.
fn linear(values: &[f64]) -> f64 {
    let middle = (values.len() as f64 - 1.0) / 2.0;
    let mean = mean(values);
    let (mut up, mut across) = (0.0, 0.0);
    for (i, value) in values.iter().enumerate() {
        up += (i as f64 - middle) * (value - mean);
        across += (i as f64 - middle).powi(2);
    }
    let slope = if across > 0.0 { up / across } else { 0.0 };
    mean + slope * (middle + HORIZON as f64)
}

/// Evenly in 0..1, the same every time.
fn random(seed: u64, service: usize, at: usize) -> f64 {
    let mixed = [service as u64, at as u64]
        .iter()
        .fold(seed, |mixed, part| {
            mixed.wrapping_mul(1_000_003).wrapping_add(*part)
        });
    SplitMix64(mixed).uniform()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_continued_to_the_horizon() {
        let rising: Vec<f64> = (0..60).map(f64::from).collect();
        assert!((linear(&rising) - (59.0 + HORIZON as f64)).abs() < 1e-9);
        assert_eq!(linear(&[3.0]), 3.0);
        assert!((linear(&[2.0, 2.0, 2.0]) - 2.0).abs() < 1e-12);
    }

    #[test]
    fn random_numbers_are_spread_evenly() {
        let numbers: Vec<f64> = (0..10_000).map(|at| random(1, 2, at)).collect();
        assert!((mean(&numbers) - 0.5).abs() < 0.02);
        assert!(numbers.iter().all(|number| (0.0..1.0).contains(number)));
    }
}
