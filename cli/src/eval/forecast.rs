//! `honeyguide eval forecast`.

use std::process::ExitCode;

use honeyguide_evaluation::{
    coverage,
    forecast::{Part, evaluate, evaluate_own},
    report::Outcome,
    young,
};

use super::{Common, progress, series::SeriesArgs};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    series: SeriesArgs,
    /// Origins before the test windows instead: for tuning, never for claims.
    #[arg(long)]
    development: bool,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut outcome = Outcome::default();
    if args.series.is_empty() || args.common.names_data() {
        outcome = public(&args.common, args.development)?;
    }
    if !args.series.is_empty() {
        let all = args.series.load(None, progress)?;
        outcome.append(evaluate_own(&all, progress));
    }
    progress("");
    args.common.tell("forecast", &outcome)
}

fn public(common: &Common, development: bool) -> anyhow::Result<Outcome> {
    let part = if development {
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
    young::evaluate(common.data(), &mut outcome, |set| {
        progress(&format!("first intervals: {set}"));
    })?;
    Ok(outcome)
}
