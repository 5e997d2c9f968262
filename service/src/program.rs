//! The `main` of a program that is a service and has no subcommands.

use std::{fmt, process::ExitCode};

use clap::{CommandFactory, FromArgMatches, Parser};
use serde::{Serialize, de::DeserializeOwned};

use crate::{EXIT_USAGE, logging::LoggingArgs, settings::SettingsArgs};

/// What a program is called, and what it does.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// One sentence for `--help`.
    pub about: &'static str,
    /// Its version.
    pub version: &'static str,
}

#[derive(Debug, Parser)]
struct Cli<A: clap::Args + fmt::Debug> {
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(flatten)]
    logging: LoggingArgs,
    #[command(flatten)]
    args: A,
}

/// Reads arguments and configuration, then runs the service. A configuration
/// that is not valid exits with [`EXIT_USAGE`], before anything is opened.
pub fn main<A, S>(program: Program, run: fn(A, S) -> anyhow::Result<ExitCode>) -> ExitCode
where
    A: clap::Args + fmt::Debug,
    S: Serialize + DeserializeOwned + Default,
{
    let command = Cli::<A>::command()
        .name(program.name)
        .about(program.about)
        .version(program.version);
    let parsed = command
        .try_get_matches()
        .and_then(|matches| Cli::<A>::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody is left to be told when standard error is closed.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 });
        }
    };
    let settings = match cli.settings.load() {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("{}: {error:#}", program.name);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match cli
        .logging
        .to_stderr()
        .and_then(|()| run(cli.args, settings))
    {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{}: {error:#}", program.name);
            ExitCode::FAILURE
        }
    }
}
