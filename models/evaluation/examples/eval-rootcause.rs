//! `cargo xtask bench eval-rootcause`: the ranking of causes on PetShop below
//! `HONEYGUIDE_EVAL_DATA`.

use std::{env, fs, path::PathBuf};

use anyhow::{Context, Result};
use honeyguide_evaluation::{report::Outcome, rootcause};

fn main() -> Result<()> {
    let out = env::var_os("HONEYGUIDE_BENCH_OUT").context("HONEYGUIDE_BENCH_OUT is not set")?;
    let data = env::var_os("HONEYGUIDE_EVAL_DATA").map(PathBuf::from);
    let petshop = data.map(|data| data.join("petshop/dataset"));
    let outcome = match petshop.filter(|petshop| petshop.is_dir()) {
        Some(petshop) => rootcause::evaluate(&petshop, |_| {})?.outcome(),
        None => missing(),
    };
    println!("{}", outcome.markdown);
    fs::write(&out, serde_json::to_string(&outcome)?)
        .with_context(|| format!("write {}", out.display()))
}

fn missing() -> Outcome {
    let mut outcome = Outcome::default();
    for key in ["top1_over_best_baseline", "top3_over_best_baseline"] {
        outcome.skip(
            key,
            "HONEYGUIDE_EVAL_DATA names no folder with petshop/dataset",
        );
    }
    outcome
}
