//! How the workspace is built.
//!
//! Cargo resolves dependency features for the packages and targets it is asked
//! for. If `run` asked for less than `test`, tokio would get other features
//! and polars, which depends on it, would be compiled twice (minutes). So every
//! command selects the whole workspace, and a target that needs the
//! dev-dependencies.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The feature of crates whose tests need root and BPF.
const KERNEL_TESTS: &str = "kernel-tests";

/// The folder of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies inside the workspace")
}

/// `cargo SUBCOMMAND` in the workspace, with the environment a shell would
/// give it: what the outer `cargo run` adds about xtask would make build
/// scripts run again.
pub fn cargo(subcommand: &str) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name.as_ref());
        }
    }
    command.arg(subcommand).current_dir(root());
    command
}

/// Builds the binaries and examples of the whole workspace.
pub fn build() -> Command {
    let mut command = cargo("build");
    command.args(["--workspace", "--bins", "--examples"]);
    command
}

/// A target of a workspace member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `bin`, `bench`, `example`, ….
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// What `cargo metadata` says about the workspace.
struct Metadata(Value);

impl Metadata {
    fn load() -> Result<Self> {
        let output = cargo("metadata")
            .args(["--no-deps", "--format-version", "1"])
            .output()
            .context("failed to start cargo")?;
        ensure!(
            output.status.success(),
            "cargo metadata failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(Self(serde_json::from_slice(&output.stdout)?))
    }

    fn get() -> Result<&'static Self> {
        static METADATA: OnceLock<Metadata> = OnceLock::new();
        if let Some(metadata) = METADATA.get() {
            return Ok(metadata);
        }
        let metadata = Self::load()?;
        Ok(METADATA.get_or_init(|| metadata))
    }

    fn packages(&self) -> impl Iterator<Item = &Value> {
        self.0["packages"].as_array().into_iter().flatten()
    }

    fn kernel_features(&self) -> Vec<String> {
        self.packages()
            .filter(|package| package["features"].get(KERNEL_TESTS).is_some())
            .filter_map(|package| package["name"].as_str())
            .map(|name| format!("{name}/{KERNEL_TESTS}"))
            .collect()
    }

    fn targets(&self) -> impl Iterator<Item = Target> {
        let targets = |package: &Value| package["targets"].as_array().cloned();
        self.packages()
            .filter_map(targets)
            .flatten()
            .filter_map(|target| {
                Some(Target {
                    kind: target["kind"][0].as_str()?.to_owned(),
                    name: target["name"].as_str()?.to_owned(),
                })
            })
    }
}

/// Cargo's target directory.
pub fn target_dir() -> Result<PathBuf> {
    let directory = Metadata::get()?.0["target_directory"]
        .as_str()
        .context("cargo metadata names no target directory")?;
    Ok(directory.into())
}

/// A binary of the workspace, once built.
pub fn binary(name: &str) -> Result<PathBuf> {
    Ok(target_dir()?.join("debug").join(name))
}

/// `--features` of every crate that has kernel tests.
pub fn kernel_features() -> Result<Vec<String>> {
    Ok(match Metadata::get()?.kernel_features() {
        names if names.is_empty() => Vec::new(),
        names => vec!["--features".to_owned(), names.join(",")],
    })
}

/// The bench or example called `name`, with `_` for `-`.
pub fn program(name: &str) -> Result<Option<Target>> {
    let name = name.replace('-', "_");
    Ok(Metadata::get()?
        .targets()
        .find(|target| is_program(target) && target.name.replace('-', "_") == name))
}

fn is_program(target: &Target) -> bool {
    matches!(target.kind.as_str(), "bench" | "example")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn metadata() -> Metadata {
        Metadata(json!({"packages": [
            {"name": "a", "features": {"kernel-tests": []}, "targets": [
                {"kind": ["lib"], "name": "a"},
                {"kind": ["bench"], "name": "wire"},
            ]},
            {"name": "b", "features": {}, "targets": []},
        ]}))
    }

    #[test]
    fn only_crates_with_kernel_tests_get_the_feature() {
        assert_eq!(metadata().kernel_features(), ["a/kernel-tests"]);
    }

    #[test]
    fn libraries_are_not_programs() {
        let programs: Vec<_> = metadata().targets().filter(is_program).collect();
        assert_eq!(programs.len(), 1);
        assert_eq!(programs[0].name, "wire");
    }
}
