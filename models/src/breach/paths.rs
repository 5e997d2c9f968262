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

/// Windows in a row that may make a breach, at most.
pub(crate) const RUNS: usize = 5;

/// Random numbers for breach probabilities, about 1.5 MB; make it once.
#[derive(Clone, Debug, PartialEq)]
pub struct Paths {
    slot_secs: f64,
    slots: Vec<Slot>,
    /// The least of the first 1, 2, … windows.
    first: [Box<[f32; PATHS]>; RUNS],
}

/// One slot of all paths.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Slot {
    /// Standard normal.
    pub(crate) innovations: Box<[f32; PATHS]>,
    /// Of as many standard normals as the slot has windows, for runs of 1, 2, …:
    /// the largest least of a run that ends in the slot.
    noise: [Box<[f32; PATHS]>; RUNS],
}

impl Slot {
    /// The noise that all windows of some run of this length exceed.
    pub(crate) fn noise(&self, run: usize) -> &[f32; PATHS] {
        &self.noise[run - 1]
    }
}

impl Paths {
    /// Draws the paths from the seed in the parameters.
    pub fn new(params: &ValidParams) -> Self {
        let slot_secs = params.get().step_secs.max(SLOT_SECS_MIN);
        let windows = (slot_secs / params.get().step_secs) as usize;
        let mut random = SplitMix64(params.get().seed);
        let empty = || Box::new([f32::NEG_INFINITY; PATHS]);
        let mut slots: Vec<Slot> = (0..HORIZON_SECS[HORIZONS - 1] / slot_secs)
            .map(|_| Slot {
                innovations: antithetic(&mut random),
                noise: std::array::from_fn(|_| empty()),
            })
            .collect();
        let mut first = std::array::from_fn(|_| empty());
        for at in 0..PATHS / 2 {
            let path: Vec<f32> = (0..slots.len() * windows)
                .map(|_| random.normal() as f32)
                .collect();
            for (at, sign) in [(at, 1.0), (at + PATHS / 2, -1.0)] {
                note(
                    &mut slots,
                    &mut first,
                    at,
                    |window| sign * path[window],
                    windows,
                );
            }
        }
        Paths {
            slot_secs: f64::from(slot_secs),
            slots,
            first,
        }
    }

    /// Length of a slot in seconds.
    pub(crate) fn slot_secs(&self) -> f64 {
        self.slot_secs
    }

    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The first slot's noise, where a run that began before needs `missing` more.
    pub(crate) fn begun(&self, missing: usize, run: usize) -> [f32; PATHS] {
        let (first, whole) = (&self.first[missing - 1], self.slots[0].noise(run));
        std::array::from_fn(|i| first[i].max(whole[i]))
    }
}

/// Notes what the windows of one path are worth.
fn note(
    slots: &mut [Slot],
    first: &mut [Box<[f32; PATHS]>; RUNS],
    at: usize,
    path: impl Fn(usize) -> f32,
    windows: usize,
) {
    for window in 0..slots.len() * windows {
        let noise = &mut slots[window / windows].noise;
        let runs = noise.iter_mut().zip(first.iter_mut()).take(window + 1);
        let mut least = f32::INFINITY;
        for (run, (largest, first)) in runs.enumerate() {
            least = least.min(path(window - run));
            largest[at] = largest[at].max(least);
            if run == window {
                first[at] = least;
            }
        }
    }
}

/// Standard normals; the second half of the paths mirrors the first.
fn antithetic(random: &mut SplitMix64) -> Box<[f32; PATHS]> {
    let mut values = Box::new([0.0; PATHS]);
    let (first, second) = values.split_at_mut(PATHS / 2);
    for (value, mirrored) in first.iter_mut().zip(second) {
        *value = random.normal() as f32;
        *mirrored = -*value;
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

    /// Standard normal (Box and Muller 1958).
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.next().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.next()).cos()
    }
}

/// Abramowitz and Stegun, *Handbook of Mathematical Functions*, 26.2.17; error
/// below 7.5e-8.
#[cfg(test)]
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
        assert!((mean(&|slot| of(slot.noise(1))) - 1.267_21).abs() < 0.01);
    }
}
