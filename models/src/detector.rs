//! What a stream has never looked like before: a causal novelty score with 1.0
//! as the line.
//!
//! Nine views look at the newest value: it alone, with its change, with the three
//! before it (a delay embedding), its levels over 3 to 96 values with their
//! volatilities, and the extremes of the last 24. Each view keeps 24 prototypes of
//! what it has seen (sequential k-means; MacQueen 1967), and measures how far the
//! newest is from the nearest of them, in units of the 95 % quantile of such
//! distances so far: a nonconformity measure (Laxhammar and Falkman, "Online
//! learning and sequential anomaly detection in trajectories", PAMI 2014). What is
//! farther becomes a prototype itself, so it is new only once: a daily step, a
//! nightly backup or a known spike raises no alarm the third time. The score is
//! the mean of the views' square roots, which asks several views to agree and
//! keeps one from shouting the others down; then the stream rests.
//!
//! Nothing is known beforehand: no range, no season, no length. Time is counted
//! in values. O(1) per value (18 × 24 distances), some 1 to 2 KB, no allocation.
//!
//! Scores are equivariant: adding a constant or multiplying by one changes nothing
//! but rounding, if there is no [`Stream::new`] `resolution` to break the tie.

mod bank;
mod coordinate;

use serde::{Deserialize, Serialize};

use self::bank::{Banks, ROWS, VIEWS};
pub use self::coordinate::{Coordinate, Fixed};

/// The mean of the square roots of the views' distances that is on the line.
///
/// The middle of what does about as well on the public series that it was tuned
/// on, 1.01 to 1.10 (`docs/accuracy.md`).
const LINE: f64 = 1.06;
/// A distance counts at most so many times the usual one.
const DISTANCE_MAX: f32 = 1e4;
/// Values after an alert, and at the beginning, that raise no other.
pub const REST: u32 = 100;
/// Values over which the usual spread is measured.
const SPREAD_SPAN: u32 = 2000;
/// Differences below this share of the usual spread are none.
const SPREAD_SHARE: f64 = 0.1;
/// Differences below this share of the usual level are rounding.
const ROUNDING: f64 = 1e-6;
/// Values of which the extremes are taken.
const RECENT: usize = 24;
/// Spans of the levels, in values.
const SPANS: [u32; 5] = [3, 6, 12, 24, 96];
/// Larger magnitudes are no measurements.
const VALUE_MAX: f64 = 1e30;

/// What a stream says about its newest value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Novelty {
    /// How new it is; 1.0 is the line. Finite, not negative.
    pub score: f64,
    /// Whether it crosses the line while the stream does not rest.
    pub alert: bool,
}

impl Novelty {
    /// Nothing to say.
    const NONE: Novelty = Novelty {
        score: 0.0,
        alert: false,
    };

    /// The score, kept below the line while the stream rests: at least 1.0
    /// exactly when there is an alert.
    pub fn rested(&self) -> f64 {
        const BELOW: f64 = 0.999;
        if self.alert {
            self.score
        } else {
            self.score.min(BELOW)
        }
    }
}

/// The novelty detector of one stream of values. `C` is how prototypes are
/// stored: `f32` for any values, [`Fixed`] for values in model space.
///
/// ```
/// use honeyguide_models::detector::Stream;
///
/// let mut stream: Stream = Stream::new(0.0);
/// let calm = |i: u32| 20.0 + f64::from(i * 7919 % 13);
/// let alerts = (0..2000).filter(|i| stream.update(calm(*i)).alert).count();
/// assert_eq!(alerts, 0);
/// assert!(stream.update(400.0).alert);
/// assert!(!stream.update(400.0).alert); // it rests
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stream<C = f32> {
    /// Values seen.
    seen: u32,
    rest: u32,
    resolution: f32,
    mean: f64,
    variance: f64,
    levels: [f64; SPANS.len()],
    /// Mean absolute changes, over the same spans.
    changes: [f64; SPANS.len()],
    /// The newest value of index `i` is at `i % RECENT`.
    recent: [C; RECENT],
    banks: Banks<C>,
}

impl<C: Coordinate> Default for Stream<C> {
    fn default() -> Self {
        Self::new(0.0)
    }
}

impl<C: Coordinate> Stream<C> {
    /// A stream that has seen nothing. Differences below `resolution`, in the
    /// units of the values, mean nothing; 0 when all do.
    pub fn new(resolution: f32) -> Self {
        Stream {
            seen: 0,
            rest: REST,
            resolution: if resolution.is_finite() {
                resolution.max(0.0)
            } else {
                0.0
            },
            mean: 0.0,
            variance: 0.0,
            levels: [0.0; SPANS.len()],
            changes: [0.0; SPANS.len()],
            recent: [C::default(); RECENT],
            banks: Banks::default(),
        }
    }

    /// Scores the newest value and learns from it. What is no number, or larger
    /// than 10³⁰ in magnitude, is missing: no score, and nothing learned.
    pub fn update(&mut self, value: f64) -> Novelty {
        if value.is_nan() || value.abs() > VALUE_MAX {
            return Novelty::NONE;
        }
        let point = self.observe(value);
        let smallest = self.smallest_difference();
        let distances = self.banks.update(&point, smallest);
        let roots = distances.map(|distance| f64::from(distance.min(DISTANCE_MAX)).sqrt());
        let score = roots.iter().sum::<f64>() / VIEWS as f64 / LINE;
        let alert = score >= 1.0 && self.rest == 0;
        self.rest = if alert {
            REST
        } else {
            self.rest.saturating_sub(1)
        };
        Novelty { score, alert }
    }

    /// Updates levels with the value; returns what the views see, row by row as
    /// [`bank::VIEW_ROWS`] reads them.
    fn observe(&mut self, value: f64) -> [f32; ROWS] {
        if self.seen == 0 {
            self.recent = [C::encode(value as f32); RECENT];
            self.levels = [value; SPANS.len()];
            self.mean = value;
        }
        let ago = |n: u32| self.recent[(self.seen.wrapping_sub(n) as usize) % RECENT].decode();
        let [one, two, three] = if self.seen < 3 {
            [self.recent[(self.seen.max(1) - 1) as usize].decode(); 3]
        } else {
            [ago(1), ago(2), ago(3)]
        };
        let change = value - f64::from(one);
        self.seen = self.seen.saturating_add(1);
        let gain = |span: u32| 1.0 / f64::from(span.min(self.seen));
        let wide = gain(SPREAD_SPAN);
        self.mean += wide * (value - self.mean);
        self.variance += wide * ((value - self.mean).powi(2) - self.variance);
        for (k, span) in SPANS.into_iter().enumerate() {
            self.levels[k] += gain(span) * (value - self.levels[k]);
            self.changes[k] += gain(span) * (change.abs() - self.changes[k]);
        }
        self.recent[((self.seen - 1) as usize) % RECENT] = C::encode(value as f32);
        let recent = self.recent.map(C::decode);
        let newest = value as f32;
        let highest = recent.iter().copied().fold(newest, f32::max);
        let lowest = recent.iter().copied().fold(newest, f32::min);
        let level = self.levels.map(|level| level as f32);
        let volatility = self.changes.map(|change| change as f32);
        [
            newest, //
            newest,
            change as f32, //
            level[2],      //
            level[0],
            volatility[0], //
            level[1],
            volatility[1], //
            newest,
            one,
            two,
            three, //
            level[3],
            volatility[3], //
            highest,
            lowest, //
            level[4],
            volatility[4],
        ]
    }

    /// Differences below this are none.
    fn smallest_difference(&self) -> f32 {
        let spread = SPREAD_SHARE * self.variance.max(0.0).sqrt();
        let rounding = ROUNDING * self.mean.abs();
        (spread.max(rounding) as f32)
            .max(self.resolution)
            .max(f32::MIN_POSITIVE)
    }
}

#[cfg(test)]
mod tests;
