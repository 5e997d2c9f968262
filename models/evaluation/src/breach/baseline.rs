//! Scores of a breach within the next steps that need no model.

use crate::bootstrap::SplitMix64;

/// A score, 0..=1 where it is a probability: of the values so far, the
/// threshold and the steps ahead.
pub(super) type Baseline = fn(&[f64], f64, usize) -> f64;

/// By name.
pub(super) const BASELINES: [(&str, Baseline); 4] = [
    ("static threshold at 80 %", static_threshold),
    ("predict_linear over 15 min", predict_linear),
    ("past frequency near this value", naive),
    ("random", random),
];

/// Values that a frequency is read from.
const PAST: usize = 1440;

/// 1 above 80 % of the threshold, below in proportion, but hardly a
/// probability.
fn static_threshold(values: &[f64], threshold: f64, _ahead: usize) -> f64 {
    let value = values.last().copied().unwrap_or(0.0);
    if value > 0.8 * threshold {
        1.0
    } else {
        (value / threshold).clamp(0.0, 0.79)
    }
}

/// 1 where the least-squares line through the last `ahead` values crosses the
/// threshold within `ahead` steps (Prometheus' rule), below in proportion.
fn predict_linear(values: &[f64], threshold: f64, ahead: usize) -> f64 {
    let recent = &values[values.len().saturating_sub(ahead.max(2))..];
    let n = recent.len() as f64;
    let middle = (n - 1.0) / 2.0;
    let mean = recent.iter().sum::<f64>() / n;
    let (mut up, mut across) = (0.0, 0.0);
    for (i, value) in recent.iter().enumerate() {
        up += (i as f64 - middle) * (value - mean);
        across += (i as f64 - middle).powi(2);
    }
    let slope = if across > 0.0 { up / across } else { 0.0 };
    let predicted = mean + slope * (n - 1.0 - middle + ahead as f64);
    if predicted > threshold {
        1.0
    } else {
        (predicted / threshold).clamp(0.0, 0.99)
    }
}

/// How often a value above the threshold followed a value at least as large as
/// this one, of the last day of minutes.
pub(crate) fn naive(values: &[f64], threshold: f64, ahead: usize) -> f64 {
    let (Some(now), past) = (values.last(), &values[values.len().saturating_sub(PAST)..]) else {
        return 0.0;
    };
    let (mut came, mut all) = (0.0, 0.0);
    let mut until = None;
    for (i, value) in past.iter().enumerate().rev() {
        // `until` is the nearest breach after i.
        let within = until.is_some_and(|breach: usize| breach - i <= ahead);
        if i + ahead < past.len() && *value >= *now && *value <= threshold {
            came += f64::from(u8::from(within));
            all += 1.0;
        }
        if *value > threshold {
            until = Some(i);
        }
    }
    // Laplace's rule against certainty from a few.
    (came + 0.05) / (all + 1.0)
}

/// Evenly in 0..1; the same every time.
fn random(values: &[f64], threshold: f64, _ahead: usize) -> f64 {
    let seed = threshold.to_bits() ^ (values.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    SplitMix64(seed).uniform()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_continued() {
        let rising: Vec<f64> = (0..20).map(f64::from).collect();
        assert_eq!(predict_linear(&rising, 30.0, 15), 1.0);
        assert!(predict_linear(&rising, 40.0, 15) < 1.0);
        assert_eq!(predict_linear(&[3.0], 2.0, 15), 1.0);
    }

    #[test]
    fn random_numbers_are_spread_evenly() {
        let values = [1.0; 2000];
        let numbers = (1..=2000).map(|len| random(&values[..len], 7.0, 15));
        let mean = numbers.sum::<f64>() / 2000.0;
        assert!((mean - 0.5).abs() < 0.03, "{mean}");
    }

    #[test]
    fn frequencies_count_what_followed() {
        // 1, 1, …, then 5 above the threshold every tenth step.
        let values: Vec<f64> = (0..200)
            .map(|i| if i % 10 == 9 { 5.0 } else { 1.0 })
            .collect();
        assert!(naive(&values[..199], 2.0, 15) > 0.95);
        assert!(naive(&values[..199], 6.0, 15) < 0.05);
    }
}
