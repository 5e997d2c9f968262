//! The experts of a forecast, and how much each is trusted.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::level::{FAST, MEDIUM, SLOW};

/// Number of experts of a [`crate::SeriesModel`].
pub(crate) const EXPERTS: usize = 7;

/// The last observed value.
pub(crate) const PERSISTENCE: usize = 0;
/// The level over 30 s, 3 min, 15 min.
pub(crate) const LEVELS: [(usize, usize); 3] = [(1, FAST), (2, MEDIUM), (3, SLOW)];
/// The value at the same phase in past seasons.
pub(crate) const SEASONAL: usize = 4;
/// The fast level plus the change from now that past seasons saw: the season
/// put on a new level.
pub(crate) const SEASONAL_SHIFTED: usize = 6;
/// The fast level plus the change that the regression expects.
pub(crate) const REGRESSION: usize = 5;

/// Losses before any was observed, relative to each other: one window is
/// noisier than a level, a season must prove itself.
pub(crate) const PRIOR_LOSS: [f64; EXPERTS] = [1.15, 1.0, 1.0, 1.1, 1.15, 1.1, 1.15];
/// Observed losses that the prior is worth.
const PRIOR_WEIGHT: f64 = 4.0;
/// What a loss weighs after the next one: about 40 count.
pub(crate) const KEEP: f64 = 0.975;
/// Weights fall with this power of the loss: experts 10 % apart weigh 1 to 2.6,
/// so near-equals hedge each other and a clear winner leads alone.
pub(crate) const POWER: i32 = 10;

/// Discounted mean absolute errors of `N` experts at one horizon and target.
///
/// Weights are ∝ loss^−`power` (inverse-loss combination, Bates and Granger
/// 1969, sharpened), so a combination is never worse than its worst expert and
/// close to its best. An expert without a forecast is NaN and has no say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Combination<const N: usize = EXPERTS> {
    losses: [f32; N],
    weights: [f32; N],
}

impl<const N: usize> Default for Combination<N> {
    fn default() -> Self {
        Combination {
            losses: [0.0; N],
            weights: [0.0; N],
        }
    }
}

impl<const N: usize> Combination<N> {
    /// What each expert's forecast weighs, by its past errors times its
    /// `credibility` now (at least 0); 0 for one without a forecast. The sum is
    /// 1, or 0 if there is none.
    ///
    /// `prior` are the losses believed before any was observed, relative to
    /// each other.
    pub(crate) fn weights(
        &self,
        forecasts: &[f64; N],
        credibility: &[f64; N],
        prior: &[f64; N],
        power: i32,
    ) -> [f64; N] {
        let typical = self.typical_loss();
        let mut weights = [0.0; N];
        let mut sum = 0.0;
        for (i, forecast) in forecasts.iter().enumerate() {
            if forecast.is_finite() {
                let seen = f64::from(self.weights[i]);
                let prior = PRIOR_WEIGHT * prior[i] * typical;
                let loss = (f64::from(self.losses[i]) * seen + prior) / (seen + PRIOR_WEIGHT);
                weights[i] = credibility[i] * (typical / loss).powi(power);
                sum += weights[i];
            }
        }
        if sum > 0.0 {
            weights.iter_mut().for_each(|weight| *weight /= sum);
        }
        weights
    }

    /// Learns from what was observed; `weight` (0..=1] says how well, `keep`
    /// what a loss weighs after the next one.
    pub(crate) fn settle(&mut self, forecasts: &[f64; N], observed: f64, weight: f64, keep: f64) {
        for (i, forecast) in forecasts.iter().enumerate() {
            if forecast.is_finite() {
                let loss = (forecast - observed).abs();
                let aged = f64::from(self.weights[i]) * (1.0 - (1.0 - keep) * weight);
                self.weights[i] = (aged + weight) as f32;
                let step = weight / (aged + weight) * (loss - f64::from(self.losses[i]));
                self.losses[i] += step as f32;
            }
        }
    }

    /// Mean loss of the experts that were seen, to give the prior its unit.
    fn typical_loss(&self) -> f64 {
        let (mut sum, mut weights) = (0.0, 0.0);
        for (loss, weight) in self.losses.iter().zip(&self.weights) {
            sum += f64::from(*loss) * f64::from(*weight);
            weights += f64::from(*weight);
        }
        // Keeps ratios finite.
        (sum / (weights + f64::MIN_POSITIVE)).max(1e-30)
    }
}

/// serde knows arrays of given lengths only.
impl Serialize for Combination<EXPERTS> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.losses, self.weights).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Combination<EXPERTS> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (losses, weights) = Deserialize::deserialize(deserializer)?;
        Ok(Combination { losses, weights })
    }
}

impl Combination<EXPERTS> {
    /// The experts' forecasts combined; `None` if there is none.
    pub(crate) fn combine(
        &self,
        forecasts: &[f64; EXPERTS],
        credibility: &[f64; EXPERTS],
    ) -> Option<f64> {
        let weights = self.weights(forecasts, credibility, &PRIOR_LOSS, POWER);
        let used = |(weight, _): &(&f64, &f64)| **weight > 0.0;
        let parts = weights.iter().zip(forecasts).filter(used);
        parts
            .map(|(weight, forecast)| weight * forecast)
            .reduce(|a, b| a + b)
    }
}

/// The nearest non-decreasing sequence in least squares (pool adjacent
/// violators; Barlow et al. 1972).
pub(crate) fn isotonic<const N: usize>(values: [f64; N]) -> [f64; N] {
    let mut pools = [(0.0, 0usize); N];
    let mut count = 0;
    for value in values {
        pools[count] = (value, 1);
        count += 1;
        while count > 1 && pools[count - 2].0 > pools[count - 1].0 {
            let ((a, m), (b, n)) = (pools[count - 2], pools[count - 1]);
            pools[count - 2] = ((a * m as f64 + b * n as f64) / (m + n) as f64, m + n);
            count -= 1;
        }
    }
    let mut result = [0.0; N];
    let mut at = 0;
    for (value, n) in &pools[..count] {
        result[at..at + n].fill(*value);
        at += n;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Noise;

    const NONE: f64 = f64::NAN;

    #[test]
    fn the_better_expert_wins() {
        let mut combination = Combination::default();
        for _ in 0..60 {
            combination.settle(&[1.0, NONE, NONE, NONE, 0.1, NONE, NONE], 0.0, 1.0, KEEP);
        }
        let combined = combination
            .combine(&[1.0, NONE, NONE, NONE, 0.1, NONE, NONE], &[1.0; EXPERTS])
            .unwrap();
        assert!((combined - 0.1).abs() < 0.01, "{combined}");
    }

    #[test]
    fn an_expert_without_credibility_has_no_say() {
        let credibility = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        let combined =
            Combination::default().combine(&[2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], &credibility);
        assert_eq!(combined, Some(2.0));
    }

    #[test]
    fn trust_moves_when_the_best_expert_changes() {
        let mut combination = Combination::default();
        let forecasts = [0.0, NONE, NONE, NONE, 1.0, NONE, NONE];
        (0..200).for_each(|_| combination.settle(&forecasts, 0.0, 1.0, KEEP));
        (0..100).for_each(|_| combination.settle(&forecasts, 1.0, 1.0, KEEP));
        assert!(combination.combine(&forecasts, &[1.0; EXPERTS]).unwrap() > 0.9);
    }

    #[test]
    fn before_any_loss_all_have_a_say_and_nobody_is_no_forecast() {
        let combination = Combination::default();
        let combined = combination
            .combine(&[0.0, 1.0, 1.0, NONE, NONE, NONE, NONE], &[1.0; EXPERTS])
            .unwrap();
        assert!(0.6 < combined && combined < 0.95, "{combined}");
        assert_eq!(combination.combine(&[NONE; EXPERTS], &[1.0; EXPERTS]), None);
    }

    #[test]
    fn a_combination_lies_between_its_experts() {
        let mut noise = Noise::new(9);
        let mut combination = Combination::default();
        for _ in 0..500 {
            let forecasts = std::array::from_fn(|_| noise.normal());
            let combined = combination.combine(&forecasts, &[1.0; EXPERTS]).unwrap();
            let low = forecasts.iter().copied().fold(f64::INFINITY, f64::min);
            let high = forecasts.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            assert!(low <= combined && combined <= high);
            combination.settle(&forecasts, noise.normal(), noise.uniform(), KEEP);
        }
    }

    #[test]
    fn perfect_experts_stay_finite() {
        let mut combination = Combination::default();
        (0..500).for_each(|_| combination.settle(&[2.0; EXPERTS], 2.0, 1.0, KEEP));
        assert!(
            (combination
                .combine(&[2.0; EXPERTS], &[1.0; EXPERTS])
                .unwrap()
                - 2.0)
                .abs()
                < 1e-12
        );
    }

    #[test]
    fn isotonic_pools_violators() {
        // R: isoreg(c(1, 3, 2, 4))$yf and isoreg(c(4, 3, 2, 1))$yf
        assert_eq!(isotonic([1.0, 3.0, 2.0, 4.0]), [1.0, 2.5, 2.5, 4.0]);
        assert_eq!(isotonic([4.0, 3.0, 2.0, 1.0]), [2.5; 4]);
        assert_eq!(isotonic([1.0, 2.0, 3.0, 4.0]), [1.0, 2.0, 3.0, 4.0]);
    }
}
