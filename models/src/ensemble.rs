//! The forecast of one quantity at one lead: what a pool of experts says, how
//! far each is believed, and how wide the interval around them is.
//!
//! All forecasts of this crate are made here: [`crate::forecaster`] feeds it
//! plain values, [`crate::SeriesModel`] windows of five quantities. What is
//! published of the one (`docs/accuracy.md`) is what the other gives.
//!
//! The experts are the last value, levels over three spans, a regression where
//! there is one, and for each season its shape, alone and shifted by how far the
//! newest values lie from it over three spans (the Theta idea: forecast the
//! deseasonalised level, put the season back), once as high as it was in the
//! newest season (`stretch.rs`). They are weighted by their past errors at that
//! lead (`combination.rs`). Quantiles are those of past residuals
//! at that lead (`conformal.rs`), in a scale that follows how much the experts
//! disagree and how large residuals usually are at that phase of the season.
//!
//! A lasting change of level far outside the residuals is one event, but a lead
//! of `h` steps sees it in all forecasts of `h` steps: residuals count for the
//! less the larger they are (Cauchy weights), so that one event does not widen
//! a day of forecasts.

mod lead;
mod pooled;
mod season;
mod stretch;
mod tracker;
mod trend;

use serde::{Deserialize, Serialize};

pub(crate) use self::lead::{Ahead, IN_FLIGHT, Lead, Opinion, Outcome, share_of_drift, typical};
pub(crate) use self::pooled::PooledLead;
pub(crate) use self::season::{Fixed, Observed, SEASONS, Seasons};
pub(crate) use self::trend::Trend;
use crate::level::Level;

/// Spans over which the level, and the distance from a shape, are followed.
pub(crate) const SPANS: usize = 3;
/// Their lengths in steps: of the levels, and of the distances.
const LEVEL_STEPS: [f64; SPANS] = [3.0, 18.0, 90.0];
const DISTANCE_STEPS: [f64; SPANS] = [2.0, 2.0, 90.0];
/// The one that is from the stretched shape.
const STRETCHED: usize = 1;
/// Values that repeat the one before, after which a series stands still.
const STANDS_STILL: u16 = 4;
/// Where the last value, the levels, the regression and the seasons stand.
const LAST: usize = 0;
const LEVELS: usize = 1;
const REGRESSION: usize = LEVELS + SPANS;
const SEASONAL: usize = REGRESSION + 1;
/// Experts of a season: its shape, and the shape shifted by each distance.
const OF_SEASON: usize = 1 + SPANS;
/// All experts.
pub(crate) const EXPERTS: usize = SEASONAL + SEASONS * OF_SEASON;

/// Experts that speak together or not at all: the last value and the levels,
/// the regression, each season.
pub(crate) const GROUPS: usize = 2 + SEASONS;

/// The group of an expert.
pub(crate) const fn group(expert: usize) -> usize {
    match expert.checked_sub(SEASONAL) {
        None => expert / REGRESSION,
        Some(seasonal) => 2 + seasonal / OF_SEASON,
    }
}

/// Steps over which the usual change from value to value is a mean, …
const CHANGE_STEPS: f64 = 1440.0;
/// … and the usual distance from the slow level, …
const DRIFT_STEPS: f64 = 360.0;
/// … to which one adds at most so many of the usual.
const CLIP: f64 = 3.0;
/// Sizes of residuals below this share of the usual are no more certain.
const SIZE_MIN: f64 = 0.1;
/// Values until nothing believed beforehand counts.
const BELIEF_VALUES: f64 = 12.0;
/// An expert so many usual distances from the present is believed by half.
const CREDIBLE: f64 = 10.0;
/// A value so many usual distances from a season says half as much of those to
/// come, …
const UNUSUAL: f64 = 20.0;
/// … but this much at least: what stays is a season.
const TRUST_MIN: f64 = 0.1;
/// In an incident so many usual distances are enough, and it may say nothing. What comes
/// at its usual time is near to its season all the same, and is learned.
const UNUSUAL_INCIDENT: f64 = 4.0;

/// What every expert says of one step; NaN where it says nothing.
pub(crate) type Says = [f64; EXPERTS];

/// What a season says of one step; NaN where it says nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Shape {
    /// As it usually was.
    pub(crate) mean: f64,
    /// As high as it was in the newest season.
    pub(crate) stretched: f64,
}

impl Shape {
    /// Nothing.
    pub(crate) const NONE: Shape = Shape {
        mean: f64::NAN,
        stretched: f64::NAN,
    };

    /// That which the distance over a span is from.
    fn of(&self, span: usize) -> f64 {
        if span == STRETCHED {
            self.stretched
        } else {
            self.mean
        }
    }
}

/// What all seasons say of one step.
pub(crate) type Shapes = [Shape; SEASONS];

/// What is known of a quantity before it was seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Belief {
    /// Its usual change from value to value.
    pub(crate) change: f64,
    /// Below that, changes are rounding.
    pub(crate) least: f64,
}

/// What is followed of one quantity from value to value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Quantity {
    last: Option<f64>,
    observed: u16,
    /// Newest values that repeated the one before.
    repeats: u16,
    levels: [Level; SPANS],
    /// Mean absolute change from one value to the next.
    change: Level,
    /// Mean absolute distance from the slow level.
    drift: Level,
    /// Of the values from the shape of each season.
    distances: [[Level; SPANS]; SEASONS],
    /// How far the fast distance usually lies from the slow one.
    gaps: [Level; SEASONS],
}

impl Quantity {
    /// The newest value.
    pub(crate) fn last(&self) -> Option<f64> {
        self.last
    }

    /// Whether a next value would be one more of many that are the same.
    pub(crate) fn stands_still(&self, value: f64) -> bool {
        self.last == Some(value) && self.repeats + 1 >= STANDS_STILL
    }

    /// Takes the newest value, observed with a weight in (0..=1]; `shapes` are
    /// those of its step before it was known, `size` is how large residuals are
    /// at its phase, relative to the usual, `incident` whether one is open. Returns
    /// how much it says of seasons to come, 0..=1: little, if it is unusually far from
    /// those before.
    pub(crate) fn learn(
        &mut self,
        value: f64,
        weight: f64,
        (shapes, size): (&Shapes, f64),
        incident: bool,
    ) -> f64 {
        let mut trust: f64 = 1.0;
        let (unusual, least) = if incident {
            (UNUSUAL_INCIDENT, 0.0)
        } else {
            (UNUSUAL, TRUST_MIN)
        };
        // Of variances: on a flank, where they are large, values say little.
        let calm = weight / size.max(SIZE_MIN).powi(2);
        if let Some(last) = self.last {
            let keep = (-1.0 / CHANGE_STEPS).exp();
            self.change.update(keep, (value - last).abs(), weight);
        }
        if let Some(slow) = self.levels[SPANS - 1].get() {
            let most = clip(&self.drift, self.change.or(0.0));
            let keep = (-1.0 / DRIFT_STEPS).exp();
            self.drift
                .update(keep, (value - slow).abs().min(most), weight);
        }
        for (level, steps) in self.levels.iter_mut().zip(LEVEL_STEPS) {
            level.update((-1.0 / steps).exp(), value, weight);
        }
        let change = self.change.or(0.0);
        let seasons = self.distances.iter_mut().zip(&mut self.gaps);
        for ((distances, usual), shape) in seasons.zip(shapes) {
            if shape.mean.is_finite() {
                for (span, distance) in distances.iter_mut().enumerate() {
                    let keep = (-1.0 / DISTANCE_STEPS[span]).exp();
                    distance.update(keep, value - shape.of(span), calm);
                }
                let gap = (distances[0].or(0.0) - distances[SPANS - 1].or(0.0)).abs();
                let most = clip(usual, change);
                let reach = unusual * (usual.or(gap) + change);
                trust = 1.0 / (1.0 + (gap / reach.max(f64::MIN_POSITIVE)).powi(2));
                usual.update((-1.0 / CHANGE_STEPS).exp(), gap.min(most), weight);
            } else {
                // How far from it values are, nobody knows any more.
                *distances = [Level::default(); SPANS];
            }
        }
        let repeats = self.repeats.saturating_add(1);
        self.repeats = if self.last == Some(value) { repeats } else { 0 };
        self.last = Some(value);
        self.observed = self.observed.saturating_add(1);
        trust.max(least)
    }

    /// How much the quantity changes from value to value: the unit of all
    /// scales. Until a dozen values were seen, what is believed counts, too.
    pub(crate) fn unit(&self, belief: &Belief) -> f64 {
        let believed = (1.0 - f64::from(self.observed.saturating_sub(1)) / BELIEF_VALUES).max(0.0);
        let seen = self.change.or(0.0);
        (seen + believed * (belief.change - seen).max(0.0)).max(belief.least)
    }

    /// Whether [`Self::unit`] has nothing believed in it any more.
    pub(crate) fn is_known(&self) -> bool {
        f64::from(self.observed) > BELIEF_VALUES
    }

    /// What every expert says of a step whose shapes are `shapes`, and of which
    /// a regression says `regression`, NaN where there is none.
    pub(crate) fn says(&self, shapes: &Shapes, regression: f64) -> Says {
        let mut says = [f64::NAN; EXPERTS];
        let Some(last) = self.last else {
            return says;
        };
        says[LAST] = last;
        for (says, level) in says[LEVELS..].iter_mut().zip(&self.levels) {
            *says = level.or(last);
        }
        says[REGRESSION] = regression;
        for (season, shape) in shapes.iter().enumerate() {
            let distances = &self.distances[season];
            // Known together, so that they are compared by the same errors.
            if distances[0].get().is_some() {
                let says = &mut says[SEASONAL + season * OF_SEASON..];
                says[0] = shape.mean;
                for (span, distance) in distances.iter().enumerate() {
                    says[1 + span] = shape.of(span) + distance.or(0.0);
                }
            }
        }
        says
    }

    /// How credible every expert is, 0..=1: one whose word of the present lies
    /// unusually far from the fastest level has missed a change, which its past
    /// errors do not know yet. A regression says nothing of the present; it is
    /// believed within the differences of levels that it was fitted on, so as
    /// much as the slow level.
    pub(crate) fn credibility(&self, belief: &Belief) -> [f64; EXPERTS] {
        let now = self.levels[0].or(0.0);
        let unit = self.unit(belief);
        let reach = CREDIBLE * (self.drift.or(belief.change) + unit);
        let believed = |gap: f64, reach: f64| 1.0 / (1.0 + (gap / reach).powi(4));
        let mut credibility = [1.0; EXPERTS];
        for (credibility, level) in credibility[LEVELS..].iter_mut().zip(&self.levels) {
            *credibility = believed(level.or(now) - now, reach);
        }
        credibility[REGRESSION] = credibility[REGRESSION - 1];
        for (season, distances) in self.distances.iter().enumerate() {
            let reach = CREDIBLE * (self.gaps[season].or(0.0) + unit);
            let [fast, _, slow] = distances.map(|distance| distance.or(0.0));
            let gaps = [fast, 0.0, 0.0, fast - slow];
            let credibility = &mut credibility[SEASONAL + season * OF_SEASON..];
            for (credibility, gap) in credibility.iter_mut().zip(gaps) {
                *credibility = believed(gap, reach);
            }
        }
        credibility
    }
}

/// The largest distance that a usual one learns from.
fn clip(usual: &Level, change: f64) -> f64 {
    usual
        .get()
        .map_or(f64::INFINITY, |usual| CLIP * usual + change)
}

/// Lengths in steps of the seasons that a series of this step may have: five
/// minutes, an hour, a day and a week.
pub fn season_steps(step_secs: u32) -> impl Iterator<Item = usize> {
    const SECS: [u32; SEASONS] = [300, 3600, 86_400, 604_800];
    let fits = move |secs: &u32| secs.is_multiple_of(step_secs);
    let steps = SECS
        .into_iter()
        .filter(fits)
        .map(move |secs| (secs / step_secs) as usize);
    steps.filter(|steps| *steps >= season::STEPS_MIN)
}
