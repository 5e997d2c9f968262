//! Whether, and when, a series will break its objective.
//!
//! A breach within H needs joint futures, not the forecast of each moment
//! alone. The forecast at its five horizons is interpolated to every minute
//! (in √time); futures move through these marginals as a Gaussian copula: a
//! persistent part, whose correlation from minute to minute follows from how
//! the forecast variance grows (a random walk if it grows fourfold from 15 to
//! 60 minutes, mean-reverting if less: the Ornstein–Uhlenbeck law), and the
//! window-to-window noise, of which the largest in each minute counts. The
//! marginals are the conformal ones: a future is compared with the threshold
//! on the scale of the forecast's own intervals.

use std::f64::consts::{LN_2, LN_10};

use serde::{Deserialize, Serialize};

use crate::error::ObjectiveError;
use crate::forecast::{Forecast, Interval};
use crate::series::{HORIZON_SECS, HORIZONS, TARGETS, Target};

mod paths;

pub use paths::Paths;
use paths::{PATHS, Slot};

/// Standard normal quantiles at 90 % and 97.5 %.
const Z_80: f64 = 1.281_552;
const Z_95: f64 = 1.959_964;
/// A threshold so many standard deviations away at every horizon is out of reach.
const OUT_OF_REACH: f64 = 8.0;
/// The persistent part keeps at least this share of the variance.
const PERSISTENT_MIN: f64 = 0.02;
/// Share of futures that must breach before a time is worth telling.
const ETA_SHARE_MIN: f64 = 0.05;
/// A budget that lasts longer than 30 days lasts.
const BUDGET_SECS_MAX: f64 = 30.0 * 86_400.0;

/// A promise about a series: its target stays at or below the threshold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Objective {
    /// What must stay below.
    pub target: Target,
    /// In seconds (for [`Target::Rate`] in events/s).
    pub threshold: f64,
    /// How far to look ahead in seconds, 60..=3600.
    pub horizon_secs: u32,
    /// Events above the threshold that the error budget still allows.
    pub budget_events: Option<f64>,
}

/// An [`Objective`] in range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValidObjective {
    objective: Objective,
    log_threshold: f64,
}

impl Objective {
    /// Checks the ranges.
    ///
    /// # Errors
    /// The first field that is out of range, with its value.
    pub fn validate(self) -> Result<ValidObjective, ObjectiveError> {
        let log_threshold = self.target.to_model(self.threshold);
        if !(self.threshold > 0.0 && self.threshold.is_finite()) {
            return Err(ObjectiveError::Threshold(self.threshold));
        }
        if !(HORIZON_SECS[0]..=HORIZON_SECS[HORIZONS - 1]).contains(&self.horizon_secs) {
            return Err(ObjectiveError::HorizonSecs(self.horizon_secs));
        }
        if let Some(events) = self.budget_events
            && !(events >= 0.0 && events.is_finite())
        {
            return Err(ObjectiveError::BudgetEvents(events));
        }
        Ok(ValidObjective {
            objective: self,
            log_threshold,
        })
    }
}

impl ValidObjective {
    /// The objective.
    pub fn get(&self) -> &Objective {
        &self.objective
    }
}

/// When a breach is expected, in seconds from the newest window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Eta {
    /// The median over the futures that breach.
    pub secs: f64,
    /// 10 % of them breach earlier.
    pub lower_80_secs: f64,
    /// 10 % of them breach later.
    pub upper_80_secs: f64,
}

/// The risk that an objective is broken.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Breach {
    /// P(some window within the horizon exceeds the threshold), 0..=1; 1 if the
    /// newest window does.
    pub probability: f64,
    /// When; `None` when a breach is unlikely (below 5 %).
    pub eta: Option<Eta>,
    /// Seconds until the error budget is used up at the forecast pace; `None`
    /// without a budget, or if it lasts 30 days.
    pub budget_exhausted_in_secs: Option<f64>,
}

/// Estimates the risk of one objective. Costs some 30 µs, and next to nothing
/// when the threshold is out of reach.
///
/// A target that was never observed cannot be judged: the probability is 0.
///
/// ```
/// use honeyguide_models::breach::{Objective, Paths, breach};
/// use honeyguide_models::{Params, SeriesInput, SeriesModel, Target, Window};
///
/// let params = Params::default().validate()?;
/// let paths = Paths::new(&params);
/// let y = [1e-3f32.ln(), 2e-3f32.ln(), 4e-3f32.ln(), 8e-3f32.ln(), 5.0];
/// let history = [Window { y, samples: 1000.0, completeness: 1.0 }; 30];
/// let input = SeriesInput { step: 500, own: &history[..], drivers: &[] };
/// let forecast = SeriesModel::new().refresh(&params, input);
///
/// let risk = |threshold| {
///     let objective = Objective {
///         target: Target::P99, threshold, horizon_secs: 900, budget_events: None,
///     };
///     breach(&forecast, &objective.validate().unwrap(), &paths)
/// };
/// assert!(risk(10.0).probability < 0.01); // 4 ms now, 10 s allowed
/// assert_eq!(risk(0.001).probability, 1.0); // broken already
/// assert_eq!(risk(0.001).eta.unwrap().secs, 0.0);
/// # Ok::<(), honeyguide_models::ParamsError>(())
/// ```
pub fn breach(forecast: &Forecast, objective: &ValidObjective, paths: &Paths) -> Breach {
    let target = objective.objective.target;
    let (probability, eta) = match forecast.y[target.index()] {
        Some(y) if f64::from(y) > objective.objective.threshold => (1.0, Some(Eta::NOW)),
        _ => match Knots::new(forecast, target) {
            Some(knots) if knots.within_reach(objective.log_threshold) => {
                let breaches = simulate(&knots, objective, paths);
                (breaches.probability(), breaches.eta(paths.slot_secs()))
            }
            _ => (0.0, None),
        },
    };
    Breach {
        probability,
        eta,
        budget_exhausted_in_secs: objective
            .objective
            .budget_events
            .and_then(|events| budget_secs(forecast, objective.log_threshold, events)),
    }
}

impl Eta {
    const NOW: Eta = Eta {
        secs: 0.0,
        lower_80_secs: 0.0,
        upper_80_secs: 0.0,
    };
}

/// One moment's forecast in model space: the median and, relative to it, the
/// values at `Z_80` and `Z_95` either way.
#[derive(Clone, Copy, Debug)]
struct Marginal {
    median: f64,
    /// −95, −80, +80, +95.
    ends: [f64; 4],
}

impl Marginal {
    fn new(target: Target, interval: &Interval) -> Marginal {
        let model = |value: f32| target.to_model(f64::from(value).max(f64::MIN_POSITIVE));
        let median = model(interval.yhat);
        let ends = [
            interval.lower_95,
            interval.lower_80,
            interval.upper_80,
            interval.upper_95,
        ];
        Marginal {
            median,
            ends: ends.map(|end| model(end) - median),
        }
    }

    /// Half the 80 % interval, as a standard deviation.
    fn sd(&self) -> f64 {
        ((self.ends[2] - self.ends[1]) / (2.0 * Z_80)).max(1e-4)
    }

    fn between(a: &Marginal, b: &Marginal, share: f64) -> Marginal {
        let mix = |a: f64, b: f64| a + share * (b - a);
        Marginal {
            median: mix(a.median, b.median),
            ends: std::array::from_fn(|i| mix(a.ends[i], b.ends[i])),
        }
    }

    /// Where a value lies, in standard normal terms: linear through the median
    /// and the interval ends, and on beyond them.
    fn z_of(&self, value: f64) -> f64 {
        let distance = value - self.median;
        let [low_95, low_80, high_80, high_95] = self.ends;
        let (inner, outer) = if distance >= 0.0 {
            (high_80, high_95)
        } else {
            (-low_80, -low_95)
        };
        let inner = inner.max(1e-4);
        let outer = outer.max(inner * 1.05);
        let size = distance.abs();
        let z = if size <= inner {
            size / inner * Z_80
        } else {
            Z_80 + (size - inner) / (outer - inner) * (Z_95 - Z_80)
        };
        z.copysign(distance)
    }
}

/// The forecast of one target as marginals over time.
struct Knots {
    marginals: [Marginal; HORIZONS],
    noise_variance: f64,
    /// Correlation of the persistent part over one minute, when its variance
    /// no longer grows.
    persistence: f64,
}

impl Knots {
    fn new(forecast: &Forecast, target: Target) -> Option<Knots> {
        let mut marginals = [Marginal {
            median: 0.0,
            ends: [0.0; 4],
        }; HORIZONS];
        for (h, marginal) in marginals.iter_mut().enumerate() {
            *marginal = Marginal::new(target, forecast.point(h, target)?);
        }
        let noise_sd = f64::from(forecast.noise_sd[target.index()]);
        let noise_variance = noise_sd * noise_sd;
        let [quarter, hour] = [2, 4].map(|h| persistent(marginals[h].sd(), noise_variance));
        Some(Knots {
            marginals,
            noise_variance,
            persistence: persistence((hour / quarter).clamp(1.0, 4.0)),
        })
    }

    fn within_reach(&self, threshold: f64) -> bool {
        self.marginals
            .iter()
            .any(|marginal| marginal.z_of(threshold) < OUT_OF_REACH)
    }

    /// The marginal at a time, interpolated in √time.
    fn at(&self, secs: f64) -> Marginal {
        let after = HORIZON_SECS
            .iter()
            .position(|knot| f64::from(*knot) >= secs);
        match after {
            Some(0) => self.marginals[0],
            None => self.marginals[HORIZONS - 1],
            Some(h) => {
                let [a, b] = [h - 1, h].map(|h| f64::from(HORIZON_SECS[h]).sqrt());
                let share = (secs.sqrt() - a) / (b - a);
                Marginal::between(&self.marginals[h - 1], &self.marginals[h], share)
            }
        }
    }
}

/// The part of a forecast variance that is not window-to-window noise.
fn persistent(sd: f64, noise_variance: f64) -> f64 {
    (sd * sd - noise_variance).max(PERSISTENT_MIN * sd * sd)
}

/// Correlation over a minute of an Ornstein–Uhlenbeck process whose forecast
/// variance at 60 minutes is `growth` times that at 15: with x = φ^30 the ratio
/// is 1 + x + x² + x³, a geometric sum. Growth 4 is a random walk, φ = 1.
fn persistence(growth: f64) -> f64 {
    let (mut low, mut high) = (0.0f64, 1.0f64);
    for _ in 0..40 {
        let x = 0.5 * (low + high);
        if 1.0 + x * (1.0 + x * (1.0 + x)) < growth {
            low = x;
        } else {
            high = x;
        }
    }
    (0.5 * (low + high)).powf(1.0 / 30.0)
}

/// In how many futures the first breach falls into each slot.
struct Breaches {
    by_slot: Vec<u32>,
}

/// Walks all futures through the marginals.
fn simulate(knots: &Knots, objective: &ValidObjective, paths: &Paths) -> Breaches {
    let slots = (f64::from(objective.objective.horizon_secs) / paths.slot_secs()).round() as usize;
    let slots = &paths.slots()[..slots.clamp(1, paths.slots().len())];
    let minutes = paths.slot_secs() / 60.0;
    let mut by_slot = Vec::with_capacity(slots.len());
    let mut state = [0.0f32; PATHS];
    let mut whole = [1.0f32; PATHS];
    let mut variance = 0.0;
    for (i, slot) in slots.iter().enumerate() {
        let marginal = knots.at((i + 1) as f64 * paths.slot_secs());
        let sd = marginal.sd();
        let before = variance;
        variance = persistent(sd, knots.noise_variance);
        let kept = knots.persistence.powf(minutes) * (before / variance).sqrt();
        let step = Step::new(
            kept,
            (variance.sqrt(), (sd * sd - variance).max(0.0).sqrt()),
        );
        let limit = sd * marginal.z_of(objective.log_threshold);
        by_slot.push(step.walk(slot, limit as f32, &mut state, &mut whole));
    }
    Breaches { by_slot }
}

/// How futures move in one slot.
struct Step {
    kept: f32,
    new: f32,
    persistent_sd: f32,
    noise_sd: f32,
}

impl Step {
    fn new(kept: f64, (persistent_sd, noise_sd): (f64, f64)) -> Step {
        let kept = kept.clamp(0.0, 1.0);
        Step {
            kept: kept as f32,
            new: (1.0 - kept * kept).sqrt() as f32,
            persistent_sd: persistent_sd as f32,
            noise_sd: noise_sd as f32,
        }
    }

    /// Moves every future; returns how many exceed the limit for the first time.
    fn walk(
        &self,
        slot: &Slot,
        limit: f32,
        state: &mut [f32; PATHS],
        whole: &mut [f32; PATHS],
    ) -> u32 {
        let mut first = 0.0;
        for i in 0..PATHS {
            state[i] = self.kept * state[i] + self.new * slot.innovations[i];
            let value = self.persistent_sd * state[i] + self.noise_sd * slot.noise[i];
            let breached = if value > limit { whole[i] } else { 0.0 };
            whole[i] -= breached;
            first += breached;
        }
        first as u32
    }
}

impl Breaches {
    fn count(&self) -> u32 {
        self.by_slot.iter().sum()
    }

    fn probability(&self) -> f64 {
        f64::from(self.count()) / PATHS as f64
    }

    fn eta(&self, slot_secs: f64) -> Option<Eta> {
        (self.probability() >= ETA_SHARE_MIN).then(|| Eta {
            secs: self.time(0.5, slot_secs),
            lower_80_secs: self.time(0.1, slot_secs),
            upper_80_secs: self.time(0.9, slot_secs),
        })
    }

    /// The time by which a share of the breaching futures have breached, even
    /// within a slot.
    fn time(&self, share: f64, slot_secs: f64) -> f64 {
        let wanted = share * f64::from(self.count());
        let mut below = 0.0;
        for (slot, count) in self.by_slot.iter().enumerate() {
            let count = f64::from(*count);
            if count > 0.0 && below + count >= wanted {
                return (slot as f64 + (wanted - below) / count) * slot_secs;
            }
            below += count;
        }
        self.by_slot.len() as f64 * slot_secs
    }
}

/// Seconds until `budget` events have exceeded the threshold, at the pace that
/// the forecast of quantiles and rate implies; the last pace goes on.
fn budget_secs(forecast: &Forecast, log_threshold: f64, budget: f64) -> Option<f64> {
    let mut at = 0.0;
    let mut left = budget;
    let mut pace = bad_events_per_sec(forecast, 0, log_threshold)?;
    for (h, secs) in HORIZON_SECS.iter().enumerate() {
        let secs = f64::from(*secs);
        let next = bad_events_per_sec(forecast, h, log_threshold)?;
        let mean = 0.5 * (pace + next);
        if mean * (secs - at) >= left {
            return Some(if mean > 0.0 { at + left / mean } else { at });
        }
        left -= mean * (secs - at);
        (at, pace) = (secs, next);
    }
    let total = at + left / pace;
    (total <= BUDGET_SECS_MAX).then_some(total)
}

fn bad_events_per_sec(forecast: &Forecast, horizon: usize, log_threshold: f64) -> Option<f64> {
    let mut yhat = [0.0; TARGETS];
    for target in Target::ALL {
        yhat[target.index()] = f64::from(forecast.point(horizon, target)?.yhat);
    }
    let logs = [yhat[0], yhat[1], yhat[2], yhat[3]].map(|secs| secs.max(f64::MIN_POSITIVE).ln());
    Some(yhat[Target::Rate.index()] * fraction_above(&logs, log_threshold))
}

/// Share of events above a log latency, given log p50, p90, p99 and p99.9: the
/// log of the share is linear between them, and on beyond p99.9; below p50 the
/// first segment is mirrored.
fn fraction_above(log_quantiles: &[f64; 4], log_latency: f64) -> f64 {
    const LOG_SHARES: [f64; 4] = [-LN_2, -LN_10, -2.0 * LN_10, -3.0 * LN_10];
    let slope = |i: usize| {
        let width = (log_quantiles[i + 1] - log_quantiles[i]).max(1e-6);
        (LOG_SHARES[i + 1] - LOG_SHARES[i]) / width
    };
    if log_latency < log_quantiles[0] {
        let mirrored = 2.0 * log_quantiles[0] - log_latency;
        return 1.0 - (LOG_SHARES[0] + slope(0) * (mirrored - log_quantiles[0])).exp();
    }
    let segment = (0..3)
        .rev()
        .find(|i| log_latency >= log_quantiles[*i])
        .unwrap_or(0);
    (LOG_SHARES[segment] + slope(segment) * (log_latency - log_quantiles[segment])).exp()
}

#[cfg(test)]
mod tests;
