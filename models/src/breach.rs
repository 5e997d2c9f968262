//! Whether, and when, a series will break its objective.
//!
//! A breach within H needs joint futures, not the forecast of each moment
//! alone. The forecast at its five horizons is interpolated to every minute
//! (in √time). Futures are a Gaussian copula over the forecast's own conformal
//! marginals, tails and skew included, which hold at every moment: a part of
//! the score lasts, the rest is noise from window to window. A breach is as many
//! windows in a row as the objective says, so of each minute the largest least of
//! that many counts: one window of a stall is none. The correlation of what lasts from minute to
//! minute follows from how the forecast variance grows: a random walk if it
//! grows fourfold from 15 to 60 minutes, mean-reverting if less (the
//! Ornstein–Uhlenbeck law), but never forgetful.

use serde::{Deserialize, Serialize};

use crate::error::ObjectiveError;
use crate::forecast::Forecast;
use crate::series::{HORIZON_SECS, HORIZONS, History, Target};

mod budget;
mod knots;
mod paths;

use budget::budget_secs;
use knots::{Knots, Moment};
pub use paths::Paths;
use paths::{PATHS, Slot};

/// Share of futures that must breach before a time is worth telling.
pub(crate) const ETA_SHARE_MIN: f64 = 0.05;

/// A value may lie so much above what it was measured as, being a logarithm in
/// single precision in between: equal to the threshold is no breach.
const ROUNDING: f64 = 1e-5;

/// Windows in a row that a breach may need at most: what lasts so long, lasts.
pub const WINDOWS_MAX: u32 = paths::RUNS as u32;

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
    /// Windows in a row above the threshold that break the promise, from 1 on;
    /// more than [`WINDOWS_MAX`] count as so many.
    #[serde(default = "one")]
    pub windows: u32,
    /// Events above the threshold that the error budget still allows.
    pub budget_events: Option<f64>,
}

fn one() -> u32 {
    1
}

/// An [`Objective`] in range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValidObjective {
    objective: Objective,
    pub(crate) log_threshold: f64,
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

    /// Windows in a row that are a breach, 1..=[`WINDOWS_MAX`].
    pub(crate) fn windows(&self) -> u32 {
        self.objective.windows.clamp(1, WINDOWS_MAX)
    }

    /// How many of the newest windows in a row are above the threshold, as
    /// [`breach`] takes it; at most as many as are a breach.
    pub fn above<H: History + ?Sized>(&self, own: &H) -> u32 {
        let exceeds = |ago: u32| {
            own.value(ago as usize, self.objective.target)
                .is_some_and(|value| value > self.log_threshold + ROUNDING)
        };
        (0..self.windows()).take_while(|ago| exceeds(*ago)).count() as u32
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
    /// P(within the horizon as many windows in a row as are a breach exceed the
    /// threshold), 0..=1; 1 if the newest do.
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
/// `above` is how many of the newest windows in a row exceed the threshold
/// ([`ValidObjective::above`]). A target that was never observed cannot be judged:
/// the probability is 0.
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
///         target: Target::P99, threshold, horizon_secs: 900, windows: 1,
///         budget_events: None,
///     };
///     let objective = objective.validate().unwrap();
///     breach(&forecast, &objective, &paths, objective.above(&history[..]))
/// };
/// assert!(risk(10.0).probability < 0.01); // 4 ms now, 10 s allowed
/// assert_eq!(risk(0.001).probability, 1.0); // broken already
/// assert_eq!(risk(0.001).eta.unwrap().secs, 0.0);
/// # Ok::<(), honeyguide_models::ParamsError>(())
/// ```
pub fn breach(
    forecast: &Forecast,
    objective: &ValidObjective,
    paths: &Paths,
    above: u32,
) -> Breach {
    let target = objective.objective.target;
    let missing = objective.windows().saturating_sub(above);
    let (probability, eta) = if missing == 0 {
        (1.0, Some(Eta::NOW))
    } else {
        match Knots::new(forecast, target) {
            Some(knots) if knots.within_reach(objective.log_threshold) => {
                let breaches = simulate(&knots, objective, paths, missing);
                (breaches.probability(), breaches.eta(paths.slot_secs()))
            }
            _ => (0.0, None),
        }
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

impl Breach {
    /// The risk where pressure alone leads to a breach with a probability
    /// ([`crate::pressure`]): whichever is larger, as both may mean the same.
    #[must_use]
    pub fn under(self, pressure: f64) -> Breach {
        Breach {
            probability: self.probability.max(pressure),
            ..self
        }
    }
}

impl Eta {
    pub(crate) const NOW: Eta = Eta {
        secs: 0.0,
        lower_80_secs: 0.0,
        upper_80_secs: 0.0,
    };
}

/// In how many futures the first breach falls into each slot.
struct Breaches {
    by_slot: Vec<u32>,
}

/// Walks all futures through the forecast. The first `missing` windows of it are
/// a breach, too: what came before them is above the threshold already.
fn simulate(knots: &Knots, objective: &ValidObjective, paths: &Paths, missing: u32) -> Breaches {
    let run = objective.windows() as usize;
    let slots = (f64::from(objective.objective.horizon_secs) / paths.slot_secs()).round() as usize;
    let slots = &paths.slots()[..slots.clamp(1, paths.slots().len())];
    let kept = knots.persistence.powf(paths.slot_secs() / 60.0);
    let mut by_slot = Vec::with_capacity(slots.len());
    let mut state = [0.0f32; PATHS];
    let mut whole = [1.0f32; PATHS];
    let mut sd_before = 0.0;
    for (i, slot) in slots.iter().enumerate() {
        let moment = knots.moment((i + 1) as f64 * paths.slot_secs());
        let sd = moment.lasting_sd;
        let step = Step::new(&moment, kept * sd_before / sd, objective.log_threshold);
        let noise = match i {
            0 if (missing as usize) < run => &paths.begun(missing as usize, run),
            _ => slot.noise(run),
        };
        by_slot.push(step.walk(slot, noise, &mut state, &mut whole));
        sd_before = sd;
    }
    Breaches { by_slot }
}

/// How futures move in one slot, and what is a breach there.
struct Step {
    /// Of the standard normal score of what lasts, and what is new in it.
    kept: f32,
    new: f32,
    /// Shares of what lasts and of noise in the score of a value.
    shares: [f32; 2],
    /// The score beyond which a value breaches.
    limit: f32,
}

impl Step {
    fn new(moment: &Moment, kept: f64, log_threshold: f64) -> Step {
        let kept = kept.clamp(0.0, 1.0);
        Step {
            kept: kept as f32,
            new: (1.0 - kept * kept).sqrt() as f32,
            shares: moment.shares.map(|share| share as f32),
            limit: moment.score(log_threshold) as f32,
        }
    }

    /// Moves every future; returns how many exceed the limit for the first time.
    fn walk(
        &self,
        slot: &Slot,
        windows: &[f32; PATHS],
        state: &mut [f32; PATHS],
        whole: &mut [f32; PATHS],
    ) -> u32 {
        let [lasting, noise] = self.shares;
        let mut first = 0.0;
        for i in 0..PATHS {
            let score = self.kept * state[i] + self.new * slot.innovations[i];
            state[i] = score;
            let value = lasting * score + noise * windows[i];
            let breached = if value > self.limit { whole[i] } else { 0.0 };
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

#[cfg(test)]
mod tests;
