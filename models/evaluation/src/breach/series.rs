//! Series with an objective.

use std::path::Path;

use honeyguide_models::{TARGETS, Target, Window, breach::ValidObjective};

use super::objective;
use crate::{
    error::Error,
    monitoring,
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
    pub(super) step_secs: u32,
    pub(super) values: Vec<f64>,
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
    let judged_from = (series.values.len() as f64 * READ_SHARE) as usize;
    let mut first: Vec<f64> = series.values[..judged_from].to_vec();
    first.retain(|value| value.is_finite());
    first.sort_by(f64::total_cmp);
    for quantile in QUANTILES {
        let Some(last) = first.len().checked_sub(1) else {
            return;
        };
        let threshold = first[(quantile * last as f64) as usize];
        if let Some(objective) = objective(threshold) {
            subjects.push(Subject {
                step_secs,
                values: series.values.clone(),
                threshold,
                objective,
                judged_from,
            });
        }
    }
}
