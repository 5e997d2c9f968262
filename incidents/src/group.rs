//! Control groups (version 1) that quotas of a service are set on.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

/// Where controllers are mounted.
const ROOT: &str = "/sys/fs/cgroup";
/// Period of CPU quotas: short, so that what waits for one waits shortly.
const CPU_PERIOD_US: f64 = 10_000.0;
/// Weight of a group with a quota: that of processes as urgent as we are, which
/// it is not by itself.
const CPU_SHARES: &str = "9548";
/// Shortest quota that the kernel takes.
const CPU_QUOTA_US_MIN: f64 = 1_000.0;

/// A group of one controller; removed when dropped.
#[derive(Debug)]
pub struct Group {
    path: PathBuf,
}

impl Group {
    /// Makes a group; `parent` of the same controller.
    pub fn make(controller: &str, name: &str, parent: Option<&Group>) -> Result<Group> {
        let root = Path::new(ROOT).join(controller);
        ensure!(
            root.join("cgroup.procs").exists(),
            "incidents need control groups of version 1, and {} is none",
            root.display()
        );
        let path = parent.map_or(root, |parent| parent.path.clone()).join(name);
        fs::create_dir(&path).with_context(|| format!("failed to make {}", path.display()))?;
        Ok(Group { path })
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Limits the CPU time to a share of one CPU.
    pub fn set_cpu(&self, share: f64) -> Result<()> {
        let quota_us = (CPU_PERIOD_US * share).max(CPU_QUOTA_US_MIN);
        self.set("cpu.shares", CPU_SHARES)?;
        // The quota must never exceed the parent's on the way.
        self.set("cpu.cfs_period_us", &format!("{CPU_PERIOD_US}"))?;
        self.set("cpu.cfs_quota_us", &format!("{quota_us:.0}"))
    }

    /// Writes one of its files.
    pub fn set(&self, file: &str, value: &str) -> Result<()> {
        let path = self.path.join(file);
        fs::write(&path, value).with_context(|| format!("failed to set {}", path.display()))
    }
}

impl Group {
    fn kill_all(&self) {
        let left = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        for pid in left.lines().filter_map(|pid| pid.parse().ok()) {
            // SAFETY: a plain system call. Only what we started is in our group.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What ran in it ends a moment after it was waited for. Workers that their
        // server left behind do not, and are nobody's but ours.
        for attempt in 0..50 {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            if attempt > 10 {
                self.kill_all();
            }
            thread::sleep(Duration::from_millis(100));
        }
        eprintln!("{} is still in use and stays", self.path.display());
    }
}
