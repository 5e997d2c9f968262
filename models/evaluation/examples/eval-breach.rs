//! `cargo xtask bench eval-breach`: breach probabilities on the public sets of
//! the folder in `HONEYGUIDE_EVAL_DATA`. With `HONEYGUIDE_BENCH_OUT` set,
//! writes the figures there. Recorded incidents are evaluated by
//! `honeyguide eval breach --incidents`.

use std::{env, fs, path::PathBuf};

use anyhow::Context;
use honeyguide_evaluation::{breach, report::Outcome};

fn main() -> anyhow::Result<()> {
    let outcome = match env::var_os("HONEYGUIDE_EVAL_DATA").map(PathBuf::from) {
        Some(data) => breach::evaluate(&data, |series| eprintln!("{series}"))?,
        None => {
            let mut outcome = Outcome::default();
            outcome.skip(
                "ece_15m",
                "HONEYGUIDE_EVAL_DATA names no folder with the data",
            );
            outcome
        }
    };
    print!("{}", outcome.markdown);
    if let Some(out) = env::var_os("HONEYGUIDE_BENCH_OUT") {
        fs::write(&out, serde_json::to_string(&outcome)?).context("failed to write the figures")?;
    }
    Ok(())
}
