//! `honeyguide eval forecast`.

use std::process::ExitCode;

use honeyguide_evaluation::{
    coverage,
    forecast::{Part, evaluate},
};

use super::{Common, progress};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    common: Common,
    /// Origins before the test windows instead: for tuning, never for claims.
    #[arg(long)]
    development: bool,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let common = &args.common;
    let part = if args.development {
        Part::Development
    } else {
        Part::Test
    };
    let report = evaluate(&common.folder("bizitobs")?, part, |done, all| {
        progress(&format!("forecasts: {done} of {all} series"));
    })?;
    let mut outcome = report.outcome();
    if common.data().join("ms-cloud").is_dir() {
        coverage::evaluate(common.data(), &mut outcome, |set| {
            progress(&format!("coverage: {set}"));
        })?;
    } else {
        for key in [
            "coverage95_day_min",
            "coverage95_day_max",
            "coverage95_in_faults",
        ] {
            outcome.skip(key, "ms-cloud/ is not in the data folder");
        }
    }
    progress("");
    common.tell("forecast", &outcome)
}
