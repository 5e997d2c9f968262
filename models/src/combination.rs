//! How much each expert of a forecast is trusted.

use serde::{Deserialize, Serialize};

use crate::ensemble::{EXPERTS, GROUPS, Says, group};

/// Losses before any was observed, relative to each other: a season must prove
/// itself.
const PRIOR_LOSS: [f64; GROUPS] = [1.0, 1.0, 1.1, 1.1, 1.1, 1.1];
/// What was never heard is believed to lose this share of the mean of those that
/// were: most of them are there to be passed over.
const PRIOR_SHARE: f64 = 0.5;
/// Observed losses that the prior is worth.
const PRIOR_WEIGHT: f64 = 4.0;
/// Weights fall with this power of the loss: experts 10 % apart weigh 1 to 2.6,
/// so near-equals hedge each other and a clear winner leads alone.
const POWER: i32 = 10;

/// Discounted mean absolute errors of the experts at one lead.
///
/// Weights are ∝ loss^−10 (inverse-loss combination, Bates and Granger 1969,
/// sharpened), so a combination is never worse than its worst expert and close
/// to its best. An expert without a forecast is NaN and has no say.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Combination {
    losses: [f32; EXPERTS],
    /// Of the losses; experts of a group speak together or not at all.
    weights: [f32; GROUPS],
}

impl Default for Combination {
    fn default() -> Self {
        Combination {
            losses: [0.0; EXPERTS],
            weights: [0.0; GROUPS],
        }
    }
}

impl Combination {
    /// What each expert's forecast weighs, by its past errors times its
    /// `credibility` now (at least 0); 0 for one without a forecast. The sum is
    /// 1, or 0 if there is none.
    pub(crate) fn weights(&self, says: &Says, credibility: &[f64; EXPERTS]) -> [f64; EXPERTS] {
        let typical = self.typical_loss();
        let mut weights = [0.0; EXPERTS];
        let mut sum = 0.0;
        for (i, says) in says.iter().enumerate() {
            if says.is_finite() {
                let seen = f64::from(self.weights[group(i)]);
                let believed = PRIOR_SHARE * PRIOR_LOSS[group(i)] * typical;
                let prior = PRIOR_WEIGHT * believed;
                let loss = (f64::from(self.losses[i]) * seen + prior) / (seen + PRIOR_WEIGHT);
                weights[i] = credibility[i] * (typical / loss).powi(POWER);
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
    pub(crate) fn settle(&mut self, says: &Says, observed: f64, weight: f64, keep: f64) {
        let keep = 1.0 - (1.0 - keep) * weight;
        let mut spoke = [false; GROUPS];
        for (i, says) in says.iter().enumerate() {
            if says.is_finite() {
                spoke[group(i)] = true;
                let all = f64::from(self.weights[group(i)]) * keep + weight;
                let loss = (says - observed).abs();
                let step = weight / all * (loss - f64::from(self.losses[i]));
                self.losses[i] += step as f32;
            }
        }
        for (weights, _) in self
            .weights
            .iter_mut()
            .zip(spoke)
            .filter(|(_, spoke)| *spoke)
        {
            *weights = (f64::from(*weights) * keep + weight) as f32;
        }
    }

    /// Mean loss of the experts that were seen, to give the prior its unit.
    fn typical_loss(&self) -> f64 {
        let (mut sum, mut weights) = (0.0, 0.0);
        for (i, loss) in self.losses.iter().enumerate() {
            let weight = f64::from(self.weights[group(i)]);
            sum += f64::from(*loss) * weight;
            weights += weight;
        }
        // Keeps ratios finite.
        (sum / (weights + f64::MIN_POSITIVE)).max(1e-30)
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

    /// Keeps about 40 losses.
    const KEEP: f64 = 0.975;
    const ALL: [f64; EXPERTS] = [1.0; EXPERTS];

    /// Two experts of different groups, the others silent.
    fn two(a: f64, b: f64) -> Says {
        let mut says = [f64::NAN; EXPERTS];
        (says[0], says[EXPERTS - 1]) = (a, b);
        says
    }

    fn combined(combination: &Combination, says: &Says, credibility: &[f64; EXPERTS]) -> f64 {
        let weights = combination.weights(says, credibility);
        let used = weights
            .iter()
            .zip(says)
            .filter(|(weight, _)| **weight > 0.0);
        used.map(|(weight, says)| weight * says).sum()
    }

    #[test]
    fn the_better_expert_wins() {
        let mut combination = Combination::default();
        (0..200).for_each(|_| combination.settle(&two(1.0, 0.1), 0.0, 1.0, KEEP));
        let combined = combined(&combination, &two(1.0, 0.1), &ALL);
        assert!((combined - 0.1).abs() < 0.01, "{combined}");
    }

    #[test]
    fn an_expert_without_credibility_has_no_say() {
        let mut credibility = [0.0; EXPERTS];
        credibility[0] = 1.0;
        let combined = combined(&Combination::default(), &two(2.0, 1.0), &credibility);
        assert_eq!(combined, 2.0);
    }

    #[test]
    fn trust_moves_when_the_best_expert_changes() {
        let mut combination = Combination::default();
        let says = two(0.0, 1.0);
        (0..200).for_each(|_| combination.settle(&says, 0.0, 1.0, KEEP));
        (0..100).for_each(|_| combination.settle(&says, 1.0, 1.0, KEEP));
        assert!(combined(&combination, &says, &ALL) > 0.9);
    }

    #[test]
    fn before_any_loss_all_have_a_say_and_nobody_is_no_forecast() {
        let combination = Combination::default();
        let combined = combined(&combination, &two(0.0, 1.0), &ALL);
        assert!(0.2 < combined && combined < 0.8, "{combined}");
        let none = combination.weights(&[f64::NAN; EXPERTS], &ALL);
        assert_eq!(none, [0.0; EXPERTS]);
    }

    #[test]
    fn a_combination_lies_between_its_experts() {
        let mut noise = Noise::new(9);
        let mut combination = Combination::default();
        for _ in 0..500 {
            let says = std::array::from_fn(|_| noise.normal());
            let combined = combined(&combination, &says, &ALL);
            let low = says.iter().copied().fold(f64::INFINITY, f64::min);
            let high = says.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            assert!(low <= combined && combined <= high);
            combination.settle(&says, noise.normal(), noise.uniform(), KEEP);
        }
    }

    #[test]
    fn perfect_experts_stay_finite() {
        let mut combination = Combination::default();
        (0..500).for_each(|_| combination.settle(&[2.0; EXPERTS], 2.0, 1.0, KEEP));
        let combined = combined(&combination, &[2.0; EXPERTS], &ALL);
        assert!((combined - 2.0).abs() < 1e-12);
    }

    #[test]
    fn isotonic_pools_violators() {
        // R: isoreg(c(1, 3, 2, 4))$yf and isoreg(c(4, 3, 2, 1))$yf
        assert_eq!(isotonic([1.0, 3.0, 2.0, 4.0]), [1.0, 2.5, 2.5, 4.0]);
        assert_eq!(isotonic([4.0, 3.0, 2.0, 1.0]), [2.5; 4]);
        assert_eq!(isotonic([1.0, 2.0, 3.0, 4.0]), [1.0, 2.0, 3.0, 4.0]);
    }
}
