//! Python packages, in an environment of their own in the tool cache: each is a
//! file of requirements with every version pinned.

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

/// In an environment: the requirements that it was made from. Written last, so
/// that one that is half made is made again.
const MADE_FROM: &str = "made-from.txt";

/// A set of packages.
#[derive(Debug)]
pub struct Environment {
    /// What they are for: `the Python packages of …`.
    of: &'static str,
    folder: &'static str,
    requirements: &'static str,
    /// What makes it.
    setup: &'static str,
}

/// What notebooks run with.
pub const NOTEBOOKS: Environment = Environment {
    of: "notebooks",
    folder: "notebooks-python",
    requirements: "notebooks/requirements.txt",
    setup: "cargo xtask setup --for test",
};

/// What models are compared with.
pub const PEERS: Environment = Environment {
    of: "peers",
    folder: "peers-python",
    requirements: "models/evaluation/peers/requirements.txt",
    setup: "cargo xtask bench models --peers",
};

impl Environment {
    /// The Python that has the packages.
    ///
    /// # Errors
    /// When the environment is not there, or was made from other requirements;
    /// [`Self::fetch`] makes it.
    pub fn python(&self) -> Result<PathBuf> {
        let environment = self.path()?;
        let wanted = self.wanted()?;
        let present = fs::read_to_string(environment.join(MADE_FROM)).unwrap_or_default();
        let python = environment.join("bin/python");
        ensure!(
            present == wanted && python.exists(),
            "the Python packages of {} are missing: run `{}`",
            self.of,
            self.setup
        );
        Ok(python)
    }

    /// Gets the packages, unless they are there. Needs Python with `venv`.
    ///
    /// # Errors
    /// When the registry cannot be reached.
    pub fn fetch(&self) -> Result<()> {
        if self.python().is_ok() {
            return Ok(());
        }
        let what = format!("getting the Python packages of {} (once)", self.of);
        step(&what, || self.make(&self.path()?))
    }

    fn make(&self, environment: &Path) -> Result<()> {
        let mut venv = Command::new("python3");
        venv.args(["-m", "venv", "--clear"]).arg(environment);
        quiet(&format!("{}-venv", self.of), &mut venv)?;
        let mut install = Command::new(environment.join("bin/python"));
        // Nothing but what the file names: some packages ask for much more than
        // the parts of them that are used.
        install.args(["-m", "pip", "install", "--disable-pip-version-check"]);
        install.args(["--no-deps", "--requirement"]);
        install.arg(cargo::root().join(self.requirements));
        quiet(&format!("{}-pip", self.of), &mut install)?;
        fs::write(environment.join(MADE_FROM), self.wanted()?)?;
        Ok(())
    }

    fn path(&self) -> Result<PathBuf> {
        Ok(prefix()?.join(self.folder))
    }

    fn wanted(&self) -> Result<String> {
        let path = cargo::root().join(self.requirements);
        fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_has_one_version() {
        for environment in [NOTEBOOKS, PEERS] {
            for line in environment.wanted().unwrap().lines() {
                let pinned = line.split("==").count() == 2;
                assert!(pinned || line.starts_with('#'), "{line}");
            }
        }
    }
}
