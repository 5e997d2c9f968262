//! `cargo xtask run`: from a fresh machine to the live table.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    cargo,
    machine::{self, Privilege},
    setup::{self, Purpose},
    step::{self, seconds, step},
};

/// How often the early build says how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(20);

/// Arguments of `cargo xtask run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Arguments of `honeyguide up`.
    #[arg(last = true)]
    up: Vec<String>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    if setup_is_done() {
        setup::prepare(Purpose::Run, &[])?;
    } else {
        // The kernel programs need what is being installed, the other 400
        // crates do not: they are compiled meanwhile.
        let early = EarlyBuild::start()?;
        let prepared = setup::prepare(Purpose::Run, &[]);
        early.finish(prepared.is_ok())?;
        prepared?;
    }
    step("building Honeyguide", || step::show(&mut cargo::build()))?;
    start(args)
}

/// Whether set-up has nothing slow to do.
fn setup_is_done() -> bool {
    setup::Rust::find().is_some() && setup::linker_is_present()
}

/// Starts what this machine can run, in place of this process.
fn start(args: &Args) -> Result<()> {
    let honeyguide = cargo::binary("honeyguide")?;
    let privilege = Privilege::detect();
    let Some(reason) = machine::no_bpf(privilege) else {
        println!("· starting `honeyguide up` as root; Ctrl-C ends it");
        let mut up = privilege.command(&honeyguide);
        return replace(up.arg("up").args(&args.up));
    };
    println!("· kernel events cannot be measured here: {reason}");
    let Some(recording) = recording()? else {
        bail!("{reason}, and bench-data/ holds no recording to replay");
    };
    println!(
        "· replaying a recording of real kernel events instead: honeyguide replay {}",
        recording.display()
    );
    replace(Command::new(honeyguide).arg("replay").arg(recording))
}

/// The first recording in bench-data/.
fn recording() -> Result<Option<PathBuf>> {
    let folder = cargo::root().join("bench-data");
    let mut recordings: Vec<PathBuf> = fs::read_dir(&folder)
        .with_context(|| format!("failed to list {}", folder.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "hgr"))
        .collect();
    recordings.sort();
    Ok(recordings
        .into_iter()
        .next()
        .map(|path| relative_to_here(&path)))
}

fn relative_to_here(path: &Path) -> PathBuf {
    let here = env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).to_owned()
}

/// Becomes `command`, so that signals and the exit code are its own.
#[cfg(unix)]
fn replace(command: &mut Command) -> Result<()> {
    use std::os::unix::process::CommandExt;
    let error = command.exec();
    Err(error).with_context(|| format!("failed to start {:?}", command.get_program()))
}

#[cfg(not(unix))]
fn replace(command: &mut Command) -> Result<()> {
    step::show(command)
}

/// A build of everything that can be built before set-up is done. It is
/// expected to fail where it needs what is missing, and goes on elsewhere.
struct EarlyBuild {
    child: Child,
    start: Instant,
}

impl EarlyBuild {
    fn start() -> Result<Self> {
        println!("· compiling dependencies while the tools are installed");
        let mut child = cargo::build()
            .args(["--keep-going", "--color", "never"])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("failed to start cargo")?;
        let output = child
            .stderr
            .take()
            .context("the build's output is not piped")?;
        let compiled = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&compiled);
        let reader = thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if line.trim_start().starts_with("Compiling ") {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let start = Instant::now();
        thread::spawn(move || {
            while !reader.is_finished() {
                thread::sleep(PROGRESS_INTERVAL);
                println!(
                    "  {} crates compiled or being compiled after {}",
                    compiled.load(Ordering::Relaxed),
                    seconds(start.elapsed())
                );
            }
        });
        Ok(Self { child, start })
    }

    /// Waits for it; without `wanted` it is ended.
    fn finish(mut self, wanted: bool) -> Result<()> {
        if !wanted {
            self.child.kill()?;
        }
        self.child.wait()?;
        println!(
            "· dependencies: done after {}",
            seconds(self.start.elapsed())
        );
        Ok(())
    }
}
