//! What a stream has never looked like before: a causal novelty score with 1.0
//! as the line.
//!
//! Eight views look at the newest value: it with its change, with the three before
//! it (a delay embedding), the extremes of the last 24, and levels over 3 to 96
//! values with their volatilities. Each view keeps 20 prototypes of
//! what it has seen (sequential k-means; MacQueen 1967), and measures how far the
//! newest is from the nearest of them, in units of the 95 % quantile of such
//! distances so far: a nonconformity measure (Laxhammar and Falkman, "Online
//! learning and sequential anomaly detection in trajectories", PAMI 2014). What is
//! farther becomes a prototype itself, so it is new only once: a daily step, a
//! nightly backup or a known spike raises no alarm the third time. The score is
//! the mean of the views' square roots, which asks several views to agree and
//! keeps one from shouting the others down. After an alert the stream rests, and
//! its line is a little higher for a while, a budget, so that a wild stream does
//! not drown the others.
//!
//! Nothing is known beforehand: no range, no season, no length. Time is counted
//! in values. O(1) per value (17 × 20 distances), 0.8 KB or 1.5 KB, no allocation.
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
/// The upper end of what does about as well on the public series that it was tuned
/// on, 0.97 to 1.03 (`docs/accuracy.md`).
const LINE: f64 = 1.03;
/// Alerts per value that [`LINE`] is for, and the exponent by which rarer ones need a
/// higher line: a tenth of the alerts 1.2 times as high, as recordings of services show
/// while nothing happens to them.
const LINE_RATE: f64 = 1e-3;
const LINE_EXPONENT: f64 = 0.08;
/// By how much, in ln, an alert raises the line of its stream, until as many
/// values have come as are declared for an alert.
const ALERT_RAISE: f32 = 0.03;
/// A distance counts at most so many times the usual one.
const DISTANCE_MAX: f32 = 1e4;
/// Values after an alert that raise no other, and at the beginning that are only
/// learned.
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
/// let alerts = (0..2000).filter(|i| stream.update(calm(*i), 1e-3).alert).count();
/// assert_eq!(alerts, 0);
/// assert!(stream.update(400.0, 1e-3).alert);
/// assert!(!stream.update(400.0, 1e-3).alert); // it rests
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stream<C = f32> {
    /// Values seen.
    seen: u32,
    rest: u32,
    /// By how much the line is higher than [`LINE`], in ln.
    raised: f32,
    resolution: f32,
    mean: f64,
    variance: f64,
    levels: [f32; SPANS.len()],
    /// Mean absolute changes, over the same spans.
    changes: [f32; SPANS.len()],
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
            rest: 0,
            raised: 0.0,
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
    /// `alert_rate`, in 0..=1, is how many alerts per value are worth having: the fewer,
    /// the higher the line, and what a stream says beyond them costs it a higher one.
    /// 0.001 is meant for values that are minutes apart.
    pub fn update(&mut self, value: f64, alert_rate: f64) -> Novelty {
        if value.is_nan() || value.abs() > VALUE_MAX {
            return Novelty::NONE;
        }
        let point = self.observe(value);
        let smallest = self.smallest_difference();
        let distances = self.banks.update(&point, smallest, self.seen - 1);
        if self.seen <= REST {
            return Novelty::NONE;
        }
        let roots = distances.map(|distance| f64::from(distance.min(DISTANCE_MAX)).sqrt());
        let rarer = (LINE_RATE / alert_rate.max(f64::MIN_POSITIVE)).max(1.0);
        let line = LINE * rarer.powf(LINE_EXPONENT) * f64::from(self.raised).exp();
        let score = roots.iter().sum::<f64>() / VIEWS as f64 / line;
        let alert = score >= 1.0 && self.rest == 0;
        if alert {
            self.rest = REST;
            self.raised += ALERT_RAISE;
        } else {
            self.rest = self.rest.saturating_sub(1);
            self.raised = (self.raised - ALERT_RAISE * alert_rate as f32).max(0.0);
        }
        Novelty { score, alert }
    }

    /// Updates levels with the value; returns what the views see.
    fn observe(&mut self, value: f64) -> [f32; ROWS] {
        let newest = value as f32;
        if self.seen == 0 {
            self.recent = [C::encode(newest); RECENT];
            self.levels = [newest; SPANS.len()];
            self.mean = value;
        }
        let before = [1, 2, 3].map(|ago| self.ago(ago));
        let change = newest - before[0];
        self.recent[self.seen as usize % RECENT] = C::encode(newest);
        self.seen = self.seen.saturating_add(1);
        let gain = |span: u32| 1.0 / f64::from(span.min(self.seen));
        let wide = gain(SPREAD_SPAN);
        self.mean += wide * (value - self.mean);
        self.variance += wide * ((value - self.mean).powi(2) - self.variance);
        for (k, span) in SPANS.into_iter().enumerate() {
            let gain = gain(span) as f32;
            self.levels[k] += gain * (newest - self.levels[k]);
            self.changes[k] += gain * (change.abs() - self.changes[k]);
        }
        self.rows(newest, change, before)
    }

    /// The value that was seen so many (at least one) before the next; the first
    /// value before that.
    fn ago(&self, ago: u32) -> f32 {
        self.recent[self.seen.saturating_sub(ago) as usize % RECENT].decode()
    }

    /// The coordinates of all views, view by view as [`bank::VIEW_ROWS`] has them.
    #[rustfmt::skip]
    fn rows(&self, newest: f32, change: f32, [one, two, three]: [f32; 3]) -> [f32; ROWS] {
        let (level, volatility) = (&self.levels, &self.changes);
        let recent = self.recent.map(C::decode);
        let highest = recent.iter().copied().fold(newest, f32::max);
        let lowest = recent.iter().copied().fold(newest, f32::min);
        [
            newest, change,
            newest, one, two, three,
            highest, lowest,
            level[2],
            level[0], volatility[0],
            level[1], volatility[1],
            level[3], volatility[3],
            level[4], volatility[4],
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
