//! Risk and latency over time, one panel for each incident.

use super::Replayed;
use crate::{
    breach::{Reliability, reliability_figure},
    plot::{Axis, Colour, Entry, Figure, Mark, Panel, Sign, unit_of_time},
};

/// Latencies that are shown, as shares of the objective.
const SHARES: [f64; 2] = [0.01, 10.0];
const COLUMNS: usize = 4;

/// All figures, by name. `said`: by run, service and window; `alarms`: of each run
/// the window of its alarm.
pub(super) fn plots(
    runs: &[Replayed],
    said: &[Vec<Vec<f64>>],
    alarms: &[Option<usize>],
    reliability: &Reliability,
) -> Vec<(String, String)> {
    let title = "Recorded incidents: probability of a breach within 90 windows";
    let diagram = reliability_figure(title, "windows", &[("honeyguide", reliability)]);
    vec![
        ("incidents-reliability".to_owned(), diagram.svg()),
        ("incidents-risk".to_owned(), risks(runs, said, alarms).svg()),
    ]
}

fn risks(runs: &[Replayed], said: &[Vec<Vec<f64>>], alarms: &[Option<usize>]) -> Figure {
    let all = runs.iter().zip(said).zip(alarms);
    let incidents = all.filter(|((run, _), _)| run.incident().is_some());
    Figure {
        title: "Recorded incidents: latency and risk".to_owned(),
        legend: vec![
            Entry::new("p99 / objective", Colour::Black, Sign::Line),
            Entry::new("risk (right)", Colour::Blue, Sign::Line),
            Entry::new("objective", Colour::Grey, Sign::Dashes),
            Entry::new("onset", Colour::Orange, Sign::Line),
            Entry::new("alarm", Colour::Green, Sign::Line),
            Entry::new("breach", Colour::Red, Sign::Line),
        ],
        columns: COLUMNS,
        panels: incidents
            .map(|((run, said), alarm)| panel(run, &said[0], *alarm))
            .collect(),
    }
}

fn panel(run: &Replayed, said: &[f64], alarm: Option<usize>) -> Panel {
    let truth = &run.truth;
    let subject = &truth.services[0];
    let step = f64::from(truth.window_secs);
    let (unit, unit_secs) = unit_of_time(step * truth.windows() as f64);
    let x = |at: usize| at as f64 * step / unit_secs;
    let p99 = subject.p99_us.iter().enumerate();
    // Without requests there is no latency.
    let share = |p99_us: u32| match p99_us {
        0 => f64::NAN,
        p99_us => f64::from(p99_us) * 1e-6 / subject.objective_secs,
    };
    let upright = |at: Option<usize>, colour| at.map(|at| Mark::Upright { x: x(at), colour });
    let mut marks = vec![
        Mark::Dashes {
            points: vec![(0.0, 1.0), (x(truth.windows()), 1.0)],
            colour: Colour::Grey,
        },
        Mark::Line {
            points: p99.map(|(at, p99_us)| (x(at), share(*p99_us))).collect(),
            colour: Colour::Black,
        },
        Mark::RightLine {
            points: said.iter().enumerate().map(|(at, y)| (x(at), *y)).collect(),
            colour: Colour::Blue,
        },
    ];
    marks.extend(upright(truth.onset, Colour::Orange));
    marks.extend(upright(alarm, Colour::Green));
    marks.extend(upright(subject.breach, Colour::Red));
    Panel {
        title: format!("{} {}", truth.scenario, truth.seed),
        x: Axis::new(format!("time in {unit}"), 0.0, x(truth.windows())),
        y: Axis::logarithmic("p99 / objective", SHARES[0], SHARES[1]),
        right: Some(Axis::new("risk", 0.0, 1.0)),
        marks,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incidents::{Kind, Seen, ServiceTruth, Truth};

    fn run(kind: Kind, onset: Option<usize>) -> Replayed {
        let slow = |at: usize| onset.is_some_and(|onset| at >= onset + 70);
        let windows = (0..300).map(|at| vec![if slow(at) { 300_000 } else { 10_000 }; 30]);
        Replayed {
            truth: Truth {
                scenario: "made-up".to_owned(),
                seed: 3,
                kind,
                fault: String::new(),
                causes: Vec::new(),
                first_window_ns: 0,
                window_secs: 1,
                onset,
                services: vec![ServiceTruth::new(
                    "process/shop",
                    0.1,
                    windows.collect(),
                    onset.unwrap_or(0),
                )],
            },
            services: vec![vec![Seen::default(); 300]],
            reasons: Vec::new(),
        }
    }

    #[test]
    fn an_incident_has_a_panel_with_onset_alarm_and_breach() {
        let runs = [run(Kind::Predictable, Some(100)), run(Kind::Quiet, None)];
        let said = vec![vec![vec![0.3; 300]]; 2];
        let figure = risks(&runs, &said, &[Some(140), None]);
        assert_eq!(figure.panels.len(), 1);
        let panel = &figure.panels[0];
        assert_eq!(panel.title, "made-up 3");
        let uprights: Vec<(f64, Colour)> = panel
            .marks
            .iter()
            .filter_map(|mark| match mark {
                Mark::Upright { x, colour } => Some((*x * 60.0, *colour)),
                _ => None,
            })
            .collect();
        let expected = [
            (100.0, Colour::Orange),
            (140.0, Colour::Green),
            (170.0, Colour::Red),
        ];
        for ((at, colour), (expected_at, expected_colour)) in uprights.iter().zip(expected) {
            assert!((at - expected_at).abs() < 1e-9);
            assert_eq!(*colour, expected_colour);
        }
        assert_eq!(uprights.len(), 3);
        let svg = figure.svg();
        assert!(svg.contains("p99 / objective") && svg.contains("time in min"));
    }
}
