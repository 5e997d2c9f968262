//! Series with an objective.

use std::path::Path;

use honeyguide_models::{TARGETS, Target, Window, breach::ValidObjective};

use super::{HORIZON_SECS, objective};
use crate::{
    error::Error,
    monitoring,
    own::{Own, held},
    table::{self, Series},
};

/// Share of a series from which its objective is read.
const READ_SHARE: f64 = 1.0 / 3.0;
/// Objectives: the level that this share of the values stays below.
const QUANTILES: [f64; 2] = [0.95, 0.995];
/// NAB folders of real measurements, and their step.
const NAB: [(&str, u32); 1] = [("realAWSCloudwatch", 300)];
/// Longest step that has a quarter of an hour.
const STEP_SECS_MAX: u32 = 300;
/// Observed so often that no quantile is uncertain.
const SAMPLES: f32 = 1e6;

/// One series with one objective.
pub(super) struct Subject {
    /// Which series: intervals are over these.
    pub(super) series: usize,
    pub(super) step_secs: u32,
    pub(super) values: Vec<f64>,
    /// The same with the last value known where one is missing, for what needs no
    /// model and knows no missing values.
    pub(super) held: Vec<f64>,
    pub(super) threshold: f64,
    pub(super) objective: ValidObjective,
    /// The first step that is judged.
    pub(super) judged_from: usize,
}

impl Subject {
    pub(super) fn windows(&self) -> Vec<Window> {
        let window = |value: &f64| {
            let mut y = [f32::NAN; TARGETS];
            y[Target::Rate.index()] = Target::Rate.to_model(*value) as f32;
            Window {
                y,
                samples: SAMPLES,
                completeness: 1.0,
            }
        };
        self.values.iter().map(window).collect()
    }
}

/// All series of a data folder with all objectives that they can have.
pub(super) fn load(data: &Path) -> Result<Vec<Subject>, Error> {
    let mut subjects = Vec::new();
    let folder = data.join("ms-cloud");
    if folder.is_dir() {
        for set in monitoring::load(&folder)? {
            for series in set.series {
                add(&mut subjects, set.step_secs, series);
            }
        }
    }
    for (name, step_secs) in NAB {
        let folder = data.join("nab/data").join(name);
        if folder.is_dir() {
            for path in table::files(&folder, "csv")? {
                let name = path.file_stem().unwrap_or_default().to_string_lossy();
                let values = table::columns(&path, &["value"])?.swap_remove(0);
                add(&mut subjects, step_secs, Series::new(name, values));
            }
        }
    }
    if subjects.is_empty() {
        return Err(Error::NoSeries {
            path: data.to_owned(),
        });
    }
    Ok(subjects)
}

fn add(subjects: &mut Vec<Subject>, step_secs: u32, series: Series) {
    if step_secs > STEP_SECS_MAX {
        return;
    }
    let number = subjects.last().map_or(0, |last| last.series + 1);
    let thresholds = thresholds(&series.values);
    let of = thresholds.into_iter().flatten();
    subjects.extend(
        of.filter_map(|threshold| Subject::new(number, step_secs, &series.values, threshold)),
    );
}

/// The first step that is judged.
fn judged_from(values: &[f64]) -> usize {
    (values.len() as f64 * READ_SHARE) as usize
}

/// The levels that [`QUANTILES`] of the first third stay below, if any is known.
fn thresholds(values: &[f64]) -> Option<[f64; QUANTILES.len()]> {
    let mut first: Vec<f64> = values[..judged_from(values)].to_vec();
    first.retain(|value| value.is_finite());
    first.sort_by(f64::total_cmp);
    let last = first.len().checked_sub(1)?;
    Some(QUANTILES.map(|quantile| first[(quantile * last as f64) as usize]))
}

impl Subject {
    fn new(series: usize, step_secs: u32, values: &[f64], threshold: f64) -> Option<Self> {
        Some(Subject {
            series,
            step_secs,
            values: values.to_vec(),
            held: held(values),
            threshold,
            objective: objective(threshold)?,
            judged_from: judged_from(values),
        })
    }
}

/// A threshold for a series of one's own.
#[derive(Clone, Debug, PartialEq)]
pub struct Above {
    /// Which series; `None` for all that have none of their own.
    pub series: Option<String>,
    /// What is a breach when it is exceeded, in the unit of the series.
    pub threshold: f64,
}

/// A series of one's own with one threshold, and where that is from.
pub(super) struct OwnSubject {
    pub(super) name: String,
    pub(super) from: String,
    pub(super) subject: Subject,
}

/// Those that can be judged, and why others cannot.
pub(super) fn of_own(all: &[Own], above: &[Above]) -> (Vec<OwnSubject>, Vec<String>) {
    let (mut subjects, mut left_out) = (Vec::new(), Vec::new());
    for (number, own) in all.iter().enumerate() {
        let name = &own.series.name;
        let values = &own.series.values;
        if own.step_secs > STEP_SECS_MAX {
            left_out.push(format!(
                "{name}: a step of {} s is too long for what is within {HORIZON_SECS} s; \
                 {STEP_SECS_MAX} s at most",
                own.step_secs
            ));
            continue;
        }
        if let Some(below) = values.iter().find(|value| **value < 0.0) {
            left_out.push(format!(
                "{name}: has values below 0 ({below}), which latencies and rates never are, and \
                 their model sees logarithms"
            ));
            continue;
        }
        let ahead = (HORIZON_SECS / own.step_secs) as usize;
        if values.len() <= judged_from(values) + ahead {
            left_out.push(format!(
                "{name}: {} steps of {} s are too few; more than {HORIZON_SECS} s must follow \
                 the first third, which only teaches",
                values.len(),
                own.step_secs
            ));
            continue;
        }
        let chosen = |series: Option<&str>| {
            let of = above
                .iter()
                .filter(|above| above.series.as_deref() == series);
            of.map(|above| above.threshold).collect::<Vec<f64>>()
        };
        let mut given = chosen(Some(name));
        if given.is_empty() {
            given = chosen(None);
        }
        let mut pairs: Vec<(f64, String)> = given
            .into_iter()
            .map(|threshold| (threshold, "--above".to_owned()))
            .collect();
        if pairs.is_empty() {
            let Some(levels) = thresholds(values) else {
                left_out.push(format!("{name}: no value is known in its first third"));
                continue;
            };
            let level =
                |(level, quantile)| (level, format!("{} % of the first third", 100.0 * quantile));
            pairs.extend(levels.into_iter().zip(QUANTILES).map(level));
        }
        for (threshold, from) in pairs {
            match Subject::new(number, own.step_secs, values, threshold) {
                Some(subject) => subjects.push(OwnSubject {
                    name: name.clone(),
                    from,
                    subject,
                }),
                None => left_out.push(format!(
                    "{name}: {threshold} ({from}) is no threshold; it must be above 0"
                )),
            }
        }
    }
    (subjects, left_out)
}
