//! `cargo xtask bench eval-forecast`: forecasts and coverage on the public sets
//! of the folder in `HONEYGUIDE_EVAL_DATA`. With `HONEYGUIDE_BENCH_OUT` set,
//! writes the figures there.

use std::{env, fs, path::PathBuf};

use anyhow::Context;
use honeyguide_evaluation::{
    coverage,
    forecast::{Part, evaluate},
    report::Outcome,
};

/// Keys that have targets.
const KEYS: [&str; 6] = [
    "crps_rel",
    "crps_rel_app",
    "mase_rel",
    "coverage95_day_min",
    "coverage95_day_max",
    "coverage95_in_faults",
];

fn main() -> anyhow::Result<()> {
    let outcome = match env::var_os("HONEYGUIDE_EVAL_DATA").map(PathBuf::from) {
        Some(data) => {
            let progress = |done, all| eprintln!("{done} of {all} series");
            let report = evaluate(&data.join("bizitobs"), Part::Test, progress)?;
            let mut outcome = report.outcome();
            coverage::evaluate(&data, &mut outcome, |set| eprintln!("{set}"))?;
            outcome
        }
        None => {
            let mut outcome = Outcome::default();
            for key in KEYS {
                outcome.skip(key, "HONEYGUIDE_EVAL_DATA names no folder with the data");
            }
            outcome
        }
    };
    print!("{}", outcome.markdown);
    if let Some(out) = env::var_os("HONEYGUIDE_BENCH_OUT") {
        fs::write(&out, serde_json::to_string(&outcome)?).context("failed to write the figures")?;
    }
    Ok(())
}
