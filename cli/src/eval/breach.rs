//! `honeyguide eval breach`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::ensure;
use honeyguide_evaluation::{
    breach::{self, Above},
    incidents,
    own::Own,
    report::Outcome,
};

use super::{Common, incidents::replay_all, progress, series::SeriesArgs};

/// Folders of public sets; one of them is enough.
const SETS: [&str; 2] = ["ms-cloud", "nab"];

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    series: SeriesArgs,
    /// Threshold of the --series files, in their unit; of one series with its name as
    /// the tables have it before. Else the levels that 95 and 99.5 % of the first third
    /// stay below.
    #[arg(long, value_name = "[SERIES=]VALUE", requires = "series", value_parser = above)]
    above: Vec<Above>,
    /// Folder of recorded incidents with the truth beside, such as
    /// bench-data/incidents.
    #[arg(long, value_name = "DIR")]
    incidents: Option<PathBuf>,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut outcome = Outcome::default();
    let has_sets = SETS.iter().any(|set| args.common.data().join(set).is_dir());
    let public = match (args.series.is_empty(), &args.incidents) {
        (false, _) => args.common.names_data(),
        (true, Some(_)) => has_sets,
        (true, None) => true,
    };
    if public {
        outcome = breach::evaluate(args.common.data(), progress)?;
    }
    match &args.incidents {
        Some(folder) => {
            let runs = replay_all(folder, progress)?;
            outcome.append(incidents::evaluate(&runs));
        }
        None if public => {
            for key in breach::INCIDENT_KEYS {
                outcome.skip(key, "--incidents names no folder with recorded incidents");
            }
        }
        None => {}
    }
    if !args.series.is_empty() {
        let all = args.series.load(None, progress)?;
        check(&args.above, &all)?;
        outcome.append(breach::evaluate_own(&all, &args.above, progress));
    }
    progress("");
    args.common.tell("breach", &outcome)
}

fn above(text: &str) -> Result<Above, String> {
    // Names of series may hold the sign, numbers never.
    let (series, value) = match text.rsplit_once('=') {
        Some((series, value)) => (Some(series.to_owned()), value),
        None => (None, text),
    };
    match value.trim().parse::<f64>() {
        Ok(threshold) if threshold.is_finite() && threshold > 0.0 => {
            Ok(Above { series, threshold })
        }
        _ => Err(format!("{value:?} is no number above 0")),
    }
}

/// Names that no series has would go unnoticed.
fn check(above: &[Above], all: &[Own]) -> anyhow::Result<()> {
    let names: Vec<&str> = all.iter().map(|own| own.series.name.as_str()).collect();
    for name in above.iter().filter_map(|above| above.series.as_deref()) {
        ensure!(
            names.contains(&name),
            "--above names {name:?}, and the series are {}",
            names.join(", ")
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_of_all_series_or_one() {
        let of = |text| above(text).map(|above| (above.series, above.threshold));
        assert_eq!(of("0.25"), Ok((None, 0.25)));
        assert_eq!(of("shop/p99=2e-1"), Ok((Some("shop/p99".to_owned()), 0.2)));
        for wrong in ["", "shop=", "-1", "nan", "0", "shop=many"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
