//! `cargo xtask bench eval-detect`: the detector on the public sets below
//! `HONEYGUIDE_EVAL_DATA`.

use std::{env, fs, path::PathBuf};

use anyhow::{Context, Result};
use honeyguide_evaluation::detect;
use serde_json::{Map, Value, json};

fn main() -> Result<()> {
    let out = env::var_os("HONEYGUIDE_BENCH_OUT").context("HONEYGUIDE_BENCH_OUT is not set")?;
    let data = env::var_os("HONEYGUIDE_EVAL_DATA").map(PathBuf::from);
    let set = |name: &str| {
        data.as_ref()
            .map(|data| data.join(name))
            .filter(|set| set.is_dir())
    };
    let (nab, ms_cloud) = (set("nab"), set("ms-cloud"));
    let found = detect::evaluate(nab.as_deref(), ms_cloud.as_deref(), |_| {})?;
    println!("{}", found.to_markdown());
    let metrics: Map<String, Value> = found
        .metrics()
        .into_iter()
        .map(|(key, value)| (key.to_owned(), json!(value)))
        .collect();
    let mut skipped = Map::new();
    for key in ["nab_standard", "nab_low_fp"] {
        if !metrics.contains_key(key) {
            let reason = "HONEYGUIDE_EVAL_DATA names no folder with nab/ in it";
            skipped.insert(key.to_owned(), json!(reason));
        }
    }
    let report = json!({"metrics": metrics, "skipped": skipped});
    fs::write(&out, report.to_string()).with_context(|| format!("write {}", out.display()))
}
