//! How uncertain a quantile is because few events were seen.

use crate::series::{Target, Window};

/// Standard deviations above this say no more than "unknown".
const SD_MAX: f64 = 1.5;

/// Variance, in model space, of a target read off `samples` events.
///
/// The delta method for an order statistic, q(1 − q)/(n·f²), with f the density
/// of ln X at the quantile of an exponential X: f = −(1 − q)·ln(1 − q), which
/// gives an sd of 1.44/√n at p50 and 2.16/√n at p99. For the rate it is the
/// Poisson variance of ln(1 + count), 1/(n + 1). At most `SD_MAX`².
///
/// `samples` may be anything; what is not positive counts as 0.
pub(crate) fn variance(target: Target, samples: f64) -> f64 {
    let samples = if samples > 0.0 { samples } else { 0.0 };
    let variance = match target.quantile() {
        None => 1.0 / (samples + 1.0),
        Some(q) => {
            let log_tail = -(1.0 - q).ln();
            q / ((1.0 - q) * log_tail * log_tail * samples.max(f64::MIN_POSITIVE))
        }
    };
    variance.min(SD_MAX * SD_MAX)
}

/// [`variance`] of a window; what was lost of it counts like events not seen.
pub(crate) fn window_variance(target: Target, window: &Window) -> f64 {
    let completeness = f64::from(window.completeness).clamp(0.0, 1.0);
    variance(target, f64::from(window.samples) * completeness)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Noise;

    /// Simulated quantiles of exponential samples have the stated variance.
    #[test]
    fn the_variance_is_that_of_an_exponential_quantile() {
        let (n, runs) = (2000, 600);
        let mut noise = Noise::new(3);
        for target in [Target::P50, Target::P90, Target::P99] {
            let rank = (target.quantile().unwrap() * n as f64) as usize;
            let logs: Vec<f64> = (0..runs)
                .map(|_| {
                    let mut xs: Vec<f64> = (0..n).map(|_| -noise.uniform().ln()).collect();
                    xs.sort_by(f64::total_cmp);
                    xs[rank].ln()
                })
                .collect();
            let mean = logs.iter().sum::<f64>() / runs as f64;
            let var = logs.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / runs as f64;
            let ratio = var / variance(target, n as f64);
            assert!((0.8..1.25).contains(&ratio), "{target:?}: {ratio}");
        }
    }

    #[test]
    fn nothing_seen_is_unknown() {
        for target in Target::ALL {
            for samples in [0.0, -1.0, f64::NAN] {
                let variance = variance(target, samples);
                assert!(
                    (1.0..=SD_MAX * SD_MAX).contains(&variance),
                    "{target:?} {samples}"
                );
            }
        }
        assert!(window_variance(Target::P99, &Window::MISSING) > 1.0);
    }
}
