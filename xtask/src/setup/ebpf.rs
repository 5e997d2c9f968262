//! The toolchain of the kernel programs: a compiler with the sources of
//! `core`, and bpf-linker. `sensor/build.rs` looks in the same places.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::packages;
use crate::{
    cargo::{cargo, target_dir},
    step::{answer, quiet},
};

/// The linker's version; older ones do not understand the compiler's output.
const LINKER_VERSION: &str = "0.13";
const SOURCES: &str = "lib/rustlib/src/rust/library/core/Cargo.toml";

/// A Rust compiler that can build for the BPF target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rust {
    /// A rustup toolchain, by name.
    Rustup(String),
    /// The distribution's, in /usr/bin.
    Distribution,
}

impl Rust {
    /// The one `sensor/build.rs` will use: a rustup nightly with `rust-src`
    /// before the distribution's.
    pub fn find() -> Option<Self> {
        let listed = answer("rustup", &["toolchain", "list", "-v"]).unwrap_or_default();
        if let Some(name) = nightly_with_sources(&listed, |path| path.join(SOURCES).exists()) {
            return Some(Self::Rustup(name));
        }
        let present =
            Path::new("/usr/bin/cargo").exists() && Path::new("/usr").join(SOURCES).exists();
        present.then_some(Self::Distribution)
    }

    /// Major version of the LLVM inside the compiler.
    pub fn llvm_major(&self) -> Option<u32> {
        let version = match self {
            Self::Rustup(name) => answer("rustup", &["run", name, "rustc", "-vV"]),
            Self::Distribution => answer("/usr/bin/rustc", &["-vV"]),
        };
        llvm_major(&version?)
    }

    /// `cargo SUBCOMMAND` of this toolchain in the folder of the kernel
    /// programs, free of what the outer cargo set for the host.
    pub fn cargo(&self, subcommand: &str) -> Command {
        let mut command = match self {
            Self::Rustup(name) => {
                let mut command = Command::new("rustup");
                command.args(["run", name, "cargo"]);
                command
            }
            Self::Distribution => Command::new("/usr/bin/cargo"),
        };
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            let ours =
                name == "CARGO" || name.starts_with("CARGO_PKG_") || name.starts_with("RUST");
            if ours && name != "RUSTUP_HOME" {
                command.env_remove(name);
            }
        }
        if *self == Self::Distribution {
            command
                .env("RUSTC", "/usr/bin/rustc")
                .env("RUSTC_BOOTSTRAP", "1");
        }
        command
            .arg(subcommand)
            .current_dir(crate::cargo::root().join("sensor-ebpf"));
        command
    }
}

fn nightly_with_sources(listed: &str, has_sources: impl Fn(&Path) -> bool) -> Option<String> {
    listed.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (name, path) = (words.next()?, words.next_back()?);
        (name.starts_with("nightly") && has_sources(Path::new(path))).then(|| name.to_owned())
    })
}

fn llvm_major(version: &str) -> Option<u32> {
    let line = version
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))?;
    line.split('.').next()?.parse().ok()
}

/// Folder of tools we build: `$HONEYGUIDE_CACHE/tools`, else
/// `$XDG_CACHE_HOME/honeyguide/tools`, else `~/.cache/honeyguide/tools`.
pub fn prefix() -> Result<PathBuf> {
    let cache = env::var_os("HONEYGUIDE_CACHE")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&env::var_os("XDG_CACHE_HOME")?).join("honeyguide")))
        .or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cache/honeyguide")))
        .context("no folder for built tools: set HOME or HONEYGUIDE_CACHE")?;
    Ok(cache.join("tools"))
}

/// PATH, with the tools we build in front.
pub fn linker_path() -> Result<OsString> {
    let mut folders = vec![prefix()?.join("bin")];
    folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    Ok(env::join_paths(folders)?)
}

/// A bpf-linker that starts and is of the right version.
pub fn linker() -> Option<PathBuf> {
    let path = linker_path().ok()?;
    env::split_paths(&path)
        .map(|folder| folder.join("bpf-linker"))
        .find(|program| {
            program.exists()
                && answer(program, &["--version"]).is_some_and(|text| is_current(&text))
        })
}

fn is_current(version: &str) -> bool {
    version
        .trim()
        .strip_prefix("bpf-linker ")
        .and_then(|number| number.strip_prefix(LINKER_VERSION))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Builds bpf-linker into `prefix`, with the LLVM that fits the compiler.
pub fn build_linker(prefix: &Path) -> Result<()> {
    let installed: Vec<u32> = (1..100)
        .filter(|major| llvm_prefix(*major).join("bin/llvm-config").exists())
        .collect();
    let compiler = Rust::find().and_then(|rust| rust.llvm_major());
    let major = packages::choose_llvm(compiler, &installed)?;
    quiet(
        "bpf-linker",
        cargo("install")
            .args(["bpf-linker", "--locked", "--no-default-features"])
            .args(["--version", &format!("^{LINKER_VERSION}")])
            .args(["--features", &format!("llvm-{major}")])
            .arg("--root")
            .arg(prefix)
            .arg("--target-dir")
            .arg(target_dir()?.join("tools"))
            .env("LLVM_PREFIX", llvm_prefix(major)),
    )
}

fn llvm_prefix(major: u32) -> PathBuf {
    format!("/usr/lib/llvm-{major}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nightly_counts_only_with_sources() {
        let listed =
            "stable-x (default) /r/stable-x\nnightly-a /r/nightly-a\nnightly-b /r/nightly-b\n";
        let with = |wanted: &'static str| move |path: &Path| path.ends_with(wanted);
        assert_eq!(
            nightly_with_sources(listed, with("nightly-b")).as_deref(),
            Some("nightly-b")
        );
        assert_eq!(nightly_with_sources(listed, with("stable-x")), None);
        assert_eq!(nightly_with_sources("no toolchains\n", |_| true), None);
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(llvm_major("rustc 1.96.0\nLLVM version: 22.1.8\n"), Some(22));
        assert_eq!(llvm_major("rustc 1.96.0\n"), None);
        assert!(is_current("bpf-linker 0.13.0\n"));
        assert!(!is_current("bpf-linker 0.12.9\n"));
        assert!(!is_current("bpf-linker 0.130.0\n"));
    }
}
