//! Steps of a command: said before, timed after, their output kept.

use std::{
    ffi::OsStr,
    fs::{self, File},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::cargo;

/// Lines of a failed quiet step that are shown.
const TAIL_LINES: usize = 40;

/// Announces `what`, does it, and says how long it took.
pub fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("· {what} …");
    let start = Instant::now();
    let result = work().with_context(|| format!("failed to do this: {what}"))?;
    println!("· {what}: done in {}", seconds(start.elapsed()));
    Ok(result)
}

/// Runs a command whose output the user should see.
///
/// # Errors
/// When it does not start or does not succeed.
pub fn show(command: &mut Command) -> Result<()> {
    println!("  $ {}", words(command));
    let status = command
        .status()
        .with_context(|| format!("failed to start `{}`", words(command)))?;
    if !status.success() {
        bail!("`{}` ended with {status}", words(command));
    }
    Ok(())
}

/// Runs a command whose output matters only when it fails; it goes to
/// `target/xtask-logs/<log>.log`.
///
/// # Errors
/// When it does not start or does not succeed, with the end of its output.
pub fn quiet(log: &str, command: &mut Command) -> Result<()> {
    let path = log_path(log)?;
    let file = File::create(&path).with_context(|| format!("failed to create {path:?}"))?;
    let status = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .with_context(|| format!("failed to start `{}`", words(command)))?;
    if status.success() {
        return Ok(());
    }
    let output = fs::read_to_string(&path).unwrap_or_default();
    let lines: Vec<&str> = output.lines().collect();
    for line in &lines[lines.len().saturating_sub(TAIL_LINES)..] {
        eprintln!("  {line}");
    }
    bail!(
        "`{}` ended with {status}; its output is in {}",
        words(command),
        path.display()
    );
}

/// What a command prints on standard output, or `None` when it cannot be run
/// or fails: for asking the machine what it has.
pub fn answer(program: impl AsRef<OsStr>, args: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Where the output of a quiet step named `log` is kept.
pub fn log_path(log: &str) -> Result<PathBuf> {
    let directory = cargo::target_dir()?.join("xtask-logs");
    fs::create_dir_all(&directory).with_context(|| format!("failed to create {directory:?}"))?;
    Ok(directory.join(format!("{log}.log")))
}

/// "0.4 s", "75 s", "3 min 20 s".
pub fn seconds(elapsed: Duration) -> String {
    match elapsed.as_secs() {
        0..=9 => format!("{:.1} s", elapsed.as_secs_f64()),
        secs @ 10..=119 => format!("{secs} s"),
        secs => format!("{} min {} s", secs / 60, secs % 60),
    }
}

/// A command as one would type it.
fn words(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_like_speech() {
        for (millis, expected) in [(400, "0.4 s"), (75_000, "75 s"), (200_000, "3 min 20 s")] {
            assert_eq!(seconds(Duration::from_millis(millis)), expected);
        }
    }
}
