//! What `bench models --peers` is compared with: packages of Python, and a crate.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::json;

use crate::{
    cargo,
    setup::python::PEERS,
    step::{show, step},
};

/// Environment variable with the commands that time peers: a JSON array of
/// arrays of arguments. Each takes a file with a series and a number of steps,
/// and prints one JSON object of figures.
pub const COMMANDS: &str = "HONEYGUIDE_PEERS";

const FOLDER: &str = "models/evaluation/peers";

/// Gets the peers, unless they are there; returns the value of [`COMMANDS`].
pub fn fetch() -> Result<String> {
    PEERS.fetch()?;
    let folder = cargo::root().join(FOLDER);
    let target: PathBuf = cargo::target_dir()?.join("peers");
    step("building peers", || {
        let mut build = cargo::cargo("build");
        build.args(["--release", "--locked", "--manifest-path"]);
        build.arg(folder.join("Cargo.toml"));
        show(build.arg("--target-dir").arg(&target))
    })?;
    let commands = json!([
        [PEERS.python()?, folder.join("speed.py")],
        [target.join("release/rust-peers")],
    ]);
    Ok(commands.to_string())
}
