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
    Params, SeriesInput, SeriesModel, Target, ValidParams, Window,
    breach::{Objective, Paths, ValidObjective, breach},
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
    let mut judged: Vec<Judged> = vec![Judged::default(); 1 + BASELINES.len()];
    for (i, subject) in subjects.iter().enumerate() {
        progress(&format!(
            "{} ({} of {})",
            subject.name,
            i + 1,
            subjects.len()
        ));
        judge(subject, &mut judged);
    }
    Ok(outcome(&judged, subjects.len()))
}

/// Walks through a subject once per model, side by side.
fn judge(subject: &Subject, judged: &mut [Judged]) {
    let params = Params {
        step_secs: subject.step_secs,
        ..Params::default()
    };
    let Ok(params) = params.validate() else {
        return;
    };
    let paths = Paths::new(&params);
    let ahead = (HORIZON_SECS / subject.step_secs) as usize;
    let windows = subject.windows();
    let mut model = SeriesModel::new();
    judged
        .iter_mut()
        .for_each(|judged| judged.begin(subject.step_secs));
    for at in 0..windows.len().saturating_sub(ahead) {
        let probability = step(&params, &mut model, &windows[..=at], at, |forecast| {
            breach(forecast, &subject.objective, &paths).probability
        });
        let value = subject.values[at];
        if at < subject.judged_from || value.is_nan() || value > subject.threshold {
            judged.iter_mut().for_each(Judged::pause);
            continue;
        }
        let next = &subject.values[at + 1..=at + ahead];
        let comes_in = next.iter().position(|value| *value > subject.threshold);
        let scores = std::iter::once(probability).chain(
            BASELINES
                .iter()
                .map(|(_, score)| score(&subject.values[..=at], subject.threshold, ahead)),
        );
        for (judged, score) in judged.iter_mut().zip(scores) {
            judged.add(score, comes_in.map(|steps| steps + 1));
        }
    }
}

/// Refreshes the model with the newest window and refits it when due.
fn step<T>(
    params: &ValidParams,
    model: &mut SeriesModel,
    windows: &[Window],
    at: usize,
    read: impl FnOnce(&honeyguide_models::Forecast) -> T,
) -> T {
    let input = SeriesInput {
        step: at as u64,
        own: &windows[windows.len().saturating_sub(RING)..],
        drivers: &[],
    };
    let forecast = model.refresh(params, input);
    if model.refit_due(params) {
        model.refit(params, input);
    }
    read(&forecast)
}

/// The objective that a rate stays at or below a threshold for 15 minutes.
fn objective(threshold: f64) -> Option<ValidObjective> {
    let objective = Objective {
        target: Target::Rate,
        threshold,
        horizon_secs: HORIZON_SECS,
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
    let names = std::iter::once("honeyguide").chain(BASELINES.iter().map(|(name, _)| *name));
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
