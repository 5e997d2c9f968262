//! The tables of `eval forecast`.

use serde_json::json;

use super::{MODELS, PUBLISHED, Part, Report, plot::plots};
use crate::{
    report::{Outcome, row},
    score::Score,
};

/// Columns of scores, behind that of the configuration.
pub(super) const HEADER: &str = "| model | windows | MASE | CRPS | CRPS / seasonal naive | sMAPE | \
     within 80 % | within 95 % | Winkler 95 % |";

/// A row below [`HEADER`]; `base` is the CRPS of the seasonal naive forecast.
pub(super) fn cells(configuration: &str, model: &str, score: &Score, base: f64) -> [String; 10] {
    // A series that stands still has no scale to compare with.
    let number = |value: f64, digits: usize| match value.is_finite() {
        true => format!("{value:.digits$}"),
        false => "–".to_owned(),
    };
    [
        configuration.to_owned(),
        model.to_owned(),
        score.windows().to_string(),
        number(score.mase(), 3),
        number(score.crps(), 4),
        number(score.crps() / base, 3),
        number(score.smape(), 3),
        number(score.coverage_80(), 3),
        number(score.coverage_95(), 3),
        number(score.winkler_95(), 3),
    ]
}

impl Report {
    /// Figures and tables.
    pub fn outcome(&self) -> Outcome {
        let mut outcome = Outcome::default();
        let relative = self.relative(MODELS[0]);
        outcome.metric("crps_rel", relative.crps);
        outcome.metric("crps_rel_app", relative.crps_app);
        outcome.metric("mase_rel", relative.mase);
        self.configurations(&mut outcome);
        self.summary(&mut outcome);
        outcome.details = self.details();
        outcome.plots = plots("forecast", &self.drawn);
        outcome
    }

    fn configurations(&self, outcome: &mut Outcome) {
        let part = match self.part {
            Part::Test => "test windows as in GIFT-Eval",
            Part::Development => "twenty origins before the test windows",
        };
        outcome.line(format!("## BizITObs, {part}\n"));
        outcome.line(format!("| configuration {HEADER}"));
        outcome.line("|---|---|---|---|---|---|---|---|---|---|");
        for rows in self.rows.chunks(MODELS.len()) {
            let base = rows[1].total().crps();
            for of_model in rows {
                let score = of_model.total();
                let name = of_model.configuration.name();
                outcome.line(row(cells(&name, of_model.model, &score, base)));
            }
        }
    }

    fn summary(&self, outcome: &mut Outcome) {
        outcome
            .line("\nGeometric means relative to seasonal naive (95 % bootstrap over series):\n");
        outcome.line("| model | CRPS, nine | CRPS, application | MASE, nine |");
        outcome.line("|---|---|---|---|");
        for model in MODELS {
            let relative = self.relative(model);
            let intervals = self.intervals(model);
            let values = [relative.crps, relative.crps_app, relative.mase];
            let cells = values.iter().zip(intervals).map(|(value, interval)| {
                format!("{value:.3} [{:.3}, {:.3}]", interval.low, interval.high)
            });
            outcome.line(row(std::iter::once(model.to_owned()).chain(cells)));
        }
        if self.part == Part::Test {
            for (model, crps, app) in PUBLISHED {
                let app = app.map_or(String::new(), |app| format!("{app:.3}"));
                outcome.line(row([
                    format!("{model} (published)"),
                    format!("{crps:.3}"),
                    app,
                    String::new(),
                ]));
            }
        }
        outcome.line(
            "\nThe application has two series, and two windows (medium) and one (long): no win \
             can be claimed from those alone.",
        );
    }

    fn details(&self) -> serde_json::Value {
        let rows = self.rows.iter().map(|row| {
            let score = row.total();
            json!({
                "configuration": row.configuration.name(), "model": row.model,
                "windows": score.windows(), "mase": score.mase(), "crps": score.crps(),
                "smape": score.smape(), "pinball": score.pinball(),
                "coverage_80": score.coverage_80(), "coverage_95": score.coverage_95(),
                "winkler_95": score.winkler_95(),
            })
        });
        let summary = MODELS.map(|model| {
            json!({"model": model, "relative": self.relative(model),
                "intervals_95": self.intervals(model)})
        });
        json!({"part": self.part, "rows": rows.collect::<Vec<_>>(), "summary": summary})
    }
}
