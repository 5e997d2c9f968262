//! `cargo xtask fuzz`: inputs that libFuzzer makes up, for the parsers that the
//! kernel programs share with user space and for what learns routes.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{
    cargo::{cargo, target_dir},
    setup,
    step::{quiet, show, step},
};

/// The folder of the fuzz targets, a workspace of its own.
const FOLDER: &str = "sensor/fuzz";
/// cargo-fuzz is built into the tool cache when it is missing (a minute).
const VERSION: &str = "0.13";
/// Names of the targets.
const TARGETS: [&str; 2] = ["parsers", "routes"];
/// Bytes of an input at most: what the kernel programs look through of one read.
const INPUT_LEN_MAX: usize = 4096;

/// Arguments of `cargo xtask fuzz`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only these.
    #[arg(value_parser = TARGETS)]
    targets: Vec<String>,
    /// How long each is fed, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// Runs the command. An input that fails is kept, and printed with how to try it
/// again; inputs that reach something new are a start for the next time.
pub fn run(args: &Args) -> Result<()> {
    install()?;
    for target in TARGETS {
        if args.targets.is_empty() || args.targets.iter().any(|wanted| wanted == target) {
            feed(target, args.seconds)?;
        }
    }
    Ok(())
}

/// Feeds every target for so long.
pub fn all(seconds: u32) -> Result<()> {
    run(&Args {
        targets: Vec::new(),
        seconds,
    })
}

fn feed(target: &str, seconds: u32) -> Result<()> {
    let inputs = folder()?.join("corpus").join(target);
    std::fs::create_dir_all(&inputs).with_context(|| format!("no {}", inputs.display()))?;
    let failed = folder()?.join("failed").join(target).join("");
    std::fs::create_dir_all(&failed).with_context(|| format!("no {}", failed.display()))?;
    let mut fuzz = fuzz_command()?;
    fuzz.args(["run", "--fuzz-dir", FOLDER]);
    // The sanitizers want a nightly compiler; what is fuzzed has no `unsafe`.
    fuzz.args(["--sanitizer", "none", target]).arg(&inputs);
    fuzz.arg("--target-dir").arg(folder()?.join("build"));
    fuzz.arg("--").arg(format!("-max_total_time={seconds}"));
    fuzz.arg(format!("-max_len={INPUT_LEN_MAX}"));
    fuzz.arg(format!("-artifact_prefix={}", failed.display()));
    fuzz.arg("-print_final_stats=1");
    step(&format!("fuzzing {target} for {seconds} s"), || {
        show(&mut fuzz)
    })
}

fn folder() -> Result<PathBuf> {
    Ok(target_dir()?.join("fuzz"))
}

fn install() -> Result<()> {
    let installed = fuzz_command()?.arg("--version").output();
    if installed.is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    let mut install = cargo("install");
    install.args(["cargo-fuzz", "--locked", "--version"]);
    install.arg(format!("^{VERSION}"));
    install.arg("--root").arg(setup::prefix()?);
    install.arg("--target-dir").arg(target_dir()?.join("tools"));
    step("building cargo-fuzz (once; kept in the tool cache)", || {
        quiet("cargo-fuzz", &mut install)
    })
}

fn fuzz_command() -> Result<Command> {
    // Through cargo, which hands over its own place.
    let mut fuzz = cargo("fuzz");
    fuzz.env("PATH", setup::linker_path()?);
    Ok(fuzz)
}
