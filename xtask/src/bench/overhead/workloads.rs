//! Workloads of one process: context switches, system calls, disk reads.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cargo;

/// Round trips per round: about half a second.
const PIPE_LOOPS: &str = "100000";
/// System calls per round: about half a second.
const SYSCALL_LOOPS: &str = "3000000";
const DISK_SECS: &str = "1";
const DISK_FILE_SIZE: &str = "256M";

/// Seconds for [`PIPE_LOOPS`] round trips of two processes on one CPU, which
/// is two context switches each and little else.
pub fn pipe_secs() -> Result<f64> {
    perf_bench(&["sched", "pipe", "-l", PIPE_LOOPS])
}

/// Seconds for [`SYSCALL_LOOPS`] calls of the cheapest system call.
pub fn syscall_secs() -> Result<f64> {
    perf_bench(&["syscall", "basic", "-l", SYSCALL_LOOPS])
}

fn perf_bench(args: &[&str]) -> Result<f64> {
    let mut command = Command::new("taskset");
    command.args(["-c", "0", "perf", "bench", "-f", "simple"]);
    let text = output(command.args(args))?;
    let last = text.lines().last().unwrap_or_default().trim().to_owned();
    last.parse()
        .with_context(|| format!("perf bench printed no time: {text}"))
}

/// A file for direct random reads.
pub struct Disk {
    file: PathBuf,
}

impl Disk {
    /// Names it, beside what we build: a real disk, not a tmpfs.
    pub fn create() -> Result<Self> {
        Ok(Self {
            file: cargo::target_dir()?.join("bench").join("overhead.fio"),
        })
    }

    /// Time of one 4 KiB read past the page cache, one at a time.
    pub fn secs_per_read(&self) -> Result<f64> {
        let mut fio = Command::new("fio");
        fio.args(["--name=read", "--rw=randread", "--bs=4k", "--direct=1"]);
        fio.args(["--ioengine=psync", "--time_based", "--randseed=1"]);
        fio.arg(format!("--runtime={DISK_SECS}"));
        fio.arg(format!("--size={DISK_FILE_SIZE}"));
        fio.arg(format!("--filename={}", self.file.display()));
        let text = output(fio.arg("--output-format=json"))?;
        reads_per_sec(&text).map(|reads| 1.0 / reads)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A file left behind is cleaned with the target folder.
        let _ = fs::remove_file(&self.file);
    }
}

fn reads_per_sec(text: &str) -> Result<f64> {
    let start = text.find('{').context("fio printed no JSON")?;
    let value: Value = serde_json::from_str(&text[start..])?;
    let reads = value["jobs"][0]["read"]["iops"].as_f64().unwrap_or(0.0);
    ensure!(reads > 0.0, "fio read nothing");
    Ok(reads)
}

/// Standard output of a command that must succeed.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("failed to start {:?}", command.get_program()))?;
    ensure!(
        output.status.success(),
        "{:?} ended with {}: {}",
        command.get_program(),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fio_reports_are_read_behind_its_notes() {
        let text = "note: something\n{\"jobs\": [{\"read\": {\"iops\": 12500.5}}]}";
        assert_eq!(reads_per_sec(text).unwrap(), 12500.5);
        assert!(reads_per_sec("{\"jobs\": []}").is_err());
        assert!(reads_per_sec("nothing").is_err());
    }
}
