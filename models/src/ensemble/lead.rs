//! What was learned from the forecasts of one quantity at one lead.

use serde::{Deserialize, Serialize};

use super::tracker::Tracker;
use super::{EXPERTS, PooledLead, REGRESSION, Says, Trend};
use crate::combination::Combination;
use crate::conformal::{ResidualLaw, SD_PER_MEAN_ABS, ZERO};
use crate::level::Level;

/// Forecasts of a lead that are followed at a time: more are neighbours of each
/// other and tell little.
pub(crate) const IN_FLIGHT: usize = 6;
/// Residuals that what is believed of the typical size is worth.
const SIZE_BELIEF: f64 = 2.0;
/// Residuals that make the typical size one that surprises are told from.
const SIZE_RESIDUALS: f64 = 10.0;
/// A residual so many times the typical size counts by half …
const SURPRISE: f64 = 3.0;
/// … or so many times, at leads up to …
const SURPRISE_SHORT: f64 = 6.0;
/// … so many steps, where fewer forecasts share one event.
const SHORT_STEPS: usize = 64;
/// Residuals before the scale is one that a law can be learned in.
const LAW_FROM: f64 = 4.0;
/// Surprises of the law of residuals, in its scales.
const SURPRISE_LAW: f64 = 5.0;
/// What a residual weighs in the law after the next one: about 120 count.
const KEEP_LAW: f64 = 0.9917;
/// Residuals beyond this many scales count as this many.
const NORMALISED_MAX: f64 = 12.0;
/// Shares of residuals beyond an end of the 95 % and of the 80 % interval, which
/// are tracked.
pub(super) const TAIL: f64 = 0.025;
pub(super) const TAIL_80: f64 = 0.1;
const TAILS: [f64; 4] = [TAIL, TAIL_80, 1.0 - TAIL_80, 1.0 - TAIL];
/// Quantiles of n residuals are read further out by this over n: split conformal
/// prediction asks for 1, and half of it is the expected shortfall of an
/// interpolated quantile …
const FINITE_SAMPLE: f64 = 0.5;
/// … but at leads beyond …
const FINITE_SAMPLE_LONG: f64 = 2.0;
/// … so many steps there are few residuals that do not overlap.
const LONG_STEPS: usize = 128;
/// Step of the tracking, in widths of the interval, …
const GAIN: f64 = 0.03;
/// … and at leads whose forecasts are all followed, where an end learns at once
/// that it is missed.
const GAIN_SHORT: f64 = 0.08;
/// A scale is the typical size times: a part that never changes, one as large
/// as usual at the phase, one as large as the experts disagree.
const SHAPE: [f64; 3] = [0.3, 0.4, 0.3];
/// The experts may disagree this many times more than usual.
const DISAGREEMENT_MAX: f64 = 8.0;
/// Sizes relative to the typical one, at most.
const SIZE_MAX: f64 = 6.0;
/// Smallest scale, in units.
const SCALE_MIN: f64 = 0.02;
/// The typical size at a lead before anything was seen is that of a shorter one
/// times this power of their ratio: between that of what always returns (0) and
/// of a random walk (1/2).
const GROWTH: f64 = 0.25;

/// How far ahead a lead forecasts, and how often that is followed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ahead {
    /// At least 1.
    pub(crate) steps: usize,
    /// Steps from one followed forecast to the next: all are if few are in
    /// flight, else it is a prime that no season is a multiple of, or only some
    /// phases of the season would ever be learned from.
    pub(crate) every: u64,
}

impl Ahead {
    pub(crate) fn new(steps: usize) -> Self {
        let prime = |n: &usize| {
            (2..)
                .take_while(|d| d * d <= *n)
                .all(|d| !n.is_multiple_of(d))
        };
        let least = steps.div_ceil(IN_FLIGHT).max(7);
        let every = match steps {
            ..=IN_FLIGHT => 1,
            _ => (least..).find(prime).unwrap_or(1) as u64,
        };
        Ahead { steps, every }
    }

    /// Whether the forecasts of this step are followed.
    pub(crate) fn follows(self, step: u64) -> bool {
        step.is_multiple_of(self.every)
    }

    /// See [`FINITE_SAMPLE`].
    fn finite(self) -> f64 {
        if self.steps > LONG_STEPS {
            FINITE_SAMPLE_LONG
        } else {
            FINITE_SAMPLE
        }
    }

    /// Where a forecast made at a step is kept.
    fn place(self, step: u64) -> usize {
        (step / self.every % (IN_FLIGHT as u64 + 1)) as usize
    }
}

/// A forecast in the making.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opinion {
    pub(crate) median: f64,
    /// What residuals are divided by.
    pub(crate) scale: f64,
    /// Mean distance of the experts from the median.
    disagreement: f64,
    /// Weight of the experts that expect what is to stay, 0..=1.
    stays: f64,
}

impl Opinion {
    /// How much further a trend goes, as far as it is what is to stay that is
    /// expected: what a season, or a regression, expects has its ups and downs in it.
    pub(crate) fn drift(&self, trend: &Trend, steps: usize) -> f64 {
        self.stays * (trend.carry(self.median, steps) - self.median)
    }
}

/// How much of a drift a quantile takes part in: all of it on the far side, and
/// nothing beyond the near end of the 80 % interval. A trend may stop; ends are
/// where they hold without it.
pub(crate) fn share_of_drift(drift: f64, level: f64) -> f64 {
    let near = if drift > 0.0 { level } else { 1.0 - level };
    drift * ((near - TAIL_80) / (0.5 - TAIL_80)).clamp(0.0, 1.0)
}

/// A distance from a forecast's median in scales, to 4 %: even in asinh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Distance(i8);

impl Distance {
    const NONE: Distance = Distance(i8::MIN);
    /// Distances beyond ±sinh(127/24) = ±100 scales are as large as that.
    const PER_ASINH: f64 = 24.0;

    fn new(scales: f64) -> Distance {
        if scales.is_nan() {
            return Distance::NONE;
        }
        let even = scales.asinh() * Distance::PER_ASINH;
        Distance(even.round().clamp(-127.0, 127.0) as i8)
    }

    /// NaN for none.
    fn get(self) -> f64 {
        if self == Distance::NONE {
            f64::NAN
        } else {
            (f64::from(self.0) / Distance::PER_ASINH).sinh()
        }
    }
}

/// A forecast whose outcome will be learned from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Claim {
    median: f32,
    /// 0 where none is in flight.
    scale: f32,
    /// Last bits of the step that it is of.
    due: u16,
    /// None if the scale was a belief; then nobody says anything.
    disagreement: Distance,
    says: [Distance; EXPERTS],
}

impl Claim {
    const NONE: Claim = Claim {
        median: 0.0,
        scale: 0.0,
        due: 0,
        disagreement: Distance::NONE,
        says: [Distance::NONE; EXPERTS],
    };
}

/// One lead of one quantity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Lead {
    combination: Combination,
    law: ResidualLaw,
    tracker: Tracker,
    /// Mean absolute residual.
    size: Level,
    disagreement: Level,
    /// By the step that they were made at.
    in_flight: [Claim; IN_FLIGHT + 1],
}

impl Default for Lead {
    fn default() -> Self {
        Lead {
            combination: Combination::default(),
            law: ResidualLaw::default(),
            tracker: Tracker::default(),
            size: Level::default(),
            disagreement: Level::default(),
            in_flight: [Claim::NONE; IN_FLIGHT + 1],
        }
    }
}

/// What a value tells of the forecasts of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    /// Its step.
    pub(crate) step: u64,
    pub(crate) value: f64,
    /// How well it was observed, in (0..=1].
    pub(crate) weight: f64,
    /// How much the quantity changes from value to value.
    pub(crate) unit: f64,
    /// Steps whose residuals and losses count.
    pub(crate) memory: f64,
    /// Whether the value is one more of many that are the same. Any interval
    /// holds those, so they say nothing of how wide one must be.
    pub(crate) stands_still: bool,
}

impl Lead {
    /// Quantiles of residuals at ascending levels in 0..=1, in scales. What the
    /// experts say is the median: that of the few residuals there are at a long
    /// lead is no better.
    pub(crate) fn offsets<const N: usize>(
        &self,
        ahead: Ahead,
        levels: [f64; N],
        similar: Option<&PooledLead>,
    ) -> [f64; N] {
        let pooled = similar.and_then(PooledLead::law);
        let offsets = self.law.at(levels, ahead.finite(), pooled);
        let [middle] = self.law.at([0.5], 0.0, pooled);
        let mut least = f64::NEG_INFINITY;
        std::array::from_fn(|i| {
            let tail = levels[i].min(1.0 - levels[i]);
            let share = ((tail - TAIL_80) / (0.5 - TAIL_80)).max(0.0);
            let offset = offsets[i] - share * middle;
            least = (offset + self.tracker.shift(levels[i])).max(least);
            least
        })
    }

    /// Remembers a forecast made at `step`, which is followed; the same step
    /// twice is followed once. In a scale that is not `known`, but believed,
    /// nothing can be told of experts and of the law of residuals, or forecasts
    /// would depend on what was believed for long.
    pub(crate) fn follow(
        &mut self,
        (step, ahead): (u64, Ahead),
        says: &Says,
        opinion: &Opinion,
        known: bool,
    ) {
        let due = (step + ahead.steps as u64) as u16;
        let place = &mut self.in_flight[ahead.place(step)];
        // Of a step that was forecast before a later one was.
        if place.scale > 0.0 && place.due.wrapping_sub(due).cast_signed() > 0 {
            return;
        }
        let distance = |from: f64| match known {
            true => Distance::new(from / opinion.scale),
            false => Distance::NONE,
        };
        *place = Claim {
            median: opinion.median as f32,
            scale: opinion.scale as f32,
            due,
            disagreement: distance(opinion.disagreement),
            says: says.map(|says| distance(says - opinion.median)),
        };
    }

    /// What the experts' past at this lead makes of what they say now. `unit`
    /// is how much the quantity changes from value to value, `size` how large
    /// residuals are at that phase, relative to the usual.
    pub(crate) fn opinion(
        &self,
        (says, credibility): (&Says, &[f64; EXPERTS]),
        last: f64,
        typical: f64,
        unit: f64,
        size: f64,
    ) -> Opinion {
        let weights = self.combination.weights(says, credibility);
        let known = || {
            weights
                .iter()
                .zip(says)
                .filter(|(weight, _)| **weight > 0.0)
        };
        let above: f64 = known().map(|(weight, says)| weight * (says - last)).sum();
        let median = last + above;
        let disagreement: f64 = known()
            .map(|(weight, says)| weight * (says - median).abs())
            .sum();
        let usual = self.disagreement.or(0.0);
        let relative = if usual > 0.0 {
            (disagreement / usual).min(DISAGREEMENT_MAX)
        } else {
            1.0
        };
        let shape = SHAPE[0] + SHAPE[1] * size + SHAPE[2] * relative;
        Opinion {
            median,
            scale: SD_PER_MEAN_ABS * (typical * shape).max(SCALE_MIN * unit),
            disagreement,
            stays: weights[..REGRESSION].iter().sum(),
        }
    }

    /// Learns from the forecast that was followed, if one was; returns the
    /// residual's size relative to the typical one, once that is known.
    pub(crate) fn settle(
        &mut self,
        ahead: Ahead,
        outcome: &Outcome,
        similar: Option<&PooledLead>,
    ) -> Option<f64> {
        let step = outcome.step.checked_sub(ahead.steps as u64)?;
        let place = ahead.place(step);
        let claim = self.in_flight[place];
        if !ahead.follows(step) || claim.scale == 0.0 || claim.due != outcome.step as u16 {
            return None;
        }
        self.in_flight[place] = Claim::NONE;
        self.learn(ahead, &claim, outcome, similar)
    }

    fn learn(
        &mut self,
        ahead: Ahead,
        claim: &Claim,
        outcome: &Outcome,
        similar: Option<&PooledLead>,
    ) -> Option<f64> {
        let keep = (-(ahead.every as f64) / outcome.memory).exp();
        let Outcome {
            value,
            unit,
            weight,
            ..
        } = *outcome;
        let (median, scale) = (f64::from(claim.median), f64::from(claim.scale));
        let residual = value - median;
        let size = residual.abs();
        let typical = self.size.or(0.0).max(unit);
        let settled = self.size.weight() > SIZE_RESIDUALS;
        let surprise = if ahead.steps <= SHORT_STEPS {
            SURPRISE_SHORT
        } else {
            SURPRISE
        };
        let trust = if settled {
            cauchy(size / (surprise * typical))
        } else {
            1.0
        };
        // Clamped: what overflowed would be an error without end.
        let says = claim.says.map(|distance| distance.get() * scale);
        self.combination
            .settle(&says, residual, weight * trust, keep);
        let relative = settled.then(|| (size / typical).min(SIZE_MAX));
        let clipped = if settled {
            size.min(SURPRISE * typical + unit)
        } else {
            size
        };
        let counted = weight * trust;
        self.size
            .update(1.0 - (1.0 - keep) * counted, clipped, counted);
        if claim.disagreement == Distance::NONE {
            return relative;
        }
        self.disagreement
            .update(keep, claim.disagreement.get() * scale, weight);
        if self.size.weight() < LAW_FROM {
            return relative;
        }
        let normalised = residual / scale;
        if outcome.stands_still && normalised.abs() < ZERO {
            return relative;
        }
        let gain = if ahead.every == 1 { GAIN_SHORT } else { GAIN };
        let ends = self
            .law
            .at(TAILS, ahead.finite(), similar.and_then(PooledLead::law));
        self.tracker.learn(normalised, ends, gain, weight);
        let trust = cauchy(normalised / SURPRISE_LAW);
        let normalised = normalised.clamp(-NORMALISED_MAX, NORMALISED_MAX);
        self.law.settle(normalised, KEEP_LAW, weight * trust);
        relative
    }

    /// Mean absolute residual, once there were enough to tell.
    pub(super) fn seen_size(&self) -> Option<f64> {
        let settled = self.size.weight() > SIZE_RESIDUALS;
        self.size.get().filter(|_| settled)
    }

    pub(super) fn law(&self) -> &ResidualLaw {
        &self.law
    }

    /// Mean absolute residual; as long as there were few, what is believed.
    fn typical(&self, believed: f64) -> f64 {
        let seen = self.size.weight();
        (self.size.or(0.0) * seen + believed * SIZE_BELIEF) / (seen + SIZE_BELIEF)
    }
}

/// Mean absolute residuals of leads, the shorter first. Where there were few, it
/// is believed to have grown since the next shorter lead as it has for similar series,
/// or as anything may; `unit` is believed of one step.
pub(crate) fn typical<'a>(
    leads: impl IntoIterator<Item = (Ahead, &'a Lead, Option<&'a PooledLead>)>,
    unit: f64,
) -> impl Iterator<Item = f64> {
    let (mut before, mut believed) = (1, unit);
    let mut pooled_before = Some(1.0);
    leads.into_iter().map(move |(ahead, lead, similar)| {
        let pooled = similar.and_then(PooledLead::size);
        let growth = match (pooled_before, pooled) {
            (Some(before), Some(pooled)) => pooled / before,
            _ => (ahead.steps as f64 / before as f64).powf(GROWTH),
        };
        pooled_before = pooled;
        (before, believed) = (ahead.steps, lead.typical(believed * growth));
        believed
    })
}

/// Weight of a residual so many scales large (Cauchy's, of robust regression).
fn cauchy(scales: f64) -> f64 {
    1.0 / (1.0 + scales * scales)
}

#[cfg(test)]
mod tests;
