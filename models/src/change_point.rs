//! Lasting changes of level, found online by the Bayesian posterior of how long the
//! current level has held.
//!
//! Adams and MacKay (2007), "Bayesian online changepoint detection": each *run* is a
//! possible begin of the current level, with a normal-inverse-gamma belief about its
//! values and the mass of the posterior; the least likely of more than `RUNS` is
//! left out. Where we differ, because latencies neither are normal nor independent:
//! the scale of a run's predictive law is at least the usual distance from the slow
//! level, a young run must lie clearly away from the established level, and the newest
//! two values must lie on its side, so that a spike of one or two windows, which does
//! begin a run, is no change.

use serde::{Deserialize, Serialize};

use crate::series::Target;

/// Runs remembered.
const RUNS: usize = 12;
/// The targets that are watched; other quantiles move with them.
pub(crate) const WATCHED: [Target; 2] = [Target::P99, Target::Rate];
/// A change comes every so many windows, half a day of 10 s; its prior.
const HAZARD: f64 = 1.0 / 5000.0;
/// Posterior mass of young runs at which a change is declared.
const MASS: f64 = 0.95;
/// A run is young between so many windows.
const YOUNG: std::ops::RangeInclusive<u32> = 4..=60;
/// Smallest change in usual deviations that is worth telling.
const DEVIATIONS_MIN: f64 = 1.5;
/// Windows before the first change.
const WARM_UP: u32 = 60;
/// Values that the prior is worth: its mean, and its variance (α₀; 2 α₀ of them).
const PRIOR_MEAN: f64 = 0.05;
const PRIOR_VARIANCE: f64 = 1.0;
/// A run's belief is that of at most so many values, so that it follows a drift.
const VALUES_MAX: u32 = 200;
/// The newest runs are kept whatever their mass: their time is to come.
const NEW: u32 = 3;

/// A lasting change of level.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangePoint {
    /// Which target changed.
    pub target: Target,
    /// Windows since the first window at the new level (0 is the newest).
    pub windows_ago: u32,
    /// New minus old level in model space, so e^`log_change` is the ratio of
    /// latencies.
    pub log_change: f32,
}

/// What is usual of a target before its newest value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usual {
    /// Its level over an hour.
    pub level: f64,
    /// Its distance from its slow level, above 0.
    pub sd: f64,
}

/// One possible begin of the current level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Run {
    /// Share of the posterior.
    mass: f32,
    mean: f32,
    /// β of the inverse gamma law of the variance.
    beta: f32,
    /// Observed windows since it began.
    windows: u32,
}

/// The runs of one target, 204 bytes. O(`RUNS`) per value.
///
/// ```
/// use honeyguide_models::change_point::{Runs, Usual};
///
/// let (mut runs, usual) = (Runs::default(), Usual { level: 0.0, sd: 0.5 });
/// let noise = |i: i32| if i % 2 == 0 { 0.3 } else { -0.3 };
/// assert!((0..100).all(|i| runs.update(noise(i), usual).is_none()));
/// // One wild value is no change, a new level is.
/// assert!((0..20).all(|i| runs.update(if i == 0 { 9.0 } else { noise(i) }, usual).is_none()));
/// let found = (0..10).find_map(|i| runs.update(4.0 + noise(i), usual)).unwrap();
/// assert_eq!(found, 3); // The change came 3 windows before it was certain.
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Runs {
    runs: [Run; RUNS],
    count: u8,
    /// Windows observed, while few.
    warm: u8,
    /// Windows until the next change may be told.
    quiet: u8,
    /// Of the last run that was no longer young, or that was told.
    established: f32,
    last: f32,
}

impl Runs {
    /// Takes the newest value (NaN is skipped). Returns how many observed windows ago
    /// the level changed, once that is certain.
    pub fn update(&mut self, value: f64, usual: Usual) -> Option<u32> {
        if !value.is_finite() {
            return None;
        }
        let last = std::mem::replace(&mut self.last, value as f32);
        self.quiet = self.quiet.saturating_sub(1);
        if self.count == 0 {
            self.established = value as f32;
        }
        self.weigh(value, usual);
        if u32::from(self.warm) < WARM_UP {
            self.warm += 1;
            return None;
        }
        self.find([value, f64::from(last)], usual)
    }

    fn runs(&self) -> &[Run] {
        &self.runs[..usize::from(self.count)]
    }

    /// Lets every run foresee the value, learn from it, and a new one begin.
    fn weigh(&mut self, value: f64, usual: Usual) {
        let fresh = Run {
            mass: 1.0,
            mean: usual.level as f32,
            beta: (PRIOR_VARIANCE * usual.sd * usual.sd) as f32,
            windows: 0,
        };
        let mut runs = [fresh; RUNS + 1];
        let count = usize::from(self.count);
        runs[..count].copy_from_slice(self.runs());
        let all = &mut runs[..=count];
        let logs: [f64; RUNS + 1] = std::array::from_fn(|i| {
            all.get(i)
                .map_or(f64::MIN, |run| run.log_density(value, usual))
        });
        let most = logs.into_iter().fold(f64::MIN, f64::max);
        // Before they are shares, too small for single precision.
        let mut masses = [0.0; RUNS + 1];
        for (i, (run, log)) in all.iter_mut().zip(logs).enumerate() {
            let prior = match (i == count, count) {
                (true, 0) => 1.0,
                (true, _) => HAZARD,
                (false, _) => f64::from(run.mass) * (1.0 - HAZARD),
            };
            masses[i] = prior * (log - most).exp();
            run.learn(value);
        }
        let mut kept = count + 1;
        if kept > RUNS {
            // In the order of age: the oldest first.
            let candidates = all.iter().enumerate().filter(|(_, run)| run.windows > NEW);
            let candidates = candidates.map(|(at, _)| at);
            let least = candidates.min_by(|a, b| masses[*a].total_cmp(&masses[*b]));
            let least = least.unwrap_or(0);
            all.copy_within(least + 1.., least);
            masses.copy_within(least + 1.., least);
            kept = RUNS;
        }
        let total: f64 = masses[..kept].iter().sum();
        for (run, mass) in all.iter_mut().zip(&masses[..kept]) {
            run.mass = (mass / total) as f32;
        }
        self.runs.copy_from_slice(&runs[..RUNS]);
        self.count = kept as u8;
    }

    /// A young level, if it is certain and clear.
    fn find(&mut self, newest: [f64; 2], usual: Usual) -> Option<u32> {
        let by_mass = |a: &&Run, b: &&Run| a.mass.total_cmp(&b.mass);
        let likeliest = *self.runs().iter().max_by(by_mass)?;
        if likeliest.windows > *YOUNG.end() {
            self.established = likeliest.mean;
        }
        let young = || {
            self.runs()
                .iter()
                .filter(|run| YOUNG.contains(&run.windows))
        };
        let mass: f64 = young().map(|run| f64::from(run.mass)).sum();
        let best = *young().max_by(by_mass)?;
        let (from, to) = (f64::from(self.established), f64::from(best.mean));
        let beyond_middle = |value: f64| (value - 0.5 * (from + to)) * (to - from) > 0.0;
        if mass < MASS
            || self.quiet > 0
            || (to - from).abs() < DEVIATIONS_MIN * usual.sd
            || !newest.into_iter().all(beyond_middle)
        {
            return None;
        }
        self.quiet = *YOUNG.end() as u8;
        self.established = best.mean;
        Some(best.windows - 1)
    }
}

impl Run {
    fn values(&self) -> f64 {
        f64::from(self.windows.min(VALUES_MAX))
    }

    /// Log density of the next value, but for a constant: Student's t with 2α degrees
    /// of freedom (Murphy 2007, "Conjugate Bayesian analysis of the Gaussian
    /// distribution", equation 110).
    fn log_density(&self, value: f64, usual: Usual) -> f64 {
        let (kappa, alpha) = (
            PRIOR_MEAN + self.values(),
            PRIOR_VARIANCE + 0.5 * self.values(),
        );
        let variance = (f64::from(self.beta) / alpha).max(usual.sd * usual.sd);
        let scale = variance * (kappa + 1.0) / kappa;
        let freedom = 2.0 * alpha;
        // ln Γ((ν+1)/2) − ln Γ(ν/2), good to 0.001 from ν = 2 on.
        let gammas = 0.5 * (0.5 * freedom).ln() - 0.25 / freedom;
        let distance = value - f64::from(self.mean);
        gammas
            - 0.5 * (freedom * scale).ln()
            - 0.5 * (freedom + 1.0) * (distance * distance / (freedom * scale)).ln_1p()
    }

    fn learn(&mut self, value: f64) {
        let (mean, beta) = (f64::from(self.mean), f64::from(self.beta));
        let full = self.windows >= VALUES_MAX;
        let kept = if full {
            1.0 - 1.0 / f64::from(VALUES_MAX)
        } else {
            1.0
        };
        let kappa = PRIOR_MEAN + kept * self.values();
        let distance = value - mean;
        self.beta = (kept * beta + kappa * distance * distance / (2.0 * (kappa + 1.0))) as f32;
        self.mean = (mean + distance / (kappa + 1.0)) as f32;
        self.windows = self.windows.saturating_add(1);
    }
}

#[cfg(test)]
mod tests;
