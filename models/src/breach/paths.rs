//! The random numbers of simulated futures, drawn once and shared by all
//! series: the same forecast always gives the same probability, and two
//! forecasts differ by what they say, not by luck.

use crate::params::ValidParams;
use crate::series::{HORIZON_SECS, HORIZONS};

/// Simulated futures. A probability's standard error is at most 1/√1024 = 3 %
/// at one half, less near 0 and 1, and less for being antithetic.
pub(crate) const PATHS: usize = 1024;
/// Length of a slot of time: paths move once a minute, or once a window if
/// windows are longer.
const SLOT_SECS_MIN: u32 = 60;

/// Random numbers for breach probabilities, about 0.5 MB; make it once.
#[derive(Clone, Debug, PartialEq)]
pub struct Paths {
    slot_secs: f64,
    slots: Vec<Slot>,
}

/// One slot of all paths.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Slot {
    /// Standard normal.
    pub(crate) innovations: Box<[f32; PATHS]>,
    /// The largest of as many standard normals as the slot has windows.
    pub(crate) noise: Box<[f32; PATHS]>,
}

impl Paths {
    /// Draws the paths from the seed in the parameters.
    pub fn new(params: &ValidParams) -> Self {
        let slot_secs = params.get().step_secs.max(SLOT_SECS_MIN);
        let windows = f64::from(slot_secs) / params.step_secs();
        let mut uniform = SplitMix64(params.get().seed);
        let slots = (0..HORIZON_SECS[HORIZONS - 1] / slot_secs)
            .map(|_| Slot {
                innovations: antithetic(&mut uniform, 1.0),
                noise: antithetic(&mut uniform, windows),
            })
            .collect();
        Paths {
            slot_secs: f64::from(slot_secs),
            slots,
        }
    }

    /// Length of a slot in seconds.
    pub(crate) fn slot_secs(&self) -> f64 {
        self.slot_secs
    }

    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }
}

/// Largest of `windows` normals per path; the second half of the paths mirrors
/// the first.
fn antithetic(uniform: &mut SplitMix64, windows: f64) -> Box<[f32; PATHS]> {
    let mut values = Box::new([0.0; PATHS]);
    let (first, second) = values.split_at_mut(PATHS / 2);
    for (value, mirrored) in first.iter_mut().zip(second) {
        let u = uniform.next();
        *value = inverse_normal(u.powf(1.0 / windows)) as f32;
        *mirrored = inverse_normal((1.0 - u).powf(1.0 / windows)) as f32;
    }
    values
}

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014).
struct SplitMix64(u64);

impl SplitMix64 {
    /// In (0, 1), both ends excluded.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        ((z >> 12) as f64 + 0.5) / (1u64 << 52) as f64
    }
}

/// Quantile function of the standard normal for 0 < `p` < 1, by bisection of
/// the distribution function's expansion; good to 1e-7, called at start only.
fn inverse_normal(p: f64) -> f64 {
    let (mut low, mut high) = (-9.0, 9.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if normal_cdf(middle) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// Abramowitz and Stegun, *Handbook of Mathematical Functions*, 26.2.17; error
/// below 7.5e-8.
pub(crate) fn normal_cdf(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * x.abs());
    let poly = t
        * (0.319_381_530
            + t * (-0.356_563_782
                + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    let upper = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt() * poly;
    if x < 0.0 { upper } else { 1.0 - upper }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Params;

    #[test]
    fn quantiles_of_the_normal() {
        // R: qnorm(c(0.025, 0.1, 0.5, 0.9, 0.999))
        let cases = [
            (0.025, -1.959_964),
            (0.1, -1.281_552),
            (0.5, 0.0),
            (0.9, 1.281_552),
            (0.999, 3.090_232),
        ];
        for (p, z) in cases {
            assert!((inverse_normal(p) - z).abs() < 1e-4, "{p}");
        }
    }

    #[test]
    fn paths_are_those_of_their_seed() {
        let paths = |seed| {
            Paths::new(
                &Params {
                    seed,
                    ..Params::default()
                }
                .validate()
                .unwrap(),
            )
        };
        let first = |p: &Paths| p.slots()[7].innovations[3];
        assert_eq!(first(&paths(1)), first(&paths(1)));
        assert_ne!(first(&paths(1)), first(&paths(2)));
    }

    #[test]
    fn noise_is_the_largest_of_a_slots_windows() {
        let paths = Paths::new(&Params::default().validate().unwrap());
        let mean = |values: &dyn Fn(&Slot) -> f64| {
            paths.slots().iter().map(values).sum::<f64>() / paths.slots().len() as f64
        };
        let of = |values: &[f32; PATHS]| {
            values.iter().map(|v| f64::from(*v)).sum::<f64>() / PATHS as f64
        };
        assert_eq!(paths.slots().len(), 60);
        assert!(mean(&|slot| of(&slot.innovations)).abs() < 1e-6);
        // Expected largest of six standard normals (Teichroew 1956): 1.26721.
        assert!((mean(&|slot| of(&slot.noise)) - 1.267_21).abs() < 0.01);
    }
}
