//! The law of past forecast residuals, which makes the intervals of new ones.
//!
//! A residual is divided by the scale its forecast announced, and counted in a
//! forgetting histogram of 32 bins, even in asinh(2r). Interval ends are
//! quantiles of that histogram mixed with a prior (Student's t, 4 degrees of
//! freedom) worth `PRIOR_RESIDUALS` residuals: in cold start the interval is
//! the prior's, wide and honest, and it blends into the empirical one as
//! residuals arrive (conformal prediction with a Dirichlet-smoothed score
//! distribution). Where the laws of similar series are known, the prior is theirs.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// Bins of the histogram of normalised residuals.
const BINS: usize = 32;
/// asinh(2·8): residuals beyond ±8 scales are counted in the end bins.
const EDGE: f64 = 3.466_711_037_884_725_4;
/// Residuals that the prior is worth.
const PRIOR_RESIDUALS: f64 = 12.0;
/// Residuals that a law must have counted to say something of another series.
const POOLED_FROM: f64 = 24.0;
/// E|x| of a standard normal is √(2/π): turns a mean absolute residual into an sd.
pub(crate) const SD_PER_MEAN_ABS: f64 = 1.253_314_137_315_5;

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

/// A tail keeps at least this share of its level, however few residuals there are.
const TAIL_SHARE_MIN: f64 = 0.4;
/// A residual so small is on both sides of nothing.
pub(crate) const ZERO: f64 = 1e-3;
/// What the newest residual counts in a bin, at least and at most: a bin holds
/// the 121 residuals that a law remembers at `keep` = 0.9917.
const NEWEST: [f32; 2] = [256.0, 512.0];

/// How normalised residuals are distributed. Instead of making all old ones
/// count less, every new one counts more, until all are halved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ResidualLaw {
    bins: [u16; BINS],
    newest: f32,
}

impl Default for ResidualLaw {
    fn default() -> Self {
        ResidualLaw {
            bins: [0; BINS],
            newest: NEWEST[0],
        }
    }
}

impl ResidualLaw {
    /// Learns a residual in scales. `keep` is what one weighs after the next,
    /// `weight` (0..=1] how much it says of those to come.
    pub(crate) fn settle(&mut self, normalised: f64, keep: f64, weight: f64) {
        self.newest /= (1.0 - (1.0 - keep) * weight) as f32;
        if self.newest > NEWEST[1] {
            self.newest /= 2.0;
            self.bins.iter_mut().for_each(|mass| *mass /= 2);
        }
        let counted = (0.5 * f64::from(self.newest) * weight).round() as u16;
        let (first, last) = if normalised.abs() < ZERO {
            (BINS / 2 - 1, BINS / 2)
        } else {
            (bin(normalised), bin(normalised))
        };
        for bin in [first, last] {
            self.bins[bin] = self.bins[bin].saturating_add(counted);
        }
    }

    /// How many of the newest residuals its bins hold, and in their units.
    fn counted(&self) -> (u32, f64) {
        let total: u32 = self.bins.iter().map(|mass| u32::from(*mass)).sum();
        (total, f64::from(total) / f64::from(self.newest))
    }

    /// Quantiles at ascending levels in 0..=1, in scales: of the mixture with the
    /// prior or with the residuals of similar series, interpolated within bins, and
    /// of n residuals further out by `finite` / n.
    pub(crate) fn at<const N: usize>(
        &self,
        levels: [f64; N],
        finite: f64,
        similar: Option<&PooledLaw>,
    ) -> [f64; N] {
        let (total, counted) = self.counted();
        let prior = PRIOR_RESIDUALS / (PRIOR_RESIDUALS + counted);
        let believed = |i: usize| similar.map_or(PRIOR[i], |pooled| pooled.share(i));
        let mut below = 0.0;
        let mut bins = (0..BINS).map(|i| {
            let empirical = if total > 0 {
                f64::from(self.bins[i]) / f64::from(total)
            } else {
                0.0
            };
            prior * believed(i) + (1.0 - prior) * empirical
        });
        let (mut position, mut mass) = (0, bins.next().unwrap_or(0.0));
        let finite = finite * counted / (counted + PRIOR_RESIDUALS).powi(2);
        levels.map(|level| {
            let tail = level.min(1.0 - level);
            let further = (finite * (1.0 - 2.0 * tail)).min((1.0 - TAIL_SHARE_MIN) * tail);
            let level = if level < 0.5 {
                level - further
            } else {
                level + further
            };
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

/// The law of the residuals of several series, each by its own scale: what each bin has
/// of 65,535.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PooledLaw([u16; BINS]);

const WHOLE: f64 = 65_535.0;

impl PooledLaw {
    /// All that these laws have counted, each beside its prior; `None` if none of them
    /// has seen enough.
    pub(crate) fn of<'a>(laws: impl Iterator<Item = &'a ResidualLaw>) -> Option<PooledLaw> {
        let mut masses = [0.0; BINS];
        let mut known = false;
        for law in laws {
            let (_, counted) = law.counted();
            if counted >= POOLED_FROM {
                known = true;
                for ((mass, bin), prior) in masses.iter_mut().zip(law.bins).zip(*PRIOR) {
                    *mass += PRIOR_RESIDUALS * prior + f64::from(bin) / f64::from(law.newest);
                }
            }
        }
        let all: f64 = masses.iter().sum();
        known.then(|| PooledLaw(masses.map(|mass| (mass / all * WHOLE).round() as u16)))
    }

    fn share(&self, bin: usize) -> f64 {
        f64::from(self.0[bin]) / WHOLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prior_is_student_t_with_four_degrees_of_freedom() {
        // R: pt(c(-2.776445, 0, 1.533206), 4) is 0.025, 0.5, 0.9.
        for (t, p) in [(-2.776_445, 0.025), (0.0, 0.5), (1.533_206, 0.9)] {
            assert!((student_4(t) - p).abs() < 1e-6, "{t}");
        }
        assert!((PRIOR.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let [lower, upper] = ResidualLaw::default().at([0.025, 0.975], 0.0, None);
        let expected = 2.776_445 / SD_PER_MEAN_ABS;
        assert!((upper - expected).abs() < 0.1, "{upper}");
        assert!((upper + lower).abs() < 1e-4);
    }

    #[test]
    fn bins_and_edges_agree() {
        for i in 0..BINS {
            assert_eq!(bin(edge_at(i as f64 + 0.5)), i);
        }
        assert_eq!((bin(-1e30), bin(1e30)), (0, BINS - 1));
    }
}
