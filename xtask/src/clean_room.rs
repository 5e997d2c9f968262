//! `cargo xtask clean-room`: what a newcomer gets.
//!
//! Clones HEAD into an empty folder, with empty target, cargo home and tool
//! cache, and runs README's two commands there. Packages that are already
//! installed stay installed.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result};

use crate::{
    cargo,
    step::{seconds, show},
};

/// Arguments of `cargo xtask clean-room`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long the live table is watched.
    #[arg(long, default_value = "90s")]
    duration: String,
    /// Leave out `cargo xtask test`.
    #[arg(long)]
    only_run: bool,
    /// Keep the folder afterwards.
    #[arg(long)]
    keep: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let room = Room::create(args.keep)?;
    room.clone_head()?;
    let mut times = Vec::new();
    let first = ["run", "--", "--duration", &args.duration];
    times.push(("cargo xtask run, first time", room.time(&first)?));
    times.push(("cargo xtask run, second time", room.time(&first)?));
    if !args.only_run {
        times.push(("cargo xtask test", room.time(&["test"])?));
    }
    println!("· clean room (a run includes its {}):", args.duration);
    for (command, time) in times {
        println!("  {command}: {time}");
    }
    Ok(())
}

/// An empty folder, removed at the end.
struct Room {
    path: PathBuf,
    keep: bool,
}

impl Room {
    fn create(keep: bool) -> Result<Self> {
        let path = env::temp_dir().join(format!("honeyguide-clean-room-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("failed to create {}", path.display()))?;
        let room = Self { path, keep };
        let cargo_home = room.path.join("cargo-home");
        fs::create_dir(&cargo_home)?;
        // Where the registry is, not what was downloaded from it.
        for name in ["config.toml", "config", "credentials.toml"] {
            if let Some(present) = users_cargo_home().map(|home| home.join(name))
                && present.exists()
            {
                fs::copy(&present, cargo_home.join(name))?;
            }
        }
        Ok(room)
    }

    fn clone_head(&self) -> Result<()> {
        let mut clone = Command::new("git");
        clone.args(["clone", "--quiet", "--no-hardlinks"]);
        show(clone.arg(cargo::root()).arg(self.checkout()))
    }

    fn checkout(&self) -> PathBuf {
        self.path.join("honeyguide")
    }

    /// Runs `cargo xtask ARGS` as a newcomer's shell would; says how long it took.
    fn time(&self, args: &[&str]) -> Result<String> {
        let start = Instant::now();
        let mut command = Command::new("cargo");
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO") || text == "RUSTUP_TOOLCHAIN" {
                command.env_remove(&name);
            }
        }
        command
            .arg("xtask")
            .args(args)
            .current_dir(self.checkout())
            .env("CARGO_HOME", self.path.join("cargo-home"))
            .env("HONEYGUIDE_CACHE", self.path.join("cache"));
        show(&mut command)?;
        Ok(seconds(start.elapsed()))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.keep {
            println!("· kept {}", self.path.display());
        } else if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("  not removed: {}: {error}", self.path.display());
        }
    }
}

fn users_cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cargo")))
}
