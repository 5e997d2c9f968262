//! `cargo xtask lint`: formatting, clippy, documentation, licences. Warnings
//! are errors.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{
    cargo::{cargo, target_dir, test_features},
    setup::{self, Purpose, Rust},
    step::{answer, quiet, show, step},
};

/// cargo-deny is built into the tool cache when it is missing (two minutes).
const DENY_VERSION: &str = "0.20";

/// What is not in the workspace.
const OTHER_WORKSPACES: [&str; 2] = ["sensor-ebpf/Cargo.toml", "sensor/fuzz/Cargo.toml"];

/// Arguments of `cargo xtask lint`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also look for published vulnerabilities; needs github.com.
    #[arg(long)]
    advisories: bool,
}

/// Runs the command: every check, even after one has failed.
pub fn run(args: &Args) -> Result<()> {
    setup::prepare(Purpose::Run, &[])?;
    let checks: [(&str, &dyn Fn() -> Result<()>); 5] = [
        ("formatting", &formatting),
        ("clippy", &clippy),
        ("kernel programs", &kernel_programs),
        ("documentation", &documentation),
        ("licences and sources", &|| deny(args)),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        if let Err(error) = step(name, check) {
            eprintln!("· {error:#}");
            failed.push(name);
        }
    }
    ensure!(
        failed.is_empty(),
        "these checks failed: {}",
        failed.join(", ")
    );
    Ok(())
}

fn formatting() -> Result<()> {
    show(cargo("fmt").args(["--all", "--check"]))?;
    for manifest in OTHER_WORKSPACES {
        show(cargo("fmt").args(["--manifest-path", manifest, "--check"]))?;
    }
    Ok(())
}

fn clippy() -> Result<()> {
    let mut clippy = cargo("clippy");
    clippy.args(["--workspace", "--all-targets", "--keep-going"]);
    clippy.args(test_features()?);
    show(clippy.args(["--", "-D", "warnings"]))
}

/// The kernel programs for their own target. Debian's toolchain for it has no
/// clippy, so what the compiler says is all there is there.
fn kernel_programs() -> Result<()> {
    let rust = Rust::find().context("no compiler for the kernel programs: cargo xtask setup")?;
    let subcommand = match &rust {
        Rust::Rustup(name) if answer("rustup", &["run", name, "cargo-clippy", "-V"]).is_some() => {
            "clippy"
        }
        _ => "check",
    };
    let target = if cfg!(target_endian = "big") {
        "bpfeb-unknown-none"
    } else {
        "bpfel-unknown-none"
    };
    let mut check = rust.cargo(subcommand);
    check.args(["--release", "--locked", "-Zbuild-std=core"]);
    check.args(["--target", target]).arg("--target-dir");
    check.arg(target_dir()?.join("lint-bpf"));
    // RUSTFLAGS would replace the flags of sensor-ebpf/.cargo/config.toml, but
    // checking links nothing.
    check.env("RUSTFLAGS", "-D warnings");
    show(check.env("PATH", setup::linker_path()?))
}

fn documentation() -> Result<()> {
    let mut doc = cargo("doc");
    // Examples are documented only so that cargo resolves the same features
    // as clippy did, whose work on the dependencies is then reused.
    doc.args(["--workspace", "--no-deps", "--keep-going"]);
    doc.args(["--lib", "--examples"]);
    // The pages of the services' programs would replace those of their crates.
    doc.args(["--bin", "honeyguide", "--bin", "xtask"]);
    doc.args(["--document-private-items"]);
    show(doc.env("RUSTDOCFLAGS", "-D warnings"))
}

fn deny(args: &Args) -> Result<()> {
    let installed = deny_command()?.arg("--version").output();
    if !installed.is_ok_and(|output| output.status.success()) {
        let mut install = cargo("install");
        install.args(["cargo-deny", "--locked", "--version"]);
        install.arg(format!("^{DENY_VERSION}"));
        install.arg("--root").arg(setup::prefix()?);
        install.arg("--target-dir").arg(target_dir()?.join("tools"));
        step("building cargo-deny (once; kept in the tool cache)", || {
            quiet("cargo-deny", &mut install)
        })?;
    }
    for manifest in ["Cargo.toml"].into_iter().chain(OTHER_WORKSPACES) {
        let mut check = deny_command()?;
        check.args(["--manifest-path", manifest, "--config", "deny.toml"]);
        check.arg("check");
        if args.advisories {
            check.arg("advisories");
        }
        show(check.args(["bans", "licenses", "sources"]))?;
    }
    Ok(())
}

fn deny_command() -> Result<Command> {
    // Through cargo, which hands over its own place.
    let mut deny = cargo("deny");
    deny.env("PATH", setup::linker_path()?);
    Ok(deny)
}
