//! Developer commands: `cargo xtask setup | run | test | lint | bench | clean-room`.
//!
//! What a developer does and what CI does are the same commands. This crate is
//! the first thing a new machine compiles, so it depends on almost nothing.
//! Read [`setup`] first: every other command starts with it.

mod bench;
mod cargo;
mod clean_room;
mod dashboards;
mod fuzz;
mod helm;
mod incidents;
mod kafka;
mod lint;
mod machine;
mod notebooks;
mod run;
mod setup;
mod step;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Developer commands of Honeyguide.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
#[command(after_help = "\
Examples:
  cargo xtask run                    Set up, build, and show the live table
  cargo xtask run -- --duration 5m   The same, for five minutes
  cargo xtask test                   Everything CI tests
  cargo xtask bench histogram wire   Two benches, with their targets
")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install what this machine lacks, asking nothing.
    Setup(setup::Args),
    /// Set up, build and start `honeyguide up` as root.
    Run(run::Args),
    /// Run all tests: unit, integration, doc, kernel; benches once.
    Test(test::Args),
    /// Check formatting, clippy, documentation, licences; warnings are errors.
    Lint(lint::Args),
    /// Measure, and compare with the targets.
    Bench(bench::Args),
    /// Start, stop or look for a real Kafka broker on loopback.
    Kafka(kafka::Args),
    /// Feed made-up inputs to the parsers of the kernel programs and to what learns routes.
    Fuzz(fuzz::Args),
    /// Check the Helm chart, its manifests, its alerting rules.
    Helm(helm::Args),
    /// Record incidents with known causes: real servers, load and bottlenecks.
    Incidents(incidents::Args),
    /// Run the notebooks on a recording; any error in a cell is one.
    Notebooks(notebooks::Args),
    /// Write Grafana's dashboards into the chart.
    Dashboards(dashboards::Args),
    /// Clone HEAD into an empty folder with empty caches and run README's commands there.
    CleanRoom(clean_room::Args),
    /// Be one of the services that `bench overhead` fills the machine with.
    #[command(hide = true, name = bench::BUSY_SERVICE)]
    BusyService {
        /// Command name to go by.
        name: String,
        /// Routes that are asked for.
        routes: usize,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup(args) => setup::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Lint(args) => lint::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Kafka(args) => kafka::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Helm(args) => helm::run(&args),
        Command::Incidents(args) => incidents::run(&args),
        Command::Notebooks(args) => notebooks::run(&args),
        Command::Dashboards(args) => dashboards::run(&args),
        Command::CleanRoom(args) => clean_room::run(&args),
        Command::BusyService { name, routes } => bench::serve(&name, routes),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
