//! The `honeyguide` command.
//!
//! One file per subcommand; [`settings`] is the configuration of all parts;
//! [`view`] turns forecasts into rows and lines. All
//! measuring and forecasting lives in the sensor and analyzer crates.

mod alerts;
mod collector;
mod doctor;
mod eval;
mod forecast;
mod graph;
mod hints;
mod record;
mod replay;
mod routes;
mod settings;
mod topics;
mod up;
mod view;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use honeyguide_service::{EXIT_USAGE, logging::LoggingArgs, settings::SettingsArgs};

/// Predictive latency from kernel events: what each service's latency is, what
/// it will be, and why.
#[derive(Debug, Parser)]
#[command(name = "honeyguide", version, propagate_version = true)]
#[command(after_long_help = "\
Examples:
  honeyguide doctor                      What can be measured on this machine
  sudo honeyguide up                     Measure, forecast and show a live table
  sudo honeyguide up --duration 5m       The same, for five minutes
  sudo honeyguide record incident.hgr    Keep what the sensor publishes
  honeyguide replay incident.hgr         Forecasts and alerts of a recording
  honeyguide forecast 'process/nginx'    Ask a running analyzer
")]
struct Cli {
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(flatten)]
    logging: LoggingArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run sensor and analyzer in one process and show a live table.
    Up(up::Args),
    /// Run the sensor alone and publish to Kafka.
    Sensor(honeyguide_sensor::service::Args),
    /// Run an analyzer that reads from Kafka.
    Analyzer(honeyguide_analyzer::service::Args),
    /// Make and check the topics on Kafka.
    Topics(topics::Args),
    /// Run the sensor and keep what it publishes in a file.
    Record(record::Args),
    /// Run what was recorded, or is on Kafka, through the analyzer again; needs no root.
    Replay(replay::Args),
    /// Show forecasts of a running analyzer.
    Forecast(forecast::Args),
    /// Show what requests by route do: rate, errors and latency.
    Routes(routes::Args),
    /// Ask a running analyzer which services ask which.
    Graph(graph::Args),
    /// Show alerts of a running analyzer.
    Alerts(alerts::Args),
    /// Show what a running analyzer tells sensors, and why.
    Hints(hints::Args),
    /// Show how good the models are on data with known answers.
    Eval(eval::Args),
    /// Check kernel, permissions and every probe, with a fix for each problem.
    Doctor(doctor::Args),
    /// Print the default configuration, which is also its reference.
    DefaultConfig,
}

fn main() -> ExitCode {
    // A reader that goes away (`honeyguide forecast | head`) is no error.
    // SAFETY: no other thread exists yet, and the default action is a valid one.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 });
        }
    };
    let settings = match settings::load(&cli.settings) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("honeyguide: {error:#}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match run(cli.command, settings, &cli.settings, &cli.logging) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("honeyguide: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(
    command: Command,
    settings: settings::Settings,
    settings_args: &SettingsArgs,
    logging: &LoggingArgs,
) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up(args) => up::run(args, settings, logging),
        Command::Sensor(args) => {
            logging.to_stderr()?;
            honeyguide_sensor::service::run(args, settings.sensor, settings.kafka)
        }
        Command::Analyzer(args) => {
            logging.to_stderr()?;
            honeyguide_analyzer::service::run(args, settings.analyzer, settings.kafka)
        }
        Command::Topics(args) => {
            logging.to_stderr()?;
            topics::run(args, settings)
        }
        Command::Record(args) => {
            logging.to_stderr()?;
            record::run(args, settings)
        }
        Command::Replay(args) => {
            logging.to_stderr()?;
            replay::run(args, settings, settings_args)
        }
        Command::Forecast(args) => forecast::run(args),
        Command::Routes(args) => routes::run(args),
        Command::Graph(args) => graph::run(args),
        Command::Alerts(args) => alerts::run(args),
        Command::Hints(args) => hints::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Doctor(args) => doctor::run(args, settings),
        Command::DefaultConfig => {
            print!("{}", settings::DEFAULT);
            Ok(ExitCode::SUCCESS)
        }
    }
}
