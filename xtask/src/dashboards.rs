//! `cargo xtask dashboards`: writes Grafana's dashboards into the chart.
//!
//! They are code, so that panels look alike, and so that a query is written
//! once. [`panel`] has the pieces, [`overview`], [`requests`] and [`service`]
//! say what is shown. A test of the `honeyguide` crate asks a real Prometheus every query.

mod overview;
mod panel;
mod requests;
mod service;

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cargo;

/// Arguments of `cargo xtask dashboards`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write nothing; fail when a file is not what would be written.
    #[arg(long)]
    check: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    for (name, dashboard) in all() {
        let path = path(name);
        if args.check {
            let found =
                fs::read_to_string(&path).with_context(|| format!("failed to read {path:?}"))?;
            // By value: the order of keys depends on who compiles serde_json.
            ensure!(
                serde_json::from_str::<Value>(&found)? == dashboard,
                "{} is out of date: run `cargo xtask dashboards`",
                path.display()
            );
        } else {
            fs::write(&path, format!("{dashboard:#}\n"))
                .with_context(|| format!("failed to write {path:?}"))?;
            println!("{}", path.display());
        }
    }
    Ok(())
}

/// Every dashboard with its file's name.
fn all() -> [(&'static str, Value); 3] {
    [
        ("overview.json", overview::dashboard()),
        ("requests.json", requests::dashboard()),
        ("service.json", service::dashboard()),
    ]
}

fn path(name: &str) -> PathBuf {
    let folder = cargo::root().join("helm/honeyguide/dashboards");
    folder.join(name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn files_are_what_the_code_writes() {
        run(&Args { check: true }).unwrap();
    }

    fn panels(dashboard: &Value) -> &Vec<Value> {
        dashboard["panels"].as_array().unwrap()
    }

    #[test]
    fn panels_have_their_own_id_and_place() {
        for (name, dashboard) in all() {
            let mut ids = BTreeSet::new();
            let mut taken = BTreeSet::new();
            for panel in panels(&dashboard) {
                assert!(
                    ids.insert(panel["id"].as_u64()),
                    "{name}: an id is there twice"
                );
                let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
                assert!(at("x") + at("w") <= 24, "{name}: {panel} is too wide");
                for x in at("x")..at("x") + at("w") {
                    for y in at("y")..at("y") + at("h") {
                        assert!(taken.insert((x, y)), "{name}: {panel} lies over another");
                    }
                }
            }
        }
    }

    #[test]
    fn every_panel_explains_itself_and_asks_the_chosen_datasource() {
        for (name, dashboard) in all() {
            for panel in panels(&dashboard)
                .iter()
                .filter(|panel| panel["type"] != "row")
            {
                let title = &panel["title"];
                assert!(
                    panel["description"].as_str().unwrap().len() > 10,
                    "{name}: {title}"
                );
                assert_eq!(
                    panel["datasource"]["uid"], "${datasource}",
                    "{name}: {title}"
                );
                let targets = panel["targets"].as_array().unwrap();
                assert!(!targets.is_empty(), "{name}: {title}");
            }
        }
    }
}
