//! Builds the kernel programs (`sensor-ebpf`) and hands their object to `program.rs`.
//!
//! The BPF target needs `core` from source. The first toolchain found that has
//! it is used: a rustup nightly with `rust-src`, else the distribution's
//! `rustc` with its `rust-src` (Debian: rustc-web, cargo-web, rust-web-src).

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail, ensure};
use object::{build::elf as build, elf};

const OBJECT: &str = "sensor-ebpf.o";

fn main() -> anyhow::Result<()> {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("..");
    let out = PathBuf::from(variable("OUT_DIR")?);
    for watched in [
        "sensor-ebpf/src",
        "sensor-ebpf/Cargo.toml",
        "sensor-ebpf/Cargo.lock",
        "sensor/common/src",
    ] {
        println!("cargo::rerun-if-changed={}", root.join(watched).display());
    }
    println!("cargo::rerun-if-env-changed=HONEYGUIDE_CACHE");
    if variable("CARGO_CFG_TARGET_OS")? != "linux" {
        fs::write(out.join(OBJECT), [])?;
        return Ok(());
    }
    let target = match variable("CARGO_CFG_TARGET_ENDIAN")?.as_str() {
        "big" => "bpfeb-unknown-none",
        _ => "bpfel-unknown-none",
    };
    let toolchain = Toolchain::find()?;
    let linker_path = linker_path()?;
    let status = toolchain
        .cargo()
        .args([
            "build",
            "--release",
            "--locked",
            "-Zbuild-std=core",
            "--target",
            target,
        ])
        .current_dir(root.join("sensor-ebpf"))
        .env("CARGO_TARGET_DIR", out.join("bpf"))
        .env("PATH", linker_path)
        .status()
        .with_context(|| format!("failed to start the BPF build with {toolchain:?}"))?;
    ensure!(
        status.success(),
        "the kernel programs did not build with {toolchain:?}; the compiler's messages are above \
         (is the toolchain complete? `cargo xtask setup` installs it)"
    );
    let built = out.join("bpf").join(target).join("release/sensor");
    let object = fs::read(&built).with_context(|| format!("no object at {}", built.display()))?;
    fs::write(out.join(OBJECT), without_debug_sections(&object)?)?;
    Ok(())
}

/// The object without what is for debuggers, three quarters of it, which would be
/// part of every program that has the sensor. The kernel's own kind of debug
/// information (BTF) stays.
fn without_debug_sections(object: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut builder = build::Builder::read(object).context("the object is no ELF file")?;
    for section in &mut builder.sections {
        let name = section.name.as_slice();
        section.delete = name.starts_with(b".debug_") || name.starts_with(b".rel.debug_");
    }
    builder.delete_orphans();
    // LLVM has the names of sections among those of symbols, which is not written.
    let names = builder.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = elf::SHT_STRTAB;
    names.data = build::SectionData::SectionString;
    let mut written = Vec::new();
    builder.write(&mut written)?;
    Ok(written)
}

fn variable(name: &str) -> anyhow::Result<String> {
    env::var(name).with_context(|| format!("cargo did not set {name}"))
}

#[derive(Debug)]
enum Toolchain {
    /// A rustup toolchain by name.
    Rustup(String),
    /// The distribution's compiler, which needs leave to use unstable features.
    Distribution,
}

impl Toolchain {
    fn find() -> anyhow::Result<Toolchain> {
        let sources = "lib/rustlib/src/rust/library/core/Cargo.toml";
        if let Ok(listed) = Command::new("rustup")
            .args(["toolchain", "list", "-v"])
            .output()
        {
            for line in String::from_utf8_lossy(&listed.stdout).lines() {
                let mut words = line.split_whitespace();
                let (Some(name), Some(path)) = (words.next(), words.next_back()) else {
                    continue;
                };
                if name.starts_with("nightly") && Path::new(path).join(sources).exists() {
                    return Ok(Toolchain::Rustup(name.to_owned()));
                }
            }
        }
        if Path::new("/usr").join(sources).exists() && Path::new("/usr/bin/cargo").exists() {
            return Ok(Toolchain::Distribution);
        }
        bail!(
            "no Rust toolchain with the sources of `core`, which the kernel programs need: run \
             `cargo xtask setup`, or `rustup toolchain install nightly --component rust-src`"
        )
    }

    /// Cargo of this toolchain, in a clean environment: what the outer cargo
    /// sets for the host (flags, target, wrappers) must not reach the BPF build.
    fn cargo(&self) -> Command {
        let mut command = match self {
            Toolchain::Rustup(name) => {
                let mut command = Command::new("rustup");
                command.args(["run", name, "cargo"]);
                command
            }
            Toolchain::Distribution => Command::new("/usr/bin/cargo"),
        };
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            let keep = matches!(text.as_ref(), "CARGO_HOME" | "RUSTUP_HOME")
                || text.starts_with("CARGO_REGISTRIES_")
                || text.starts_with("CARGO_HTTP_")
                || text.starts_with("CARGO_NET_");
            if !keep && (text.starts_with("CARGO") || text.starts_with("RUST")) {
                command.env_remove(&name);
            }
        }
        if let Toolchain::Distribution = self {
            command
                .env("RUSTC", "/usr/bin/rustc")
                .env("RUSTC_BOOTSTRAP", "1");
        }
        command
    }
}

/// PATH with the tool cache, where `cargo xtask setup` puts `bpf-linker`.
fn linker_path() -> anyhow::Result<OsString> {
    let cache = env::var_os("HONEYGUIDE_CACHE")
        .map(PathBuf::from)
        .or_else(|| env::var_os("XDG_CACHE_HOME").map(|cache| Path::new(&cache).join("honeyguide")))
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache/honeyguide")));
    let mut directories: Vec<PathBuf> = cache
        .into_iter()
        .map(|cache| cache.join("tools/bin"))
        .collect();
    directories.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    ensure!(
        directories
            .iter()
            .any(|directory| directory.join("bpf-linker").exists()),
        "bpf-linker was not found in PATH or the tool cache: run `cargo xtask setup`, or \
         `cargo install bpf-linker --version ^0.13`"
    );
    Ok(env::join_paths(directories)?)
}
