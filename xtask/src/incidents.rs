//! `cargo xtask incidents`: real incidents, recorded with the truth beside them.

use anyhow::Result;

use crate::{
    cargo,
    machine::Privilege,
    setup::{self, INCIDENTS, Purpose},
    step::{show, step},
};

/// Arguments of `cargo xtask incidents`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Scenarios, and options of `honeyguide-incidents record`; five minutes for
    /// each scenario and seed.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    record: Vec<String>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    setup::prepare(Purpose::Bench, &[INCIDENTS])?;
    step("building Honeyguide", || show(&mut cargo::build()))?;
    let mut record = Privilege::detect().command(cargo::binary("honeyguide-incidents")?);
    record.arg("record").args(&args.record);
    show(record.current_dir(cargo::root()))
}
