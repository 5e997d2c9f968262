//! Series of one's own: what is alerted, and with labels how much of it is right.

use honeyguide_models::detector::REST;
use serde_json::json;

use super::{
    alerts, baseline,
    events::AFTER,
    mean_vus, plot,
    report::{write_rows, write_vus},
    rows_of_events, runs, scores,
};
use crate::{
    bootstrap::{Interval, intervals},
    nab::Labelled,
    own::{self, Own},
    plot::file_name,
    report::{Outcome, row},
};

/// Parts of a series that intervals are drawn from: long enough that one says
/// little of the next.
const BLOCKS: usize = 20;
/// Alerts in the list, and figures.
const ALERTS_SHOWN: usize = 20;
const PLOTS_MAX: usize = 24;
const DAY_SECS: f64 = 86_400.0;

/// Alerts of one detector, by series.
struct Said {
    detector: &'static str,
    alerts: Vec<Vec<f64>>,
}

/// Evaluates the detector on series of one's own beside baselines, which get as many
/// alerts; where there are labels, on those.
pub fn evaluate(all: &[Own], mut progress: impl FnMut(&str)) -> Outcome {
    let mut outcome = Outcome::default();
    outcome.line("## Your series: detection\n");
    own::tell(&mut outcome, all);
    let labelled: Vec<Labelled> = all.iter().map(as_labelled).collect();
    let mut ours = Said {
        detector: "Honeyguide",
        alerts: Vec::new(),
    };
    for series in &labelled {
        progress(&series.name);
        ours.alerts.push(alerts(series));
    }
    let is_short = |own: &&Own| own.series.values.len() <= REST as usize;
    let short: Vec<&Own> = all.iter().filter(is_short).collect();
    for own in &short {
        outcome.line(format!(
            "- {}: nothing is said of the first {REST} values, and there are {}",
            own.series.name,
            own.series.values.len()
        ));
    }
    if !short.is_empty() {
        outcome.line("");
    }
    let said = with_baselines(ours, &labelled);
    tell_alerts(&mut outcome, all, &said);
    tell_list(&mut outcome, all, &labelled, &said[0]);
    tell_labels(&mut outcome, all, &labelled);
    outcome.plots_of(PLOTS_MAX, all.len(), "series");
    for ((own, series), alerts) in all
        .iter()
        .zip(&labelled)
        .zip(&said[0].alerts)
        .take(PLOTS_MAX)
    {
        let figure = plot::series(own, series, &scores(series), alerts);
        let name = file_name(&["detect-own", &own.series.name]);
        outcome.plots.push((name, figure.svg()));
    }
    outcome
}

fn as_labelled(own: &Own) -> Labelled {
    let time = |at: usize| own.first_secs + at as i64 * i64::from(own.step_secs);
    Labelled {
        category: String::new(),
        name: own.series.name.clone(),
        times: (0..own.series.values.len()).map(time).collect(),
        values: own.series.values.clone(),
        windows: runs(&own.series.faults),
    }
}

fn count(alerts: &[Vec<f64>]) -> usize {
    let alerts = alerts.iter().flatten();
    alerts.filter(|alert| **alert >= 1.0).count()
}

/// Baselines at the threshold that gives as many alerts as ours, or nearly.
fn with_baselines(ours: Said, labelled: &[Labelled]) -> Vec<Said> {
    let most = count(&ours.alerts);
    let of = |(detector, baseline): (&'static str, baseline::Baseline)| {
        let scores: Vec<Vec<f64>> = labelled.iter().map(baseline).collect();
        let alerts = baseline::rested(&scores, |alerts| -(count(alerts).abs_diff(most) as f64));
        Said { detector, alerts }
    };
    let baselines = baseline::ALL.into_iter().map(of);
    let baselines: Vec<Said> = baselines.collect();
    std::iter::once(ours).chain(baselines).collect()
}

fn tell_alerts(outcome: &mut Outcome, all: &[Own], said: &[Said]) {
    outcome.line("| detector | alerts | per series and day | near one of Honeyguide's |");
    outcome.line("|---|---|---|---|");
    for of in said {
        let near = near(&of.alerts, &said[0].alerts);
        let rate = rate(&of.alerts, all);
        let Interval { low, high } = rate_interval(&of.alerts, all);
        outcome.line(row([
            of.detector.to_owned(),
            count(&of.alerts).to_string(),
            format!("{rate:.2} ({low:.2}–{high:.2})"),
            near.to_string(),
        ]));
    }
    outcome.metric("own_alerts_per_day", rate(&said[0].alerts, all));
    outcome.line(format!(
        "\nBaselines have the threshold that gives as many alerts as Honeyguide, or nearly, and \
         its rest of {REST} values after each. In brackets 95 % bootstrap over {BLOCKS} parts of \
         each series. Near is within {AFTER} values.\n"
    ));
}

/// How many alerts have one of the others near.
fn near(alerts: &[Vec<f64>], others: &[Vec<f64>]) -> usize {
    let places = |alerts: &[f64]| -> Vec<usize> {
        (0..alerts.len()).filter(|at| alerts[*at] >= 1.0).collect()
    };
    let of_series = alerts.iter().zip(others).map(|(alerts, others)| {
        let others = places(others);
        let is_near = |at: &usize| others.iter().any(|other| other.abs_diff(*at) <= AFTER);
        places(alerts).iter().filter(|at| is_near(at)).count()
    });
    of_series.sum()
}

/// Alerts per series and day.
fn rate(alerts: &[Vec<f64>], all: &[Own]) -> f64 {
    let days: f64 = all.iter().map(Own::secs).sum::<f64>() / DAY_SECS;
    count(alerts) as f64 / days
}

fn rate_interval(alerts: &[Vec<f64>], all: &[Own]) -> Interval {
    let in_block = |alerts: &[f64], block: usize| {
        let at = |block: usize| alerts.len() * block / BLOCKS;
        let alerts = &alerts[at(block)..at(block + 1)];
        alerts.iter().filter(|alert| **alert >= 1.0).count() as f64
    };
    let blocks: Vec<Vec<f64>> = alerts
        .iter()
        .map(|alerts| (0..BLOCKS).map(|block| in_block(alerts, block)).collect())
        .collect();
    let days: f64 = all.iter().map(Own::secs).sum::<f64>() / DAY_SECS;
    let [interval] = intervals(&vec![BLOCKS; all.len()], |pick| {
        let series = blocks.iter().zip(pick);
        let drawn = series.map(|(blocks, pick)| pick.iter().map(|at| blocks[*at]).sum::<f64>());
        [drawn.sum::<f64>() / days]
    });
    interval
}

/// The alerts with the highest scores.
fn tell_list(outcome: &mut Outcome, all: &[Own], labelled: &[Labelled], ours: &Said) {
    let mut list = Vec::new();
    for ((own, series), alerts) in all.iter().zip(labelled).zip(&ours.alerts) {
        let places = (0..alerts.len()).filter(|at| alerts[*at] >= 1.0);
        list.extend(places.map(|at| (alerts[at], own, series.values[at], at)));
    }
    list.sort_by(|a, b| b.0.total_cmp(&a.0));
    let details: Vec<_> = list
        .iter()
        .map(|(score, own, value, at)| {
            json!({"series": own.series.name, "time": own.time(*at), "value": value, "score": score})
        })
        .collect();
    let notes = all.iter().filter(|own| !own.notes.is_empty());
    let notes = notes.map(|own| (own.series.name.clone(), json!(own.notes)));
    outcome.details = json!({"own_detect": {
        "alerts": details, "notes": notes.collect::<serde_json::Map<_, _>>(),
    }});
    if list.is_empty() {
        return;
    }
    outcome.line("| time, UTC | series | value | score |");
    outcome.line("|---|---|---|---|");
    for (score, own, value, at) in list.iter().take(ALERTS_SHOWN) {
        outcome.line(row([
            own.time(*at),
            own.series.name.clone(),
            format!("{value}"),
            format!("{score:.2}"),
        ]));
    }
    if let Some(more) = list
        .len()
        .checked_sub(ALERTS_SHOWN)
        .filter(|more| *more > 0)
    {
        outcome.line(format!(
            "\n… and {more} with lower scores (all of them with --json)."
        ));
    }
    outcome.line("");
}

fn tell_labels(outcome: &mut Outcome, all: &[Own], labelled: &[Labelled]) {
    let with_labels = all.iter().zip(labelled);
    let with_labels = with_labels.filter(|(own, _)| !own.series.faults.is_empty());
    let with_labels: Vec<Labelled> = with_labels.map(|(_, series)| series.clone()).collect();
    if with_labels.is_empty() {
        outcome.line("No labels (--label-column): nobody can say which alerts are right.\n");
        return;
    }
    let rows = rows_of_events(&with_labels);
    let mut text = String::new();
    write_rows(&mut text, &rows);
    let with_events = with_labels
        .iter()
        .filter(|series| !series.windows.is_empty());
    match with_events.count() {
        0 => {}
        // One series has no other to draw.
        1 => {
            let vus = mean_vus(&with_labels).value;
            text += &format!("\nVUS-PR, tolerance 0 to 100 points: {vus:.3}.\n");
        }
        _ => write_vus(&mut text, Some(mean_vus(&with_labels))),
    }
    outcome.line("Labelled events behind the first 15 % (750 values at most); baselines have the threshold with the most events at no more false alarms than Honeyguide; recall with 95 % bootstrap over events:\n");
    outcome.line(text);
    outcome.metric("own_recall", rows[0].found as f64 / rows[0].events as f64);
    outcome.metric("own_false_alarms_per_day", rows[0].false_alarms_per_day);
    if let serde_json::Value::Object(details) = &mut outcome.details {
        details.insert("own_detect_events".to_owned(), json!(rows));
    }
}
