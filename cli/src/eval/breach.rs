//! `honeyguide eval breach`.

use std::{path::PathBuf, process::ExitCode};

use honeyguide_evaluation::{breach, incidents, report::Outcome};

use super::{Common, incidents::replay_all, progress};

/// Folders of public sets; one of them is enough.
const SETS: [&str; 2] = ["ms-cloud", "nab"];

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    common: Common,
    /// Folder of recorded incidents with the truth beside, such as
    /// bench-data/incidents.
    #[arg(long, value_name = "DIR")]
    incidents: Option<PathBuf>,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let data = args.common.data();
    let mut outcome = Outcome::default();
    if args.incidents.is_none() || SETS.iter().any(|set| data.join(set).is_dir()) {
        outcome = breach::evaluate(data, progress)?;
    }
    match &args.incidents {
        Some(folder) => {
            let runs = replay_all(folder, progress)?;
            outcome.append(incidents::evaluate(&runs));
        }
        None => {
            for key in breach::INCIDENT_KEYS {
                outcome.skip(key, "--incidents names no folder with recorded incidents");
            }
        }
    }
    progress("");
    args.common.tell("breach", &outcome)
}
