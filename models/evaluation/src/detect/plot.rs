//! How much hangs on the threshold, and what was alerted.

use honeyguide_models::detector::REST;

use crate::{
    nab::{Labelled, Profile},
    own::Own,
    plot::{Axis, Colour, Entry, Figure, Mark, Panel, Sign, unit_of_time},
};

const COLOURS: [Colour; 3] = [Colour::Blue, Colour::Red, Colour::Green];

/// NAB scores of the three profiles over the threshold.
pub(super) fn curve(points: &[(f64, [f64; 3])]) -> Figure {
    let line = |k: usize| points.iter().map(move |(line, scores)| (*line, scores[k]));
    let profiles = || Profile::ALL.into_iter().zip(COLOURS).enumerate();
    let mut marks: Vec<Mark> = profiles()
        .map(|(k, (_, colour))| Mark::Line {
            points: line(k).collect(),
            colour,
        })
        .collect();
    marks.push(Mark::Upright {
        x: 1.0,
        colour: Colour::Grey,
    });
    let mut legend: Vec<Entry> = profiles()
        .map(|(_, (profile, colour))| Entry::new(profile.name(), colour, Sign::Line))
        .collect();
    legend.push(Entry::new("in use", Colour::Grey, Sign::Line));
    let ends = [points.first(), points.last()].map(|end| end.map_or(f64::NAN, |end| end.0));
    Figure {
        title: "NAB score over the threshold".to_owned(),
        legend,
        columns: 1,
        panels: vec![Panel {
            title: String::new(),
            x: Axis::new("threshold on the anomaly score", ends[0], ends[1]),
            y: Axis::new("NAB score (100 is perfect, 0 silent)", 0.0, 100.0),
            right: None,
            marks,
        }],
    }
}

/// A series with its alerts, and its scores below.
pub(super) fn series(own: &Own, labelled: &Labelled, scores: &[f64], alerts: &[f64]) -> Figure {
    let (unit, unit_secs) = unit_of_time(own.secs());
    let x = |at: usize| at as f64 * f64::from(own.step_secs) / unit_secs;
    let points = |values: &[f64]| -> Vec<(f64, f64)> {
        values
            .iter()
            .enumerate()
            .map(|(at, y)| (x(at), *y))
            .collect()
    };
    let faults = || {
        let windows = labelled.windows.iter();
        windows.map(|(first, last)| Mark::Span {
            x: [x(*first), x(last + 1)],
            colour: Colour::Orange,
        })
    };
    let values = points(&own.series.values);
    let alerted = values
        .iter()
        .zip(alerts)
        .filter(|(_, alert)| **alert >= 1.0);
    let alerted = Mark::Dots {
        points: alerted.map(|(point, _)| *point).collect(),
        colour: Colour::Red,
    };
    let line = |points: Vec<(f64, f64)>| Mark::Line {
        points,
        colour: Colour::Blue,
    };
    let time = || {
        let label = format!("time in {unit} since {} UTC", own.time(0));
        Axis::new(label, 0.0, x(own.series.values.len()))
    };
    // Of what is missing nothing is said, and at the beginning neither.
    let said = scores.iter().zip(&own.series.values).enumerate();
    let said = said.map(
        |(at, (score, value))| match value.is_nan() || at < REST as usize {
            true => f64::NAN,
            false => *score,
        },
    );
    let said: Vec<f64> = said.collect();
    let highest = scores.iter().copied().fold(1.2, f64::max);
    let threshold = Mark::Dashes {
        points: vec![(0.0, 1.0), (x(own.series.values.len()), 1.0)],
        colour: Colour::Grey,
    };
    let panel = |title: &str, y: Axis, marks: Vec<Mark>| Panel {
        title: title.to_owned(),
        x: time(),
        y,
        right: None,
        marks: faults().chain(marks).collect(),
    };
    let mut legend = vec![
        Entry::new("value, score", Colour::Blue, Sign::Line),
        Entry::new("alert", Colour::Red, Sign::Dot),
        Entry::new("threshold", Colour::Grey, Sign::Dashes),
    ];
    if !labelled.windows.is_empty() {
        legend.push(Entry::new("labelled", Colour::Orange, Sign::Area(0.2)));
    }
    Figure {
        title: format!("{}: what was alerted", own.series.name),
        legend,
        columns: 1,
        panels: vec![
            panel(
                "values",
                Axis::around(own.quantity.clone(), own.series.values.iter().copied()),
                vec![line(values.clone()), alerted],
            ),
            panel(
                "anomaly scores",
                Axis::new("score", 0.0, highest),
                vec![line(points(&said)), threshold],
            ),
        ],
    }
}
