//! How unlike its usual the whole distribution of a window is.
//!
//! Quantiles of a window see one place of its distribution each. The Wasserstein-1
//! distance sees all of it at once: by how many seconds events are slower or faster than
//! usual, on average (the area between both cumulative distributions; Vallender 1974).
//! Usual is an exponentially weighted mean of windows, over an hour, to which one adds
//! a few usual sizes at most (Huber), and the distance counts as ln(1 + W₁/usual mean). In seconds it sees the tail, as users do; a distance
//! in ln seconds, to which all events are alike, finds less (`docs/accuracy.md`).
//!
//! The distance is divided by its own usual size, to which a window adds a few times as
//! much at most, and which is larger for windows of fewer samples than usual. Its score
//! is that deviation over the threshold that an undisturbed series exceeds at the
//! declared rate, as in `anomaly.rs`.

use sensor_common::histogram::{BUCKETS, Histogram, SCALE};
use serde::{Deserialize, Serialize};

use crate::anomaly::{
    tail::{Belief, Tail},
    unusual,
};
use crate::level::{LONG, Level};
use crate::params::ValidParams;

/// A bucket's bound over the one before, 2^(1/8).
const RATIO: f64 = 1.090_507_732_665_257_7;
const _: () = assert!(SCALE == 3);
/// Belief about the usual size, and its weight in windows.
const SIZE_BELIEF: (f64, f64) = (0.2, 40.0);
/// A window moves the usual distribution by as much as one so many usual sizes away.
const USUAL_CLIP: f64 = 3.0;
/// Belief about the tail, as recorded incidents show it while nothing happens; a strong
/// one, because what grows slowly must not be learned.
const TAIL_BELIEF: Belief = Belief {
    quantile: 2.2,
    excess: (0.35, 200.0),
};
/// Buckets of a doubling, and doublings: serde has arrays of up to 32.
const DOUBLING: usize = 1 << SCALE;
const DOUBLINGS: usize = BUCKETS / DOUBLING;

/// The usual distribution of one series, and how far the newest window is from it.
/// Some 800 bytes; serialisable, deterministic.
///
/// ```
/// use honeyguide_models::{Params, wasserstein::Wasserstein};
/// use sensor_common::Histogram;
///
/// let params = Params::default().validate()?;
/// let window = |slow: u64| {
///     let mut window = Histogram::new();
///     (0..100).for_each(|i| window.record(if i < slow { 4_000_000 } else { 1_000_000 + i }));
///     window
/// };
/// let mut usual = Wasserstein::default();
/// for i in 0..200 {
///     usual.update(&params, &window(5 + i % 3));
///     assert!(usual.score() < 1.0);
/// }
/// usual.update(&params, &window(40));
/// assert!(usual.score() > 1.0);
/// # Ok::<(), honeyguide_models::ParamsError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Wasserstein {
    /// Usual share of events up to each bucket.
    usual: [[f32; DOUBLING]; DOUBLINGS],
    /// Windows behind it, old ones less.
    windows: f32,
    size: Level,
    /// Usual variance of the distance by sampling.
    sampling: Level,
    tail: Tail,
    score: f32,
}

impl Default for Wasserstein {
    fn default() -> Self {
        Wasserstein {
            usual: [[0.0; DOUBLING]; DOUBLINGS],
            windows: 0.0,
            size: Level::believed(SIZE_BELIEF.0, SIZE_BELIEF.1),
            sampling: Level::default(),
            tail: Tail::believed(TAIL_BELIEF),
            score: 0.0,
        }
    }
}

/// See [`Wasserstein::distance`].
struct Distance {
    /// From the usual distribution: ln(1 + W₁/usual mean).
    distance: f64,
    /// What of it comes of sampling usually.
    sampled: f64,
}

/// Share of the events up to each bucket; `None` without events.
fn shares(window: &Histogram) -> Option<[f32; BUCKETS]> {
    let counts = window.buckets().map(|count| count as f64);
    let events: f64 = counts.iter().sum();
    let mut until = 0.0;
    let shares = counts.map(|count| {
        until += count;
        (until / events) as f32
    });
    (events > 0.0).then_some(shares)
}

impl Wasserstein {
    /// Scores the newest window and learns from it; one without events has no
    /// distribution, and scores nothing.
    pub fn update(&mut self, params: &ValidParams, window: &Histogram) {
        self.score = 0.0;
        let Some(shares) = shares(window) else {
            return;
        };
        let keep = params.decays()[LONG];
        let is_first = self.windows == 0.0;
        let mut gain = 1.0;
        if !is_first {
            let samples = window.samples().max(1) as f64;
            let Distance { distance, sampled } = self.distance(&shares, samples);
            let variance = sampled * sampled;
            let extra = (variance - self.sampling.or(variance)).max(0.0);
            self.sampling.update(keep, variance, 1.0);
            let deviation = unusual(&mut self.size, keep, distance, extra);
            self.score = self.tail.score(deviation, params.get().false_alarm_rate) as f32;
            gain = (USUAL_CLIP / deviation).min(1.0);
        }
        self.windows = (f64::from(self.windows) * keep + 1.0) as f32;
        let gain = (gain / f64::from(self.windows)) as f32;
        for (usual, share) in self.usual.as_flattened_mut().iter_mut().zip(shares) {
            *usual += gain * (share - *usual);
        }
    }

    fn distance(&self, shares: &[f32; BUCKETS], samples: f64) -> Distance {
        // Events are at the upper bounds of their buckets, in units of the first.
        let (mut bound, mut mean) = (1.0, 1.0);
        let (mut area, mut sampled) = (0.0, 0.0);
        for (usual, share) in self.usual.as_flattened().iter().zip(shares) {
            let usual = f64::from(*usual).clamp(0.0, 1.0);
            let width = bound * (RATIO - 1.0);
            mean += (1.0 - usual) * width;
            area += (f64::from(*share) - usual).abs() * width;
            let variance = usual * (1.0 - usual);
            // What is rare is mostly not there at all.
            sampled += (variance / samples).sqrt().min(2.0 * variance) * width;
            bound *= RATIO;
        }
        Distance {
            distance: (area / mean).ln_1p(),
            sampled: sampled / mean,
        }
    }

    /// A window of which nothing is known, or without events: it scores nothing.
    pub fn pass(&mut self) {
        self.score = 0.0;
    }

    /// How unusual the newest window was; 1.0 is the line. Finite, not negative.
    pub fn score(&self) -> f64 {
        self.score.into()
    }
}

#[cfg(test)]
mod tests;
