//! Series of a recording: of each service and signal the 99th percentile and the
//! rate, by the pipeline of an analyzer.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context, ensure};
use honeyguide_analyzer::{
    Config,
    config::{HintsConfig, HintsMode},
};
use honeyguide_bus::{Topic, range::Range, recording};
use honeyguide_evaluation::{own::Own, table::Series};
use honeyguide_models::Target;

use crate::replay::pipelines::{Finding, Pipelines};

/// What is evaluated, and what its values are.
const TARGETS: [(Target, &str); 2] = [
    (Target::P99, "p99 in s"),
    (Target::Rate, "rate in events/s"),
];
/// Values that a series needs to be looked at.
const VALUES_MIN: usize = 10;

/// Values of a series by step.
type Values = BTreeMap<u64, f64>;

/// All series of a recording with at least [`VALUES_MIN`] values.
pub fn series(path: &Path, step_secs: Option<u32>) -> anyhow::Result<Vec<Own>> {
    let defaults = Config::default();
    let step = step_secs.map(u64::from).map(Duration::from_secs);
    let step = step.unwrap_or(defaults.step);
    let config = Config {
        step,
        store_interval: defaults.store_interval.max(step),
        objectives: Vec::new(),
        hints: HintsConfig {
            mode: HintsMode::Off,
            ..HintsConfig::default()
        },
        // Windows are told only to who keeps them; a replay writes nothing there.
        data_dir: path.with_extension("not-written"),
        ..defaults
    };
    let config = config.validate().context("--step")?;
    let mut found: BTreeMap<(String, &str, &str), Values> = BTreeMap::new();
    let mut note = |finding: Finding| {
        let Finding::Windows(rows) = finding else {
            return;
        };
        for row in rows {
            for (target, quantity) in TARGETS {
                if let Some(y) = row.window.value(target) {
                    let key = (row.service.clone(), row.signal.name(), quantity);
                    let values = found.entry(key).or_default();
                    values.insert(row.step, target.to_natural(y));
                }
            }
        }
    };
    let mut pipelines = Pipelines::new(config, 0);
    let records = recording::read_range(path, Topic::Histograms, &Range::default())
        .with_context(|| format!("failed to open {}", path.display()))?;
    for delivery in records {
        let delivery = delivery.with_context(|| path.display().to_string())?;
        pipelines.take(&delivery, &mut note);
    }
    pipelines.end(None, &mut note);
    let file = path.file_stem().unwrap_or_default().to_string_lossy();
    let whole = found
        .into_iter()
        .filter(|(_, values)| values.len() >= VALUES_MIN);
    let all: Vec<Own> = whole
        .map(|((service, signal, quantity), values)| Own {
            series: regular(
                format!("{file}: {service} {signal} {}", word(quantity)),
                &values,
            ),
            quantity: quantity.to_owned(),
            step_secs: step.as_secs() as u32,
            first_secs: first(&values) as i64 * step.as_secs() as i64,
            notes: Vec::new(),
        })
        .collect();
    ensure!(
        !all.is_empty(),
        "{} has no series of at least {VALUES_MIN} steps of {}; a shorter --step gives more",
        path.display(),
        humantime::format_duration(step)
    );
    Ok(all)
}

/// What stands for it in names.
fn word(quantity: &str) -> &str {
    quantity.split(' ').next().unwrap_or(quantity)
}

fn first(values: &Values) -> u64 {
    values.keys().next().copied().unwrap_or(0)
}

/// Steps without events are missing.
fn regular(name: String, values: &Values) -> Series {
    let end = values.keys().next_back().map_or(0, |last| last + 1);
    let value = |step| values.get(&step).copied().unwrap_or(f64::NAN);
    Series::new(name, (first(values)..end).map(value).collect())
}
