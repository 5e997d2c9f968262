//! When a breach comes, among those that do.

use honeyguide_models::breach::{Breach, Eta};

use crate::report::{Outcome, row};

/// Times are told by a forecast that is at least so sure; any other is at no alert.
const PROBABILITY_MIN: f64 = 0.5;

/// Times that were said of breaches, and when they came.
#[derive(Clone, Debug, Default)]
pub(super) struct Times(Vec<(Eta, f64)>);

impl Times {
    /// What was said of a breach that came in so many seconds, within the horizon.
    pub(super) fn add(&mut self, said: &Breach, came_secs: f64) {
        if let Some(eta) = said.eta.filter(|_| said.probability >= PROBABILITY_MIN) {
            self.0.push((eta, came_secs));
        }
    }

    pub(super) fn append(&mut self, other: Times) {
        self.0.extend(other.0);
    }

    /// Beside the middle of the horizon, and all of it but a tenth at each end.
    pub(super) fn tell(&self, outcome: &mut Outcome, horizon_secs: f64) {
        if self.0.is_empty() {
            outcome.line(format!(
                "\nNo breach came where at least {PROBABILITY_MIN} was said."
            ));
            return;
        }
        let guess = Eta {
            secs: 0.5 * horizon_secs,
            lower_80_secs: 0.1 * horizon_secs,
            upper_80_secs: 0.9 * horizon_secs,
        };
        outcome.line(format!(
            "\nTime of a breach that came within the horizon, where at least {PROBABILITY_MIN} was said:\n"
        ));
        outcome.line("| time | steps | within 80 % | median error | median width |");
        outcome.line("|---|---|---|---|---|");
        let guesses = self.0.iter().map(|(_, came)| (guess, *came)).collect();
        for (name, times) in [("honeyguide", self), ("the middle", &Times(guesses))] {
            let figures = times.figures();
            if name == "honeyguide" {
                outcome.metric("eta_within_80", figures[0]);
                outcome.metric("eta_median_error_secs", figures[1]);
            }
            outcome.line(row([
                name.to_owned(),
                times.0.len().to_string(),
                format!("{:.3}", figures[0]),
                format!("{:.0} s", figures[1]),
                format!("{:.0} s", figures[2]),
            ]));
        }
    }

    /// Share within the interval, median absolute error and median width in seconds.
    fn figures(&self) -> [f64; 3] {
        let within = self
            .0
            .iter()
            .filter(|(eta, came)| (eta.lower_80_secs..=eta.upper_80_secs).contains(came));
        let error = self.0.iter().map(|(eta, came)| (eta.secs - came).abs());
        let width = self
            .0
            .iter()
            .map(|(eta, _)| eta.upper_80_secs - eta.lower_80_secs);
        [
            within.count() as f64 / self.0.len() as f64,
            median(error.collect()),
            median(width.collect()),
        ]
    }
}

/// The upper median.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_of_what_was_said_and_came() {
        let said = |probability, secs| Breach {
            probability,
            eta: Some(Eta {
                secs,
                lower_80_secs: secs - 60.0,
                upper_80_secs: secs + 120.0,
            }),
            budget_exhausted_in_secs: None,
        };
        let mut times = Times::default();
        times.add(&said(0.9, 300.0), 420.0);
        times.add(&said(0.6, 300.0), 600.0);
        times.add(&said(0.7, 300.0), 290.0);
        times.add(&said(0.2, 300.0), 1.0);
        assert_eq!(times.figures(), [2.0 / 3.0, 120.0, 180.0]);
        let mut outcome = Outcome::default();
        times.tell(&mut outcome, 900.0);
        assert_eq!(outcome.metrics["eta_within_80"], 2.0 / 3.0);
        assert!(
            outcome
                .markdown
                .contains("| the middle | 3 | 1.000 | 150 s | 720 s |"),
            "{}",
            outcome.markdown
        );
        let mut none = Outcome::default();
        Times::default().tell(&mut none, 900.0);
        assert!(none.metrics.is_empty() && none.markdown.contains("No breach came"));
    }
}
