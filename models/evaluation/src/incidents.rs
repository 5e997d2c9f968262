//! Recorded incidents: what a forecast of a breach is worth when it counts.
//!
//! A recording holds one service to which something is done, and others to which
//! nothing is. Whoever replays it says of each service and window what was seen
//! ([`Seen`]); [`evaluate`] compares that with the [`Truth`].
//!
//! An alarm is a score at a line or above in two windows in a row. The line is
//! the lowest with at most one false alarm in 60,480 quiet service-windows, a
//! service-week at 10 s; for 90 windows after its begin an alarm is the same one.
//! A window after the first [`WARM_UP`] is quiet
//!
//! - of a service to which nothing is done, if its true 99th percentile stays
//!   within its objective in the window, in the one before and for the [`HORIZON`]
//!   (that of others may not: the machine is shared);
//! - of the subject likewise, before the onset of its fault or in a run without one.
//!
//! Of a bystander that was in breach nothing is quiet. *Recall* is the share of
//! incidents with an alarm between the onset and 30 windows before the breach.

mod anomaly;
mod method;
mod plot;
mod score;
mod summary;
mod truth;

use serde::Serialize;

pub use self::{
    method::Method,
    score::{LEAD, Leads, REST, WINDOWS_PER_FALSE_ALARM},
    summary::evaluate,
    truth::{BREACH_RUN, Cause, Kind, ServiceTruth, Truth},
};

/// Windows ahead in which a breach is looked for: 15 minutes at 10 s.
pub const HORIZON: usize = 90;
/// Windows at the begin of a run in which nobody is judged: 10 minutes at 10 s.
pub const WARM_UP: usize = 60;
/// Requests that a window needs to be judged, as alerts have it.
pub const REQUESTS_MIN: f64 = 20.0;
/// Windows from onset to breach that a fault which could be foreseen takes.
pub const GROWTH_MIN: usize = 60;

/// What an analyzer knew of a service at the end of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Seen {
    /// 99th percentile of the window, if there were requests.
    pub p99_secs: Option<f64>,
    /// Probability of a breach within [`HORIZON`] windows, if it was forecast.
    pub risk: Option<f64>,
    /// The same of an analyzer to which all windows were ten times as long, with
    /// as many events: as if the machine were ten times as slow and everything of
    /// the default length.
    pub risk_at_default: Option<f64>,
    /// How unusual the window was; 1.0 is the line.
    pub anomaly_score: Option<f64>,
    /// The same of that analyzer.
    pub anomaly_score_at_default: Option<f64>,
    /// Whether there were enough requests ([`REQUESTS_MIN`]) to say anything.
    pub judged: bool,
}

/// A recording with what an analyzer made of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Replayed {
    /// What really happened.
    pub truth: Truth,
    /// By service of the truth, and by window.
    pub services: Vec<Vec<Seen>>,
    /// The subject's ranked reasons at the breach; empty where there were none,
    /// or no breach.
    pub reasons: Vec<Cause>,
}

impl Replayed {
    /// Whether nothing happens to a service in a window, nor soon after.
    fn quiet(&self, service: usize) -> Vec<bool> {
        let truth = &self.truth.services[service];
        let windows = self.truth.windows();
        let end = match (service, self.truth.onset) {
            (0, Some(onset)) => onset,
            _ => windows,
        };
        let begin = match truth.breach {
            Some(breach) if breach < end => windows,
            _ => WARM_UP,
        };
        let above = truth.above();
        let is_quiet = |at: usize| {
            let until = end.min(at + HORIZON + 1);
            (begin..end).contains(&at) && !above[at.saturating_sub(1)..until].contains(&true)
        };
        (0..windows).map(is_quiet).collect()
    }

    /// From the onset to the breach, where the incident is one that can be judged.
    fn incident(&self) -> Option<std::ops::Range<usize>> {
        let (onset, breach) = (self.truth.onset?, self.truth.services[0].breach?);
        let least = match self.truth.kind {
            Kind::Predictable => GROWTH_MIN,
            Kind::Sudden | Kind::Quiet => 0,
        };
        (onset >= WARM_UP && breach >= onset + least).then_some(onset..breach)
    }

    /// The place of the first reason that shows the fault.
    fn cause_place(&self) -> Option<usize> {
        let causes = &self.truth.causes;
        self.reasons
            .iter()
            .position(|reason| causes.contains(reason))
    }
}
