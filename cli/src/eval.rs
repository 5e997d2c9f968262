//! `honeyguide eval`: how good the models are, on data with known answers.

mod breach;
mod detect;
mod forecast;
mod incidents;
mod recorded;
mod rootcause;
mod series;
mod speed;

use std::{
    fs,
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use honeyguide_evaluation::report::Outcome;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
DIR holds public data sets as docs/accuracy.md says where to get them. What runs
here is what an analyzer runs; a model only ever sees the past.

Examples:
  honeyguide eval breach --incidents bench-data/incidents   Needs no other data
  honeyguide eval forecast --data DIR              Tables beside published figures
  honeyguide eval forecast --data DIR --json       The same for programs
  honeyguide eval breach --data DIR --out reports  Keep breach.md, breach.json and plots
  honeyguide eval forecast --series p99.csv load.parquet   Your own series
  honeyguide eval detect --series incident.hgr --out reports  Those of a recording
  honeyguide eval breach --series p99.csv --above 0.25     With a threshold of your own
")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Forecasts and the coverage of their intervals (bizitobs/, ms-cloud/, your series).
    Forecast(forecast::Args),
    /// Probabilities of breaking a threshold (ms-cloud/, nab/, recorded incidents, your
    /// series).
    Breach(breach::Args),
    /// Anomaly scores and alerts (nab/, ms-cloud/, your series).
    Detect(detect::Args),
    /// Which service an incident comes from (petshop/).
    Rootcause(Common),
    /// Time and memory per series; needs no data.
    Speed(Common),
}

/// What every evaluation takes.
#[derive(Debug, clap::Args)]
pub struct Common {
    /// Folder of the data sets [default: the current one].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Figures as JSON instead of tables.
    #[arg(long)]
    json: bool,
    /// Also write tables (Markdown), figures (JSON) and plots (SVG) into this folder.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.what {
        What::Forecast(args) => forecast::run(&args),
        What::Breach(args) => breach::run(&args),
        What::Detect(args) => detect::run(&args),
        What::Rootcause(args) => rootcause::run(&args),
        What::Speed(args) => speed::run(&args),
    }
}

impl Common {
    /// Prints an outcome and keeps it in the folder asked for.
    pub fn tell(&self, name: &str, outcome: &Outcome) -> anyhow::Result<ExitCode> {
        let json = serde_json::to_string_pretty(outcome)? + "\n";
        let markdown = markdown(outcome);
        if let Some(folder) = &self.out {
            let write = |name: &str, extension: &str, text: &str| {
                let path = folder.join(name).with_extension(extension);
                fs::write(&path, text)
                    .with_context(|| format!("failed to write {}", path.display()))
            };
            fs::create_dir_all(folder)
                .with_context(|| format!("failed to make {}", folder.display()))?;
            write(name, "md", &markdown)?;
            write(name, "json", &json)?;
            for (name, svg) in &outcome.plots {
                write(name, "svg", svg)?;
            }
        }
        let text = if self.json { json } else { markdown };
        std::io::stdout().write_all(text.as_bytes())?;
        Ok(ExitCode::SUCCESS)
    }

    /// The folder of a data set.
    pub fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.data().join(name);
        anyhow::ensure!(
            folder.is_dir(),
            "{} is no folder; docs/accuracy.md says where to get the data",
            folder.display()
        );
        Ok(folder)
    }

    /// The data folder.
    pub fn data(&self) -> &Path {
        self.data.as_deref().unwrap_or(Path::new("."))
    }

    /// Whether a data folder is asked for.
    pub fn names_data(&self) -> bool {
        self.data.is_some()
    }
}

fn markdown(outcome: &Outcome) -> String {
    let mut text = outcome.markdown.clone();
    text.push_str("\n| figure | value |\n|---|---|\n");
    for (key, value) in &outcome.metrics {
        text.push_str(&format!("| `{key}` | {value:.4} |\n"));
    }
    for (key, reason) in &outcome.skipped {
        text.push_str(&format!("| `{key}` | {reason} |\n"));
    }
    text
}

/// A line on standard error that is written over; only for people.
pub fn progress(text: &str) {
    let mut stderr = std::io::stderr();
    if stderr.is_terminal() {
        // Nobody misses a progress line that cannot be written.
        let _ = write!(stderr, "\r\x1b[K{text}");
        let _ = stderr.flush();
    }
}
