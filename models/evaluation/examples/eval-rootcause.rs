//! `cargo xtask bench eval-rootcause`: the ranking of causes on PetShop below
//! `HONEYGUIDE_EVAL_DATA`.

use std::{env, fs, path::PathBuf};

use anyhow::{Context, Result};
use honeyguide_evaluation::rootcause;
use serde_json::{Map, Value, json};

fn main() -> Result<()> {
    let out = env::var_os("HONEYGUIDE_BENCH_OUT").context("HONEYGUIDE_BENCH_OUT is not set")?;
    let data = env::var_os("HONEYGUIDE_EVAL_DATA").map(PathBuf::from);
    let petshop = data.map(|data| data.join("petshop/dataset"));
    let (mut metrics, mut skipped) = (Map::new(), Map::new());
    if let Some(petshop) = petshop.filter(|petshop| petshop.is_dir()) {
        let found = rootcause::evaluate(&petshop, |_| {})?;
        println!("{}", found.to_markdown());
        let of = |(key, value): (&str, f64)| (key.to_owned(), json!(value));
        metrics.extend(found.metrics().into_iter().map(of));
    } else {
        let reason = "HONEYGUIDE_EVAL_DATA names no folder with petshop/dataset/ in it";
        for key in ["top1_over_best_baseline", "top3_over_best_baseline"] {
            skipped.insert(key.to_owned(), Value::from(reason));
        }
    }
    let report = json!({"metrics": metrics, "skipped": skipped});
    fs::write(&out, report.to_string()).with_context(|| format!("write {}", out.display()))
}
