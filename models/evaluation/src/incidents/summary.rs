//! All methods on all runs, side by side.

use std::ops::Range;

use super::{
    HORIZON, Kind, LEAD, Method, Replayed, WARM_UP, WINDOWS_PER_FALSE_ALARM, anomaly, plot,
    score::{Incident, Leads, Watched, false_alarms, line, patient},
};
use crate::{
    breach::{Judged, Reliability},
    report::{Outcome, row},
};

/// Which runs: odd seeds are for development, even ones are held out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    All,
    Development,
    HeldOut,
}

impl Part {
    fn has(self, run: &Replayed) -> bool {
        match self {
            Part::All => true,
            Part::Development => !run.truth.seed.is_multiple_of(2),
            Part::HeldOut => run.truth.seed.is_multiple_of(2),
        }
    }
}

/// What one method says of all runs: of each run, by service, by window.
struct Said {
    method: Method,
    raw: Vec<Vec<Vec<f64>>>,
    scores: Vec<Vec<Vec<f64>>>,
}

/// How one method does.
struct Result {
    method: Method,
    line: f64,
    predictable: Leads,
    sudden: Leads,
    reliability: Reliability,
    /// The same of all services of all runs.
    reliability_of_all: Reliability,
}

impl Said {
    fn new(method: Method, runs: &[Replayed]) -> Said {
        let of_run = |run: &Replayed| -> Vec<Vec<f64>> {
            (0..run.services.len())
                .map(|service| method.say(run, service))
                .collect()
        };
        let raw: Vec<Vec<Vec<f64>>> = runs.iter().map(of_run).collect();
        let patient = |run: &Vec<Vec<f64>>| run.iter().map(|said| patient(said)).collect();
        Said {
            method,
            scores: raw.iter().map(patient).collect(),
            raw,
        }
    }

    /// `quiet`: by run and service, for each window.
    fn watched<'a>(
        &'a self,
        runs: &[Replayed],
        quiet: &'a [Vec<Vec<bool>>],
        part: Part,
    ) -> Vec<Watched<'a>> {
        let runs_of_part = (0..runs.len()).filter(|run| part.has(&runs[*run]));
        let services = runs_of_part.flat_map(|run| {
            let services = self.scores[run].iter().zip(&quiet[run]);
            services.map(|(scores, quiet)| {
                let from = WARM_UP.min(scores.len());
                Watched {
                    scores: &scores[from..],
                    quiet: &quiet[from..],
                }
            })
        });
        services.collect()
    }

    /// The incident of a run, if it is of a kind and can be judged.
    fn incident(&self, runs: &[Replayed], at: usize, kind: Kind) -> Option<Incident<'_>> {
        let before = runs[at].incident()?;
        (runs[at].truth.kind == kind).then(|| Incident {
            scores: &self.scores[at][0],
            before,
        })
    }

    fn leads(&self, runs: &[Replayed], part: Part, kind: Kind, line: f64) -> Leads {
        let runs_of_part = (0..runs.len()).filter(|at| part.has(&runs[*at]));
        let incidents = runs_of_part.filter_map(|at| self.incident(runs, at, kind));
        Leads(incidents.map(|incident| incident.lead(line)).collect())
    }

    fn result(&self, runs: &[Replayed], quiet: &[Vec<Vec<bool>>]) -> Result {
        let line = line(&self.watched(runs, quiet, Part::All));
        Result {
            method: self.method,
            line,
            predictable: self.leads(runs, Part::All, Kind::Predictable, line),
            sudden: self.leads(runs, Part::All, Kind::Sudden, line),
            reliability: self.reliability(runs, |run, service| {
                let incident = run.incident().filter(|_| service == 0);
                incident.map_or(0, |incident| incident.end)
            }),
            reliability_of_all: self
                .reliability(runs, |run, _| run.truth.windows().saturating_sub(HORIZON)),
        }
    }

    /// Whether a breach, as many windows in a row above the objective as are one, is
    /// complete within the next windows, which is what a probability says, at windows up to the one that `until` names for a service.
    fn reliability(
        &self,
        runs: &[Replayed],
        until: impl Fn(&Replayed, usize) -> usize,
    ) -> Reliability {
        let mut judged = Judged::default();
        for (run, raw) in runs.iter().zip(&self.raw) {
            for (service, said) in raw.iter().enumerate() {
                let breached = run.truth.services[service].breached();
                judged.begin(run.truth.window_secs);
                for at in WARM_UP..until(run, service) {
                    if breached[at] || said[at].is_nan() {
                        judged.pause();
                        continue;
                    }
                    let next = &breached[at + 1..breached.len().min(at + 1 + HORIZON)];
                    let comes_in = next.iter().position(|breached| *breached);
                    judged.add(
                        said[at].clamp(0.0, 1.0),
                        comes_in.map(|windows| windows + 1),
                    );
                }
            }
        }
        judged.reliability()
    }
}

/// Compares what was said with what happened.
pub fn evaluate(runs: &[Replayed]) -> Outcome {
    let mut outcome = Outcome::default();
    let said: Vec<Said> = Method::ALL.map(|method| Said::new(method, runs)).into();
    let of_run = |run: &Replayed| (0..run.services.len()).map(|of| run.quiet(of)).collect();
    let quiet: Vec<Vec<Vec<bool>>> = runs.iter().map(of_run).collect();
    let result = |said: &Said| said.result(runs, &quiet);
    let results: Vec<Result> = said.iter().map(result).collect();
    tell_methods(
        &mut outcome,
        runs,
        &said[0].watched(runs, &quiet, Part::All),
        &results,
    );
    tell_parts(&mut outcome, runs, &said, &quiet);
    tell_runs(&mut outcome, runs, &said, &results);
    tell_reasons(&mut outcome, runs);
    anomaly::tell(&mut outcome, runs, &quiet);
    if let (Some(said), Some(result)) = (said.first(), results.first()) {
        let alarms = (0..runs.len()).map(|at| {
            let incident = said.incident(runs, at, runs[at].truth.kind)?;
            incident.alarm(result.line)
        });
        let alarms: Vec<Option<usize>> = alarms.collect();
        outcome.plots = plot::plots(runs, &said.raw, &alarms, &result.reliability_of_all);
    }
    let [ours, at_default, baselines @ ..] = &results[..] else {
        return outcome;
    };
    let best = |of: fn(&Leads) -> f64| {
        let all = baselines.iter().map(|result| of(&result.predictable));
        all.fold(0.0, f64::max)
    };
    for (result, suffix) in [(ours, ""), (at_default, "_at_10s")] {
        let leads = &result.predictable;
        let over = leads.recall() - best(Leads::recall);
        // Below one window there is no lead to be a multiple of.
        let ratio = leads.median() / best(Leads::median).max(1.0);
        outcome.metric(&format!("recall_lead5{suffix}"), leads.recall());
        outcome.metric(&format!("recall_lead5_over_best_baseline{suffix}"), over);
        outcome.metric(&format!("median_lead_vs_best_baseline{suffix}"), ratio);
        outcome.metric(&format!("median_lead_windows{suffix}"), leads.median());
    }
    outcome.metric("sudden_alerted", ours.sudden.alerted());
    outcome.metric("ece_incidents", ours.reliability.ece);
    outcome.metric("brier_incidents", ours.reliability.brier);
    outcome.metric("ece_recorded", ours.reliability_of_all.ece);
    outcome.metric("brier_recorded", ours.reliability_of_all.brier);
    outcome
}

fn recall(leads: &Leads) -> String {
    let interval = leads.recall_interval();
    format!(
        "{:.3} [{:.2}, {:.2}]",
        leads.recall(),
        interval.low,
        interval.high
    )
}

fn errors(reliability: &Reliability) -> String {
    format!("{:.3}, {:.3}", reliability.ece, reliability.brier)
}

fn windows(watched: &[Watched<'_>]) -> usize {
    watched.iter().map(Watched::windows).sum()
}

fn tell_methods(
    outcome: &mut Outcome,
    runs: &[Replayed],
    watched: &[Watched<'_>],
    results: &[Result],
) {
    let windows = windows(watched);
    let services = watched.iter().filter(|service| service.windows() > 0);
    let (predictable, sudden) = (&results[0].predictable.0, &results[0].sudden.0);
    outcome.line(format!(
        "## Recorded incidents\n\n{} runs; {} predictable and {} sudden incidents that can be judged; \
         {windows} quiet windows of {} services, false alarms allowed: {}.\n",
        runs.len(),
        predictable.len(),
        sudden.len(),
        services.count(),
        (windows as f64 / WINDOWS_PER_FALSE_ALARM) as usize,
    ));
    outcome.line(format!(
        "| method | line | recall at {LEAD} windows | alerted before | median lead | sudden: alerted before | ECE, Brier of incidents | ECE, Brier of all |"
    ));
    outcome.line("|---|---|---|---|---|---|---|---|");
    for result in results {
        outcome.line(row([
            result.method.name(),
            format!("{:.3}", result.line),
            recall(&result.predictable),
            format!("{:.3}", result.predictable.alerted()),
            format!("{:.1}", result.predictable.median()),
            format!("{:.3}", result.sudden.alerted()),
            errors(&result.reliability),
            errors(&result.reliability_of_all),
        ]));
    }
    outcome.metric("quiet_windows", windows as f64);
    outcome.line(
        "\nReliability of honeyguide, all services:\n\n| said | windows | came |\n|---|---|---|",
    );
    for bin in &results[0].reliability_of_all.bins {
        outcome.line(row([
            format!("{:.3}", bin.said),
            bin.steps.to_string(),
            format!("{:.3}", bin.came),
        ]));
    }
}

/// The line of all runs, and that of development alone, on each half.
fn tell_parts(outcome: &mut Outcome, runs: &[Replayed], said: &[Said], quiet: &[Vec<Vec<bool>>]) {
    outcome.line("\nHalves; the line is that of development:\n");
    outcome.line("| method | half | quiet windows | false alarms | recall | median lead |");
    outcome.line("|---|---|---|---|---|---|");
    for said in said {
        let line = line(&said.watched(runs, quiet, Part::Development));
        for (part, name) in [
            (Part::Development, "development"),
            (Part::HeldOut, "held out"),
        ] {
            let watched = said.watched(runs, quiet, part);
            let leads = said.leads(runs, part, Kind::Predictable, line);
            if said.method == Method::Honeyguide && part == Part::HeldOut {
                outcome.metric("recall_lead5_held_out", leads.recall());
                outcome.metric("false_alarms_held_out", false_alarms(&watched, line) as f64);
            }
            outcome.line(row([
                said.method.name(),
                name.to_owned(),
                windows(&watched).to_string(),
                false_alarms(&watched, line).to_string(),
                format!("{:.3}", leads.recall()),
                format!("{:.1}", leads.median()),
            ]));
        }
    }
}

fn tell_runs(outcome: &mut Outcome, runs: &[Replayed], said: &[Said], results: &[Result]) {
    outcome.line("\n| run | kind | onset | breach | honeyguide's lead at 1 s, at 10 s | longest lead of a baseline | highest risk before the onset, and before the breach | cause among reasons |");
    outcome.line("|---|---|---|---|---|---|---|---|");
    let number = |number: Option<usize>| number.map_or("–".to_owned(), |n| n.to_string());
    for (at, run) in runs.iter().enumerate() {
        let truth = &run.truth;
        let leads: Vec<Option<usize>> = said
            .iter()
            .zip(results)
            .map(|(said, result)| said.incident(runs, at, truth.kind)?.lead(result.line))
            .collect();
        let highest = |windows: Range<usize>| {
            let highest = |said: &Said| {
                let scores = &said.scores[at][0][windows.clone()];
                scores.iter().copied().fold(0.0, f64::max)
            };
            format!("{:.2}/{:.2}", highest(&said[0]), highest(&said[1]))
        };
        let end = truth.onset.unwrap_or(truth.windows());
        let mut risks = highest(WARM_UP.min(end)..end);
        if let Some(incident) = run.incident() {
            risks += &format!(", {}", highest(incident));
        }
        let note = match (run.incident(), truth.onset) {
            (None, Some(_)) => " (not judged)",
            _ => "",
        };
        outcome.line(row([
            format!("{} {}{note}", truth.scenario, truth.seed),
            format!("{:?}", truth.kind).to_lowercase(),
            number(truth.onset.map(|_| end)),
            number(truth.services[0].breach),
            format!("{}, {}", number(leads[0]), number(leads[1])),
            number(leads[2..].iter().copied().max().flatten()),
            risks,
            number(run.cause_place().map(|place| place + 1)),
        ]));
    }
}

fn tell_reasons(outcome: &mut Outcome, runs: &[Replayed]) {
    let places: Vec<Option<usize>> = runs
        .iter()
        .filter(|run| run.incident().is_some())
        .map(Replayed::cause_place)
        .collect();
    if places.is_empty() {
        return;
    }
    let share = |most: usize| {
        let hits = places.iter().flatten().filter(|place| **place < most);
        hits.count() as f64 / places.len() as f64
    };
    outcome.line(format!(
        "\nThe cause is the first reason at the breach in {:.0} %, among the first three in {:.0} % of {} incidents.",
        share(1) * 100.0,
        share(3) * 100.0,
        places.len()
    ));
    outcome.metric("incident_cause_top1", share(1));
    outcome.metric("incident_cause_top3", share(3));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incidents::{Cause, Seen, ServiceTruth, Truth};

    /// A run of 300 windows with one bystander: the subject's 99th percentile
    /// rises in a line from the onset to twice the objective, so that it breaks it
    /// at 220, and the analyzer says so from `told` on.
    fn run(seed: u64, kind: Kind, told: usize) -> Replayed {
        let onset = (kind != Kind::Quiet).then_some(140);
        let p99 = |at: usize| match onset {
            Some(onset) if at > onset => 0.01 + 0.09 * (at - onset) as f64 / 79.5,
            _ => 0.01,
        };
        let windows = |p99: &dyn Fn(usize) -> f64| -> Vec<Vec<u32>> {
            (0..300)
                .map(|at| vec![(p99(at) * 1e6) as u32; 50])
                .collect()
        };
        let seen = |p99_secs: f64, risk: f64| Seen {
            p99_secs: Some(p99_secs),
            risk: Some(risk),
            risk_at_default: Some(risk),
            anomaly_score: Some(p99_secs / 0.05),
            anomaly_score_at_default: None,
            judged: true,
        };
        let risk = |at: usize| {
            if onset.is_some() && at >= told {
                0.9
            } else {
                0.05
            }
        };
        Replayed {
            truth: Truth {
                scenario: "made-up".to_owned(),
                seed,
                kind,
                fault: String::new(),
                causes: vec![Cause {
                    service: "process/shop".to_owned(),
                    signal: "runq".to_owned(),
                }],
                first_window_ns: 0,
                window_secs: 1,
                onset,
                services: vec![
                    ServiceTruth::new("process/shop", 0.1, windows(&p99), onset.unwrap_or(0)),
                    ServiceTruth::new("process/other", 0.1, windows(&|_| 0.01), 0),
                ],
            },
            services: vec![
                (0..300).map(|at| seen(p99(at), risk(at))).collect(),
                // Once a run it is wrong, but less sure.
                (0..300)
                    .map(|at| seen(0.01, if (200..202).contains(&at) { 0.5 } else { 0.05 }))
                    .collect(),
            ],
            reasons: vec![Cause {
                service: "process/shop".to_owned(),
                signal: "runq".to_owned(),
            }],
        }
    }

    #[test]
    fn figures_of_made_up_runs_are_known() {
        let runs = [
            run(1, Kind::Predictable, 170),
            run(2, Kind::Predictable, 200),
            run(3, Kind::Quiet, 0),
        ];
        assert_eq!(runs[0].truth.services[0].breach, Some(220));
        let outcome = evaluate(&runs);
        let of = |key: &str| outcome.metrics[key];
        // Two windows in a row: at 171, known at 172, 48 whole windows before 220;
        // and at 201.
        assert_eq!(of("recall_lead5"), 0.5);
        assert_eq!(of("median_lead_windows"), (48.0 + 18.0) / 2.0);
        // The subject breaks its objective at 220, so that 130 to 139 are not quiet
        // only because of the onset: nobody could know.
        assert_eq!(of("quiet_windows"), 2.0 * (80.0 + 240.0) + 480.0);
        // A line that rises without noise is easily continued.
        assert_eq!(of("recall_lead5_over_best_baseline"), 0.5 - 1.0);
        assert_eq!(of("recall_lead5_held_out"), 0.0);
        assert_eq!(of("incident_cause_top1"), 1.0);
        // From 0.05 s on, half of the way up.
        assert_eq!(of("anomaly_found_predictable"), 1.0);
        assert_eq!(of("anomaly_quiet_per_10000"), 0.0);
        let table = &outcome.markdown;
        assert!(
            table.contains("| honeyguide | 1.00 | 0 of 1120 | 2 of 2 | 0 of 0 | 36 |"),
            "{table}"
        );
        assert_eq!(outcome, evaluate(&runs));
    }

    #[test]
    fn a_breach_that_comes_too_soon_is_not_judged() {
        let mut early = run(1, Kind::Predictable, 170);
        early.truth.onset = Some(161);
        assert_eq!(early.incident(), None);
        early.truth.kind = Kind::Sudden;
        assert_eq!(early.incident(), Some(161..220));
    }
}
