//! `cargo xtask notebooks`: runs the notebooks on a recording, as a user would,
//! with any error in a cell an error.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{
    cargo,
    setup::{self, Purpose, python::NOTEBOOKS},
    step::{quiet, show, step},
};

/// What is done in Python.
const RUNNER: &str = "xtask/src/notebooks/run.py";
/// Long enough to compare forecasts with what came.
const RECORDING: &str = "bench-data/shop.hgr";
/// Objectives whose outcome is in that recording.
const OBJECTIVES: &str = "notebooks/objectives.toml";

/// Arguments of `cargo xtask notebooks`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Recording to look at.
    file: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    setup::prepare(Purpose::Test, &[])?;
    step("building Honeyguide", || show(&mut cargo::build()))?;
    match &args.file {
        Some(file) => check(file),
        None => check_shipped(),
    }
}

/// As [`check`], with the recording that is shipped for it.
pub fn check_shipped() -> Result<()> {
    check(&cargo::root().join(RECORDING))
}

/// Whether the notebooks are as they are to be committed, and run on a
/// recording. The `honeyguide` binary must be built.
fn check(recording: &Path) -> Result<()> {
    let python = NOTEBOOKS.python()?;
    let all = notebooks_of(&cargo::root().join("notebooks"))?;
    step("notebooks: valid, and without outputs", || {
        let mut check = runner(&python, "check");
        quiet("notebooks-check", check.args(&all))
    })?;
    let output = cargo::target_dir()?.join("notebooks");
    let tables = output.join("tables");
    step("notebooks: tables of the recording", || {
        // So that nothing can come from an earlier run.
        let _ = fs::remove_dir_all(&output);
        let mut replay = Command::new(cargo::binary("honeyguide")?);
        replay.arg("replay").arg(recording);
        replay.arg("--config").arg(cargo::root().join(OBJECTIVES));
        quiet(
            "notebooks-replay",
            replay
                .arg("--parquet")
                .arg(&tables)
                .env_remove("HONEYGUIDE_CONFIG"),
        )
    })?;
    for notebook in &all {
        let name = notebook.file_name().context("a notebook has a name")?;
        let result = output.join(name);
        step(&format!("notebooks: {}", name.display()), || {
            let mut execute = runner(&python, "execute");
            execute.arg(notebook).arg(&result);
            quiet("notebooks", execute.env("HONEYGUIDE_TABLES", &tables))
        })?;
        println!("· with its outputs: {}", result.display());
    }
    Ok(())
}

fn runner(python: &Path, command: &str) -> Command {
    let mut runner = Command::new(python);
    runner.arg(cargo::root().join(RUNNER)).arg(command);
    // Figures are drawn into the notebook, whatever the user's set-up.
    runner.env_remove("MPLBACKEND").env_remove("PYTHONPATH");
    runner
}

/// At least one.
fn notebooks_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("failed to read {folder:?}"))?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "ipynb")
        })
        .collect();
    found.sort();
    ensure!(!found.is_empty(), "no notebooks in {}", folder.display());
    Ok(found)
}
