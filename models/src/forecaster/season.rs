//! One season of a series: its shape, how far the newest values lie from it,
//! and how large residuals are at each of its phases.

use std::collections::VecDeque;

use crate::level::Level;

/// Ways to read the shape: the last season, and the mean of the last [`BACK`].
pub(super) const PROFILES: usize = 2;
/// Spans over which the distance from the shape is followed.
pub(super) const SPANS: usize = 3;
/// Seasons that a mean shape is made of.
pub(super) const BACK: usize = 4;
/// Steps before and after a phase that belong to it in a mean shape.
const SMOOTH: isize = 1;
/// Their lengths in steps.
const SPAN_STEPS: [f64; SPANS] = [2.0, 12.0, 90.0];
/// Phases at which the size of residuals is followed at most: hours of a week.
const PHASES_MAX: usize = 168;
/// Residuals of usual size that a phase is believed to have had.
const SIZE_BELIEF: f64 = 3.0;
/// What a residual's size weighs after the next at its phase.
const SIZE_KEEP: f64 = 0.98;

/// Seasons over which the usual distance from the present is a mean, …
const GAP_SEASONS: f64 = 4.0;
/// … in which one counts as at most so many of the usual.
const GAP_CLIP: f64 = 4.0;
/// An expert so many usual distances from the present is believed by half.
const GAP_USUAL: f64 = 10.0;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Season {
    /// In steps.
    pub(super) length: usize,
    /// Of the values minus the shape.
    distances: [[Level; SPANS]; PROFILES],
    /// How far what each expert says of the present usually lies from the
    /// newest values.
    gaps: [[Level; SPANS + 1]; PROFILES],
    /// By phase: sum of relative sizes, and of their weights.
    sizes: Vec<[f32; 2]>,
}

impl Season {
    pub(super) fn new(length: usize) -> Self {
        Season {
            length,
            distances: Default::default(),
            gaps: Default::default(),
            sizes: vec![[0.0; 2]; length.min(PHASES_MAX)],
        }
    }

    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.sizes.capacity() * size_of::<[f32; 2]>()
    }

    /// Takes the newest value, which is the last of `values`.
    pub(super) fn learn(&mut self, values: &VecDeque<f64>, value: f64, unit: f64) {
        for (profile, distances) in self.distances.iter_mut().enumerate() {
            if let Some(shape) = shape(values, self.length, profile, 0) {
                for (distance, steps) in distances.iter_mut().zip(SPAN_STEPS) {
                    distance.update((-1.0 / steps).exp(), value - shape, 1.0);
                }
                let keep = (-1.0 / (GAP_SEASONS * self.length as f64)).exp();
                for (usual, gap) in self.gaps[profile].iter_mut().zip(gaps(distances)) {
                    let most = usual
                        .get()
                        .map_or(f64::INFINITY, |usual| GAP_CLIP * usual + unit);
                    usual.update(keep, gap.min(most), 1.0);
                }
            }
        }
    }

    /// Writes what the season's experts say of the value `steps` ahead: each
    /// shape alone, and shifted by its distances.
    pub(super) fn says(&self, values: &VecDeque<f64>, steps: usize, says: &mut [f64]) {
        for (profile, distances) in self.distances.iter().enumerate() {
            let Some(shape) = shape(values, self.length, profile, steps) else {
                continue;
            };
            let says = &mut says[profile * (SPANS + 1)..];
            says[0] = shape;
            for (says, distance) in says[1..].iter_mut().zip(distances) {
                *says = distance.get().map_or(f64::NAN, |distance| shape + distance);
            }
        }
    }

    /// Writes how credible the season's experts are, 0..=1: one that is
    /// unusually far from the newest values has missed a change, which its past
    /// errors do not know yet.
    pub(super) fn credibility(&self, unit: f64, credibility: &mut [f64]) {
        for (profile, distances) in self.distances.iter().enumerate() {
            let credibility = &mut credibility[profile * (SPANS + 1)..];
            for (j, gap) in gaps(distances).into_iter().enumerate() {
                let usual = self.gaps[profile][j].or(0.0);
                let relative = gap / (GAP_USUAL * (usual + unit));
                credibility[j] = 1.0 / (1.0 + relative.powi(4));
            }
        }
    }

    /// Learns how large a residual at a step was relative to the usual.
    pub(super) fn learn_size(&mut self, step: u64, size: f64, weight: f64) {
        let phase = self.phase(step);
        let [sum, weights] = &mut self.sizes[phase];
        *sum = (f64::from(*sum) * SIZE_KEEP + weight * size) as f32;
        *weights = (f64::from(*weights) * SIZE_KEEP + weight) as f32;
    }

    /// How large residuals are at the phase of a step, relative to the usual.
    pub(super) fn size(&self, step: u64) -> f64 {
        let (phase, phases) = (self.phase(step), self.sizes.len());
        let (mut sum, mut weights) = (SIZE_BELIEF, SIZE_BELIEF);
        for (shift, share) in [(0, 1.0), (1, 0.5), (phases - 1, 0.5)] {
            let [part, weight] = self.sizes[(phase + shift) % phases];
            sum += share * f64::from(part);
            weights += share * f64::from(weight);
        }
        sum / weights
    }

    fn phase(&self, step: u64) -> usize {
        let position = step % self.length as u64;
        (position * self.sizes.len() as u64 / self.length as u64) as usize
    }
}

/// How far what a shape, alone and shifted, says of the present lies from the
/// newest values.
fn gaps(distances: &[Level; SPANS]) -> [f64; SPANS + 1] {
    let [fast, medium, slow] = distances.map(|distance| distance.or(0.0));
    [fast, 0.0, fast - medium, fast - slow].map(f64::abs)
}

/// The season's value `steps` after the newest of `values`, as past seasons
/// tell it.
fn shape(values: &VecDeque<f64>, length: usize, profile: usize, steps: usize) -> Option<f64> {
    let newest = values.len() as isize - 1;
    let first = steps.div_ceil(length).max(1);
    let (seasons, smooth) = match profile {
        0 => (1, 0),
        _ => (BACK, SMOOTH),
    };
    let (mut sum, mut count) = (0.0, 0.0);
    for back in first..first + seasons {
        let centre = newest + steps as isize - (back * length) as isize;
        if centre + smooth < 0 {
            break;
        }
        for at in (centre - smooth).max(0)..=(centre + smooth).min(newest) {
            let value = values[at as usize];
            if !value.is_nan() {
                sum += value;
                count += 1.0;
            }
        }
    }
    (count > 0.0).then(|| sum / count)
}
