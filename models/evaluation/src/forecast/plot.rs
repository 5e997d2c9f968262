//! Windows with what was expected of them, and the error by time ahead.

use super::{
    MODELS,
    walk::{Fan, Walked},
};
use crate::{
    plot::{Axis, Colour, Entry, Figure, Mark, Panel, Sign, file_name, unit_of_time},
    score::Score,
    table::Series,
};

/// Panels of a figure of windows at most.
const WINDOWS_MAX: usize = 6;
/// Panels of a figure of errors, and figures of windows, at most.
pub(super) const CONFIGURATIONS_MAX: usize = 12;
/// Times ahead that are told apart in a curve.
const LEADS_MAX: usize = 60;
const COLOURS: [Colour; MODELS.len()] = [Colour::Blue, Colour::Orange, Colour::Grey];
/// Opacity of the 95 % and the 80 % interval, and of that between 30 and 70 %.
const OPACITY: [f64; 3] = [0.15, 0.2, 0.3];

/// What is drawn of one configuration.
#[derive(Clone, Debug)]
pub(super) struct Drawn {
    name: String,
    step_secs: u32,
    /// By step ahead.
    leads: Vec<[Score; MODELS.len()]>,
    /// With the name of the series, and what its values are.
    fans: Vec<(String, String, Fan)>,
}

impl Drawn {
    pub(super) fn new(name: String, step_secs: u32) -> Self {
        Drawn {
            name,
            step_secs,
            leads: Vec::new(),
            fans: Vec::new(),
        }
    }

    /// Adds the windows of a series.
    pub(super) fn add(&mut self, series: &Series, quantity: &str, walked: Walked) {
        let longest = self.leads.len().max(walked.leads.len());
        self.leads
            .resize_with(longest, || std::array::from_fn(|_| Score::default()));
        for (all, more) in self.leads.iter_mut().zip(&walked.leads) {
            for (all, more) in all.iter_mut().zip(more) {
                all.add(more);
            }
        }
        let quantity = match quantity {
            "" => series.name.clone(),
            quantity => quantity.to_owned(),
        };
        let fans = walked.fans.into_iter();
        self.fans
            .extend(fans.map(|fan| (series.name.clone(), quantity.clone(), fan)));
    }

    /// Its windows.
    fn figure(&self) -> Figure {
        let panels = self.fans.iter().take(WINDOWS_MAX);
        Figure {
            title: format!("{}: what was expected, and what came", self.name),
            legend: vec![
                Entry::new("measured", Colour::Black, Sign::Line),
                Entry::new("median", Colour::Blue, Sign::Line),
                Entry::new("30–70 %", Colour::Blue, Sign::Area(0.5)),
                Entry::new("10–90 %", Colour::Blue, Sign::Area(0.3)),
                Entry::new("2.5–97.5 %", Colour::Blue, Sign::Area(OPACITY[0])),
                Entry::new("origin", Colour::Grey, Sign::Line),
            ],
            columns: 3,
            panels: panels.map(|fan| self.panel(fan)).collect(),
        }
    }

    fn panel(&self, (series, quantity, fan): &(String, String, Fan)) -> Panel {
        let step = f64::from(self.step_secs);
        let (unit, unit_secs) = unit_of_time(step * fan.truth.len() as f64);
        // The value at the origin was the last one seen.
        let x = |ahead: f64| ahead * step / unit_secs;
        let known = fan.before.len() as f64;
        let before = fan.before.iter().enumerate();
        let before = before.map(|(i, y)| (x(i as f64 + 1.0 - known), *y));
        let truth = fan.truth.iter().enumerate();
        let truth = truth.map(|(i, y)| (x(i as f64 + 1.0), *y));
        let measured: Vec<(f64, f64)> = before.chain(truth).collect();
        let ahead = || fan.forecast.iter().enumerate();
        let at = |i: usize| x(i as f64 + 1.0);
        let ends: [fn(&crate::baseline::Quantiles) -> [f64; 2]; 3] = [
            |quantiles| quantiles.ends_95,
            |quantiles| [quantiles.at[0], quantiles.at[8]],
            |quantiles| [quantiles.at[2], quantiles.at[6]],
        ];
        let mut marks: Vec<Mark> = ends
            .into_iter()
            .zip(OPACITY)
            .map(|(ends, opacity)| Mark::Band {
                points: ahead().map(|(i, of)| (at(i), ends(of))).collect(),
                colour: Colour::Blue,
                opacity,
            })
            .collect();
        marks.push(Mark::Line {
            points: ahead().map(|(i, of)| (at(i), of.median())).collect(),
            colour: Colour::Blue,
        });
        marks.push(Mark::Line {
            points: measured.clone(),
            colour: Colour::Black,
        });
        marks.push(Mark::Upright {
            x: 0.0,
            colour: Colour::Grey,
        });
        let shown = ahead().flat_map(|(_, of)| of.ends_95);
        let shown = shown.chain(measured.iter().map(|(_, y)| *y));
        Panel {
            title: series.clone(),
            x: Axis::new(
                format!("time from the origin in {unit}"),
                x(1.0 - known),
                x(fan.truth.len() as f64),
            ),
            y: Axis::around(quantity.clone(), shown),
            right: None,
            marks,
        }
    }

    /// Its error by time ahead.
    fn curve(&self) -> Panel {
        let step = f64::from(self.step_secs);
        let horizon = self.leads.len();
        let (unit, unit_secs) = unit_of_time(step * horizon as f64);
        let every = horizon.div_ceil(LEADS_MAX).max(1);
        // One unit for all times ahead: some have nights and weekends near 0.
        let all = Score::total(self.leads.iter().map(|lead| &lead[0]));
        let magnitude = all.mean_magnitude();
        let line = |model: usize| -> Vec<(f64, f64)> {
            let groups = self.leads.chunks(every).enumerate();
            groups
                .map(|(group, leads)| {
                    let middle = (group * every) as f64 + (leads.len() as f64 + 1.0) / 2.0;
                    let total = Score::total(leads.iter().map(|lead| &lead[model]));
                    (middle * step / unit_secs, total.crps_in_units() / magnitude)
                })
                .collect()
        };
        let lines: Vec<Vec<(f64, f64)>> = (0..MODELS.len()).map(line).collect();
        let values = lines.iter().flatten().map(|(_, y)| *y);
        Panel {
            title: self.name.clone(),
            x: Axis::new(
                format!("time ahead in {unit}"),
                0.0,
                horizon as f64 * step / unit_secs,
            ),
            y: Axis::around("CRPS / mean |y|", values.chain([0.0])),
            right: None,
            marks: lines
                .iter()
                .zip(COLOURS)
                .rev()
                .map(|(points, colour)| Mark::Line {
                    points: points.clone(),
                    colour,
                })
                .collect(),
        }
    }
}

/// All figures, by name: windows of each configuration, and errors of all; names
/// begin with `prefix`.
pub(super) fn plots(prefix: &str, drawn: &[Drawn]) -> Vec<(String, String)> {
    let mut plots = Vec::new();
    let drawn = &drawn[..drawn.len().min(CONFIGURATIONS_MAX)];
    for of in drawn.iter().filter(|of| !of.fans.is_empty()) {
        plots.push((file_name(&[prefix, &of.name]), of.figure().svg()));
    }
    if !drawn.is_empty() {
        let figure = Figure {
            title: "CRPS by time ahead".to_owned(),
            legend: MODELS
                .into_iter()
                .zip(COLOURS)
                .map(|(model, colour)| Entry::new(model, colour, Sign::Line))
                .collect(),
            columns: 3,
            panels: drawn.iter().map(Drawn::curve).collect(),
        };
        plots.push((file_name(&[prefix, "crps-by-lead"]), figure.svg()));
    }
    plots
}
