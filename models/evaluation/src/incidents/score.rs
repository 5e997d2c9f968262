//! From scores by window to alarms, leads and recall.

use std::ops::Range;

use crate::bootstrap::{Interval, intervals};

/// Service-windows of a week at 10 s: one false alarm in so many is allowed.
pub const WINDOWS_PER_FALSE_ALARM: f64 = 60_480.0;
/// For so many windows after its begin an alarm is the same one.
pub const REST: usize = 90;
/// An alarm must come so many windows before a breach.
pub const LEAD: usize = 30;
/// Windows in a row that an alarm needs, as alerts do unless configured.
const PATIENCE: usize = 2;

/// What one method says of one service, by window: the least of what it said
/// [`PATIENCE`] windows in a row, so that a line on it gives alarms.
pub fn patient(said: &[f64]) -> Vec<f64> {
    let least = |at: usize| {
        let row = &said[(at + 1).saturating_sub(PATIENCE)..=at];
        let all_there = row.len() == PATIENCE && row.iter().all(|score| !score.is_nan());
        if all_there {
            row.iter().copied().fold(f64::INFINITY, f64::min)
        } else {
            f64::NEG_INFINITY
        }
    };
    (0..said.len()).map(least).collect()
}

/// A service that is judged for false alarms.
#[derive(Clone, Copy, Debug)]
pub struct Watched<'a> {
    /// Scores by window.
    pub scores: &'a [f64],
    /// Whether nothing happens in a window, nor soon after: an alarm that begins
    /// there is false.
    pub quiet: &'a [bool],
}

impl Watched<'_> {
    /// How many windows are quiet.
    pub fn windows(&self) -> usize {
        self.quiet.iter().filter(|quiet| **quiet).count()
    }
}

/// An incident with the scores of its service.
#[derive(Clone, Debug)]
pub struct Incident<'a> {
    /// Scores of the whole run.
    pub scores: &'a [f64],
    /// From the onset to the last window before the breach.
    pub before: Range<usize>,
}

/// How many false alarms a line gives. For [`REST`] windows an alarm is the same,
/// and no longer: one that never ends is wrong again and again.
pub fn false_alarms(watched: &[Watched<'_>], line: f64) -> usize {
    let mut count = 0;
    for service in watched {
        let mut begin: Option<usize> = None;
        for (at, score) in service.scores.iter().enumerate() {
            if *score >= line && begin.is_none_or(|begin| at - begin > REST) {
                begin = Some(at);
                count += usize::from(service.quiet[at]);
            }
        }
    }
    count
}

/// The lowest line at which, and above which, there are no more false alarms than
/// allowed in so many quiet windows.
pub fn line(watched: &[Watched<'_>]) -> f64 {
    let windows: usize = watched.iter().map(Watched::windows).sum();
    let allowed = (windows as f64 / WINDOWS_PER_FALSE_ALARM) as usize;
    let quiet = watched.iter().flat_map(|service| {
        let windows = service.scores.iter().zip(service.quiet);
        windows
            .filter(|(_, quiet)| **quiet)
            .map(|(score, _)| *score)
    });
    let mut lines: Vec<f64> = quiet.filter(|score| score.is_finite()).collect();
    lines.sort_by(f64::total_cmp);
    lines.dedup();
    // Just above each score: what is said in quiet windows is no alarm there.
    let above = |at: usize| lines[at].next_up();
    let Some(mut at) = lines.len().checked_sub(1) else {
        return f64::NEG_INFINITY;
    };
    // From above, because a much lower line may move the begins of alarms and so
    // hide some.
    while at > 0 && false_alarms(watched, above(at - 1)) <= allowed {
        at -= 1;
    }
    above(at)
}

impl Incident<'_> {
    /// Whole windows between the first alarm since the onset and the breach; `None`
    /// without an alarm before it. An alarm is known when its window is over.
    pub fn lead(&self, line: f64) -> Option<usize> {
        Some(self.before.end - self.alarm(line)? - 1)
    }

    /// The window of the first alarm since the onset.
    pub fn alarm(&self, line: f64) -> Option<usize> {
        let scores = &self.scores[self.before.clone()];
        let alarm = scores.iter().position(|score| *score >= line)?;
        Some(self.before.start + alarm)
    }
}

/// Leads of incidents at a line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Leads(pub Vec<Option<usize>>);

impl Leads {
    /// Share with a lead of [`LEAD`] windows; NaN of none.
    pub fn recall(&self) -> f64 {
        let early = self
            .0
            .iter()
            .filter(|lead| lead.is_some_and(|lead| lead >= LEAD));
        early.count() as f64 / self.0.len() as f64
    }

    /// The recall that other incidents of this kind might have shown, 95 %.
    pub fn recall_interval(&self) -> Interval {
        let [interval] = intervals(&[self.0.len()], |pick| {
            let leads = pick[0].iter().map(|at| self.0[*at]);
            [Leads(leads.collect()).recall()]
        });
        interval
    }

    /// Share with any lead; NaN of none.
    pub fn alerted(&self) -> f64 {
        self.0.iter().flatten().count() as f64 / self.0.len() as f64
    }

    /// In windows; 0 where there was no alarm. NaN of none.
    pub fn median(&self) -> f64 {
        let mut leads: Vec<usize> = self.0.iter().map(|lead| lead.unwrap_or(0)).collect();
        leads.sort_unstable();
        let middle = leads.len() / 2;
        match leads.len() {
            0 => f64::NAN,
            len if len % 2 == 1 => leads[middle] as f64,
            _ => (leads[middle - 1] + leads[middle]) as f64 / 2.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_needs_two_windows_in_a_row() {
        let scores = patient(&[0.9, 0.1, 0.8, 0.7, f64::NAN, 0.9]);
        let nothing = f64::NEG_INFINITY;
        assert_eq!(scores, [nothing, 0.1, 0.1, 0.7, nothing, nothing]);
    }

    fn watched<'a>(scores: &'a [f64], quiet: &'a [bool]) -> [Watched<'a>; 1] {
        [Watched { scores, quiet }]
    }

    /// 130,000 quiet windows allow two false alarms.
    #[test]
    fn the_line_keeps_what_is_promised() {
        let mut scores = vec![0.1; 130_000];
        for (at, score) in [
            (100, 0.9),
            (150, 0.8),
            (1000, 0.7),
            (5000, 0.6),
            (5001, 0.6),
        ] {
            scores[at] = score;
        }
        let mut quiet = vec![true; scores.len()];
        // The one at 150 belongs to that at 100.
        assert_eq!(false_alarms(&watched(&scores, &quiet), 0.65), 2);
        assert_eq!(false_alarms(&watched(&scores, &quiet), 0.55), 3);
        assert_eq!(line(&watched(&scores, &quiet)), 0.6f64.next_up());
        // What begins before something happens is right, and for a while no other
        // alarm.
        quiet[90..105].fill(false);
        assert_eq!(false_alarms(&watched(&scores, &quiet), 0.65), 1);
        quiet[60_000..].fill(false);
        quiet[90..105].fill(true);
        assert_eq!(line(&watched(&scores, &quiet)), 0.9f64.next_up());
    }

    #[test]
    fn an_alarm_that_never_ends_is_wrong_again_and_again() {
        let mut quiet = vec![true; 300];
        quiet[0] = false;
        assert_eq!(false_alarms(&watched(&[1.0; 300], &quiet), 0.5), 3);
    }

    #[test]
    fn leads_count_whole_windows_between_alarm_and_breach() {
        let mut scores = vec![0.0; 100];
        scores[10] = 1.0; // before the onset
        scores[45] = 0.5;
        scores[60] = 0.9;
        let incident = Incident {
            scores: &scores,
            before: 20..80,
        };
        let leads = [0.4, 0.6, 0.95].map(|line| incident.lead(line));
        assert_eq!(leads, [Some(34), Some(19), None]);
        let leads = Leads(leads.to_vec());
        assert_eq!(leads.recall(), 1.0 / 3.0);
        let interval = leads.recall_interval();
        assert_eq!((interval.low, interval.high), (0.0, 1.0));
        assert_eq!(leads.alerted(), 2.0 / 3.0);
        assert_eq!(leads.median(), 19.0);
        // Known only when the breach begins: no lead, but an alarm.
        scores[79] = 1.0;
        let last = Incident {
            scores: &scores,
            before: 61..80,
        };
        assert_eq!(last.lead(0.95), Some(0));
    }
}
