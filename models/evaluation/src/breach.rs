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
mod eta;
mod own;
mod reliability;
mod series;

use std::path::Path;

use honeyguide_models::{
    Forecast, Params, SeriesInput, SeriesModel, Target, ValidParams, Window,
    breach::{Objective, Paths, ValidObjective, breach},
    recalibration::{Pool, Recalibration},
};

pub(crate) use self::baseline::naive as past_frequency;
pub(crate) use self::reliability::figure as reliability_figure;
use self::{
    baseline::BASELINES,
    reliability::{Tally, figure},
    series::Subject,
};
pub use self::{
    own::evaluate as evaluate_own,
    reliability::{Judged, Reliability},
    series::Above,
};
use crate::{
    bootstrap::{Interval, intervals},
    error::Error,
    plot::Figure,
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
pub fn evaluate(data: &Path, progress: impl FnMut(&str)) -> Result<Outcome, Error> {
    let subjects = series::load(data)?;
    let judged = judge_all(&subjects.iter().collect::<Vec<_>>(), progress);
    // Both objectives of a series are drawn together.
    let mut of_series: Vec<Vec<Tally>> = Vec::new();
    for (subject, judged) in subjects.iter().zip(&judged) {
        let tallies = judged.iter().map(|judged| judged.tallies(1)[0]);
        of_series.resize(
            of_series.len().max(subject.series + 1),
            vec![Tally::default(); MODELS],
        );
        for (sum, tally) in of_series[subject.series].iter_mut().zip(tallies) {
            sum.add(&tally);
        }
    }
    let all = together(&subjects, judged);
    let title = format!(
        "## Breach within 15 minutes, {} series and objectives\n",
        subjects.len()
    );
    let mut outcome = Outcome::default();
    outcome.line(title);
    tell(&mut outcome, &all, &[of_series]);
    tell_reliability(&mut outcome, &all);
    all[0].times.tell(&mut outcome, HORIZON_SECS.into());
    let ours = all[0].reliability();
    outcome.metric("ece_15m", ours.ece);
    outcome.metric("ece_15m_open", ours.ece_open);
    outcome.metric("brier_15m_skill", 1.0 - ours.brier / ours.brier_base);
    outcome.details = serde_json::json!({"reliability": ours.bins});
    let name = "breach-reliability".to_owned();
    let title = "Public series: probability of a breach within 15 minutes";
    outcome.plots.push((name, diagram(title, &all).svg()));
    Ok(outcome)
}

/// Models and baselines.
const MODELS: usize = NAMES.len() + BASELINES.len();

/// What was said of each subject, by model. Those of one step go side by side.
fn judge_all(subjects: &[&Subject], mut progress: impl FnMut(&str)) -> Vec<Vec<Judged>> {
    let mut all: Vec<Vec<Judged>> = vec![Vec::new(); subjects.len()];
    let mut steps: Vec<u32> = subjects.iter().map(|subject| subject.step_secs).collect();
    steps.sort_unstable();
    steps.dedup();
    for step_secs in steps {
        let of_step = |at: &usize| subjects[*at].step_secs == step_secs;
        let places: Vec<usize> = (0..subjects.len()).filter(of_step).collect();
        let walks: Vec<Walk<'_>> = places.iter().map(|at| Walk::new(subjects[*at])).collect();
        progress(&format!("{} series of {step_secs} s", walks.len()));
        for (at, judged) in places.into_iter().zip(judge(walks, step_secs)) {
            all[at] = judged;
        }
    }
    all
}

/// What was said of all subjects, by model; those of short steps first.
fn together(subjects: &[Subject], judged: Vec<Vec<Judged>>) -> Vec<Judged> {
    let mut pairs: Vec<(&Subject, Vec<Judged>)> = subjects.iter().zip(judged).collect();
    pairs.sort_by_key(|(subject, _)| subject.step_secs);
    let mut all = vec![Judged::default(); MODELS];
    for (_, judged) in pairs {
        for (all, judged) in all.iter_mut().zip(judged) {
            all.append(judged);
        }
    }
    all
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
        let mut judged = vec![Judged::default(); MODELS];
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
        let unknown = next.iter().filter(|value| value.is_nan()).count();
        if comes_in.is_none() && 2 * unknown > ahead {
            self.judged.iter_mut().for_each(Judged::pause);
            return;
        }
        let means = self.recalibration.recalibrated(pool, said);
        if let Some(steps) = comes_in {
            let secs = (steps as u32 + 1) * subject.step_secs;
            self.judged[0].times.add(&means, secs.into());
        }
        let scores = [means.probability, said.probability].into_iter().chain(
            BASELINES
                .iter()
                .map(|(_, score)| score(&subject.held[..=at], subject.threshold, ahead)),
        );
        for (judged, score) in self.judged.iter_mut().zip(scores) {
            judged.add(score, comes_in.map(|steps| steps + 1));
        }
    }
}

/// Walks through all subjects of one step side by side, as an analyzer would.
fn judge(mut walks: Vec<Walk<'_>>, step_secs: u32) -> Vec<Vec<Judged>> {
    let Ok(params) = Params::for_step(step_secs).validate() else {
        return walks.into_iter().map(|walk| walk.judged).collect();
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
    walks.into_iter().map(|walk| walk.judged).collect()
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

/// Names of all models.
fn names() -> impl Iterator<Item = &'static str> {
    NAMES
        .into_iter()
        .chain(BASELINES.iter().map(|(name, _)| *name))
}

/// A table of all models; `tallies`: groups of parts of what was said, each by model,
/// that intervals are drawn from.
fn tell(outcome: &mut Outcome, judged: &[Judged], tallies: &[Vec<Vec<Tally>>]) {
    outcome.line("| model | steps | breaches within | ECE | ECE of 5–95 % | Brier | skill | recall at 5 min |");
    outcome.line("|---|---|---|---|---|---|---|---|");
    for (model, (name, judged)) in names().zip(judged).enumerate() {
        let reliability = judged.reliability();
        let [ece, skill] = error_intervals(tallies, model);
        let value_skill = 1.0 - reliability.brier / reliability.brier_base;
        outcome.line(row([
            name.to_owned(),
            judged.steps().to_string(),
            number(reliability.base_rate, 4),
            format!("{}{}", number(reliability.ece, 4), between(ece, 3)),
            number(reliability.ece_open, 4),
            number(reliability.brier, 4),
            format!("{}{}", number(value_skill, 3), between(skill, 2)),
            number(judged.recall(), 3),
        ]));
    }
}

fn number(value: f64, digits: usize) -> String {
    if value.is_finite() {
        format!("{value:.digits$}")
    } else {
        "–".to_owned()
    }
}

fn between(interval: Interval, digits: usize) -> String {
    let [low, high] = [interval.low, interval.high].map(|end| number(end, digits));
    format!(" [{low}, {high}]")
}

/// 95 % intervals of the calibration error and of the skill of a model.
fn error_intervals(tallies: &[Vec<Vec<Tally>>], model: usize) -> [Interval; 2] {
    let sizes: Vec<usize> = tallies.iter().map(Vec::len).collect();
    intervals(&sizes, |pick| {
        let mut total = Tally::default();
        for (group, pick) in tallies.iter().zip(pick) {
            pick.iter().for_each(|at| total.add(&group[*at][model]));
        }
        total.errors()
    })
}

fn tell_reliability(outcome: &mut Outcome, judged: &[Judged]) {
    outcome.line("\nReliability of honeyguide:\n\n| said | steps | came |\n|---|---|---|");
    for bin in &judged[0].reliability().bins {
        outcome.line(row([
            format!("{:.3}", bin.said),
            bin.steps.to_string(),
            format!("{:.3}", bin.came),
        ]));
    }
}

/// The diagram of ours, with and without recalibration, and of the best baseline.
fn diagram(title: &str, judged: &[Judged]) -> Figure {
    let all: Vec<(&str, Reliability)> = names()
        .zip(judged)
        .filter(|(name, _)| NAMES.contains(name) || name.starts_with("past"))
        .map(|(name, judged)| (name, judged.reliability()))
        .collect();
    let all: Vec<(&str, &Reliability)> = all.iter().map(|(name, of)| (*name, of)).collect();
    figure(title, "steps", &all)
}
