//! `honeyguide eval breach`.

use std::process::ExitCode;

use super::{Common, progress};

pub fn run(common: &Common) -> anyhow::Result<ExitCode> {
    let outcome = honeyguide_evaluation::breach::evaluate(common.data(), progress)?;
    progress("");
    common.tell("breach", &outcome)
}
