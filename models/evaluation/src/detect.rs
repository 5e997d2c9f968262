//! How good the detector of [`honeyguide_models::detector`] is on labelled series,
//! beside simple baselines and, where their scores are at hand, the best
//! published detectors.
//!
//! It gets one value at a time, in one configuration, and its threshold is the line
//! at 1.0. Everything else gets the threshold that is best for it on these very
//! files (as NAB does), and the baselines the same rest after an alert, which alone
//! is worth a lot.

mod baseline;
mod events;
mod own;
mod plot;
mod report;
mod speed;

use std::path::Path;

use honeyguide_models::detector::Stream;

pub(crate) use self::baseline::{windowed_gaussian, z_score};
pub use self::{
    events::Events,
    own::evaluate as evaluate_own,
    report::{Anchor, Category, Detection, NabRow, Share},
    speed::{us_per_histogram, us_per_point},
};
use crate::{
    Error,
    monitoring::{self, Set},
    nab::{self, Labelled, Profile, Sweep},
    vus::vus_pr,
};

/// The detector's declared alerts per value: its only setting.
pub const ALERT_RATE: f64 = 1e-3;
/// Tolerance of VUS-PR, in points.
const TOLERANCE: usize = 100;

/// Scores of the detector with rests, one per point: at least 1.0 at alerts.
pub fn alerts(series: &Labelled) -> Vec<f64> {
    let mut stream: Stream = Stream::new(0.0);
    let values = series.values.iter();
    values
        .map(|value| stream.update(*value, ALERT_RATE).rested())
        .collect()
}

/// Scores of the detector as they are, one per point.
pub fn scores(series: &Labelled) -> Vec<f64> {
    let mut stream: Stream = Stream::new(0.0);
    let values = series.values.iter();
    values
        .map(|value| stream.update(*value, ALERT_RATE).score)
        .collect()
}

/// Evaluates on NAB and on Microsoft's cloud monitoring set, each where its folder
/// is given. `progress` is told what is being done. Deterministic.
///
/// # Errors
/// When a set cannot be read.
pub fn evaluate(
    nab: Option<&Path>,
    ms_cloud: Option<&Path>,
    mut progress: impl FnMut(&str),
) -> Result<Detection, Error> {
    let mut detection = Detection::default();
    if let Some(folder) = nab {
        progress("NAB");
        on_nab(folder, &mut detection, &mut progress)?;
    }
    if let Some(folder) = ms_cloud {
        progress("Microsoft cloud monitoring");
        let series = labelled(&monitoring::load(folder)?);
        detection.ms_cloud = rows_of_events(&series);
        detection.ms_cloud_series = series.len();
        detection.vus_ms_cloud = Some(mean_vus(&series));
    }
    Ok(detection)
}

fn on_nab(
    folder: &Path,
    detection: &mut Detection,
    progress: &mut impl FnMut(&str),
) -> Result<(), Error> {
    let series = nab::load(folder)?;
    detection.nab_series = series.len();
    let own: Vec<Vec<f64>> = series.iter().map(alerts).collect();
    let sweep = Sweep::new(series.iter().zip(own.iter().map(Vec::as_slice)));
    detection
        .nab
        .push(NabRow::at_line("Honeyguide", &sweep, series.len()));
    detection
        .nab
        .push(NabRow::at_best("Honeyguide, best threshold", &sweep));
    detection.categories = categories(&series, &sweep);
    detection.curve = curve(&series);
    let anchors = folder.join("anchor-scores");
    for anchor in Anchor::ALL
        .into_iter()
        .filter(|a| anchors.join(a.folder()).is_dir())
    {
        progress(anchor.name());
        let folder = anchors.join(anchor.folder());
        let scores: Vec<Vec<f64>> = series
            .iter()
            .map(|series| nab::load_scores(&folder, series))
            .collect::<Result<_, _>>()?;
        let sweep = Sweep::new(series.iter().zip(scores.iter().map(Vec::as_slice)));
        detection.nab.push(NabRow::at_best(anchor.name(), &sweep));
    }
    for (name, baseline) in baseline::ALL {
        progress(name);
        let scores: Vec<Vec<f64>> = series.iter().map(baseline).collect();
        let rested = baseline::rested(&scores, |alerts| {
            let sweep = Sweep::new(series.iter().zip(alerts.iter().map(Vec::as_slice)));
            sweep.at(Profile::Standard, 1.0, |_| true).gain
        });
        let sweep = Sweep::new(series.iter().zip(rested.iter().map(Vec::as_slice)));
        detection.nab.push(NabRow::at_best(name, &sweep));
    }
    detection.vus_nab = Some(mean_vus(&series));
    Ok(())
}

/// Scores if the line were another, with the same rests.
fn curve(series: &[Labelled]) -> Vec<(f64, [f64; 3])> {
    let scores: Vec<Vec<f64>> = series.iter().map(scores).collect();
    let at = |k: u32| {
        let line = 0.8 + 0.02 * f64::from(k);
        let alerts: Vec<Vec<f64>> = scores.iter().map(|s| baseline::rest(s, line)).collect();
        let sweep = Sweep::new(series.iter().zip(alerts.iter().map(Vec::as_slice)));
        let score = |profile| sweep.at(profile, 1.0, |_| true).score();
        (line, Profile::ALL.map(score))
    };
    (0..=30).map(at).collect()
}

fn categories(series: &[Labelled], sweep: &Sweep) -> Vec<Category> {
    let mut names: Vec<&str> = series.iter().map(|s| s.category.as_str()).collect();
    names.dedup();
    let of = |name: &&str| {
        let outcome = |profile| sweep.at(profile, 1.0, |file| series[file].category == *name);
        let standard = outcome(Profile::Standard);
        Category {
            name: (*name).to_owned(),
            series: series.iter().filter(|s| s.category == *name).count(),
            windows: standard.windows,
            detected: standard.detected,
            false_positives: standard.false_positives,
            scores: (standard.windows > 0).then(|| Profile::ALL.map(|p| outcome(p).score())),
        }
    };
    names.iter().map(of).collect()
}

fn rows_of_events(series: &[Labelled]) -> Vec<Events> {
    let own: Vec<Vec<f64>> = series.iter().map(alerts).collect();
    let mut rows = vec![Events::of("Honeyguide", series, &own)];
    let budget = rows[0].false_alarms;
    for (name, baseline) in baseline::ALL {
        let scores: Vec<Vec<f64>> = series.iter().map(baseline).collect();
        // As many events as can be had for as many false alarms as ours.
        let rested = baseline::rested(&scores, |alerts| {
            let events = Events::of(name, series, alerts);
            if events.false_alarms <= budget {
                events.found as f64
            } else {
                -(events.false_alarms as f64)
            }
        });
        rows.push(Events::of(name, series, &rested));
    }
    rows
}

/// Over the series with labels, with the interval of that mean.
fn mean_vus(series: &[Labelled]) -> Share {
    let with_labels = series.iter().filter(|series| !series.windows.is_empty());
    let scores: Vec<f64> = with_labels
        .map(|series| vus_pr(&scores(series), &series.windows, TOLERANCE))
        .collect();
    Share::of_mean(&scores)
}

/// Series with runs of labelled points as windows. Their clock begins at 0.
fn labelled(sets: &[Set]) -> Vec<Labelled> {
    let of_set = |set: &Set| {
        let of = |series: &crate::table::Series| Labelled {
            category: set.name.clone(),
            name: series.name.clone(),
            times: (0..series.values.len() as i64)
                .map(|i| i * i64::from(set.step_secs))
                .collect(),
            values: series.values.clone(),
            windows: runs(&series.faults),
        };
        set.series.iter().map(of).collect::<Vec<Labelled>>()
    };
    sets.iter().flat_map(of_set).collect()
}

/// First and last index of each run of `true`.
fn runs(labels: &[bool]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (i, _) in labels.iter().enumerate().filter(|(_, label)| **label) {
        match runs.last_mut() {
            Some(run) if run.1 + 1 == i => run.1 = i,
            _ => runs.push((i, i)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_have_both_ends() {
        let labels = [true, true, false, true, false, false, true];
        assert_eq!(runs(&labels), [(0, 1), (3, 3), (6, 6)]);
        assert_eq!(runs(&[false; 3]), []);
    }
}
