//! Forecasts that every table shows beside a model's.

/// Quantile levels that forecasts are scored at.
pub const LEVELS: [f64; 9] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];
/// Quantiles of the standard normal at [`LEVELS`].
const NORMAL: [f64; 9] = [
    -1.281_551_565_5,
    -0.841_621_233_6,
    -0.524_400_512_7,
    -0.253_347_103_1,
    0.0,
    0.253_347_103_1,
    0.524_400_512_7,
    0.841_621_233_6,
    1.281_551_565_5,
];
/// 97.5 % quantile of the standard normal.
const NORMAL_975: f64 = 1.959_963_984_5;

/// What is expected of one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantiles {
    /// At [`LEVELS`].
    pub at: [f64; LEVELS.len()],
    /// Ends of the 95 % interval.
    pub ends_95: [f64; 2],
}

impl Quantiles {
    /// The same value at every level.
    pub fn point(value: f64) -> Self {
        Self::normal(value, 0.0)
    }

    /// Of a normal law.
    pub fn normal(mean: f64, sd: f64) -> Self {
        Quantiles {
            at: NORMAL.map(|z| mean + sd * z),
            ends_95: [mean - NORMAL_975 * sd, mean + NORMAL_975 * sd],
        }
    }

    /// The median.
    pub fn median(&self) -> f64 {
        self.at[LEVELS.len() / 2]
    }
}

/// The value one season ago: `season` 1 is the last value. Its intervals are
/// those of statsforecast's `SeasonalNaive` and `Naive`: normal, with the root
/// mean square of seasonal differences times √(seasons ahead).
///
/// `history` oldest first; NaN where `history` is shorter than a season.
pub fn seasonal_naive(history: &[f64], season: usize, horizon: usize) -> Vec<Quantiles> {
    let differences = history
        .iter()
        .zip(history.get(season..).unwrap_or(&[]))
        .map(|(before, after)| after - before)
        .filter(|difference| difference.is_finite());
    let (mut squares, mut count) = (0.0, 0.0);
    for difference in differences {
        squares += difference * difference;
        count += 1.0;
    }
    let sd = (squares / count).sqrt();
    (0..horizon)
        .map(|step| {
            let value = (history.len() + step % season).checked_sub(season);
            let value = value.map_or(f64::NAN, |at| history[at]);
            Quantiles::normal(value, sd * ((step / season + 1) as f64).sqrt())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_season_repeats_and_widens() {
        let history = [1.0, 5.0, 2.0, 7.0];
        let forecast = seasonal_naive(&history, 2, 3);
        let medians: Vec<f64> = forecast.iter().map(Quantiles::median).collect();
        assert_eq!(medians, [2.0, 7.0, 2.0]);
        // Differences 1 and 2: root mean square √2.5.
        let width = |i: usize| forecast[i].at[8] - forecast[i].at[4];
        assert!((width(0) - 2.5f64.sqrt() * NORMAL[8]).abs() < 1e-12);
        assert!((width(2) / width(0) - 2f64.sqrt()).abs() < 1e-12);
        assert!(seasonal_naive(&history, 5, 1)[0].median().is_nan());
    }
}
