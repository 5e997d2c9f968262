//! Intervals from past forecast residuals, one calibration per horizon and target.
//!
//! A residual is divided by the scale its forecast announced, and counted in a
//! forgetting histogram of 32 bins, even in asinh(2r). Interval ends are
//! quantiles of that histogram mixed with a prior (Student's t, 4 degrees of
//! freedom) worth `PRIOR_RESIDUALS` residuals: in cold start the interval is
//! the prior's, wide and honest, and it blends into the empirical one as
//! residuals arrive (conformal prediction with a Dirichlet-smoothed score
//! distribution). On top, adaptive conformal inference (Gibbs and Candès 2021,
//! equation 2) moves the level of each interval end after every hit and miss, so
//! that long-run coverage holds whatever the residuals do. The two ends move
//! apart from each other: a fall that was not foreseen says nothing of rises.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// Bins of the histogram of normalised residuals.
const BINS: usize = 32;
/// asinh(2·8): residuals beyond ±8 scales are counted in the end bins.
const EDGE: f64 = 3.466_711_037_884_725_4;
/// Residuals that the prior is worth.
const PRIOR_RESIDUALS: f64 = 12.0;
/// What a residual weighs after the next one: about 200 count.
const KEEP: f64 = 0.995;
/// The same for the scale, which must follow faster: about 60 count.
const KEEP_SCALE: f64 = 0.993;
/// E|x| of a standard normal is √(2/π): turns a mean absolute residual into an sd.
pub(crate) const SD_PER_MEAN_ABS: f64 = 1.253_314_137_315_5;
/// A residual counts for the scale as at most this many scales.
const CLIP: f64 = 2.5;
/// Share of residuals beyond the ends of the 95 % and of the 80 % interval.
const TAILS: [f64; 2] = [0.025, 0.1];
/// Quantiles of n residuals are read further out by this over n: split
/// conformal prediction asks for 1, which is exact for the worst law; half of it
/// is the expected shortfall of an interpolated quantile.
const FINITE_SAMPLE: f64 = 0.5;
/// … but a tail keeps at least this share of its level.
const TAIL_SHARE_MIN: f64 = 0.4;
/// Step of adaptive conformal inference, per settled forecast.
const GAINS: [f64; 2] = [0.0006, 0.0015];
/// Smallest scale in model space: below it lies the width of a histogram
/// bucket (0.087), within which quantiles are interpolated.
pub(crate) const SCALE_MIN: f64 = 0.01;

/// Distribution function of Student's t with 4 degrees of freedom.
fn student_4(t: f64) -> f64 {
    let share = 1.0 + t * t / 4.0;
    0.5 + 0.375 * t / share.sqrt() * (1.0 - t * t / share / 12.0)
}

/// The prior's mass per bin, scaled so that `SD_PER_MEAN_ABS`·E|r| = 1.
static PRIOR: LazyLock<[f64; BINS]> = LazyLock::new(|| {
    let below: [f64; BINS + 1] = std::array::from_fn(|i| match i {
        0 => 0.0,
        BINS => 1.0,
        _ => student_4(edge(i) * SD_PER_MEAN_ABS),
    });
    std::array::from_fn(|i| below[i + 1] - below[i])
});

/// Normalised residual at the lower edge of a bin (or between, for a fraction).
fn edge_at(position: f64) -> f64 {
    ((position / BINS as f64 * 2.0 - 1.0) * EDGE).sinh() / 2.0
}

fn edge(bin: usize) -> f64 {
    edge_at(bin as f64)
}

fn bin(residual: f64) -> usize {
    let position = ((2.0 * residual).asinh() / EDGE + 1.0) / 2.0 * BINS as f64;
    (position.max(0.0) as usize).min(BINS - 1)
}

/// Interval ends relative to the forecast, in scales.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Offsets {
    pub(crate) lower_80: f32,
    pub(crate) upper_80: f32,
    pub(crate) lower_95: f32,
    pub(crate) upper_95: f32,
}

/// How normalised residuals are distributed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ResidualLaw {
    bins: [f32; BINS],
    /// By how much adaptive conformal inference moved the tails: below 95 and
    /// 80, above 95 and 80.
    moved: [[f32; 2]; 2],
    offsets: Offsets,
}

/// The calibration of one horizon and target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Calibration {
    law: ResidualLaw,
    /// Mean absolute residual in model space, and its decayed weight.
    mean_abs: f32,
    weight: f32,
}

impl Default for ResidualLaw {
    fn default() -> Self {
        let mut law = ResidualLaw {
            bins: [0.0; BINS],
            moved: [[0.0; 2]; 2],
            offsets: Offsets {
                lower_80: 0.0,
                upper_80: 0.0,
                lower_95: 0.0,
                upper_95: 0.0,
            },
        };
        law.offsets = law.read_offsets();
        law
    }
}

impl Calibration {
    /// Typical residual: the empirical one mixed with the prior's sd, in the
    /// logarithm, so that a prior in the wrong unit is forgotten as fast when it
    /// is too large as when it is too small.
    pub(crate) fn scale(&self, prior_sd: f64) -> f64 {
        let prior_sd = prior_sd.max(SCALE_MIN);
        let weight = f64::from(self.weight);
        if weight == 0.0 {
            return prior_sd;
        }
        let empirical = (SD_PER_MEAN_ABS * f64::from(self.mean_abs)).max(SCALE_MIN);
        let trust = weight / (weight + PRIOR_RESIDUALS);
        prior_sd * (empirical / prior_sd).powf(trust)
    }

    /// Interval ends relative to the forecast, in scales.
    #[inline]
    pub(crate) fn offsets(&self) -> &Offsets {
        &self.law.offsets
    }

    /// Quantiles of residuals at ascending levels, in scales.
    pub(crate) fn quantiles<const N: usize>(&self, levels: [f64; N]) -> [f64; N] {
        self.law.at(levels)
    }

    /// Learns what became of a forecast that announced `scale`: `residual` is
    /// observed minus forecast, `weight` (0..=1] how well it was observed.
    pub(crate) fn settle(&mut self, residual: f64, scale: f64, weight: f64) {
        let normalised = residual / scale;
        self.law.settle(normalised, KEEP, weight, 1.0);
        let size = normalised.abs().min(CLIP) * scale;
        let aged = f64::from(self.weight) * (1.0 - (1.0 - KEEP_SCALE) * weight);
        self.weight = (aged + weight) as f32;
        self.mean_abs +=
            (weight / f64::from(self.weight) * (size - f64::from(self.mean_abs))) as f32;
    }
}

impl ResidualLaw {
    /// Learns a residual in scales. `keep` is what one weighs after the next,
    /// `weight` (0..=1] how well it was observed, and `trust` (0..=1] how much
    /// it says of those to come; hits and misses count whatever it is.
    pub(crate) fn settle(&mut self, normalised: f64, keep: f64, weight: f64, trust: f64) {
        self.adapt(normalised, weight);
        let counted = weight * trust;
        let keep = 1.0 - (1.0 - keep) * counted;
        self.bins.iter_mut().for_each(|mass| *mass *= keep as f32);
        self.bins[bin(normalised)] += counted as f32;
        self.offsets = self.read_offsets();
    }

    /// Residuals counted, the old ones less.
    fn counted(&self) -> f64 {
        self.bins.iter().map(|mass| f64::from(*mass)).sum()
    }

    /// Quantiles at ascending levels in 0..=1, in scales.
    pub(crate) fn at<const N: usize>(&self, levels: [f64; N]) -> [f64; N] {
        self.quantiles(levels, self.counted())
    }

    /// α ← α + γ(target − missed), within a fifth and the double of the target.
    fn adapt(&mut self, normalised: f64, weight: f64) {
        let offsets = &self.offsets;
        let below = [offsets.lower_95, offsets.lower_80].map(|end| normalised < f64::from(end));
        let above = [offsets.upper_95, offsets.upper_80].map(|end| normalised > f64::from(end));
        for (moved, missed) in self.moved.iter_mut().zip([below, above]) {
            for i in 0..2 {
                let error = TAILS[i] - f64::from(u8::from(missed[i]));
                let tail = f64::from(moved[i]) + GAINS[i] * weight * error;
                moved[i] = tail.clamp(-0.8 * TAILS[i], TAILS[i]) as f32;
            }
        }
    }

    fn read_offsets(&self) -> Offsets {
        let counted = self.counted();
        let finite = FINITE_SAMPLE * counted / (counted + PRIOR_RESIDUALS).powi(2);
        let [below, above] = self.moved.map(|moved| {
            let tail = |i: usize| {
                let tail = TAILS[i] + f64::from(moved[i]);
                (tail - finite).max(TAIL_SHARE_MIN * tail)
            };
            // Nested whatever the two were moved to.
            [tail(0).min(tail(1)), tail(1)]
        });
        let levels = [below[0], below[1], 1.0 - above[1], 1.0 - above[0]];
        let ends = self.quantiles(levels, counted);
        let [lower_95, lower_80, upper_80, upper_95] = ends.map(|end| end as f32);
        Offsets {
            lower_80,
            upper_80,
            lower_95,
            upper_95,
        }
    }

    /// Quantiles of the mixture at ascending levels, interpolated within bins.
    fn quantiles<const N: usize>(&self, levels: [f64; N], total: f64) -> [f64; N] {
        let prior = PRIOR_RESIDUALS / (PRIOR_RESIDUALS + total);
        let mut below = 0.0;
        let mut bins = (0..BINS).map(|i| {
            let empirical = if total > 0.0 {
                f64::from(self.bins[i]) / total
            } else {
                0.0
            };
            prior * PRIOR[i] + (1.0 - prior) * empirical
        });
        let (mut position, mut mass) = (0, bins.next().unwrap_or(0.0));
        levels.map(|level| {
            while below + mass < level && position + 1 < BINS {
                below += mass;
                position += 1;
                mass = bins.next().unwrap_or(0.0);
            }
            let fraction = ((level - below) / mass).clamp(0.0, 1.0);
            edge_at(position as f64 + fraction)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Noise;

    #[test]
    fn the_prior_is_student_t_with_four_degrees_of_freedom() {
        // R: pt(c(-2.776445, 0, 1.533206), 4) is 0.025, 0.5, 0.9.
        for (t, p) in [(-2.776_445, 0.025), (0.0, 0.5), (1.533_206, 0.9)] {
            assert!((student_4(t) - p).abs() < 1e-6, "{t}");
        }
        assert!((PRIOR.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let offsets = *Calibration::default().offsets();
        let expected = 2.776_445 / SD_PER_MEAN_ABS;
        assert!(
            (f64::from(offsets.upper_95) - expected).abs() < 0.1,
            "{offsets:?}"
        );
        assert!((offsets.upper_95 + offsets.lower_95).abs() < 1e-4);
    }

    #[test]
    fn bins_and_edges_agree() {
        for i in 0..BINS {
            assert_eq!(bin(edge_at(i as f64 + 0.5)), i);
        }
        assert_eq!((bin(-1e30), bin(1e30)), (0, BINS - 1));
    }

    #[test]
    fn without_residuals_the_scale_is_the_priors() {
        assert!((Calibration::default().scale(0.7) - 0.7).abs() < 1e-12);
    }

    /// Residual laws the prior knows nothing of: skewed, heavy, and much larger
    /// or smaller than announced.
    #[test]
    fn coverage_reaches_its_level_for_any_law_of_residuals() {
        type Law = fn(&mut Noise) -> f64;
        let laws: [(&str, Law); 4] = [
            ("normal", |n| n.normal()),
            ("skewed", |n| -n.uniform().ln() - 1.0),
            ("heavy", |n| n.normal() / n.uniform().max(0.05)),
            ("tiny", |n| 0.05 * n.normal()),
        ];
        for (name, law) in laws {
            let mut noise = Noise::new(17);
            let mut calibration = Calibration::default();
            let (mut inside_80, mut inside_95) = (0, 0);
            for i in 0..6000 {
                let scale = calibration.scale(0.5);
                let residual = law(&mut noise);
                let offsets = *calibration.offsets();
                if i >= 1000 {
                    let r = (residual / scale) as f32;
                    inside_80 += u32::from((offsets.lower_80..=offsets.upper_80).contains(&r));
                    inside_95 += u32::from((offsets.lower_95..=offsets.upper_95).contains(&r));
                }
                calibration.settle(residual, scale, 1.0);
            }
            let (c80, c95) = (f64::from(inside_80) / 5000.0, f64::from(inside_95) / 5000.0);
            assert!((0.77..=0.83).contains(&c80), "{name}: {c80}");
            assert!((0.935..=0.975).contains(&c95), "{name}: {c95}");
        }
    }

    #[test]
    fn a_burst_of_misses_widens_and_calm_narrows() {
        let mut calibration = Calibration::default();
        (0..500).for_each(|i| calibration.settle(if i % 2 == 0 { 0.1 } else { -0.1 }, 0.1, 1.0));
        let width =
            |c: &Calibration| f64::from(c.offsets().upper_95 - c.offsets().lower_95) * c.scale(0.5);
        let calm = width(&calibration);
        for _ in 0..20 {
            let scale = calibration.scale(0.5);
            calibration.settle(3.0, scale, 1.0);
        }
        assert!(width(&calibration) > 3.0 * calm);
    }

    #[test]
    fn eighty_lies_within_ninety_five() {
        let mut noise = Noise::new(8);
        let mut calibration = Calibration::default();
        for i in 0..2000 {
            let spread = if i % 300 < 20 { 30.0 } else { 0.3 };
            let scale = calibration.scale(0.5);
            calibration.settle(spread * noise.normal(), scale, noise.uniform());
            let o = calibration.offsets();
            assert!(
                o.lower_95 <= o.lower_80 && o.lower_80 <= o.upper_80 && o.upper_80 <= o.upper_95
            );
        }
    }
}
