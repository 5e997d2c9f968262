//! What an evaluation of detection says.

use std::fmt::Write as _;

use serde::Serialize;

use super::events::Events;
use crate::{
    Interval,
    bootstrap::intervals,
    nab::{Outcome, Profile, Sweep},
    report,
};

/// A published detector whose scores are in NAB's repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// Adaptive resonance (ARTime).
    Artime,
    /// Numenta's hierarchical temporal memory.
    Numenta,
    /// Context anomaly detection, open source edition.
    ContextOse,
}

impl Anchor {
    /// All.
    pub const ALL: [Anchor; 3] = [Anchor::Artime, Anchor::Numenta, Anchor::ContextOse];

    pub(super) const fn folder(self) -> &'static str {
        match self {
            Anchor::Artime => "ARTime",
            Anchor::Numenta => "numenta",
            Anchor::ContextOse => "contextOSE",
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Anchor::Artime => "ARTime (knows min, max, length)",
            Anchor::Numenta => "Numenta HTM (knows min, max)",
            Anchor::ContextOse => "CAD OSE (knows min, max)",
        }
    }
}

/// A mean over series or issues.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Share {
    /// It.
    pub value: f64,
    /// Its 95 % interval.
    pub interval: Interval,
}

impl Share {
    /// Of one value per series.
    pub(crate) fn of_mean(values: &[f64]) -> Self {
        let mean = |sum: f64| sum / values.len() as f64;
        let [interval] = intervals(&[values.len()], |pick| {
            [mean(pick[0].iter().map(|i| values[*i]).sum())]
        });
        Share {
            value: mean(values.iter().sum()),
            interval,
        }
    }
}

/// A detector on NAB.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NabRow {
    /// Who.
    pub detector: String,
    /// Threshold; for each profile its own if it is the best.
    pub thresholds: [f64; 3],
    /// Scores in the order of [`Profile::ALL`], with intervals over series where
    /// the threshold is fixed.
    pub scores: [f64; 3],
    /// 95 % intervals of the scores.
    pub intervals: Option<[Interval; 3]>,
    /// Windows detected, in the standard profile.
    pub detected: usize,
    /// Windows there are.
    pub windows: usize,
    /// Detections outside of windows, in the standard profile.
    pub false_positives: usize,
}

impl NabRow {
    /// With the threshold at 1.0.
    pub(super) fn at_line(detector: &str, sweep: &Sweep, series: usize) -> Self {
        let outcomes = Profile::ALL.map(|profile| sweep.at(profile, 1.0, |_| true));
        let of_files = Profile::ALL.map(|profile| {
            let of_file = |file| sweep.at(profile, 1.0, |other| other == file);
            (0..series).map(of_file).collect::<Vec<Outcome>>()
        });
        let intervals = intervals(&[series], |pick| {
            std::array::from_fn(|k| {
                let sum = |of: fn(&Outcome) -> f64| {
                    pick[0]
                        .iter()
                        .map(|file| of(&of_files[k][*file]))
                        .sum::<f64>()
                };
                // A draw of series without any window has no score of its own.
                match sum(|file| file.gain_max) {
                    0.0 => outcomes[k].score(),
                    most => 100.0 * sum(|file| file.gain) / most,
                }
            })
        });
        NabRow {
            intervals: Some(intervals),
            ..Self::of(detector, outcomes)
        }
    }

    /// With the best threshold for each profile.
    pub(super) fn at_best(detector: &str, sweep: &Sweep) -> Self {
        let outcomes = Profile::ALL.map(|profile| sweep.best(profile, |_| true));
        Self::of(detector, outcomes)
    }

    fn of(detector: &str, outcomes: [Outcome; 3]) -> Self {
        NabRow {
            detector: detector.to_owned(),
            thresholds: outcomes.map(|outcome| outcome.threshold),
            scores: outcomes.map(|outcome| outcome.score()),
            intervals: None,
            detected: outcomes[0].detected,
            windows: outcomes[0].windows,
            false_positives: outcomes[0].false_positives,
        }
    }
}

/// The detector on the series of one category, with the threshold at 1.0.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Category {
    /// Its folder.
    pub name: String,
    /// How many.
    pub series: usize,
    /// Labelled windows.
    pub windows: usize,
    /// Windows detected.
    pub detected: usize,
    /// Detections outside of windows.
    pub false_positives: usize,
    /// In the order of [`Profile::ALL`]; `None` without windows.
    pub scores: Option<[f64; 3]>,
}

/// The whole evaluation.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Detection {
    /// Series of NAB.
    pub nab_series: usize,
    /// Detectors on NAB; ours first.
    pub nab: Vec<NabRow>,
    /// Ours if the threshold were another: threshold, and scores in the order of
    /// [`Profile::ALL`].
    pub curve: Vec<(f64, [f64; 3])>,
    /// Ours by category.
    pub categories: Vec<Category>,
    /// Mean VUS-PR of ours over NAB's series with labels.
    pub vus_nab: Option<Share>,
    /// Series of Microsoft's cloud monitoring set.
    pub ms_cloud_series: usize,
    /// Detectors on it; ours first.
    pub ms_cloud: Vec<Events>,
    /// Mean VUS-PR of ours over its series with labels.
    pub vus_ms_cloud: Option<Share>,
}

impl Detection {
    fn metrics(&self) -> Vec<(&'static str, f64)> {
        let mut metrics = Vec::new();
        if let Some(row) = self.nab.first() {
            metrics.push(("nab_standard", row.scores[0]));
            metrics.push(("nab_low_fp", row.scores[1]));
            metrics.push(("nab_low_fn", row.scores[2]));
        }
        if let Some(row) = self.ms_cloud.first() {
            metrics.push(("ms_cloud_recall", row.found as f64 / row.events as f64));
            metrics.push(("ms_cloud_false_alarms_per_day", row.false_alarms_per_day));
        }
        metrics
    }

    /// Figures and tables.
    ///
    /// # Panics
    /// Never: plain structs become JSON.
    pub fn outcome(&self) -> report::Outcome {
        let mut outcome = report::Outcome::default();
        for (key, value) in self.metrics() {
            outcome.metric(key, value);
        }
        if self.nab.is_empty() {
            for key in ["nab_standard", "nab_low_fp"] {
                outcome.skip(key, "no folder nab in the data folder");
            }
        }
        outcome.details = serde_json::to_value(self).expect("plain structs become JSON");
        outcome.markdown = self.to_markdown();
        if !self.curve.is_empty() {
            outcome.plots.push((
                "detect-nab".to_owned(),
                super::plot::curve(&self.curve).svg(),
            ));
        }
        outcome
    }

    fn to_markdown(&self) -> String {
        let mut text = String::from("# Detection\n");
        if !self.nab.is_empty() {
            self.write_nab(&mut text);
        }
        if !self.ms_cloud.is_empty() {
            self.write_events(&mut text);
        }
        text
    }

    fn write_nab(&self, text: &mut String) {
        let _ = writeln!(
            text,
            "\n## NAB, {} series\n\n| detector | standard | low FP | low FN | windows | false alarms |\n|---|---|---|---|---|---|",
            self.nab_series
        );
        for row in &self.nab {
            let score = |k: usize| match &row.intervals {
                Some(all) => {
                    format!(
                        "**{:.1}** ({:.1}–{:.1})",
                        row.scores[k], all[k].low, all[k].high
                    )
                }
                None => format!("{:.1}", row.scores[k]),
            };
            let (found, windows) = (row.detected, row.windows);
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {found} of {windows} | {} |",
                row.detector,
                score(0),
                score(1),
                score(2),
                row.false_positives
            );
        }
        let _ = writeln!(
            text,
            "\nHoneyguide's first row has its threshold at 1.0, fixed; all others the best one for each profile on these files.\n\n| category | series | standard | low FP | low FN | windows | false alarms |\n|---|---|---|---|---|---|---|"
        );
        for category in &self.categories {
            let scores = match category.scores {
                Some(scores) => scores.map(|score| format!("{score:.1}")).join(" | "),
                None => "– | – | –".to_owned(),
            };
            let _ = writeln!(
                text,
                "| {} | {} | {scores} | {} of {} | {} |",
                category.name,
                category.series,
                category.detected,
                category.windows,
                category.false_positives
            );
        }
        write_vus(text, self.vus_nab);
    }

    fn write_events(&self, text: &mut String) {
        let _ = writeln!(
            text,
            "\n## Microsoft cloud monitoring, {} series\n",
            self.ms_cloud_series
        );
        write_rows(text, &self.ms_cloud);
        let _ = writeln!(
            text,
            "\nBaselines have the threshold with the most events at no more false alarms than Honeyguide."
        );
        write_vus(text, self.vus_ms_cloud);
    }
}

/// Detectors on labelled events.
pub(super) fn write_rows(text: &mut String, rows: &[Events]) {
    let _ = writeln!(
        text,
        "| detector | events | recall | false alarms | per series and day | median delay, points |\n|---|---|---|---|---|---|"
    );
    for row in rows {
        let recall = row.recall().map_or("–".to_owned(), |share| {
            let Interval { low, high } = share.interval;
            format!("{:.2} ({low:.2}–{high:.2})", share.value)
        });
        let delay = row
            .delay_points
            .map_or("–".to_owned(), |d| format!("{d:.0}"));
        let _ = writeln!(
            text,
            "| {} | {} of {} | {recall} | {} | {:.2} | {delay} |",
            row.detector, row.found, row.events, row.false_alarms, row.false_alarms_per_day
        );
    }
}

pub(super) fn write_vus(text: &mut String, vus: Option<Share>) {
    if let Some(vus) = vus {
        let _ = writeln!(
            text,
            "\nMean VUS-PR, tolerance 0 to 100 points: {:.3} ({:.3}–{:.3}).",
            vus.value, vus.interval.low, vus.interval.high
        );
    }
}
