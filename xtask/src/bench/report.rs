//! What a bench reports, checked against its targets. Pure.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::bars::Bar;

/// Figures of one bench run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Figures by key.
    pub metrics: BTreeMap<String, f64>,
    /// Why a key could not be measured here.
    pub skipped: BTreeMap<String, String>,
}

/// How a figure compares with its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As good as we want it.
    AimReached,
    /// Good enough.
    Met,
    /// Not good enough.
    Missed,
    /// Not measured.
    Skipped,
}

impl Report {
    /// Reads and validates what a bench wrote: numbers are numbers, and reasons
    /// are given.
    ///
    /// # Errors
    /// When it does not have this form; the message names the key.
    pub fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).context("the bench wrote no valid JSON")?;
        let object = |name: &str| match &value[name] {
            Value::Object(entries) => Ok(entries.clone()),
            Value::Null => Ok(serde_json::Map::new()),
            other => bail!("\"{name}\" is not an object: {other}"),
        };
        let mut report = Self::default();
        for (key, value) in object("metrics")? {
            let number = value
                .as_f64()
                .with_context(|| format!("\"{key}\" is not a number: {value}"))?;
            report.metrics.insert(key, number);
        }
        for (key, value) in object("skipped")? {
            let reason = value.as_str().unwrap_or_default();
            ensure!(!reason.is_empty(), "\"{key}\" is skipped without a reason");
            ensure!(
                !report.metrics.contains_key(&key),
                "\"{key}\" is both measured and skipped"
            );
            report.skipped.insert(key, reason.to_owned());
        }
        Ok(report)
    }

    /// Each key with a bar is either measured or skipped.
    ///
    /// # Errors
    /// Names a key that is neither.
    pub fn check(&self, bars: &[Bar]) -> Result<()> {
        for bar in bars {
            ensure!(
                self.metrics.contains_key(bar.key) || self.skipped.contains_key(bar.key),
                "\"{}\" is neither measured nor skipped",
                bar.key
            );
        }
        Ok(())
    }

    /// Adds the other half of a bench that is two programs. A key of both is a
    /// count and is summed; a half that was skipped leaves the whole unknown.
    pub fn add(&mut self, other: Report) {
        for (key, value) in other.metrics {
            *self.metrics.entry(key).or_default() += value;
        }
        self.skipped.extend(other.skipped);
        self.metrics
            .retain(|key, _| !self.skipped.contains_key(key));
    }

    /// Each bar with its verdict.
    pub fn verdicts<'a>(&self, bars: &'a [Bar]) -> Vec<(&'a Bar, Verdict)> {
        bars.iter().map(|bar| (bar, self.verdict(bar))).collect()
    }

    fn verdict(&self, bar: &Bar) -> Verdict {
        let Some(&value) = self.metrics.get(bar.key) else {
            return Verdict::Skipped;
        };
        if !bar.reaches(value, bar.must) {
            return Verdict::Missed;
        }
        match bar.aim {
            Some(aim) if !bar.reaches(value, aim) => Verdict::Met,
            _ => Verdict::AimReached,
        }
    }

    /// "index_ns 2.9 ns (≤ 5, aim ≤ 3: aim reached)".
    pub fn line(&self, bar: &Bar, verdict: &Verdict) -> String {
        let target = bar.target();
        let what = match bar.what {
            "" => String::new(),
            what => format!(" [{what}]"),
        };
        if let Some(reason) = self.skipped.get(bar.key) {
            return format!("{} skipped: {reason} (target {target}){what}", bar.key);
        }
        let value = number(self.metrics[bar.key]);
        let verdict = match verdict {
            Verdict::AimReached => "reached",
            Verdict::Met => "met",
            Verdict::Missed => "MISSED",
            Verdict::Skipped => "skipped",
        };
        let unit = match bar.unit() {
            "" => String::new(),
            unit => format!(" {unit}"),
        };
        format!(
            "{} {value}{unit} (target {target}: {verdict}){what}",
            bar.key
        )
    }

    /// Figures without a target, as (key, text).
    pub fn beyond(&self, bars: &[Bar]) -> Vec<(&str, String)> {
        self.metrics
            .iter()
            .filter(|(key, _)| bars.iter().all(|bar| bar.key != key.as_str()))
            .map(|(key, value)| (key.as_str(), number(*value)))
            .collect()
    }
}

/// Three significant digits, more for large whole numbers.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size => {
            let decimals = (2 - size.log10().floor() as i32).clamp(0, 9) as usize;
            let text = format!("{value:.decimals$}");
            if text.contains('.') {
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            } else {
                text
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::bars, *};

    fn check(text: &str) -> Result<Report> {
        let report = Report::parse(text)?;
        report.check(bars::of("wire"))?;
        Ok(report)
    }

    #[test]
    fn halves_add_up_unless_one_is_skipped() {
        let half = |text| Report::parse(text).unwrap();
        let mut sum = half(r#"{"metrics": {"mismatches": 1, "index_ns": 3}}"#);
        sum.add(half(r#"{"metrics": {"mismatches": 2}}"#));
        assert_eq!(sum.metrics["mismatches"], 3.0);
        sum.add(half(r#"{"skipped": {"mismatches": "no root"}}"#));
        assert!(!sum.metrics.contains_key("mismatches"));
        assert_eq!(sum.metrics["index_ns"], 3.0);
    }

    #[test]
    fn every_key_with_a_target_is_accounted_for() {
        assert!(
            check(r#"{"metrics": {"raw_vs_best_peer": 0.4, "zstd_vs_best_peer": 0.3}}"#).is_ok()
        );
        assert!(
            check(
                r#"{"metrics": {"raw_vs_best_peer": 0.4}, "skipped": {"zstd_vs_best_peer": "why"}}"#
            )
            .is_ok()
        );
        for text in [
            "",
            "[]",
            r#"{"metrics": {"raw_vs_best_peer": 0.4}}"#,
            r#"{"metrics": {"raw_vs_best_peer": 0.4, "zstd_vs_best_peer": null}}"#,
            r#"{"metrics": {"raw_vs_best_peer": 0.4}, "skipped": {"zstd_vs_best_peer": ""}}"#,
            r#"{"metrics": {"raw_vs_best_peer": 1, "zstd_vs_best_peer": 1}, "skipped": {"raw_vs_best_peer": "x"}}"#,
            r#"{"metrics": 3}"#,
        ] {
            assert!(check(text).is_err(), "{text}");
        }
    }

    #[test]
    fn verdicts_compare_with_must_and_aim() {
        let bars = bars::of("histogram");
        for (index_ns, expected) in [
            (2.0, Verdict::AimReached),
            (4.0, Verdict::Met),
            (6.0, Verdict::Missed),
        ] {
            let report = Report {
                metrics: [("index_ns".to_owned(), index_ns)].into(),
                ..Report::default()
            };
            assert_eq!(report.verdicts(bars)[1].1, expected);
            assert_eq!(report.verdicts(bars)[0].1, Verdict::Skipped);
        }
    }

    #[test]
    fn lines_carry_value_unit_and_target() {
        let report = check(
            r#"{"metrics": {"raw_vs_best_peer": 0.4123}, "skipped": {"zstd_vs_best_peer": "no zstd"}}"#,
        )
        .unwrap();
        let lines: Vec<_> = report
            .verdicts(bars::of("wire"))
            .iter()
            .map(|(bar, verdict)| report.line(bar, verdict))
            .collect();
        assert!(lines[0].starts_with("raw_vs_best_peer 0.412 (target ≤ 0.5: reached)"));
        assert!(lines[1].starts_with("zstd_vs_best_peer skipped: no zstd (target ≤ 0.5)"));
    }

    #[test]
    fn numbers_keep_three_digits() {
        for (value, expected) in [
            (0.0, "0"),
            (0.00123456, "0.00123"),
            (2.5, "2.5"),
            (31.47, "31.5"),
            (123456.7, "123457"),
            (-0.0042, "-0.0042"),
        ] {
            assert_eq!(number(value), expected);
        }
    }
}
