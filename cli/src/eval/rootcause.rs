//! `honeyguide eval rootcause`.

use std::process::ExitCode;

use super::{Common, progress};

pub fn run(common: &Common) -> anyhow::Result<ExitCode> {
    let folder = common.folder("petshop")?.join("dataset");
    let found = honeyguide_evaluation::rootcause::evaluate(&folder, progress)?;
    progress("");
    common.tell("rootcause", &found.outcome())
}
