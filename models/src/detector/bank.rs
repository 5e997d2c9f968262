//! Prototypes of what each view has seen.

use serde::{Deserialize, Serialize};

use super::coordinate::Coordinate;

/// Views of a stream.
pub(super) const VIEWS: usize = 8;
/// Coordinates over all views.
pub(super) const ROWS: usize = 17;
/// First coordinate of each view, and one past the last of all.
pub(super) const VIEW_ROWS: [usize; VIEWS + 1] = [0, 2, 6, 8, 9, 11, 13, 15, ROWS];

/// Prototypes per view: what memory allows. On the public series 32 are 1 to 2
/// points better, 16 are 2 points worse.
const PROTOTYPES: usize = 20;
/// The quantile of distances that is the unit of distance.
const USUAL_QUANTILE: f32 = 0.95;
/// Step of the quantile tracker, in ln, in the long run, …
const USUAL_GAIN: f32 = 0.03;
/// … and after `n` values, `USUAL_GAIN_EARLY / (n + USUAL_DELAY)` if that is larger.
const USUAL_GAIN_EARLY: f32 = 2.0;
const USUAL_DELAY: f32 = 5.0;
/// The usual distance does not sink below this share of the smallest difference.
const USUAL_SHARE_MIN: f32 = 0.3;
/// By which share of its distance the nearest prototype follows a value.
const FOLLOW: f32 = 0.05;

/// The prototypes of all views, coordinate by coordinate so that one instruction
/// compares several of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Banks<C> {
    prototypes: [[C; PROTOTYPES]; ROWS],
    filled: [u8; VIEWS],
    usual: [f32; VIEWS],
}

impl<C: Coordinate> Default for Banks<C> {
    fn default() -> Self {
        Banks {
            prototypes: [[C::default(); PROTOTYPES]; ROWS],
            filled: [0; VIEWS],
            usual: [0.0; VIEWS],
        }
    }
}

impl<C: Coordinate> Banks<C> {
    /// How far each view of `point` is from anything seen, in units of its usual
    /// distance; learns it. `seen` is how many points came before. Values are
    /// rounded as they are stored, so that what is the same is at distance 0.
    pub(super) fn update(&mut self, point: &[f32; ROWS], smallest: f32, seen: u32) -> [f32; VIEWS] {
        let point = point.map(|value| C::encode(value).decode());
        let early = USUAL_GAIN_EARLY / (seen as f32 + USUAL_DELAY);
        let gain = early.max(USUAL_GAIN);
        // Both steps of the tracker are the same for all views.
        let steps = [
            (gain * USUAL_QUANTILE).exp(),
            (-gain * (1.0 - USUAL_QUANTILE)).exp(),
        ];
        std::array::from_fn(|view| self.update_view(view, &point, smallest, steps))
    }

    fn update_view(
        &mut self,
        view: usize,
        point: &[f32; ROWS],
        smallest: f32,
        [up, down]: [f32; 2],
    ) -> f32 {
        let rows = VIEW_ROWS[view]..VIEW_ROWS[view + 1];
        let bank = &mut self.prototypes[rows.clone()];
        let point = &point[rows];
        let filled = usize::from(self.filled[view]);
        if filled == 0 {
            store(bank, 0, point);
            self.filled[view] = 1;
            return 0.0;
        }
        let (nearest, distance) = nearest(distances(bank, point), filled);
        let usual = &mut self.usual[view];
        if *usual <= 0.0 {
            *usual = distance.max(smallest);
        }
        let relative = distance / usual.max(smallest);
        let step = if distance > *usual { up } else { down };
        *usual = (*usual * step).max(smallest * USUAL_SHARE_MIN);
        if relative <= 1.0 {
            for (row, value) in bank.iter_mut().zip(point) {
                let stored = row[nearest].decode();
                row[nearest] = C::encode(stored + FOLLOW * (value - stored));
            }
        } else if filled < PROTOTYPES {
            store(bank, filled, point);
            self.filled[view] += 1;
        } else {
            let freed = merge_closest(bank);
            store(bank, freed, point);
        }
        relative
    }
}

fn store<C: Coordinate>(bank: &mut [[C; PROTOTYPES]], index: usize, point: &[f32]) {
    for (row, value) in bank.iter_mut().zip(point) {
        row[index] = C::encode(*value);
    }
}

/// Largest difference of a coordinate (Chebyshev), for every prototype.
#[inline]
fn distances<C: Coordinate>(bank: &[[C; PROTOTYPES]], point: &[f32]) -> [f32; PROTOTYPES] {
    let mut distances = [0.0f32; PROTOTYPES];
    for (row, value) in bank.iter().zip(point) {
        for (distance, stored) in distances.iter_mut().zip(row) {
            let difference = (stored.decode() - value).abs();
            *distance = if difference > *distance {
                difference
            } else {
                *distance
            };
        }
    }
    distances
}

/// The first of the smallest among the first `filled`. Four at a time, which a
/// compiler may not do by itself with floats.
#[inline]
fn nearest(mut distances: [f32; PROTOTYPES], filled: usize) -> (usize, f32) {
    distances[filled..].fill(f32::INFINITY);
    let mut least = [f32::INFINITY; 4];
    for four in distances.as_chunks::<4>().0 {
        for (least, distance) in least.iter_mut().zip(four) {
            *least = if *distance < *least {
                *distance
            } else {
                *least
            };
        }
    }
    let least = least.into_iter().fold(f32::INFINITY, f32::min);
    let index = distances.iter().position(|distance| *distance == least);
    (index.unwrap_or(0), least)
}

/// [`nearest`] looks at four at a time.
const _: () = assert!(PROTOTYPES.is_multiple_of(4));

/// Replaces the two closest prototypes of a full bank by their mean; returns the
/// place that is free then.
fn merge_closest<C: Coordinate>(bank: &mut [[C; PROTOTYPES]]) -> usize {
    let mut closest = (0, 1, f32::INFINITY);
    for second in 1..PROTOTYPES {
        let mut point = [0.0; ROWS];
        for (value, row) in point.iter_mut().zip(bank.iter()) {
            *value = row[second].decode();
        }
        let (first, distance) = nearest(distances(bank, &point[..bank.len()]), second);
        if distance < closest.2 {
            closest = (first, second, distance);
        }
    }
    let (first, second, _) = closest;
    for row in bank {
        row[first] = C::encode(0.5 * (row[first].decode() + row[second].decode()));
    }
    second
}
