//! What notebooks run with: the Python packages of
//! `notebooks/requirements.txt`, in an environment in the tool cache.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::ebpf::prefix;
use crate::{
    cargo,
    step::{quiet, step},
};

const REQUIREMENTS: &str = "notebooks/requirements.txt";
/// In the environment: the requirements that it was made from. Written last,
/// so that one that is half made is made again.
const MADE_FROM: &str = "made-from.txt";

/// The Python that has everything that notebooks import.
///
/// # Errors
/// When the environment is not there, or was made from other requirements;
/// [`fetch`] makes it.
pub fn python() -> Result<PathBuf> {
    let environment = environment()?;
    let wanted = requirements()?;
    let present = fs::read_to_string(environment.join(MADE_FROM)).unwrap_or_default();
    let python = environment.join("bin/python");
    ensure!(
        present == wanted && python.exists(),
        "the Python packages of notebooks are missing: run `cargo xtask setup --for test`"
    );
    Ok(python)
}

/// Gets the packages, unless they are there. Needs Python with `venv`.
///
/// # Errors
/// When the registry cannot be reached.
pub fn fetch() -> Result<()> {
    if python().is_ok() {
        return Ok(());
    }
    step("getting the Python packages of notebooks (once)", || {
        make(&environment()?)
    })
}

fn make(environment: &Path) -> Result<()> {
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv", "--clear"]).arg(environment);
    quiet("notebooks-venv", &mut venv)?;
    let mut install = Command::new(environment.join("bin/python"));
    install.args(["-m", "pip", "install", "--disable-pip-version-check"]);
    install.arg("--requirement").arg(requirements_path());
    quiet("notebooks-pip", &mut install)?;
    fs::write(environment.join(MADE_FROM), requirements()?)?;
    Ok(())
}

fn environment() -> Result<PathBuf> {
    Ok(prefix()?.join("notebooks-python"))
}

fn requirements_path() -> PathBuf {
    cargo::root().join(REQUIREMENTS)
}

fn requirements() -> Result<String> {
    let path = requirements_path();
    fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_has_one_version() {
        for line in requirements().unwrap().lines() {
            let pinned = line.split("==").count() == 2;
            assert!(pinned || line.starts_with('#'), "{line}");
        }
    }
}
