//! `honeyguide eval detect`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::ensure;

use super::{Common, progress};

pub fn run(common: &Common) -> anyhow::Result<ExitCode> {
    let set = |name: &str| Some(common.data().join(name)).filter(|folder| folder.is_dir());
    let sets: [Option<PathBuf>; 2] = ["nab", "ms-cloud"].map(set);
    ensure!(
        sets.iter().any(Option::is_some),
        "{} has neither nab nor ms-cloud in it; docs/accuracy.md says where to get them",
        common.data().display()
    );
    let [nab, ms_cloud] = sets.each_ref().map(Option::as_deref);
    let found = honeyguide_evaluation::detect::evaluate(nab, ms_cloud, progress)?;
    progress("");
    common.tell("detect", &found.outcome())
}
