//! Probabilities that come as often as they are said, learned from what came.
//!
//! A breach probability is followed until its horizon has passed or the breach
//! came. What came of it moves a line in the logit, logit q = a + b·logit p (Platt
//! 1999), by online Bayesian logistic regression: a normal belief of (a, b), one
//! Newton step per outcome (Laplace's approximation; Spiegelhalter and Lauritzen
//! 1990), and forgetting towards the prior. The prior of an objective of one series
//! is the line of all objectives of its [`Pool`], as one series rarely breaks; the
//! prior of the pool is to believe what is said. The two prior deviations are such
//! that what never came at 5 % lowers what is said at 5 % and leaves 90 % alone:
//! the belief at logit l moves with an outcome at x by σa² + σb²·x·l.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::breach::{Breach, ETA_SHARE_MIN, Eta, ValidObjective};
use crate::ensemble::{Ahead, IN_FLIGHT};
use crate::params::ValidParams;
use crate::series::Target;

/// Prior standard deviations of a and b: of an objective around its pool, and of a
/// pool around a = 0, b = 1.
const OWN_SDS: [f64; 2] = [1.0, 0.4];
const POOL_SDS: [f64; 2] = [0.5, 0.3];
/// Outcomes after which one counts half.
const HALF_LIFE: f64 = 500.0;
/// The same for a pool, in windows with outcomes.
const POOL_HALF_LIFE: f64 = 4000.0;
/// A slope beyond these turns little into anything.
const SLOPES: (f64, f64) = (0.1, 2.0);
/// Probabilities are at least this far from 0 and 1: half of one simulated future.
const CERTAIN: f64 = 0.0005;
/// A logistic curve is at least so steep where it is taken for its tangent.
const CURVATURE_MIN: f64 = 1e-4;

/// A belief about a line in the logit. Single precision is plenty.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Line {
    /// a and b.
    mean: [f32; 2],
    /// Precision of a, of a with b, of b.
    precision: [f32; 3],
}

/// What became of one probability.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Outcome {
    logit: f64,
    came: bool,
    weight: f64,
}

impl Line {
    const IDENTITY: [f64; 2] = [0.0, 1.0];

    fn believed(mean: [f64; 2], sds: [f64; 2]) -> Line {
        let [a, b] = sds.map(|sd| (sd * sd).recip() as f32);
        Line {
            mean: mean.map(|value| value as f32),
            precision: [a, 0.0, b],
        }
    }

    fn at(&self, logit: f64) -> f64 {
        f64::from(self.mean[0]) + f64::from(self.mean[1]) * logit
    }

    /// Keeps the share `keep` of what is known, and learns.
    fn learn(&mut self, prior: &Line, keep: f64, outcomes: &[Outcome]) {
        let [p, q] = [self.precision, prior.precision].map(|p| p.map(f64::from));
        let [m, n] = [self.mean, prior.mean].map(|m| m.map(f64::from));
        let mut precision: [f64; 3] = std::array::from_fn(|i| keep * p[i] + (1.0 - keep) * q[i]);
        let pulled = [0, 1].map(|i| {
            keep * (p[i] * m[0] + p[i + 1] * m[1]) + (1.0 - keep) * (q[i] * n[0] + q[i + 1] * n[1])
        });
        let mut mean = solve(precision, pulled);
        let mut gradient = [0.0; 2];
        for Outcome {
            logit,
            came,
            weight,
        } in outcomes
        {
            let said = probability(mean[0] + mean[1] * logit);
            let curvature = weight * (said * (1.0 - said)).max(CURVATURE_MIN);
            let error = weight * (f64::from(u8::from(*came)) - said);
            precision[0] += curvature;
            precision[1] += curvature * logit;
            precision[2] += curvature * logit * logit;
            gradient[0] += error;
            gradient[1] += error * logit;
        }
        let [a, b] = solve(precision, gradient);
        mean = [mean[0] + a, (mean[1] + b).clamp(SLOPES.0, SLOPES.1)];
        self.mean = mean.map(|value| value as f32);
        self.precision = precision.map(|value| value as f32);
    }
}

/// x of the symmetric system [p₀ p₁; p₁ p₂]·x = y. The prior's part keeps the
/// determinant above 0.
fn solve([aa, ab, bb]: [f64; 3], [a, b]: [f64; 2]) -> [f64; 2] {
    let determinant = aa * bb - ab * ab;
    [
        (bb * a - ab * b) / determinant,
        (aa * b - ab * a) / determinant,
    ]
}

fn logit(probability: f64) -> f64 {
    let p = probability.clamp(CERTAIN, 1.0 - CERTAIN);
    (p / (1.0 - p)).ln()
}

fn probability(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit).exp())
}

fn keep(half_life: f64) -> f64 {
    0.5f64.powf(half_life.recip())
}

/// What the objectives of many series have in common: how far breach probabilities
/// can be believed. 32 bytes and the outcomes of a window; deterministic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    line: Line,
    /// Of the newest window, not learned yet.
    outcomes: Vec<(f32, f32)>,
}

impl Default for Pool {
    fn default() -> Self {
        Pool {
            line: Line::believed(Line::IDENTITY, POOL_SDS),
            outcomes: Vec::new(),
        }
    }
}

impl Pool {
    /// Learns from all outcomes since the last call; call it once per window. They
    /// count as one at most, because series break together.
    pub fn learn(&mut self) {
        if self.outcomes.is_empty() {
            return;
        }
        let share = (self.outcomes.len() as f64).recip();
        let outcomes: Vec<Outcome> = self
            .outcomes
            .drain(..)
            .map(|(logit, weight)| Outcome {
                logit: logit.into(),
                came: weight > 0.0,
                weight: share * f64::from(weight.abs()),
            })
            .collect();
        let prior = Line::believed(Line::IDENTITY, POOL_SDS);
        self.line.learn(&prior, keep(POOL_HALF_LIFE), &outcomes);
    }

    /// The prior of an objective.
    fn prior(&self) -> Line {
        Line::believed(self.line.mean.map(f64::from), OWN_SDS)
    }
}

/// A probability that is followed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Claim {
    due: u64,
    logit: f32,
    /// In model space, as it was then.
    threshold: f32,
    /// Windows until now in which nothing could be seen.
    unseen: u16,
    /// Newest windows in a row above the threshold.
    above: u8,
}

/// How far the breach probabilities of one objective of one series can be believed.
/// At most 300 bytes, serialisable, deterministic.
///
/// ```
/// use honeyguide_models::breach::{Breach, Objective};
/// use honeyguide_models::recalibration::{Pool, Recalibration};
/// use honeyguide_models::{Params, Target};
///
/// let params = Params::default().validate()?;
/// let objective = Objective {
///     target: Target::P99, threshold: 0.1, horizon_secs: 300, windows: 1, budget_events: None,
/// }.validate().unwrap();
/// let said = |probability| Breach { probability, eta: None, budget_exhausted_in_secs: None };
/// let (mut recalibration, mut pool) = (Recalibration::default(), Pool::default());
/// let calm = Some(0.01f64.ln());
/// // 30 % is said all day, and never comes.
/// for step in 0..8640 {
///     recalibration.settle(&params, &objective, step, calm, &mut pool);
///     pool.learn();
///     recalibration.follow(&params, &objective, step, &said(0.3));
/// }
/// let means = |probability| recalibration.recalibrated(&pool, said(probability)).probability;
/// assert!(means(0.3) < 0.03);
/// assert!(means(0.999) > 0.5);
/// # Ok::<(), honeyguide_models::ParamsError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recalibration {
    /// `None` before the first outcome: that of the pool.
    line: Option<Line>,
    in_flight: VecDeque<Claim>,
    /// Newest windows in a row above the objective's threshold.
    above: u8,
}

impl Recalibration {
    /// The risk with the probability that it means. A breach that is there stays
    /// certain, and what is out of reach stays 0.
    pub fn recalibrated(&self, pool: &Pool, breach: Breach) -> Breach {
        if !is_open(&breach) {
            return breach;
        }
        let line = self.line.as_ref().unwrap_or(&pool.line);
        // Only downwards: after one incident all that was said has come, and an
        // alert would stay for as long as that is remembered.
        let learned = probability(line.at(logit(breach.probability)));
        let probability = learned.min(breach.probability);
        Breach {
            probability,
            eta: breach.eta.filter(|_| probability >= ETA_SHARE_MIN),
            ..breach
        }
    }

    /// Learns what became of what was followed: `observed` is the objective's target
    /// in model space in the newest window, `None` where nothing could be seen. To be
    /// called once per window, before [`follow`](Self::follow).
    pub fn settle(
        &mut self,
        params: &ValidParams,
        objective: &ValidObjective,
        step: u64,
        observed: Option<f64>,
        pool: &mut Pool,
    ) {
        let (ahead, every) = rhythm(params, objective);
        // Claims that overlap see the same breach.
        let weight = (every as f64 / ahead as f64).min(1.0);
        self.above = next(self.above, observed, objective.log_threshold);
        let mut kept = 0;
        for i in 0..self.in_flight.len() {
            let claim = &mut self.in_flight[i];
            claim.above = next(claim.above, observed, claim.threshold.into());
            let came = u32::from(claim.above) >= objective.windows();
            claim.unseen = claim.unseen.saturating_add(u16::from(observed.is_none()));
            if !came && claim.due > step {
                self.in_flight.swap(kept, i);
                kept += 1;
                continue;
            }
            // What is long due was interrupted by a gap.
            let late = step.saturating_sub(claim.due).min(ahead);
            let unseen = (u64::from(claim.unseen) + late) as f64 / ahead as f64;
            let seen = if came { 1.0 } else { (1.0 - unseen).max(0.0) };
            let outcome = Outcome {
                logit: claim.logit.into(),
                came,
                weight: weight * seen,
            };
            if outcome.weight > 0.0 {
                self.learn(outcome, pool);
            }
        }
        self.in_flight.truncate(kept);
    }

    fn learn(&mut self, outcome: Outcome, pool: &mut Pool) {
        let prior = pool.prior();
        let line = self.line.get_or_insert(prior);
        line.learn(&prior, keep(HALF_LIFE), &[outcome]);
        let sign = if outcome.came { 1.0 } else { -1.0 };
        let weight = (sign * outcome.weight) as f32;
        pool.outcomes.push((outcome.logit as f32, weight));
    }

    /// Follows a risk of `step` as it was before recalibration, if its turn has come.
    pub fn follow(
        &mut self,
        params: &ValidParams,
        objective: &ValidObjective,
        step: u64,
        breach: &Breach,
    ) {
        let (ahead, every) = rhythm(params, objective);
        let due = step.saturating_add(ahead);
        let known = self.in_flight.back().is_some_and(|claim| claim.due >= due);
        if !step.is_multiple_of(every) || !is_open(breach) || known {
            return;
        }
        if self.in_flight.len() > IN_FLIGHT {
            self.in_flight.pop_front();
        }
        self.in_flight.push_back(Claim {
            due,
            logit: logit(breach.probability) as f32,
            threshold: objective.log_threshold as f32,
            unseen: 0,
            above: self.above,
        });
    }

    /// Memory on the heap in bytes.
    pub fn heap_bytes(&self) -> usize {
        self.in_flight.capacity() * size_of::<Claim>()
    }
}

/// How many windows in a row are above a threshold, one later. What could not be
/// seen ends nothing.
fn next(above: u8, observed: Option<f64>, threshold: f64) -> u8 {
    match observed {
        Some(value) if value > threshold => above.saturating_add(1),
        Some(_) => 0,
        None => above,
    }
}

/// Whether there is something to be learned: no breach yet, and none impossible.
fn is_open(breach: &Breach) -> bool {
    breach.probability > 0.0 && breach.eta != Some(Eta::NOW)
}

/// Windows to the horizon, and every how many windows one is followed.
fn rhythm(params: &ValidParams, objective: &ValidObjective) -> (u64, u64) {
    let ahead = Ahead::new(params.windows_in(objective.get().horizon_secs));
    (ahead.steps as u64, ahead.every)
}

/// The target of an objective in a window, as [`Recalibration::settle`] takes it:
/// `None` where fewer than `samples_min` events make a quantile of it.
pub fn observed(window: &crate::Window, target: Target, samples_min: u64) -> Option<f64> {
    let enough = target == Target::Rate || f64::from(window.samples) >= samples_min as f64;
    window.value(target).filter(|_| enough)
}

#[cfg(test)]
mod tests;
