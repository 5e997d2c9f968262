//! Records incidents: real servers on this machine under real load, which does
//! not wait for answers, and real bottlenecks. What the sensor publishes goes
//! into a recording, and what the clients saw beside it.
//!
//! `cargo xtask incidents` runs this as root. Read [`scenario`] first: it says
//! what is done; [`run`] says in which order.

mod busy;
mod bystander;
mod driver;
mod group;
mod load;
mod network;
mod process;
mod profile;
mod recording;
mod run;
mod scenario;
mod servers;
mod table;
mod volume;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand, builder::PossibleValuesParser};

use crate::{
    run::Place,
    scenario::{SCENARIOS, Scenario},
};

/// Of everything that belongs to a run.
const PRIORITY: libc::c_int = -10;

/// Record incidents with known causes and times.
#[derive(Debug, Parser)]
#[command(name = "honeyguide-incidents")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Record scenarios, all unless some are named, one after the other.
    Record(RecordArgs),
    /// Write README.md of a folder of recordings.
    Table {
        /// The folder.
        folder: PathBuf,
    },
    /// Be something that disturbs others.
    #[command(hide = true)]
    Be {
        #[command(subcommand)]
        what: Be,
    },
}

#[derive(Debug, clap::Args)]
struct RecordArgs {
    /// Scenarios.
    #[arg(value_parser = PossibleValuesParser::new(SCENARIOS.map(|scenario| scenario.name)))]
    scenarios: Vec<String>,
    /// Seeds; odd ones are for development, even ones are held out.
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    seeds: Vec<u64>,
    /// Windows of a second.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(10..=3600))]
    windows: u64,
    /// Folder of recordings.
    #[arg(long, default_value = "bench-data/incidents")]
    out: PathBuf,
    /// The `honeyguide` program.
    #[arg(long)]
    honeyguide: Option<PathBuf>,
    /// Tells runs apart that go on at a time.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=9))]
    slot: u8,
}

#[derive(Debug, Subcommand)]
enum Be {
    /// Computes.
    Hog,
    /// Writes synchronously.
    Writer {
        /// Where.
        folder: PathBuf,
    },
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Record(args) => record(&args),
        Command::Table { folder } => table::write(&folder),
        Command::Be { what: Be::Hog } => busy::hog(),
        Command::Be {
            what: Be::Writer { folder },
        } => busy::writer(&folder),
    }
}

fn record(args: &RecordArgs) -> Result<()> {
    // SAFETY: a plain system call without arguments.
    let is_root = unsafe { libc::geteuid() } == 0;
    ensure!(is_root, "control groups, networks and the sensor need root");
    servers::check()?;
    // What else goes on here is to disturb a run as little as can be.
    // SAFETY: a plain system call; 0 is this process, and children inherit it.
    let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, PRIORITY) };
    std::fs::create_dir_all(&args.out)?;
    let beside = || Some(std::env::current_exe().ok()?.with_file_name("honeyguide"));
    let honeyguide = args.honeyguide.clone().or_else(beside);
    let place = Place {
        honeyguide: honeyguide.context("where is honeyguide?")?.canonicalize()?,
        out: args.out.clone(),
        slot: args.slot,
        windows: args.windows as usize,
    };
    let is_named = |scenario: &&Scenario| {
        args.scenarios.is_empty() || args.scenarios.iter().any(|name| name == scenario.name)
    };
    for scenario in SCENARIOS.iter().filter(is_named) {
        for seed in &args.seeds {
            let drawn = scenario.draw(*seed, place.windows);
            let truth = run::run(&drawn, &place)
                .with_context(|| format!("{} with seed {seed}", scenario.name))?;
            println!("{}", summary(&truth));
        }
    }
    table::write(&args.out)
}

/// What a run came to.
fn summary(truth: &honeyguide_evaluation::incidents::Truth) -> String {
    let at = |window: Option<usize>| window.map_or("-".to_owned(), |window| window.to_string());
    let breached = truth.services.iter().skip(1).filter(|s| s.breach.is_some());
    format!(
        "{}-{}: onset {}, breach {}, failed {}, bystanders that breached: {:?}",
        truth.scenario,
        truth.seed,
        at(truth.onset),
        at(truth.services[0].breach),
        truth.services[0].failed,
        breached.map(|s| s.service.as_str()).collect::<Vec<_>>(),
    )
}
