//! A streaming forecaster of one quantity, many steps ahead.
//!
//! A pool of simple experts speaks about each step: the last value, levels, and
//! for each season its last occurrence and the mean of its last four, alone and
//! shifted by how far the newest values lie from them over three spans (the
//! Theta idea: forecast the deseasonalised level, put the season back). They
//! are weighted by their past errors at about that lead (`combination.rs`).
//! Quantiles are those of past residuals at that lead (`conformal.rs`), in a
//! scale that follows how much the experts disagree and how large residuals
//! usually are at that phase of the season.
//!
//! A lasting change of level far outside the residuals is one event, but a lead
//! of `h` steps sees it in all forecasts of `h` steps: residuals count for the
//! less the larger they are (Cauchy weights), so that one event does not widen
//! a day of forecasts.

mod lead;
mod season;

use std::collections::VecDeque;

use self::{
    lead::Lead,
    season::{PROFILES, SPANS, Season},
};
use crate::level::Level;

/// Seasons that are followed at most.
const SEASONS: usize = 3;
/// Experts that know no season.
const PLAIN: usize = 3;
/// All experts.
const EXPERTS: usize = PLAIN + SEASONS * PROFILES * (SPANS + 1);
/// Shortest season in steps that has a shape.
const SEASON_MIN: usize = 4;
/// Longest season and horizon in steps that are followed: bounds the memory.
const SEASON_MAX: usize = 10_080;
const HORIZON_MAX: usize = 4096;
/// Each followed lead is about so many times the one before.
const LEAD_RATIO: f64 = 1.35;
/// Steps of the two levels.
const LEVEL_STEPS: [f64; 2] = [3.0, 90.0];
/// Values before the first forecast is followed.
const BURN_IN: u64 = 8;
/// Steps remembered where there is no season.
const MEMORY_STEPS: f64 = 1440.0;
/// Seasons whose residuals and losses count.
const MEMORY_SEASONS: f64 = 4.0;
/// A single value is uncertain by this share of its size: nothing else is known.
const FIRST_UNIT: f64 = 0.2;
/// Larger values are no measurements.
const VALUE_MAX: f64 = 1e30;

/// A streaming forecaster of one regularly spaced quantity in any unit.
///
/// Forecasts scale and shift with the values (up to the first two of them).
/// Deterministic. Memory: the last five of the longest season, and about 4 KB
/// per followed lead.
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
    seasons: Vec<Season>,
    leads: Vec<Lead>,
    /// Oldest first; NaN where nothing was observed.
    values: VecDeque<f64>,
    values_max: usize,
    /// Steps taken.
    step: u64,
    observed: u64,
    last: Option<f64>,
    levels: [Level; 2],
    /// Mean absolute change from one value to the next.
    change: Level,
    lowest: f64,
}

/// What the experts say of one step.
type Says = [f64; EXPERTS];

impl Forecaster {
    /// A forecaster that has seen nothing.
    ///
    /// `seasons` are lengths in steps that may matter (a series need not have
    /// them); the three shortest between 4 and 10,080 are followed. Forecasts
    /// are learned up to `horizon` steps ahead (1..=4096; others are clamped).
    pub fn new(seasons: &[usize], horizon: usize) -> Self {
        let mut lengths: Vec<usize> = seasons.to_vec();
        lengths.retain(|length| (SEASON_MIN..=SEASON_MAX).contains(length));
        lengths.sort_unstable();
        lengths.dedup();
        lengths.truncate(SEASONS);
        let longest = lengths.last().copied().unwrap_or(SEASON_MIN);
        let values_max = (season::BACK + 1) * longest + 2;
        Forecaster {
            seasons: lengths.into_iter().map(Season::new).collect(),
            leads: followed(horizon.clamp(1, HORIZON_MAX))
                .into_iter()
                .map(Lead::new)
                .collect(),
            values: VecDeque::with_capacity(values_max),
            values_max,
            step: 0,
            observed: 0,
            last: None,
            levels: [Level::default(); 2],
            change: Level::default(),
            lowest: f64::INFINITY,
        }
    }

    /// Takes the next value; what is not finite was not observed.
    pub fn observe(&mut self, value: f64) {
        let value = if value.abs() <= VALUE_MAX {
            value
        } else {
            f64::NAN
        };
        self.step += 1;
        if self.values.len() == self.values_max {
            self.values.pop_front();
        }
        self.values.push_back(value);
        self.settle(value);
        if !value.is_nan() {
            self.learn(value);
        }
        self.follow();
    }

    /// Quantiles of the next `horizon` steps at ascending levels in 0..=1.
    ///
    /// Empty as long as nothing was observed. Beyond the horizon given to
    /// [`Self::new`], what is known of its end is used. A series that was never
    /// negative is not expected to become so.
    pub fn path<const N: usize>(&self, horizon: usize, levels: [f64; N]) -> Vec<[f64; N]> {
        let offsets: Vec<[f64; N]> = self.leads.iter().map(|lead| lead.offsets(levels)).collect();
        (1..=horizon)
            .map_while(|steps| self.quantiles(steps, |lead| offsets[lead]))
            .collect()
    }

    /// Quantiles of the value `steps` (at least 1) ahead, see [`Self::path`].
    pub fn at<const N: usize>(&self, steps: usize, levels: [f64; N]) -> Option<[f64; N]> {
        self.quantiles(steps.max(1), |lead| self.leads[lead].offsets(levels))
    }

    fn quantiles<const N: usize>(
        &self,
        steps: usize,
        offsets: impl Fn(usize) -> [f64; N],
    ) -> Option<[f64; N]> {
        self.last?;
        let bound = if self.lowest >= 0.0 {
            0.0
        } else {
            f64::NEG_INFINITY
        };
        let says = self.says(steps);
        let Mix {
            shorter,
            longer,
            share,
        } = self.mix(steps);
        let between = |a: f64, b: f64| a + share * (b - a);
        let [a, b] = [shorter, longer].map(|i| self.opinion(&self.leads[i], &says, steps));
        let median = between(a.median, b.median);
        let scale = between(a.scale, b.scale);
        let [a, b] = [shorter, longer].map(offsets);
        Some(std::array::from_fn(|level| {
            (median + scale * between(a[level], b[level])).max(bound)
        }))
    }

    /// Memory in bytes, heap included; with and without the values kept.
    pub fn bytes(&self) -> usize {
        let leads: usize = self.leads.iter().map(Lead::bytes).sum();
        let seasons: usize = self.seasons.iter().map(Season::bytes).sum();
        size_of::<Self>() + leads + seasons + self.values.capacity() * size_of::<f64>()
    }

    /// Learns from the forecasts of this value.
    fn settle(&mut self, value: f64) {
        let unit = self.unit();
        let memory = self.memory();
        let share = 1.0 / self.leads.len() as f64;
        for lead in &mut self.leads {
            while let Some(claim) = lead.due(self.step) {
                if claim.due != self.step || value.is_nan() {
                    continue;
                }
                if let Some(size) = lead.settle(&claim, value, unit, memory) {
                    for season in &mut self.seasons {
                        season.learn_size(self.step, size, share);
                    }
                }
            }
        }
    }

    fn learn(&mut self, value: f64) {
        if let Some(last) = self.last {
            self.change
                .update(1.0 - 1.0 / MEMORY_STEPS, (value - last).abs(), 1.0);
        }
        for (level, steps) in self.levels.iter_mut().zip(LEVEL_STEPS) {
            level.update((-1.0 / steps).exp(), value, 1.0);
        }
        let unit = self.unit();
        for season in &mut self.seasons {
            season.learn(&self.values, value, unit);
        }
        self.last = Some(value);
        self.lowest = self.lowest.min(value);
        self.observed += 1;
    }

    /// Remembers what is said now of the leads that are followed at this step.
    fn follow(&mut self) {
        if self.observed <= BURN_IN {
            return;
        }
        for i in 0..self.leads.len() {
            let lead = &self.leads[i];
            if !self.step.is_multiple_of(lead.every) {
                continue;
            }
            let says = self.says(lead.steps);
            let opinion = self.opinion(lead, &says, lead.steps);
            let due = self.step + lead.steps as u64;
            self.leads[i].follow(due, &says, &opinion);
        }
    }

    /// How much the series changes from value to value: the unit of all scales.
    fn unit(&self) -> f64 {
        let last = self.last.unwrap_or(0.0).abs();
        let least = f64::EPSILON * 16.0 * last + f64::MIN_POSITIVE;
        match self.observed {
            0..=2 => (FIRST_UNIT * last).max(least),
            _ => self.change.or(0.0).max(least),
        }
    }

    /// Steps whose residuals and losses count.
    fn memory(&self) -> f64 {
        self.season()
            .map_or(MEMORY_STEPS, |season| MEMORY_SEASONS * season.length as f64)
    }

    /// The longest season that was seen twice.
    fn season(&self) -> Option<&Season> {
        let seen = |season: &&Season| self.step >= 2 * season.length as u64;
        self.seasons.iter().rev().find(seen)
    }

    /// What every expert says of the value `steps` ahead; NaN where it says
    /// nothing.
    fn says(&self, steps: usize) -> Says {
        let mut says = [f64::NAN; EXPERTS];
        let Some(last) = self.last else {
            return says;
        };
        says[0] = last;
        says[1] = self.levels[0].or(last);
        says[2] = self.levels[1].or(last);
        for (slot, season) in self.seasons.iter().enumerate() {
            let at = PLAIN + slot * PROFILES * (SPANS + 1);
            season.says(&self.values, steps, &mut says[at..]);
        }
        says
    }

    /// What a lead's record makes of the experts.
    fn opinion(&self, lead: &Lead, says: &Says, steps: usize) -> Opinion {
        let then = self.step + steps as u64;
        let size = self.season().map_or(1.0, |season| season.size(then));
        let mut credibility = [1.0; EXPERTS];
        for (slot, season) in self.seasons.iter().enumerate() {
            let at = PLAIN + slot * PROFILES * (SPANS + 1);
            season.credibility(self.unit(), &mut credibility[at..]);
        }
        let last = self.last.unwrap_or(0.0);
        lead.opinion((says, &credibility), last, self.unit(), size)
    }

    /// The followed leads around a number of steps.
    fn mix(&self, steps: usize) -> Mix {
        let longer = self.leads.partition_point(|lead| lead.steps < steps);
        let longer = longer.min(self.leads.len() - 1);
        let shorter = longer.saturating_sub(1);
        let [near, far] = [shorter, longer].map(|i| (self.leads[i].steps as f64).ln());
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

/// A forecast in the making.
#[derive(Clone, Copy, Debug)]
struct Opinion {
    median: f64,
    /// What residuals are divided by.
    scale: f64,
    /// Mean distance of the experts from the median.
    disagreement: f64,
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
