//! `honeyguide eval detect`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::ensure;
use honeyguide_evaluation::{detect, report::Outcome};

use super::{Common, progress, series::SeriesArgs};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    series: SeriesArgs,
    /// Column of --series files that is above 0 where something is known to be wrong.
    #[arg(long, value_name = "NAME", requires = "series")]
    label_column: Option<String>,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut outcome = Outcome::default();
    if args.series.is_empty() || args.common.names_data() {
        outcome = public(&args.common)?;
    }
    if !args.series.is_empty() {
        let all = args.series.load(args.label_column.as_deref(), progress)?;
        outcome.append(detect::evaluate_own(&all, progress));
    }
    progress("");
    args.common.tell("detect", &outcome)
}

fn public(common: &Common) -> anyhow::Result<Outcome> {
    let set = |name: &str| Some(common.data().join(name)).filter(|folder| folder.is_dir());
    let sets: [Option<PathBuf>; 2] = ["nab", "ms-cloud"].map(set);
    ensure!(
        sets.iter().any(Option::is_some),
        "{} has neither nab nor ms-cloud in it; docs/accuracy.md says where to get them, and \
         --series evaluates files of your own",
        common.data().display()
    );
    let [nab, ms_cloud] = sets.each_ref().map(Option::as_deref);
    Ok(detect::evaluate(nab, ms_cloud, progress)?.outcome())
}
