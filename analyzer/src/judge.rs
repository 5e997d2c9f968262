//! From breach probabilities to alerts, with hysteresis.

use std::collections::{BTreeMap, VecDeque};

use honeyguide_proto::v1;

use crate::series::IDLE_STEPS_MAX;

/// Resolved alerts remembered.
const RESOLVED_MAX: usize = 100;
/// Steps without evidence, as of a series or an objective that is no more, after
/// which an alert resolves.
const UNASKED_STEPS_MAX: u32 = IDLE_STEPS_MAX;
/// An alert stays while the probability exceeds this share of what fires it.
const RESOLVE_SHARE: f64 = 0.75;

/// What one step says of one objective of one series.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// The series.
    pub key: v1::SeriesKey,
    /// Probability, time and threshold.
    pub breach: v1::BreachForecast,
    /// Whether the target is above the threshold now.
    pub breached: bool,
    /// Steps at risk needed to fire, calm steps to resolve.
    pub patience: Patience,
    /// Probability from which a breach is expected.
    pub fire_probability: f64,
    /// Ranked reasons.
    pub reasons: Vec<v1::Reason>,
    /// One sentence.
    pub summary: String,
    /// End of the step in nanoseconds since the Unix epoch.
    pub at_ns: u64,
}

/// How many steps in a row it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// To fire.
    pub fire_after: u32,
    /// To resolve.
    pub resolve_after: u32,
}

#[derive(Debug, Default)]
struct Watched {
    steps_at_risk: u32,
    calm_steps: u32,
    /// Steps since there was evidence.
    unasked_steps: u32,
    alert: Option<v1::Alert>,
}

/// Remembers alerts.
#[derive(Debug, Default)]
pub struct Judge {
    /// By alert id; only series at risk or firing.
    watched: BTreeMap<String, Watched>,
    resolved: VecDeque<v1::Alert>,
}

impl Judge {
    /// Takes the evidence of one step; returns the alert if it fired or resolved now.
    pub fn consider(&mut self, evidence: Evidence) -> Option<v1::Alert> {
        let id = format!(
            "{}/{}/{}",
            evidence.breach.objective, evidence.key.service, evidence.key.signal
        );
        let at_risk = evidence.breached || evidence.breach.probability >= evidence.fire_probability;
        if !at_risk && !self.watched.contains_key(&id) {
            return None;
        }
        let watched = self.watched.entry(id.clone()).or_default();
        watched.unasked_steps = 0;
        match &mut watched.alert {
            None if at_risk => {
                watched.steps_at_risk += 1;
                if watched.steps_at_risk < evidence.patience.fire_after {
                    return None;
                }
                let alert = v1::Alert {
                    id,
                    state: v1::AlertState::Firing.into(),
                    key: Some(evidence.key),
                    breach: Some(evidence.breach),
                    fired_at: Some(timestamp(evidence.at_ns)),
                    resolved_at: None,
                    reasons: evidence.reasons,
                    summary: evidence.summary,
                };
                watched.alert = Some(alert.clone());
                Some(alert)
            }
            None => {
                self.watched.remove(&id);
                None
            }
            Some(alert) => {
                let stays = evidence.breached
                    || evidence.breach.probability >= evidence.fire_probability * RESOLVE_SHARE;
                if stays {
                    watched.calm_steps = 0;
                    alert.breach = Some(evidence.breach);
                    alert.summary = evidence.summary;
                    // The first reasons are those of the incident's begin; keep
                    // them unless new ones are found.
                    if !evidence.reasons.is_empty() {
                        alert.reasons = evidence.reasons;
                    }
                    return None;
                }
                watched.calm_steps += 1;
                if watched.calm_steps < evidence.patience.resolve_after {
                    return None;
                }
                self.resolve(&id, evidence.at_ns)
            }
        }
    }

    /// Whether an alert of this objective and series fires.
    pub fn is_firing(&self, objective: &str, key: &v1::SeriesKey) -> bool {
        let id = format!("{objective}/{}/{}", key.service, key.signal);
        self.watched
            .get(&id)
            .is_some_and(|watched| watched.alert.is_some())
    }

    /// Resolves the alerts for which there was no evidence for long: their
    /// objective is not configured any more, or their series was not told of.
    pub fn end_step(&mut self, at_ns: u64) -> Vec<v1::Alert> {
        let mut unasked = Vec::new();
        for (id, watched) in &mut self.watched {
            watched.unasked_steps += 1;
            if watched.unasked_steps > UNASKED_STEPS_MAX {
                unasked.push(id.clone());
            }
        }
        let resolved = unasked.iter().filter_map(|id| self.resolve(id, at_ns));
        resolved.collect()
    }

    /// Resolves all alerts of a series that ended, e.g. with its process.
    pub fn series_ended(&mut self, key: &v1::SeriesKey, at_ns: u64) -> Vec<v1::Alert> {
        let of_series = self.watched.iter().filter(|(_, watched)| {
            watched
                .alert
                .as_ref()
                .is_some_and(|alert| alert.key.as_ref() == Some(key))
        });
        let ids: Vec<String> = of_series.map(|(id, _)| id.clone()).collect();
        ids.iter()
            .filter_map(|id| self.resolve(id, at_ns))
            .collect()
    }

    fn resolve(&mut self, id: &str, at_ns: u64) -> Option<v1::Alert> {
        let mut alert = self.watched.remove(id)?.alert?;
        alert.state = v1::AlertState::Resolved.into();
        alert.resolved_at = Some(timestamp(at_ns));
        if self.resolved.len() == RESOLVED_MAX {
            self.resolved.pop_front();
        }
        self.resolved.push_back(alert.clone());
        Some(alert)
    }

    /// Alerts under way and resolved lately, for another analyzer.
    pub fn snapshot(&self) -> (Vec<v1::WatchedSeries>, Vec<v1::Alert>) {
        let watched = self.watched.iter().map(|(id, watched)| v1::WatchedSeries {
            id: id.clone(),
            steps_at_risk: watched.steps_at_risk,
            calm_steps: watched.calm_steps,
            alert: watched.alert.clone(),
        });
        (watched.collect(), self.resolved.iter().cloned().collect())
    }

    /// Takes over the alerts of another analyzer.
    pub fn restore(&mut self, watched: Vec<v1::WatchedSeries>, resolved: Vec<v1::Alert>) {
        for series in watched {
            let watched = Watched {
                steps_at_risk: series.steps_at_risk,
                calm_steps: series.calm_steps,
                unasked_steps: 0,
                alert: series.alert,
            };
            self.watched.insert(series.id, watched);
        }
        self.resolved = resolved.into();
    }

    /// Firing alerts by id, then those that resolved, newest first.
    pub fn alerts(&self) -> Vec<v1::Alert> {
        let firing = self
            .watched
            .values()
            .filter_map(|watched| watched.alert.clone());
        firing.chain(self.resolved.iter().rev().cloned()).collect()
    }
}

/// Nanoseconds since the Unix epoch of a protobuf time.
pub fn nanoseconds(time: &prost_types::Timestamp) -> u64 {
    let seconds = u64::try_from(time.seconds).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.nanos).unwrap_or(0)
}

/// Protobuf time of nanoseconds since the Unix epoch.
pub fn timestamp(ns: u64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: (ns / 1_000_000_000) as i64,
        nanos: (ns % 1_000_000_000) as i32,
    }
}

/// Protobuf duration of seconds.
pub fn duration(secs: f64) -> prost_types::Duration {
    let ns = (secs.clamp(0.0, 1e9) * 1e9) as u64;
    prost_types::Duration {
        seconds: (ns / 1_000_000_000) as i64,
        nanos: (ns % 1_000_000_000) as i32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(probability: f64, breached: bool) -> Evidence {
        Evidence {
            key: v1::SeriesKey {
                service: "process/x".to_owned(),
                signal: "runq".to_owned(),
            },
            breach: v1::BreachForecast {
                objective: "o".to_owned(),
                probability,
                ..Default::default()
            },
            breached,
            patience: Patience {
                fire_after: 2,
                resolve_after: 3,
            },
            fire_probability: 0.8,
            reasons: Vec::new(),
            summary: String::new(),
            at_ns: 0,
        }
    }

    /// What each step of (probability, breached) does: f fires, r resolves, - nothing.
    fn check(steps: &[(f64, bool)], expected: &str) {
        let mut judge = Judge::default();
        let told: String = steps
            .iter()
            .map(|(probability, breached)| {
                match judge.consider(evidence(*probability, *breached)) {
                    None => '-',
                    Some(alert) if alert.state() == v1::AlertState::Firing => 'f',
                    Some(_) => 'r',
                }
            })
            .collect();
        assert_eq!(told, expected, "{steps:?}");
    }

    #[test]
    fn alert_fires_after_patience_and_resolves_after_calm() {
        let (risk, calm, between) = ((0.9, false), (0.1, false), (0.7, false));
        check(&[risk, risk, calm, calm, calm], "-f--r");
        check(&[risk, calm, risk, calm], "----");
        check(&[risk, risk, between, between, between], "-f---");
        check(
            &[risk, risk, calm, calm, risk, calm, calm, calm],
            "-f-----r",
        );
        check(&[(0.0, true), (0.0, true), calm, calm, calm], "-f--r");
    }

    /// Of whatever nobody asks about: an objective that was removed, a series that
    /// was not told of while steps were skipped. Nothing is remembered of it.
    #[test]
    fn alerts_without_evidence_resolve() {
        let mut judge = Judge::default();
        judge.consider(evidence(1.0, true));
        judge.consider(evidence(1.0, true));
        let (watched, resolved) = judge.snapshot();
        let mut judge = Judge::default();
        judge.restore(watched, resolved);
        for step in 0..UNASKED_STEPS_MAX {
            assert_eq!(judge.end_step(u64::from(step)), []);
        }
        let resolved = judge.end_step(99);
        assert_eq!(resolved.len(), 1);
        assert_eq!(resolved[0].state(), v1::AlertState::Resolved);
        assert!(judge.watched.is_empty());

        judge.consider(evidence(1.0, true));
        judge.end_step(0);
        judge.consider(evidence(1.0, true));
        assert!((0..UNASKED_STEPS_MAX - 1).all(|_| judge.end_step(0).is_empty()));
        judge.consider(evidence(1.0, true));
        assert_eq!(judge.end_step(0), []);
        assert!(judge.is_firing("o", &evidence(1.0, true).key));
    }

    #[test]
    fn ended_series_resolves_its_alerts() {
        let mut judge = Judge::default();
        judge.consider(evidence(1.0, true));
        judge.consider(evidence(1.0, true));
        let key = evidence(0.0, false).key;
        assert!(judge.is_firing("o", &key));
        assert_eq!(judge.series_ended(&key, 5).len(), 1);
        assert_eq!(judge.alerts().len(), 1);
        assert!(!judge.is_firing("o", &key));
    }
}
