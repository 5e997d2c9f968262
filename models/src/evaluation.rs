//! Scores of forecasts and probabilities. All are means over the pairs given,
//! NaN when there are none, and smaller is better except [`coverage`].

/// Pinball (quantile) loss at level `q` in 0..=1 (Koenker and Bassett 1978):
/// q·(y − ŷ) where the observation lies above, (1 − q)·(ŷ − y) below.
///
/// ```
/// use honeyguide_models::evaluation::pinball;
/// assert_eq!(pinball(0.9, &[(3.0, 1.0)]), 1.8); // pairs are (y, yhat)
/// ```
pub fn pinball(q: f64, pairs: &[(f64, f64)]) -> f64 {
    mean(pairs.iter().map(|(y, yhat)| {
        let above = y - yhat;
        if above >= 0.0 {
            q * above
        } else {
            (q - 1.0) * above
        }
    }))
}

/// Continuous ranked probability score from quantile forecasts: twice the
/// pinball loss averaged over the levels (Gneiting and Ranjan 2011; the levels
/// should be evenly spaced). `quantiles` are (level, forecast).
pub fn crps(quantiles: &[(f64, f64)], y: f64) -> f64 {
    2.0 * mean(quantiles.iter().map(|(q, yhat)| pinball(*q, &[(y, *yhat)])))
}

/// Share of observations within their interval; items are (y, lower, upper).
pub fn coverage(items: &[(f64, f64, f64)]) -> f64 {
    mean(
        items
            .iter()
            .map(|(y, lower, upper)| f64::from(u8::from(lower <= y && y <= upper))),
    )
}

/// Mean interval (Winkler) score at miscoverage `alpha` (Gneiting and Raftery
/// 2007, equation 43): width plus 2/α times the distance by which it is missed.
pub fn winkler(alpha: f64, items: &[(f64, f64, f64)]) -> f64 {
    mean(items.iter().map(|(y, lower, upper)| {
        (upper - lower) + 2.0 / alpha * ((lower - y).max(0.0) + (y - upper).max(0.0))
    }))
}

/// Mean absolute scaled error (Hyndman and Koehler 2006): mean |y − ŷ| over the
/// mean |seasonal difference| of the training part. NaN if that is 0 or
/// `training` is no longer than `season`.
pub fn mase(pairs: &[(f64, f64)], training: &[f64], season: usize) -> f64 {
    let differences = training.iter().zip(training.get(season..).unwrap_or(&[]));
    let scale = mean(differences.map(|(before, after)| (after - before).abs()));
    let error = mean(pairs.iter().map(|(y, yhat)| (y - yhat).abs()));
    if scale > 0.0 { error / scale } else { f64::NAN }
}

/// Brier score (1950): mean squared distance of probabilities from what
/// happened; pairs are (probability, happened).
pub fn brier(pairs: &[(f64, bool)]) -> f64 {
    mean(
        pairs
            .iter()
            .map(|(p, happened)| (p - f64::from(u8::from(*happened))).powi(2)),
    )
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut count) = (0.0, 0u32);
    for value in values {
        sum += value;
        count += 1;
    }
    sum / f64::from(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pinball_weighs_the_two_sides() {
        assert_eq!(pinball(0.9, &[(1.0, 3.0)]), 2.0 * (1.0 - 0.9));
        assert_eq!(pinball(0.5, &[(1.0, 3.0), (3.0, 1.0)]), 1.0);
    }

    /// The CRPS of N(0, 1) at 0 is (√2 − 1)/√π = 0.2337 (Gneiting et al. 2005).
    #[test]
    fn crps_of_the_normal_matches_its_closed_form() {
        // R: qnorm(seq(0.05, 0.95, 0.1))
        let z = [1.644_854, 1.036_433, 0.674_490, 0.385_320, 0.125_661];
        let levels = (0..10).map(|i| 0.05 + 0.1 * f64::from(i));
        let quantiles: Vec<f64> = z
            .iter()
            .map(|z| -z)
            .chain(z.iter().rev().copied())
            .collect();
        let pairs: Vec<(f64, f64)> = levels.zip(quantiles).collect();
        assert!((crps(&pairs, 0.0) - 0.2337).abs() < 0.01);
    }

    #[test]
    fn coverage_counts_the_ends_as_inside() {
        let items = [
            (1.0, 1.0, 2.0),
            (2.0, 1.0, 2.0),
            (2.1, 1.0, 2.0),
            (f64::NAN, 1.0, 2.0),
        ];
        assert_eq!(coverage(&items), 0.5);
    }

    #[test]
    fn winkler_adds_the_miss() {
        assert_eq!(winkler(0.05, &[(1.5, 1.0, 2.0)]), 1.0);
        assert!((winkler(0.05, &[(3.0, 1.0, 2.0)]) - 41.0).abs() < 1e-9);
    }

    #[test]
    fn mase_of_the_seasonal_naive_forecast_is_one() {
        let series = [1.0, 5.0, 2.0, 7.0, 3.0, 6.0];
        let pairs: Vec<(f64, f64)> = (2..6).map(|i| (series[i], series[i - 2])).collect();
        assert!((mase(&pairs, &series, 2) - 1.0).abs() < 1e-12);
        assert!(mase(&pairs, &[1.0; 9], 1).is_nan());
        assert!(mase(&pairs, &series, 6).is_nan());
    }

    #[test]
    fn brier_is_the_squared_distance() {
        assert_eq!(brier(&[(1.0, true), (0.5, false)]), 0.125);
        assert!(brier(&[]).is_nan());
    }
}
