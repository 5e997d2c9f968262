//! Labelled events found, and false alarms.

use serde::Serialize;

use super::report::Share;
use crate::nab::Labelled;

/// An alert counts for an event from so many points before its labels …
const BEFORE: usize = 2;
/// … to so many after.
pub(super) const AFTER: usize = 10;
const DAY_SECS: f64 = 86_400.0;

/// What a detector found in series whose points are labelled.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Events {
    /// Who.
    pub detector: String,
    /// Labelled events behind the beginning (probation as in NAB).
    pub events: usize,
    /// Those with an alert.
    pub found: usize,
    /// Alerts that belong to no event.
    pub false_alarms: usize,
    /// The same, per series and day.
    pub false_alarms_per_day: f64,
    /// Median points from an event's first label to its alert.
    pub delay_points: Option<f64>,
    /// Of each event whether it was found.
    #[serde(skip)]
    each: Vec<bool>,
}

impl Events {
    /// Of alerts (scores of at least 1.0), one row per series.
    pub fn of(detector: &str, series: &[Labelled], scores: &[Vec<f64>]) -> Self {
        let (mut events, mut false_alarms, mut days) = (0, 0, 0.0);
        let (mut delays, mut each) = (Vec::new(), Vec::new());
        for (series, scores) in series.iter().zip(scores) {
            let from = series.probation();
            let alerts: Vec<usize> = (from..scores.len()).filter(|i| scores[*i] >= 1.0).collect();
            let counts = |window: &(usize, usize), alert: usize| {
                alert + BEFORE >= window.0 && alert <= window.1 + AFTER
            };
            let scored: Vec<_> = series.windows.iter().filter(|w| w.1 >= from).collect();
            events += scored.len();
            for window in &scored {
                let first = alerts.iter().find(|alert| counts(window, **alert));
                each.push(first.is_some());
                delays.extend(first.map(|alert| *alert as f64 - window.0 as f64));
            }
            let lost = |alert: &&usize| !scored.iter().any(|window| counts(window, **alert));
            false_alarms += alerts.iter().filter(lost).count();
            if let (Some(first), Some(last)) = (series.times.get(from), series.times.last()) {
                days += (last - first).max(0) as f64 / DAY_SECS;
            }
        }
        delays.sort_by(f64::total_cmp);
        Events {
            detector: detector.to_owned(),
            events,
            found: delays.len(),
            false_alarms,
            false_alarms_per_day: false_alarms as f64 / days,
            delay_points: delays.get(delays.len() / 2).copied(),
            each,
        }
    }

    /// Share of events found, with its 95 % interval over events; `None` of none.
    pub(super) fn recall(&self) -> Option<Share> {
        let each: Vec<f64> = self
            .each
            .iter()
            .map(|hit| f64::from(u8::from(*hit)))
            .collect();
        (!each.is_empty()).then(|| Share::of_mean(&each))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_near_labels_count_once_and_others_are_false() {
        let series = Labelled {
            category: String::new(),
            name: String::new(),
            times: (0..100).map(|i| i * 864).collect(),
            values: vec![0.0; 100],
            windows: vec![(2, 3), (40, 42), (70, 70)],
        };
        let mut scores = vec![0.0; 100];
        for alert in [3, 38, 41, 53, 90] {
            scores[alert] = 1.0;
        }
        let events = Events::of("x", &[series], &[scores]);
        // The first event and alert are in probation; 53 is too late for 42.
        assert_eq!(
            (events.events, events.found, events.false_alarms),
            (2, 1, 2)
        );
        assert_eq!(events.delay_points, Some(-2.0));
        assert!((events.false_alarms_per_day - 2.0 / 0.84).abs() < 1e-9);
    }
}
