//! What was learned from the forecasts of one lead.

use std::collections::VecDeque;

use super::{EXPERTS, Opinion, Says};
use crate::combination::Combination;
use crate::conformal::{ResidualLaw, SD_PER_MEAN_ABS};
use crate::level::Level;

/// Forecasts of a lead that are followed at a time, about: more are neighbours
/// of each other and tell little.
const IN_FLIGHT: usize = 12;
/// Weights of experts fall with this power of their loss.
const POWER: i32 = 6;
/// All experts begin alike.
const PRIOR_LOSS: [f64; EXPERTS] = [1.0; EXPERTS];
/// Residuals of a random walk that the typical size is believed to have.
const SIZE_BELIEF: f64 = 2.0;
/// Residuals that make the typical size one that surprises are told from.
const SIZE_RESIDUALS: f64 = 20.0;
/// A residual so many times the typical size counts by half …
const SURPRISE: f64 = 3.0;
/// … or so many times, at leads up to …
const SURPRISE_SHORT: f64 = 6.0;
/// … so many steps, where fewer forecasts share one event.
const SHORT_STEPS: usize = 64;
/// The same for the law of residuals, in its scales.
const SURPRISE_LAW: f64 = 5.0;
/// What a residual weighs in the law after the next one: about 120 count.
const KEEP_LAW: f64 = 0.9917;
/// Residuals beyond this many scales count as this many.
const NORMALISED_MAX: f64 = 12.0;
/// Share of residuals beyond an end of the 95 % interval, which is tracked …
const TAIL: f64 = 0.025;
/// … and beyond a quantile that is no more moved with it.
const FADED: f64 = 0.1;
/// Step of the tracking, in widths of the interval.
const GAIN: f64 = 0.03;
/// Ends are moved outwards by so many scales at most.
const OUTWARDS_MAX: f64 = 40.0;
/// A scale is the typical size times: a part that never changes, one as large
/// as usual at the phase, one as large as the experts disagree.
const SHAPE: [f64; 3] = [0.3, 0.4, 0.3];
/// The experts may disagree this many times more than usual.
const DISAGREEMENT_MAX: f64 = 8.0;
/// Sizes relative to the typical one, at most.
const SIZE_MAX: f64 = 6.0;
/// Smallest scale, in units.
const SCALE_MIN: f64 = 0.02;

/// One lead.
#[derive(Clone, Debug)]
pub(super) struct Lead {
    pub(super) steps: usize,
    /// Every how many steps a forecast is followed.
    pub(super) every: u64,
    combination: Combination<EXPERTS>,
    law: ResidualLaw,
    tracker: Tracker,
    /// Mean absolute residual.
    size: Level,
    size_weight: f64,
    disagreement: Level,
    in_flight: VecDeque<Claim>,
}

/// A forecast that is followed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub(super) due: u64,
    says: Says,
    opinion: Opinion,
}

impl Lead {
    pub(super) fn new(steps: usize) -> Self {
        Lead {
            steps,
            every: (steps / IN_FLIGHT).max(1) as u64,
            combination: Combination::default(),
            law: ResidualLaw::default(),
            tracker: Tracker::default(),
            size: Level::default(),
            size_weight: 0.0,
            disagreement: Level::default(),
            in_flight: VecDeque::with_capacity(2 * IN_FLIGHT + 2),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.in_flight.capacity() * size_of::<Claim>()
    }

    /// The next claim that is due by `step`.
    pub(super) fn due(&mut self, step: u64) -> Option<Claim> {
        self.in_flight.pop_front_if(|claim| claim.due <= step)
    }

    /// Quantiles of residuals at ascending levels in 0..=1, in scales.
    pub(super) fn offsets<const N: usize>(&self, levels: [f64; N]) -> [f64; N] {
        let offsets = self.law.at(levels);
        let mut least = f64::NEG_INFINITY;
        std::array::from_fn(|i| {
            least = (offsets[i] + self.tracker.shift(levels[i])).max(least);
            least
        })
    }

    pub(super) fn follow(&mut self, due: u64, says: &Says, opinion: &Opinion) {
        self.in_flight.push_back(Claim {
            due,
            says: *says,
            opinion: *opinion,
        });
    }

    /// What the experts' past at this lead makes of what they say now. `size`
    /// is how large residuals are at that phase, relative to the usual.
    pub(super) fn opinion(
        &self,
        (says, credibility): (&Says, &[f64; EXPERTS]),
        last: f64,
        unit: f64,
        size: f64,
    ) -> Opinion {
        let weights = self
            .combination
            .weights(says, credibility, &PRIOR_LOSS, POWER);
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
            scale: SD_PER_MEAN_ABS * (self.typical(unit) * shape).max(SCALE_MIN * unit),
            disagreement,
        }
    }

    /// Learns what became of a claim; returns the residual's size relative to
    /// the typical one, once that is known.
    ///
    /// `memory` is in steps.
    pub(super) fn settle(
        &mut self,
        claim: &Claim,
        value: f64,
        unit: f64,
        memory: f64,
    ) -> Option<f64> {
        let keep = (-(self.every as f64) / memory).exp();
        let residual = value - claim.opinion.median;
        let size = residual.abs();
        let typical = self.size.or(0.0).max(unit);
        let settled = self.size_weight > SIZE_RESIDUALS;
        let surprise = if self.steps <= SHORT_STEPS {
            SURPRISE_SHORT
        } else {
            SURPRISE
        };
        let trust = if settled {
            cauchy(size / (surprise * typical))
        } else {
            1.0
        };
        self.combination.settle(&claim.says, value, trust, keep);
        let relative = settled.then(|| (size / typical).min(SIZE_MAX));
        let clipped = if settled {
            size.min(SURPRISE * typical + unit)
        } else {
            size
        };
        let keep_trusted = 1.0 - (1.0 - keep) * trust;
        self.size.update(keep_trusted, clipped, trust);
        self.size_weight = self.size_weight * keep_trusted + trust;
        self.disagreement
            .update(keep, claim.opinion.disagreement, 1.0);
        let normalised = residual / claim.opinion.scale;
        self.tracker
            .learn(normalised, self.law.at([TAIL, 1.0 - TAIL]));
        let trust = cauchy(normalised / SURPRISE_LAW);
        let normalised = normalised.clamp(-NORMALISED_MAX, NORMALISED_MAX);
        self.law.settle(normalised, KEEP_LAW, 1.0, trust);
        relative
    }

    /// Mean absolute residual, a random walk's until there were some.
    fn typical(&self, unit: f64) -> f64 {
        let belief = unit * (self.steps as f64).sqrt();
        let seen = self.size_weight;
        (self.size.or(0.0) * seen + belief * SIZE_BELIEF) / (seen + SIZE_BELIEF)
    }
}

/// How far the ends of the 95 % interval are moved outwards, in scales, so that
/// in the long run each is missed as often as it should be, whatever residuals
/// do: quantile tracking, the proportional part of conformal PID (Angelopoulos,
/// Candès and Tibshirani 2023, equation 5).
#[derive(Clone, Copy, Debug, Default)]
struct Tracker {
    /// Below and above.
    outwards: [f64; 2],
}

impl Tracker {
    /// Learns where a residual lay; `ends` are the law's.
    fn learn(&mut self, normalised: f64, [low, high]: [f64; 2]) {
        let [below, above] = self.outwards;
        let missed = [normalised < low - below, normalised > high + above];
        let gain = GAIN * (high - low).max(1.0);
        for (outwards, missed) in self.outwards.iter_mut().zip(missed) {
            *outwards += gain * (f64::from(u8::from(missed)) - TAIL);
            *outwards = outwards.clamp(-0.5 * (high - low), OUTWARDS_MAX);
        }
    }

    /// Of a quantile: as tracked at the tail, fading out towards the median.
    fn shift(&self, level: f64) -> f64 {
        let tail = level.min(1.0 - level).max(0.0);
        let share = ((FADED - tail) / (FADED - TAIL)).clamp(0.0, 1.0);
        if level > 0.5 {
            share * self.outwards[1]
        } else {
            -share * self.outwards[0]
        }
    }
}

/// Weight of a residual so many scales large (Cauchy's, of robust regression).
fn cauchy(scales: f64) -> f64 {
    1.0 / (1.0 + scales * scales)
}
