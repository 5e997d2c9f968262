//! A streaming forecaster of one quantity, many steps ahead.
//!
//! The forecasts are those of `ensemble.rs`, as in every [`crate::SeriesModel`];
//! here are the values that feed it and the leads that are followed: each about
//! a third longer than the one before, and mixtures of two in between.

use crate::ensemble::share_of_drift;
use crate::ensemble::{
    Ahead, Belief, EXPERTS, Lead, Observed, Opinion, Outcome, Quantity, Says, Seasons, Trend,
    typical,
};

/// Longest season and horizon in steps that are followed.
const SEASON_MAX: usize = 86_400;
const HORIZON_MAX: usize = 4096;
/// Each followed lead is about so many times the one before.
const LEAD_RATIO: f64 = 1.35;
/// Before more was seen, a value is believed to change by this share of its size.
const BELIEVED_CHANGE: f64 = 0.2;
/// Larger values are no measurements.
const VALUE_MAX: f64 = 1e30;

/// A streaming forecaster of one regularly spaced quantity in any unit.
///
/// Forecasts scale and shift with the values (up to the first two of them).
/// Deterministic. Memory: at most 6 KB, and half a KB per followed lead.
///
/// ```
/// use honeyguide_models::forecaster::Forecaster;
///
/// let wave = |i: usize| 10.0 + (i as f64 / 24.0 * std::f64::consts::TAU).sin();
/// let mut forecaster = Forecaster::new(&[24], 48);
/// (0..960).for_each(|i| forecaster.observe(wave(i)));
/// let path = forecaster.path(48, [0.1, 0.5, 0.9]);
/// assert_eq!(path.len(), 48);
/// for (step, [low, median, high]) in path.into_iter().enumerate() {
///     assert!((median - wave(960 + step)).abs() < 0.2);
///     assert!(low <= median && median <= high);
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Forecaster {
    quantity: Quantity,
    trend: Trend,
    seasons: Seasons<f32, 1>,
    /// How far ahead, ascending, and what was learned there.
    leads: Vec<(Ahead, Lead)>,
    /// Steps taken.
    step: u64,
    lowest: f64,
}

impl Forecaster {
    /// A forecaster that has seen nothing.
    ///
    /// `seasons` are lengths in steps that may matter (a series need not have
    /// them); the four shortest from 4 to 86,400 are followed. Forecasts are
    /// learned up to `horizon` steps ahead (1..=4096; others are clamped).
    pub fn new(seasons: &[usize], horizon: usize) -> Self {
        let leads = followed(horizon.clamp(1, HORIZON_MAX));
        let lead = |steps| (Ahead::new(steps), Lead::default());
        Forecaster {
            quantity: Quantity::default(),
            trend: Trend::default(),
            seasons: Seasons::new(seasons.iter().copied(), SEASON_MAX),
            leads: leads.into_iter().map(lead).collect(),
            step: 0,
            lowest: f64::INFINITY,
        }
    }

    /// Takes the next value; what is not finite was not observed.
    pub fn observe(&mut self, value: f64) {
        self.step += 1;
        if value.abs() <= VALUE_MAX {
            self.settle(value);
            let [shapes] = self.seasons.shapes(self.step);
            let size = self.seasons.size(0, self.step, self.step);
            let observed = Observed {
                value,
                weight: 1.0,
                trust: self.quantity.learn(value, 1.0, (&shapes, size), false),
            };
            self.seasons.learn(self.step, &[observed]);
            self.trend.learn(value);
            self.lowest = self.lowest.min(value);
        } else {
            self.trend.pass();
            self.seasons.learn(self.step, &[Observed::default()]);
        }
        self.follow();
    }

    /// Quantiles of the next `horizon` steps at ascending levels in 0..=1.
    ///
    /// Empty as long as nothing was observed. Beyond the horizon given to
    /// [`Self::new`], what is known of its end is used. A series that was never
    /// negative is not expected to become so.
    pub fn path<const N: usize>(&self, horizon: usize, levels: [f64; N]) -> Vec<[f64; N]> {
        let Some(origin) = self.origin() else {
            return Vec::new();
        };
        let offsets = self
            .leads
            .iter()
            .map(|(ahead, lead)| lead.offsets(*ahead, levels, None));
        let offsets: Vec<[f64; N]> = offsets.collect();
        (1..=horizon)
            .map(|steps| self.quantiles(&origin, steps, levels, |lead| offsets[lead]))
            .collect()
    }

    /// Quantiles of the value `steps` (at least 1) ahead, see [`Self::path`].
    pub fn at<const N: usize>(&self, steps: usize, levels: [f64; N]) -> Option<[f64; N]> {
        let origin = self.origin()?;
        let offsets = |lead: usize| {
            let (ahead, lead) = &self.leads[lead];
            lead.offsets(*ahead, levels, None)
        };
        Some(self.quantiles(&origin, steps.max(1), levels, offsets))
    }

    /// Memory in bytes, heap included.
    pub fn bytes(&self) -> usize {
        let leads = size_of_val(self.leads.as_slice());
        size_of::<Self>() + leads + self.seasons.bytes()
    }

    fn quantiles<const N: usize>(
        &self,
        origin: &Origin,
        steps: usize,
        levels: [f64; N],
        offsets: impl Fn(usize) -> [f64; N],
    ) -> [f64; N] {
        let bound = if self.lowest >= 0.0 {
            0.0
        } else {
            f64::NEG_INFINITY
        };
        let Mix {
            shorter,
            longer,
            share,
        } = self.mix(steps);
        let between = |a: f64, b: f64| a + share * (b - a);
        let [shapes] = self.seasons.shapes(self.step + steps as u64);
        let says = self.quantity.says(&shapes, f64::NAN);
        let [a, b] = [shorter, longer].map(|lead| self.opinion(origin, lead, steps, &says));
        let median = between(a.median, b.median);
        let scale = between(a.scale, b.scale);
        let [a, b] = [a, b].map(|opinion| opinion.drift(&self.trend, steps));
        let drift = between(a, b);
        let [a, b] = [shorter, longer].map(offsets);
        let mut least = bound;
        std::array::from_fn(|i| {
            let offset = scale * between(a[i], b[i]) + share_of_drift(drift, levels[i]);
            // Whatever rounding does, they ascend.
            least = (median + offset).max(least);
            least
        })
    }

    /// Learns from the forecasts of this value.
    fn settle(&mut self, value: f64) {
        let outcome = Outcome {
            step: self.step,
            value,
            weight: 1.0,
            unit: self.quantity.unit(&self.belief()),
            memory: self.seasons.memory(self.step),
            stands_still: self.quantity.stands_still(value),
        };
        let share = 1.0 / self.leads.len() as f64;
        for (ahead, lead) in &mut self.leads {
            if let Some(size) = lead.settle(*ahead, &outcome, None) {
                self.seasons.learn_size(0, self.step, size, share);
            }
        }
    }

    /// Remembers what is said now of the leads that are followed at this step.
    fn follow(&mut self) {
        let Some(origin) = self.origin() else {
            return;
        };
        for i in 0..self.leads.len() {
            let ahead = self.leads[i].0;
            if ahead.follows(self.step) {
                let [shapes] = self.seasons.shapes(self.step + ahead.steps as u64);
                let says = self.quantity.says(&shapes, f64::NAN);
                let opinion = self.opinion(&origin, i, ahead.steps, &says);
                let known = self.quantity.is_known();
                let made = (self.step, ahead);
                self.leads[i].1.follow(made, &says, &opinion, known);
            }
        }
    }

    fn belief(&self) -> Belief {
        let size = self.quantity.last().unwrap_or(0.0).abs();
        Belief {
            change: BELIEVED_CHANGE * size,
            least: f64::EPSILON * 16.0 * size + f64::MIN_POSITIVE,
        }
    }

    /// What forecasts from now have in common; `None` if nothing was observed.
    fn origin(&self) -> Option<Origin> {
        let last = self.quantity.last()?;
        let belief = self.belief();
        let unit = self.quantity.unit(&belief);
        let leads = self.leads.iter().map(|(ahead, lead)| (*ahead, lead, None));
        Some(Origin {
            last,
            unit,
            typical: typical(leads, unit).collect(),
            credibility: self.quantity.credibility(&belief),
        })
    }

    /// What a followed lead's record makes of the experts.
    fn opinion(&self, origin: &Origin, lead: usize, steps: usize, says: &Says) -> Opinion {
        let size = self.seasons.size(0, self.step, self.step + steps as u64);
        self.leads[lead].1.opinion(
            (says, &origin.credibility),
            origin.last,
            origin.typical[lead],
            origin.unit,
            size,
        )
    }

    /// The followed leads around a number of steps.
    fn mix(&self, steps: usize) -> Mix {
        let longer = self.leads.partition_point(|(ahead, _)| ahead.steps < steps);
        let longer = longer.min(self.leads.len() - 1);
        let shorter = longer.saturating_sub(1);
        let [near, far] = [shorter, longer].map(|i| (self.leads[i].0.steps as f64).ln());
        let share = if far > near {
            (((steps as f64).ln() - near) / (far - near)).clamp(0.0, 1.0)
        } else {
            1.0
        };
        Mix {
            shorter,
            longer,
            share,
        }
    }
}

/// What forecasts from one step have in common.
struct Origin {
    last: f64,
    /// How much the quantity changes from value to value.
    unit: f64,
    /// Mean absolute residual by followed lead.
    typical: Vec<f64>,
    credibility: [f64; EXPERTS],
}

/// Between which followed leads a lead lies, and how far (0 the shorter).
struct Mix {
    shorter: usize,
    longer: usize,
    share: f64,
}

/// Leads that are followed for a horizon.
fn followed(horizon: usize) -> Vec<usize> {
    let mut leads = Vec::new();
    let mut next = 1.0f64;
    while (next as usize) < horizon {
        leads.push(next as usize);
        next = (next * LEAD_RATIO).max(next + 1.0);
    }
    leads.push(horizon);
    leads
}

#[cfg(test)]
mod tests;
