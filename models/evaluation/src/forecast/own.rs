//! Series of one's own: the windows that BizITObs has, where they are long enough.

use serde_json::json;

use super::{
    MODELS,
    plot::{CONFIGURATIONS_MAX, Drawn, plots},
    report::{HEADER, cells},
    walk::{Asked, Plan, Walked},
};
use crate::{
    bizitobs::{Term, windows},
    bootstrap, coverage,
    own::{self, Own},
    report::{Outcome, row},
    score::{Score, geometric_mean},
};

const MINUTE: u32 = 60;
const HOUR: u32 = 3600;
const DAY: u32 = 86_400;
const WEEK: u32 = 604_800;

/// One series at one horizon.
struct Configuration {
    name: String,
    walked: Walked,
}

/// Seasons of steps of this length, longest first: an hour for
/// seconds, a day for minutes and hours, a week for days, as GIFT-Eval has it, and
/// those that are shorter.
fn seasons(step_secs: u32) -> impl Iterator<Item = usize> {
    let longest = match step_secs {
        ..MINUTE => HOUR,
        MINUTE..DAY => DAY,
        _ => WEEK,
    };
    let shorter = [WEEK, DAY, HOUR]
        .into_iter()
        .filter(move |secs| *secs <= longest);
    shorter
        .map(move |secs| (f64::from(secs) / f64::from(step_secs)).round() as usize)
        .filter(|steps| *steps > 1)
}

/// Steps of the short term.
const fn short(step_secs: u32) -> usize {
    match step_secs {
        ..MINUTE => 60,
        MINUTE..DAY => 48,
        _ => 30,
    }
}

/// What is forecast of a series, and why not more.
fn plan(own: &Own) -> (Vec<Term>, Plan, Vec<String>) {
    let len = own.series.values.len();
    let known = own.series.values.iter().filter(|value| !value.is_nan());
    let known = known.count();
    let (mut terms, mut asked, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
    for term in Term::ALL {
        let horizon = short(own.step_secs) * term.factor();
        let mut origins = windows(len, horizon);
        // Of a window nobody knows whether a forecast is good where nothing came.
        origins.retain(|origin| {
            let window = &own.series.values[*origin..origin + horizon];
            window.iter().any(|value| !value.is_nan())
        });
        match origins.first() {
            Some(first) if *first >= horizon => {
                asked.push(Asked::new(horizon, origins, true));
                terms.push(term);
            }
            _ => left_out.push(format!(
                "{}, {}: {horizon} steps ahead need {} values, there are {len}, {known} of \
                 them known",
                own.series.name,
                term.name(),
                2 * horizon
            )),
        }
    }
    let first = asked.iter().filter_map(|asked| asked.origins.first()).min();
    let known = first.copied().unwrap_or(0);
    let season = seasons(own.step_secs).find(|steps| 2 * steps <= known);
    let plan = Plan {
        step_secs: own.step_secs,
        season: season.unwrap_or(1),
        asked,
    };
    (terms, plan, left_out)
}

/// Evaluates forecasts of series of one's own beside baselines, and whether
/// intervals hold.
pub fn evaluate(all: &[Own], mut progress: impl FnMut(&str)) -> Outcome {
    let mut outcome = Outcome::default();
    outcome.line("## Your series: forecasts\n");
    own::tell(&mut outcome, all);
    let (mut configurations, mut drawn, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
    for own in all {
        progress(&own.series.name);
        let (terms, plan, reasons) = plan(own);
        left_out.extend(reasons);
        if plan.season == 1 && !terms.is_empty() {
            left_out.push(format!(
                "{}: no two seasons before its first window, so that its seasonal naive \
                 forecast is the naive one",
                own.series.name
            ));
        }
        for (term, walked) in terms.iter().zip(plan.walk(&own.series)) {
            let name = format!("{}/{}", own.series.name, term.name());
            let mut of = Drawn::new(name.clone(), own.step_secs);
            of.add(&own.series, &own.quantity, walked.clone());
            drawn.push(of);
            configurations.push(Configuration { name, walked });
        }
    }
    if configurations.is_empty() {
        outcome.line("Nothing could be forecast:");
    } else {
        tell(&mut outcome, &configurations);
    }
    tell_left_out(&mut outcome, &left_out);
    tell_coverage(&mut outcome, all);
    outcome.plots_of(CONFIGURATIONS_MAX, drawn.len(), "configurations");
    outcome.plots = plots("forecast-own", &drawn);
    let details = details(&configurations, all, &left_out);
    outcome.details = json!({"own_forecast": details});
    outcome
}

fn tell(outcome: &mut Outcome, configurations: &[Configuration]) {
    outcome.line(format!("| configuration {HEADER}"));
    outcome.line("|---|---|---|---|---|---|---|---|---|---|");
    for of in configurations {
        let base = of.walked.total(1).crps();
        for (model, name) in MODELS.into_iter().enumerate() {
            outcome.line(row(cells(&of.name, name, &of.walked.total(model), base)));
        }
    }
    outcome.line(
        "\nGeometric means over these relative to seasonal naive (95 % bootstrap over the \
         windows of each; one that is alone does not vary, so that intervals are too narrow):\n",
    );
    outcome.line("| model | CRPS | MASE |");
    outcome.line("|---|---|---|");
    let sizes: Vec<usize> = configurations
        .iter()
        .map(|of| of.walked.windows.len())
        .collect();
    let everything: Vec<Vec<usize>> = sizes.iter().map(|size| (0..*size).collect()).collect();
    for (model, name) in MODELS.into_iter().enumerate() {
        let [crps, mase] = relative(configurations, model, &everything);
        let mut texts = [crps, mase].map(number);
        // One window has nothing to draw from.
        if sizes.iter().any(|size| *size > 1) {
            let intervals =
                bootstrap::intervals(&sizes, |pick| relative(configurations, model, pick));
            for (text, interval) in texts.iter_mut().zip(intervals) {
                let [low, high] = [interval.low, interval.high].map(number);
                *text += &format!(" [{low}, {high}]");
            }
        }
        let [crps_text, mase_text] = texts;
        outcome.line(row([name.to_owned(), crps_text, mase_text]));
        if model == 0 {
            outcome.metric("own_crps_rel", crps);
            outcome.metric("own_mase_rel", mase);
        }
    }
    outcome.line("");
}

/// Geometric means of CRPS and MASE relative to the seasonal naive forecast, over
/// those where it errs at all.
fn relative(configurations: &[Configuration], model: usize, pick: &[Vec<usize>]) -> [f64; 2] {
    let ratio = |score: fn(&Score) -> f64| {
        let ratios = configurations.iter().zip(pick).filter_map(|(of, pick)| {
            let total = |model: usize| {
                let windows = pick.iter().map(|at| &of.walked.windows[*at][model]);
                score(&Score::total(windows))
            };
            let ratio = total(model) / total(1);
            (ratio.is_finite() && ratio > 0.0).then_some(ratio)
        });
        geometric_mean(ratios)
    };
    [ratio(Score::crps), ratio(Score::mase)]
}

fn number(value: f64) -> String {
    if value.is_finite() {
        format!("{value:.3}")
    } else {
        "–".to_owned()
    }
}

fn tell_left_out(outcome: &mut Outcome, left_out: &[String]) {
    for reason in left_out {
        outcome.line(format!("- {reason}"));
    }
    if !left_out.is_empty() {
        outcome.line("");
    }
}

fn tell_coverage(outcome: &mut Outcome, all: &[Own]) {
    outcome.line("## Your series: coverage of 95 % intervals\n");
    outcome.line(coverage::HEADER);
    outcome.line("|---|---|---|---|---|---|---|");
    let mut within = coverage::Count::default();
    for own in all {
        let learned = ((DAY / own.step_secs) as usize).min(own.series.values.len() / 3);
        let series = std::slice::from_ref(&own.series);
        let of_leads = coverage::of_part(own.step_secs, series, learned);
        within = within + of_leads[0].all;
        coverage::tell(outcome, &own.series.name, &of_leads);
    }
    outcome.line("\nNot counted is the first day, or the first third of less than three days.\n");
    outcome.metric("own_coverage95", within.share());
}

fn details(
    configurations: &[Configuration],
    all: &[Own],
    left_out: &[String],
) -> serde_json::Value {
    let rows = configurations.iter().flat_map(|of| {
        MODELS.into_iter().enumerate().map(|(model, name)| {
            let score = of.walked.total(model);
            json!({
                "configuration": of.name, "model": name, "windows": score.windows(),
                "mase": score.mase(), "crps": score.crps(), "smape": score.smape(),
                "pinball": score.pinball(), "coverage_80": score.coverage_80(),
                "coverage_95": score.coverage_95(), "winkler_95": score.winkler_95(),
            })
        })
    });
    let notes = all.iter().filter(|own| !own.notes.is_empty());
    let notes = notes.map(|own| (own.series.name.clone(), json!(own.notes)));
    json!({
        "rows": rows.collect::<Vec<_>>(), "left_out": left_out,
        "notes": notes.collect::<serde_json::Map<_, _>>(),
    })
}
