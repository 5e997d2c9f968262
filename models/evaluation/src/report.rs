//! What an evaluation found, for people and for programs.

use std::collections::BTreeMap;

use serde::Serialize;

/// Figures by key, reasons for what is left out, and the table that people read.
#[derive(Clone, Debug, Default, Serialize)]
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
    pub plots: Vec<(&'static str, String)>,
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
