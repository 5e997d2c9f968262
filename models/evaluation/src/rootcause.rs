//! How often the service at fault is ranked first, or among the first three, by
//! [`honeyguide_models::attribution::services`] and by simple rankings.

mod baseline;

use std::{fmt::Write as _, path::Path};

use honeyguide_models::attribution::services::{Incident, ServiceHistory, rank};
use serde::Serialize;

use crate::{
    Error, Interval,
    detect::Share,
    petshop::{self, Issue},
    report::Outcome,
};

/// Windows of PetShop, in seconds.
const STEP_SECS: f64 = 300.0;

/// A ranking over issues.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Who.
    pub ranking: String,
    /// Share of issues whose cause is ranked first, with its interval over issues.
    pub top1: Share,
    /// Or among the first three.
    pub top3: Share,
    /// Place of the cause in each issue, from 1; `None` if it is not ranked.
    pub places: Vec<Option<usize>>,
}

/// The whole evaluation.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RootCause {
    /// Issue by issue, as `places` are.
    pub issues: Vec<String>,
    /// Ours first.
    pub rows: Vec<Row>,
}

/// Evaluates on PetShop. Deterministic.
///
/// # Errors
/// When the set cannot be read.
pub fn evaluate(petshop: &Path, mut progress: impl FnMut(&str)) -> Result<RootCause, Error> {
    progress("reading");
    let issues = petshop::load(petshop)?;
    let mut rows = Vec::new();
    progress("Honeyguide");
    rows.push(row("Honeyguide", &issues, own));
    for (name, ranking) in baseline::ALL {
        progress(name);
        rows.push(row(name, &issues, ranking));
    }
    Ok(RootCause {
        issues: issues.into_iter().map(|issue| issue.name).collect(),
        rows,
    })
}

/// Indices of components, the likeliest cause first.
type Ranking = fn(&Issue) -> Vec<usize>;

fn row(name: &str, issues: &[Issue], ranking: Ranking) -> Row {
    let place = |issue: &Issue| {
        let cause = issue.index(&issue.cause)?;
        let position = ranking(issue).iter().position(|index| *index == cause)?;
        Some(position + 1)
    };
    let places: Vec<Option<usize>> = issues.iter().map(place).collect();
    let within = |n: usize| {
        let hit = |place: &Option<usize>| f64::from(u8::from(place.is_some_and(|p| p <= n)));
        Share::of_mean(&places.iter().map(hit).collect::<Vec<f64>>())
    };
    Row {
        ranking: name.to_owned(),
        top1: within(1),
        top3: within(3),
        places,
    }
}

fn own(issue: &Issue) -> Vec<usize> {
    let latency = issue.metric("latency", "Average");
    let rate = issue.metric("requests", "Sum");
    let failed = |values: Vec<f64>| values.iter().map(|percent| 1.0 - percent / 100.0).collect();
    let errors: Vec<Vec<f64>> = issue
        .metric("availability", "Average")
        .into_iter()
        .map(failed)
        .collect();
    let services: Vec<ServiceHistory<'_>> = (0..latency.len())
        .map(|k| ServiceHistory {
            latency_secs: &latency[k],
            error_share: &errors[k],
            rate: &rate[k],
        })
        .collect();
    let Some(subject) = issue.index(&issue.subject) else {
        return Vec::new();
    };
    let incident = Incident {
        subject,
        symptom: issue.symptom,
        recent: issue.recent,
        step_secs: STEP_SECS,
    };
    let causes = rank(&services, &issue.calls(), incident);
    causes.iter().map(|cause| cause.service).collect()
}

impl RootCause {
    /// Figures and a table.
    ///
    /// # Panics
    /// Never: plain structs become JSON.
    pub fn outcome(&self) -> Outcome {
        let mut outcome = Outcome::default();
        for (key, value) in self.metrics() {
            outcome.metric(key, value);
        }
        outcome.details = serde_json::to_value(self).expect("plain structs become JSON");
        outcome.markdown = self.to_markdown();
        outcome
    }

    fn metrics(&self) -> Vec<(&'static str, f64)> {
        let Some((own, baselines)) = self.rows.split_first() else {
            return Vec::new();
        };
        let best = |of: fn(&Row) -> f64| baselines.iter().map(of).fold(0.0, f64::max);
        vec![
            ("top1", own.top1.value),
            ("top3", own.top3.value),
            (
                "top1_over_best_baseline",
                own.top1.value - best(|row| row.top1.value),
            ),
            (
                "top3_over_best_baseline",
                own.top3.value - best(|row| row.top3.value),
            ),
        ]
    }

    fn to_markdown(&self) -> String {
        let mut text = String::from("# Root cause\n");
        let _ = writeln!(
            text,
            "\n## PetShop, {} issues\n\n| ranking | first | among three | places |\n|---|---|---|---|",
            self.issues.len()
        );
        for row in &self.rows {
            let share = |share: &Share| {
                let Interval { low, high } = share.interval;
                format!("{:.2} ({low:.2}–{high:.2})", share.value)
            };
            let place = |place: &Option<usize>| place.map_or("–".to_owned(), |p| p.to_string());
            let places: Vec<String> = row.places.iter().map(place).collect();
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} |",
                row.ranking,
                share(&row.top1),
                share(&row.top3),
                places.join(" ")
            );
        }
        text
    }
}
