//! `eval forecast`: the streaming forecaster on BizITObs, beside naive
//! baselines and what is published of others.
//!
//! The forecaster walks through each series once, sees a value only after
//! forecasting it, and is asked for a path at the origin of each window.

mod own;
mod plot;
mod report;
mod walk;

use std::path::Path;

use honeyguide_models::{forecaster::Forecaster, season_steps};
use serde::Serialize;

pub use self::own::evaluate as evaluate_own;
use self::{
    plot::Drawn,
    walk::{Asked, Plan},
};
use crate::{
    baseline::{LEVELS, Quantiles},
    bizitobs::{Configuration, Dataset, Term},
    bootstrap::{self, Interval},
    error::Error,
    score::{Score, geometric_mean},
    table::Series,
};

/// Quantile levels asked of the forecaster: [`LEVELS`] within the 95 % interval.
const ASKED: [f64; LEVELS.len() + 2] = [0.025, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.975];

/// CRPS relative to seasonal naive that is published on GIFT-Eval: the nine
/// configurations, and the three of the application where known (geometric
/// means).
pub const PUBLISHED: [(&str, f64, Option<f64>); 8] = [
    ("Chronos-2", 0.395, Some(0.547)),
    ("TimesFM-2.5", 0.413, Some(0.623)),
    ("Toto-2.0-2.5B", 0.418, Some(0.693)),
    ("Toto-2.0-22m", 0.467, Some(0.743)),
    ("PatchTST", 0.521, Some(0.940)),
    ("FLAIR", 0.572, Some(0.922)),
    ("AutoTheta", 0.662, Some(0.498)),
    ("AutoETS", 1.25, None),
];

/// Which windows are forecast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The published test windows. Nothing is tuned on them.
    Test,
    /// Twenty origins per configuration before all test windows, for tuning.
    Development,
}

/// Scores of one forecaster at one configuration.
#[derive(Clone, Debug)]
pub struct Row {
    /// Which configuration.
    pub configuration: Configuration,
    /// `honeyguide`, `seasonal naive` or `naive`.
    pub model: &'static str,
    /// By series.
    pub scores: Vec<Score>,
}

impl Row {
    /// Over all series.
    pub fn total(&self) -> Score {
        Score::total(&self.scores)
    }
}

/// All rows, three per configuration in the order of [`MODELS`].
#[derive(Clone, Debug)]
pub struct Report {
    /// Which windows were forecast.
    pub part: Part,
    /// By configuration, then by model.
    pub rows: Vec<Row>,
    drawn: Vec<Drawn>,
}

/// Series of a set of which windows are drawn.
const SERIES_DRAWN: usize = 2;

/// What is compared.
pub const MODELS: [&str; 3] = ["honeyguide", "seasonal naive", "naive"];

/// Evaluates; `progress` is told each series that is done, out of how many.
///
/// # Errors
/// The data cannot be read.
pub fn evaluate(
    folder: &Path,
    part: Part,
    mut progress: impl FnMut(usize, usize),
) -> Result<Report, Error> {
    let sets = Dataset::ALL.map(|dataset| Ok((dataset, dataset.load(folder)?)));
    let sets: Vec<(Dataset, Vec<Series>)> = sets.into_iter().collect::<Result<_, Error>>()?;
    let all = sets.iter().map(|(_, series)| series.len()).sum();
    let (mut rows, mut all_drawn, mut done) = (Vec::new(), Vec::new(), 0);
    for (dataset, series) in &sets {
        let mut of_set: Vec<Row> = Term::ALL
            .into_iter()
            .flat_map(|term| {
                MODELS.map(|model| Row {
                    configuration: Configuration {
                        dataset: *dataset,
                        term,
                    },
                    model,
                    scores: Vec::new(),
                })
            })
            .collect();
        let mut drawn: Vec<Drawn> = Term::ALL
            .into_iter()
            .map(|term| {
                let configuration = Configuration {
                    dataset: *dataset,
                    term,
                };
                Drawn::new(configuration.name(), dataset.step_secs())
            })
            .collect();
        for (number, series) in series.iter().enumerate() {
            let plan = plan(*dataset, series, part, number < SERIES_DRAWN)?;
            let walked = plan.walk(series);
            let rows = of_set.chunks_mut(MODELS.len());
            for ((rows, drawn), walked) in rows.zip(&mut drawn).zip(walked) {
                for (model, row) in rows.iter_mut().enumerate() {
                    row.scores.push(walked.total(model));
                }
                drawn.add(series, "", walked);
            }
            done += 1;
            progress(done, all);
        }
        rows.extend(of_set);
        all_drawn.extend(drawn);
    }
    Ok(Report {
        part,
        rows,
        drawn: all_drawn,
    })
}

/// What is forecast of a series of a set; `drawn` of the windows for plots.
fn plan(dataset: Dataset, series: &Series, part: Part, draw: bool) -> Result<Plan, Error> {
    let asked: Vec<Asked> = Term::ALL
        .into_iter()
        .map(|term| {
            let configuration = Configuration { dataset, term };
            let origins = origins(configuration, series.values.len(), part);
            Asked::new(configuration.horizon(), origins, draw)
        })
        .collect();
    if asked.iter().any(|asked| asked.origins.is_empty()) {
        return Err(Error::TooShort {
            series: series.name.clone(),
            values: series.values.len(),
            needed: asked.iter().map(|asked| asked.horizon).max().unwrap_or(1),
        });
    }
    Ok(Plan {
        step_secs: dataset.step_secs(),
        season: dataset.season(),
        asked,
    })
}

/// A forecaster with the seasons that an analyzer would follow.
pub fn forecaster(step_secs: u32, horizon: usize) -> Forecaster {
    let seasons: Vec<usize> = season_steps(step_secs).collect();
    Forecaster::new(&seasons, horizon)
}

/// A path of the forecaster in the form of the baselines.
pub fn path(forecaster: &Forecaster, horizon: usize) -> Vec<Quantiles> {
    let quantiles = |asked: [f64; ASKED.len()]| Quantiles {
        at: std::array::from_fn(|i| asked[i + 1]),
        ends_95: [asked[0], asked[ASKED.len() - 1]],
    };
    let path = forecaster.path(horizon, ASKED);
    path.into_iter().map(quantiles).collect()
}

/// Where the windows of a part begin.
fn origins(configuration: Configuration, len: usize, part: Part) -> Vec<usize> {
    const ORIGINS: usize = 20;
    match part {
        Part::Test => configuration.origins(len),
        Part::Development => {
            let first_of = |term| {
                let dataset = configuration.dataset;
                Configuration { dataset, term }
                    .origins(len)
                    .first()
                    .copied()
            };
            // Before the windows of every horizon.
            let end = Term::ALL.into_iter().filter_map(first_of).min();
            let end = end.unwrap_or(0);
            let Some(last) = end.checked_sub(configuration.horizon()) else {
                return Vec::new();
            };
            // The application's day begins with its only change of level.
            let share = match configuration.dataset {
                Dataset::Application => 0.25,
                _ => 0.4,
            };
            let first = ((end as f64 * share) as usize).min(last);
            (0..ORIGINS)
                .map(|i| first + (last - first) * i / (ORIGINS - 1))
                .collect()
        }
    }
}

/// Geometric means over configurations, relative to seasonal naive.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Relative {
    /// Of all nine.
    pub crps: f64,
    /// Of the three of the application.
    pub crps_app: f64,
    /// Of all nine.
    pub mase: f64,
}

impl Report {
    /// The row of a model at a configuration.
    fn row(&self, configuration: Configuration, model: &str) -> Option<&Row> {
        let is = |row: &&Row| row.configuration == configuration && row.model == model;
        self.rows.iter().find(is)
    }

    /// Relative scores of a model over the series that `pick` keeps, by data
    /// set: positions, with repetition.
    fn relative_of(&self, model: &str, pick: &[Vec<usize>]) -> Relative {
        let total = |row: &Row, set: usize| {
            Score::total(pick[set].iter().map(|series| &row.scores[*series]))
        };
        let (mut crps, mut mase) = (Vec::new(), Vec::new());
        for configuration in Configuration::all() {
            let set = Dataset::ALL
                .iter()
                .position(|dataset| *dataset == configuration.dataset)
                .unwrap_or(0);
            let rows = [model, "seasonal naive"].map(|model| self.row(configuration, model));
            if let [Some(ours), Some(base)] = rows {
                let (ours, base) = (total(ours, set), total(base, set));
                crps.push(ours.crps() / base.crps());
                mase.push(ours.mase() / base.mase());
            }
        }
        Relative {
            crps: geometric_mean(crps.iter().copied()),
            crps_app: geometric_mean(crps.iter().take(Term::ALL.len()).copied()),
            mase: geometric_mean(mase),
        }
    }

    fn everything(&self) -> Vec<Vec<usize>> {
        Dataset::ALL
            .iter()
            .map(|dataset| {
                let of = |row: &&Row| row.configuration.dataset == *dataset;
                let series = self.rows.iter().find(of).map_or(0, |row| row.scores.len());
                (0..series).collect()
            })
            .collect()
    }

    /// Relative scores of a model.
    pub fn relative(&self, model: &str) -> Relative {
        self.relative_of(model, &self.everything())
    }

    /// 95 % bootstrap intervals of a model's relative CRPS, CRPS of the
    /// application and MASE, over the series of each set.
    pub fn intervals(&self, model: &str) -> [Interval; 3] {
        let sizes: Vec<usize> = self.everything().iter().map(Vec::len).collect();
        bootstrap::intervals(&sizes, |pick| {
            let relative = self.relative_of(model, pick);
            [relative.crps, relative.crps_app, relative.mase]
        })
    }
}
