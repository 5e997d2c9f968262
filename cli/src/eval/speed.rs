//! `honeyguide eval speed`.

use std::process::ExitCode;

use super::{Common, progress};

pub fn run(common: &Common) -> anyhow::Result<ExitCode> {
    let outcome = honeyguide_evaluation::speed::evaluate(common.data(), progress)?;
    progress("");
    common.tell("speed", &outcome)
}
