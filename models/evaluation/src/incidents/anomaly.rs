//! How soon an anomaly score shows an incident.
//!
//! Every window is asked alone, without rests. A window is quiet as for alarms; an
//! incident is found where a window exceeds the line from the onset until the breach is
//! complete. Baselines see p99 of each window and have, like the score, the line that
//! one in [`WINDOWS_PER_EXCESS`] quiet windows exceeds: the rate of false alarms that an
//! analyzer declares by default.

use super::{BREACH_RUN, Kind, Method, Replayed, Seen};
use crate::{
    detect::{windowed_gaussian, z_score},
    report::{Outcome, row},
};

/// See the module.
const WINDOWS_PER_EXCESS: f64 = 10_000.0;

/// Who scores the windows of a service of a run.
type Scorer = fn(&Replayed, usize) -> Vec<f64>;

/// Ours first.
const SCORERS: [(&str, Scorer); 6] = [
    ("honeyguide", |run, service| {
        scores(run, service, |seen| seen.anomaly_score)
    }),
    ("honeyguide, as if at 10 s", |run, service| {
        scores(run, service, |seen| seen.anomaly_score_at_default)
    }),
    ("z-score of ln p99", |run, service| {
        z_score(&log_p99(run, service))
    }),
    ("windowed Gaussian of ln p99", |run, service| {
        windowed_gaussian(&log_p99(run, service))
    }),
    ("p99 over the objective", |run, service| {
        Method::Static(1).say(run, service)
    }),
    ("random", |run, service| Method::Random.say(run, service)),
];
const OURS: usize = 2;

/// Of what was not scored, NaN.
fn scores(run: &Replayed, service: usize, score: fn(&Seen) -> Option<f64>) -> Vec<f64> {
    let seen = run.services[service].iter();
    seen.map(|seen| score(seen).unwrap_or(f64::NAN)).collect()
}

fn log_p99(run: &Replayed, service: usize) -> Vec<f64> {
    scores(run, service, |seen| seen.p99_secs.map(f64::ln))
}

/// What a line finds.
struct Found {
    /// Quiet windows above it.
    quiet: usize,
    /// Windows from the onset, by incident; `None` where it is not found.
    predictable: Vec<Option<usize>>,
    sudden: Vec<Option<usize>>,
}

/// Scores of all services of all runs, and which windows are quiet.
struct Scored<'a> {
    runs: &'a [Replayed],
    /// By run, by service, by window.
    scores: Vec<Vec<Vec<f64>>>,
    quiet: &'a [Vec<Vec<bool>>],
}

impl Scored<'_> {
    /// Scores of quiet windows, the highest first.
    fn of_quiet(&self) -> Vec<f64> {
        let services = self.scores.iter().flatten();
        let windows = services.zip(self.quiet.iter().flatten());
        let windows = windows.flat_map(|(scores, quiet)| scores.iter().zip(quiet));
        let mut scores: Vec<f64> = windows
            .filter(|(score, quiet)| **quiet && !score.is_nan())
            .map(|(score, _)| *score)
            .collect();
        scores.sort_by(|a, b| b.total_cmp(a));
        scores
    }

    fn found(&self, line: f64) -> Found {
        let quiet = self.of_quiet();
        let mut found = Found {
            quiet: quiet.iter().filter(|score| **score > line).count(),
            predictable: Vec::new(),
            sudden: Vec::new(),
        };
        for (run, scores) in self.runs.iter().zip(&self.scores) {
            let Some(incident) = run.incident() else {
                continue;
            };
            let until = (incident.end + BREACH_RUN).min(scores[0].len());
            let asked = &scores[0][incident.start..until];
            let first = asked.iter().position(|score| *score > line);
            match run.truth.kind {
                Kind::Predictable => found.predictable.push(first),
                Kind::Sudden | Kind::Quiet => found.sudden.push(first),
            }
        }
        found
    }
}

/// `quiet`: by run and service, for each window.
pub(super) fn tell(outcome: &mut Outcome, runs: &[Replayed], quiet: &[Vec<Vec<bool>>]) {
    outcome.line("\nAnomaly scores, window by window:\n");
    outcome.line("| score | line | quiet windows above | predictable: found by the breach | sudden | median windows after the onset |");
    outcome.line("|---|---|---|---|---|---|");
    for (at, (name, scorer)) in SCORERS.into_iter().enumerate() {
        let of_run = |run: &Replayed| (0..run.services.len()).map(|of| scorer(run, of)).collect();
        let scored = Scored {
            runs,
            scores: runs.iter().map(of_run).collect(),
            quiet,
        };
        let of_quiet = scored.of_quiet();
        let allowed = (of_quiet.len() as f64 / WINDOWS_PER_EXCESS) as usize;
        let Some(line) = of_quiet.get(allowed) else {
            continue;
        };
        let is_ours = at < OURS;
        for line in is_ours.then_some(1.0).into_iter().chain([*line]) {
            let found = scored.found(line);
            if at == 0 && line == 1.0 {
                let share =
                    |all: &[Option<usize>]| all.iter().flatten().count() as f64 / all.len() as f64;
                outcome.metric("anomaly_found_predictable", share(&found.predictable));
                outcome.metric("anomaly_found_sudden", share(&found.sudden));
                let rate = found.quiet as f64 / of_quiet.len() as f64;
                outcome.metric("anomaly_quiet_per_10000", rate * 10_000.0);
            }
            outcome.line(row([
                name.to_owned(),
                format!("{line:.2}"),
                format!("{} of {}", found.quiet, of_quiet.len()),
                of(&found.predictable),
                of(&found.sudden),
                median(&found.predictable),
            ]));
        }
    }
}

fn of(all: &[Option<usize>]) -> String {
    format!("{} of {}", all.iter().flatten().count(), all.len())
}

/// Of those that are found.
fn median(all: &[Option<usize>]) -> String {
    let mut found: Vec<usize> = all.iter().flatten().copied().collect();
    found.sort_unstable();
    match found.len() {
        0 => "–".to_owned(),
        len => found[len / 2].to_string(),
    }
}
