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
pub const KERNEL_TESTS: &str = "kernel-tests";
/// The feature of crates whose tests need a real Kafka.
pub const BROKER_TESTS: &str = "broker-tests";

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

    fn features(&self, wanted: &[&str]) -> Vec<String> {
        let of_package = |package: &Value| {
            let name = package["name"].as_str().unwrap_or_default().to_owned();
            let has = |feature: &&&str| package["features"].get(**feature).is_some();
            let features = wanted.iter().filter(has);
            features
                .map(|feature| format!("{name}/{feature}"))
                .collect::<Vec<_>>()
        };
        self.packages().flat_map(of_package).collect()
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

/// `--features` that turn on those of `wanted` that each crate has.
pub fn features(wanted: &[&str]) -> Result<Vec<String>> {
    Ok(match Metadata::get()?.features(wanted) {
        names if names.is_empty() => Vec::new(),
        names => vec!["--features".to_owned(), names.join(",")],
    })
}

/// As [`features`], for everything there is to test.
pub fn test_features() -> Result<Vec<String>> {
    features(&[KERNEL_TESTS, BROKER_TESTS])
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
            {"name": "b", "features": {"broker-tests": [], "kernel-tests": []}, "targets": []},
            {"name": "c", "features": {}, "targets": []},
        ]}))
    }

    #[test]
    fn crates_get_the_features_they_have() {
        let one = metadata().features(&[KERNEL_TESTS]);
        assert_eq!(one, ["a/kernel-tests", "b/kernel-tests"]);
        let both = metadata().features(&[KERNEL_TESTS, BROKER_TESTS]);
        assert_eq!(both, ["a/kernel-tests", "b/kernel-tests", "b/broker-tests"]);
        assert!(metadata().features(&[]).is_empty());
    }

    #[test]
    fn libraries_are_not_programs() {
        let programs: Vec<_> = metadata().targets().filter(is_program).collect();
        assert_eq!(programs.len(), 1);
        assert_eq!(programs[0].name, "wire");
    }
}
