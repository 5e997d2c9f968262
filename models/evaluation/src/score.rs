//! Scores of path forecasts, aggregated as GIFT-Eval does.

use honeyguide_models::evaluation::mase;

use crate::baseline::{LEVELS, Quantiles};

/// Sums over windows from which the scores of a configuration follow.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Score {
    windows: f64,
    steps: f64,
    mase: f64,
    smape: f64,
    /// By level: twice the pinball loss.
    pinball: [f64; LEVELS.len()],
    magnitude: f64,
    within_80: f64,
    within_95: f64,
    winkler_95: f64,
}

impl Score {
    /// The score of one window: what was forecast, and what came.
    ///
    /// `history` is what the forecast knew; MASE is scaled by its mean absolute
    /// seasonal difference. Steps that were not observed are left out.
    pub fn of(history: &[f64], season: usize, forecast: &[Quantiles], actual: &[f64]) -> Self {
        let mut score = Score::default();
        let mut pairs = Vec::with_capacity(actual.len());
        for (quantiles, y) in forecast.iter().zip(actual) {
            if !y.is_nan() {
                pairs.push((*y, quantiles.median()));
                score.step(quantiles, *y);
            }
        }
        if !pairs.is_empty() {
            score.windows = 1.0;
            score.mase = mase(&pairs, history, season);
        }
        score
    }

    /// Adds one step that was observed: all but MASE, which is of windows.
    pub(crate) fn step(&mut self, quantiles: &Quantiles, y: f64) {
        let median = quantiles.median();
        self.steps += 1.0;
        let size = y.abs() + median.abs();
        if size > 0.0 {
            self.smape += 2.0 * (y - median).abs() / size;
        }
        for ((sum, level), at) in self.pinball.iter_mut().zip(LEVELS).zip(quantiles.at) {
            *sum += 2.0 * (y - at) * (level - f64::from(u8::from(y < at)));
        }
        self.magnitude += y.abs();
        let [low, high] = quantiles.ends_95;
        let within = |low: f64, high: f64| f64::from(u8::from(low <= y && y <= high));
        self.within_80 += within(quantiles.at[0], quantiles.at[LEVELS.len() - 1]);
        self.within_95 += within(low, high);
        let missed = (low - y).max(0.0) + (y - high).max(0.0);
        self.winkler_95 += high - low + 2.0 / 0.05 * missed;
    }

    /// Adds another window's, or another series', sums.
    pub fn add(&mut self, other: &Score) {
        self.windows += other.windows;
        self.steps += other.steps;
        self.mase += other.mase;
        self.smape += other.smape;
        for (sum, part) in self.pinball.iter_mut().zip(other.pinball) {
            *sum += part;
        }
        self.magnitude += other.magnitude;
        self.within_80 += other.within_80;
        self.within_95 += other.within_95;
        self.winkler_95 += other.winkler_95;
    }

    /// All sums of `scores`.
    pub fn total<'a>(scores: impl IntoIterator<Item = &'a Score>) -> Score {
        let mut total = Score::default();
        scores.into_iter().for_each(|score| total.add(score));
        total
    }

    /// Mean absolute scaled error of the median: the mean over windows.
    pub fn mase(&self) -> f64 {
        self.mase / self.windows
    }

    /// Symmetric mean absolute percentage error of the median, 0..=2.
    pub fn smape(&self) -> f64 {
        self.smape / self.steps
    }

    /// Mean weighted quantile loss: twice the pinball loss over the sum of
    /// |y|, averaged over [`LEVELS`]. Approximates CRPS over mean |y|.
    pub fn crps(&self) -> f64 {
        self.pinball.iter().sum::<f64>() / LEVELS.len() as f64 / self.magnitude
    }

    /// The same in the unit of the series: twice the mean pinball loss.
    pub(crate) fn crps_in_units(&self) -> f64 {
        self.pinball.iter().sum::<f64>() / LEVELS.len() as f64 / self.steps
    }

    /// Mean |y|.
    pub(crate) fn mean_magnitude(&self) -> f64 {
        self.magnitude / self.steps
    }

    /// Mean pinball loss at [`LEVELS`], in the unit of the series.
    pub fn pinball(&self) -> [f64; LEVELS.len()] {
        self.pinball.map(|sum| 0.5 * sum / self.steps)
    }

    /// Share of steps within the 80 % interval.
    pub fn coverage_80(&self) -> f64 {
        self.within_80 / self.steps
    }

    /// Share of steps within the 95 % interval.
    pub fn coverage_95(&self) -> f64 {
        self.within_95 / self.steps
    }

    /// Mean Winkler score of the 95 % interval over mean |y|.
    pub fn winkler_95(&self) -> f64 {
        self.winkler_95 / self.magnitude
    }

    /// Windows counted.
    pub fn windows(&self) -> usize {
        self.windows as usize
    }
}

/// Geometric mean.
pub fn geometric_mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    for value in values {
        sum += value.ln();
        count += 1.0;
    }
    (sum / count).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_perfect_forecast_scores_nothing() {
        let history = [1.0, 3.0, 2.0, 4.0];
        let score = Score::of(&history, 2, &[Quantiles::point(5.0)], &[5.0]);
        assert_eq!((score.mase(), score.crps(), score.smape()), (0.0, 0.0, 0.0));
        assert_eq!((score.coverage_80(), score.winkler_95()), (1.0, 0.0));
    }

    /// By hand: error 2, scale 1; loss 2·2·(1 − q) for y below the forecast,
    /// averaged over the levels 2, over |y| = 4.
    #[test]
    fn scores_are_those_of_gluonts() {
        let history = [1.0, 3.0, 2.0, 4.0];
        let score = Score::of(
            &history,
            2,
            &[Quantiles::point(6.0), Quantiles::point(9.0)],
            &[4.0, f64::NAN],
        );
        assert!((score.mase() - 2.0).abs() < 1e-12);
        assert!((score.crps() - 0.5).abs() < 1e-12);
        assert!((score.smape() - 0.4).abs() < 1e-12);
        assert!((score.winkler_95() - 80.0 / 4.0).abs() < 1e-12);
        assert!((score.pinball()[0] - 1.8).abs() < 1e-12);
    }

    #[test]
    fn geometric_means() {
        assert!((geometric_mean([1.0, 4.0]) - 2.0).abs() < 1e-12);
    }
}
