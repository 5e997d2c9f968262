//! What an evaluation found, for people and for programs.

use std::collections::BTreeMap;

use serde::Serialize;

/// Figures by key, reasons for what is left out, and the table that people read.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Outcome {
    /// Figures; a key of `xtask/src/bench/bars.rs` has a target there.
    pub metrics: BTreeMap<String, f64>,
    /// Keys that have no figure, and why.
    pub skipped: BTreeMap<String, String>,
    /// Everything behind the figures.
    pub details: serde_json::Value,
    /// Tables in Markdown.
    #[serde(skip)]
    pub markdown: String,
    /// Plots: name without extension, SVG.
    #[serde(skip)]
    pub plots: Vec<(String, String)>,
}

impl Outcome {
    /// Adds a figure; one that is not finite is left out, with that reason.
    pub fn metric(&mut self, key: &str, value: f64) {
        if value.is_finite() {
            self.metrics.insert(key.to_owned(), value);
        } else {
            self.skip(key, "nothing to compute it from");
        }
    }

    /// Says why a figure is missing.
    pub fn skip(&mut self, key: &str, reason: &str) {
        self.skipped.insert(key.to_owned(), reason.to_owned());
    }

    /// Adds what another evaluation found; what it has no figure for is no longer
    /// missing where this one has it.
    pub fn append(&mut self, other: Outcome) {
        if !self.markdown.is_empty() {
            self.markdown.push('\n');
        }
        self.markdown.push_str(&other.markdown);
        self.metrics.extend(other.metrics);
        self.skipped.extend(other.skipped);
        self.skipped
            .retain(|key, _| !self.metrics.contains_key(key));
        self.plots.extend(other.plots);
        match (&mut self.details, other.details) {
            (serde_json::Value::Object(own), serde_json::Value::Object(more)) => own.extend(more),
            (own, more) if own.is_null() => *own = more,
            _ => {}
        }
    }

    /// Says that only the first of so many have a plot, where that is so.
    pub(crate) fn plots_of(&mut self, most: usize, all: usize, what: &str) {
        if all > most {
            self.line(format!(
                "Plots (--out) are of the first {most} of {all} {what}.\n"
            ));
        }
    }

    /// Adds a line to the tables.
    pub fn line(&mut self, text: impl AsRef<str>) {
        self.markdown.push_str(text.as_ref());
        self.markdown.push('\n');
    }
}

/// A row of a Markdown table.
pub(crate) fn row(cells: impl IntoIterator<Item = String>) -> String {
    let cells: Vec<String> = cells.into_iter().collect();
    format!("| {} |", cells.join(" | "))
}
