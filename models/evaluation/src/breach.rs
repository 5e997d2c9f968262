//! `eval breach`: probabilities of breaking a threshold within 15 minutes.
//!
//! Real series become the rate of a [`SeriesModel`] (any quantity that is not negative does:
//! the model sees logarithms). Their objective is a level that a share of the
//! first third of the series exceeds; the rest is judged. At each step at which
//! the objective holds, the probability that one of the values of the next 15
//! minutes breaks it is compared with what came. Steps within a breach say
//! nothing and are left out. All models are judged at the same steps.
//!
//! *Recall at a lead of 5 minutes*: of the breaches that begin after a whole
//! undisturbed quarter of an hour, how many were alerted at a step 5 to 15
//! minutes before, with the threshold on the score at which a model raises one
//! false alarm per service-week (steps of a false alarm within 15 minutes are
//! one). These are series without telling what could have been known: sudden
//! breaches are among them, and no recall of 1 is possible.

mod baseline;
mod reliability;
mod series;

use std::path::Path;

use honeyguide_models::{
    Forecast, Params, SeriesInput, SeriesModel, Target, ValidParams, Window,
    breach::{Objective, Paths, ValidObjective, breach},
    recalibration::{Pool, Recalibration},
};

pub(crate) use self::baseline::naive as past_frequency;
pub use self::reliability::{Judged, Reliability};
use self::{baseline::BASELINES, series::Subject};
use crate::{
    error::Error,
    report::{Outcome, row},
};

/// Figures of recorded incidents, which are evaluated in
/// [`incidents`](crate::incidents).
pub const INCIDENT_KEYS: [&str; 3] = [
    "recall_lead5",
    "recall_lead5_over_best_baseline",
    "median_lead_vs_best_baseline",
];

/// How far ahead a breach is looked for.
const HORIZON_SECS: u32 = 900;
/// Windows of history that a model may read: six hours of minutes.
const RING: usize = 360;

/// Evaluates on the series of `ms-cloud/` and of `nab/` that are in a folder.
///
/// # Errors
/// A file cannot be read, or none of the folders is there.
pub fn evaluate(data: &Path, mut progress: impl FnMut(&str)) -> Result<Outcome, Error> {
    let subjects = series::load(data)?;
    let mut all = vec![Judged::default(); NAMES.len() + BASELINES.len()];
    let mut steps: Vec<u32> = subjects.iter().map(|subject| subject.step_secs).collect();
    steps.sort_unstable();
    steps.dedup();
    for step_secs in steps {
        let of_step = subjects.iter().filter(|one| one.step_secs == step_secs);
        let walks: Vec<Walk<'_>> = of_step.map(Walk::new).collect();
        progress(&format!("{} series of {step_secs} s", walks.len()));
        judge(walks, step_secs, &mut all);
    }
    Ok(outcome(&all, subjects.len()))
}

/// What is judged beside the baselines.
const NAMES: [&str; 2] = ["honeyguide", "the same without recalibration"];

/// A subject under way.
struct Walk<'a> {
    subject: &'a Subject,
    windows: Vec<Window>,
    model: SeriesModel,
    recalibration: Recalibration,
    judged: Vec<Judged>,
}

impl<'a> Walk<'a> {
    fn new(subject: &'a Subject) -> Self {
        let mut judged = vec![Judged::default(); NAMES.len() + BASELINES.len()];
        judged
            .iter_mut()
            .for_each(|judged| judged.begin(subject.step_secs));
        Walk {
            subject,
            windows: subject.windows(),
            model: SeriesModel::new(),
            recalibration: Recalibration::default(),
            judged,
        }
    }

    /// Takes the window at `at` and judges what is said of the next ones.
    fn step(&mut self, params: &ValidParams, paths: &Paths, at: usize, pool: &mut Pool) {
        let subject = self.subject;
        let objective = &subject.objective;
        let forecast = refresh(params, &mut self.model, &self.windows[..=at], at);
        // The objective comes with what is judged: nothing is learned before.
        if at < subject.judged_from {
            return;
        }
        let said = breach(
            &forecast,
            objective,
            paths,
            objective.above(&self.windows[..=at]),
        );
        let value = subject.values[at];
        let observed = self.windows[at].value(Target::Rate);
        self.recalibration
            .settle(params, objective, at as u64, observed, pool);
        self.recalibration
            .follow(params, objective, at as u64, &said);
        if value.is_nan() || value > subject.threshold {
            self.judged.iter_mut().for_each(Judged::pause);
            return;
        }
        let ahead = (HORIZON_SECS / subject.step_secs) as usize;
        let next = &subject.values[at + 1..=at + ahead];
        let comes_in = next.iter().position(|value| *value > subject.threshold);
        let means = self.recalibration.recalibrated(pool, said).probability;
        let scores = [means, said.probability].into_iter().chain(
            BASELINES
                .iter()
                .map(|(_, score)| score(&subject.values[..=at], subject.threshold, ahead)),
        );
        for (judged, score) in self.judged.iter_mut().zip(scores) {
            judged.add(score, comes_in.map(|steps| steps + 1));
        }
    }
}

/// Walks through all subjects of one step side by side, as an analyzer would.
fn judge(mut walks: Vec<Walk<'_>>, step_secs: u32, all: &mut [Judged]) {
    let params = Params {
        step_secs,
        ..Params::default()
    };
    let Ok(params) = params.validate() else {
        return;
    };
    let paths = Paths::new(&params);
    let ahead = (HORIZON_SECS / step_secs) as usize;
    let mut pool = Pool::default();
    let longest = walks.iter().map(|walk| walk.windows.len()).max();
    for at in 0..longest.unwrap_or(0).saturating_sub(ahead) {
        let under_way = walks
            .iter_mut()
            .filter(|walk| at + ahead < walk.windows.len());
        for walk in under_way {
            walk.step(&params, &paths, at, &mut pool);
        }
        pool.learn();
    }
    for walk in walks {
        for (all, judged) in all.iter_mut().zip(walk.judged) {
            all.append(judged);
        }
    }
}

/// Refreshes the model with the newest window and refits it when due.
fn refresh(
    params: &ValidParams,
    model: &mut SeriesModel,
    windows: &[Window],
    at: usize,
) -> Forecast {
    let input = SeriesInput {
        step: at as u64,
        own: &windows[windows.len().saturating_sub(RING)..],
        drivers: &[],
    };
    let forecast = model.refresh(params, input);
    if model.refit_due(params) {
        model.refit(params, input);
    }
    forecast
}

/// The objective that a rate stays at or below a threshold for 15 minutes.
fn objective(threshold: f64) -> Option<ValidObjective> {
    let objective = Objective {
        target: Target::Rate,
        threshold,
        horizon_secs: HORIZON_SECS,
        windows: 1,
        budget_events: None,
    };
    objective.validate().ok()
}

fn outcome(judged: &[Judged], subjects: usize) -> Outcome {
    let mut outcome = Outcome::default();
    outcome.line(format!(
        "## Breach within 15 minutes, {subjects} series and objectives\n"
    ));
    outcome.line("| model | steps | breaches within | ECE | ECE of 5–95 % | Brier | skill | recall at 5 min |");
    outcome.line("|---|---|---|---|---|---|---|---|");
    let baselines = BASELINES.iter().map(|(name, _)| *name);
    let names = NAMES.into_iter().chain(baselines);
    for (name, judged) in names.zip(judged) {
        let reliability = judged.reliability();
        outcome.line(row([
            name.to_owned(),
            judged.steps().to_string(),
            format!("{:.4}", reliability.base_rate),
            format!("{:.4}", reliability.ece),
            format!("{:.4}", reliability.ece_open),
            format!("{:.4}", reliability.brier),
            format!("{:.3}", 1.0 - reliability.brier / reliability.brier_base),
            format!("{:.3}", judged.recall()),
        ]));
    }
    let ours = judged[0].reliability();
    outcome.line("\nReliability of honeyguide:\n\n| said | steps | came |\n|---|---|---|");
    for bin in &ours.bins {
        outcome.line(row([
            format!("{:.3}", bin.said),
            bin.steps.to_string(),
            format!("{:.3}", bin.came),
        ]));
    }
    outcome.metric("ece_15m", ours.ece);
    outcome.metric("ece_15m_open", ours.ece_open);
    outcome.metric("brier_15m_skill", 1.0 - ours.brier / ours.brier_base);
    outcome.details = serde_json::json!({"reliability": ours.bins});
    outcome
}
