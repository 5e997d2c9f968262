//! PetShop (Hardt et al., "The PetShop dataset — finding causes of performance
//! issues across microservices", CLeaR 2024; amazon-science): a shop of some forty
//! components on AWS, with faults put in and their place known.

use std::{collections::BTreeMap, fs, path::Path};

use honeyguide_models::attribution::services::{Call, Symptom};
use serde::Deserialize;

use crate::{Error, table::files};

/// Metrics of every component, oldest window first, NaN where there is none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// Seconds since 1970 of each window.
    pub times: Vec<f64>,
    /// By component, then by metric and statistic.
    pub values: BTreeMap<String, BTreeMap<(String, String), Vec<f64>>>,
}

/// One fault and what was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Issue {
    /// Scenario and folder.
    pub name: String,
    /// Windows of normal operation, then those around the fault. Without a normal
    /// run of the same scenario, those of all others.
    pub metrics: Metrics,
    /// How many of the newest windows are not before the fault.
    pub recent: usize,
    /// The component in trouble.
    pub subject: String,
    /// What is wrong with it.
    pub symptom: Symptom,
    /// The component at fault.
    pub cause: String,
    /// Who calls whom.
    pub calls: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct TargetFile {
    target: Target,
    root_cause: RootCause,
}

#[derive(Deserialize)]
struct Target {
    node: String,
    metric: String,
    timestamp: f64,
}

#[derive(Deserialize)]
struct RootCause {
    node: String,
}

/// All issues below a folder's scenarios, by path.
///
/// # Errors
/// When a file is missing or malformed, or there is none.
pub fn load(folder: &Path) -> Result<Vec<Issue>, Error> {
    let paths = files(folder, "json")?;
    let normal: Vec<(String, Metrics)> = files(folder, "csv")?
        .into_iter()
        .filter(|path| {
            path.parent()
                .is_some_and(|parent| parent.ends_with("noissue"))
        })
        .map(|path| Ok((scenario(folder, &path), read_metrics(&path)?)))
        .collect::<Result<_, Error>>()?;
    let target = |path: &&std::path::PathBuf| path.ends_with("target.json");
    paths
        .iter()
        .filter(target)
        .map(|path| read_issue(folder, path, &normal))
        .collect()
}

fn scenario(folder: &Path, path: &Path) -> String {
    let within = path.strip_prefix(folder).unwrap_or(path);
    let first = within.iter().next();
    first
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn read_issue(folder: &Path, path: &Path, normal: &[(String, Metrics)]) -> Result<Issue, Error> {
    let text = fs::read_to_string(path).map_err(Error::read(path))?;
    let file: TargetFile = serde_json::from_str(&text).map_err(Error::json(path))?;
    let symptom = match file.target.metric.as_str() {
        "latency" => Symptom::Latency,
        "availability" => Symptom::Errors,
        _ => {
            return Err(Error::content(
                path,
                "a target that is neither latency nor availability",
            ));
        }
    };
    let issue = path.parent().unwrap_or(folder);
    let scenario = scenario(folder, path);
    let own = read_metrics(&issue.join("metrics.csv"))?;
    let recent = own
        .times
        .iter()
        .filter(|time| **time >= file.target.timestamp);
    let recent = recent.count();
    let of_scenario = normal.iter().filter(|(name, _)| *name == scenario);
    let mut usual: Vec<&Metrics> = of_scenario.map(|(_, metrics)| metrics).collect();
    if usual.is_empty() {
        usual = normal.iter().map(|(_, metrics)| metrics).collect();
    }
    let calls = read_calls(&folder.join(&scenario).join("graph.csv"))?;
    let name = issue.strip_prefix(folder).unwrap_or(issue);
    Ok(Issue {
        name: name.to_string_lossy().into_owned(),
        metrics: joined(&usual, &own),
        recent,
        subject: file.target.node,
        symptom,
        cause: file.root_cause.node,
        calls,
    })
}

/// Windows one after the other; only components of the last.
fn joined(before: &[&Metrics], last: &Metrics) -> Metrics {
    let mut all = Metrics::default();
    for part in before.iter().copied().chain([last]) {
        all.times.extend(&part.times);
    }
    for (component, metrics) in &last.values {
        for key in metrics.keys() {
            let mut values = Vec::with_capacity(all.times.len());
            for part in before.iter().copied().chain([last]) {
                match part
                    .values
                    .get(component)
                    .and_then(|metrics| metrics.get(key))
                {
                    Some(known) => values.extend(known),
                    None => values.extend(std::iter::repeat_n(f64::NAN, part.times.len())),
                }
            }
            let of_component = all.values.entry(component.clone()).or_default();
            of_component.insert(key.clone(), values);
        }
    }
    all
}

/// Three rows of header (component, metric, statistic), one with the index's name,
/// then one per window.
fn read_metrics(path: &Path) -> Result<Metrics, Error> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_path(path)
        .map_err(Error::csv(path))?;
    let rows: Vec<csv::StringRecord> = reader
        .records()
        .collect::<Result<_, _>>()
        .map_err(Error::csv(path))?;
    let [components, metrics, statistics, _, windows @ ..] = &rows[..] else {
        return Err(Error::content(path, "no header of three rows"));
    };
    let number = |row: &csv::StringRecord, column: usize| {
        let text = row.get(column).unwrap_or_default();
        text.parse().unwrap_or(f64::NAN)
    };
    let mut all = Metrics {
        times: windows.iter().map(|row| number(row, 0)).collect(),
        values: BTreeMap::new(),
    };
    for column in 1..components.len() {
        let name = |row: &csv::StringRecord| row.get(column).unwrap_or_default().to_owned();
        let values = windows.iter().map(|row| number(row, column)).collect();
        let of_component = all.values.entry(name(components)).or_default();
        of_component.insert((name(metrics), name(statistics)), values);
    }
    Ok(all)
}

/// An adjacency matrix: row calls column.
fn read_calls(path: &Path) -> Result<Vec<(String, String)>, Error> {
    let mut reader = csv::Reader::from_path(path).map_err(Error::csv(path))?;
    let names = reader.headers().map_err(Error::csv(path))?.clone();
    let mut calls = Vec::new();
    for row in reader.records() {
        let row = row.map_err(Error::csv(path))?;
        let caller = row.get(0).unwrap_or_default();
        for (cell, callee) in row.iter().zip(&names).skip(1) {
            if cell.parse::<f64>().is_ok_and(|calls| calls != 0.0) {
                calls.push((caller.to_owned(), callee.to_owned()));
            }
        }
    }
    Ok(calls)
}

impl Issue {
    /// Names of the components, in the order their indices count.
    pub fn components(&self) -> Vec<&str> {
        self.metrics.values.keys().map(String::as_str).collect()
    }

    /// The position of a component.
    pub fn index(&self, component: &str) -> Option<usize> {
        self.metrics
            .values
            .keys()
            .position(|name| name == component)
    }

    /// Calls between components that were measured.
    pub fn calls(&self) -> Vec<Call> {
        let call = |(caller, callee): &(String, String)| {
            Some(Call {
                caller: self.index(caller)?,
                callee: self.index(callee)?,
            })
        };
        self.calls.iter().filter_map(call).collect()
    }

    /// A metric of each component; NaN throughout where it has none.
    pub fn metric(&self, metric: &str, statistic: &str) -> Vec<Vec<f64>> {
        let key = (metric.to_owned(), statistic.to_owned());
        let missing = || vec![f64::NAN; self.metrics.times.len()];
        let of =
            |metrics: &BTreeMap<_, Vec<f64>>| metrics.get(&key).cloned().unwrap_or_else(missing);
        self.metrics.values.values().map(of).collect()
    }
}
