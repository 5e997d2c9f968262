//! What files of the kernel say of waiting: pressure stall information (PSI)
//! and CPU quotas used up.
//!
//! The kernel counts both by cgroup, so no program is needed: the files are read
//! at every flush, and the difference is the window's. PSI is that of
//! Documentation/accounting/psi.rst ("some": at least one task waits), cgroups
//! of version 2 have it, and the machine as a whole. Quotas (`cpu.max`,
//! `cpu.cfs_quota_us`) are counted in `cpu.stat` of either version.
//!
//! Here is where the files are, what is in them ([`counters`]) and what changed
//! ([`meters`]); whose they are is told by [`crate::drain`].

pub mod counters;
pub mod meters;

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use sensor_common::Signal;

use self::meters::FileId;
use crate::{identity::Hierarchy, program::probe::Probe};

/// Bytes of a file at most; the kernel writes a few hundred.
const FILE_MAX: usize = 4096;
/// Pressure of the machine as a whole.
const MACHINE: &str = "/proc/pressure";
/// There if the kernel has CPU quotas (CONFIG_CFS_BANDWIDTH).
const QUOTAS: &str = "/proc/sys/kernel/sched_cfs_bandwidth_slice_us";
/// Names of the version 1 hierarchy with the cpu controller.
const V1_CPU: [&str; 2] = ["cpu", "cpu,cpuacct"];
/// Signals of PSI and their files, in `/proc/pressure` without the suffix.
const PRESSURES: [(Signal, &str); 3] = [
    (Signal::CpuPressure, "cpu"),
    (Signal::IoPressure, "io"),
    (Signal::MemoryPressure, "memory"),
];

/// Where the files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Root of the hierarchy that names services, if it is of version 2.
    v2: Option<PathBuf>,
    /// Root of the version 1 hierarchy with the cpu controller. Groups of a
    /// service have the same path in every hierarchy.
    v1_cpu: Option<PathBuf>,
}

impl Places {
    /// Where `hierarchy` names services.
    pub fn of(hierarchy: &Hierarchy) -> Self {
        let v2 = hierarchy.v1_controller.is_none();
        let v1_cpu = V1_CPU.map(|name| hierarchy.mounts.join(name));
        Self {
            v2: v2.then(|| hierarchy.root.clone()),
            v1_cpu: v1_cpu
                .into_iter()
                .find(|root| root.join("cpu.stat").exists()),
        }
    }

    /// Whether the files are there that `probe` reads at number `level` of its
    /// [`levels`](Probe::levels). Probes of programs read none.
    ///
    /// # Errors
    /// What is missing, on one line.
    pub fn check(&self, probe: Probe, level: usize) -> Result<(), String> {
        match probe {
            Probe::Pressure => {
                let mut text = Vec::new();
                let machine = Path::new(MACHINE).join("cpu");
                read(&machine, &mut text).map_err(|error| {
                    let file = machine.display();
                    format!("{file}: {error} (CONFIG_PSI, at boot psi=1)")
                })?;
                match level == 0 && self.v2.is_none() {
                    true => Err("services are known by cgroups of version 1, which have no pressure stall information".to_owned()),
                    false => Ok(()),
                }
            }
            Probe::Throttling => {
                if !Path::new(QUOTAS).exists() {
                    return Err("the kernel has no CPU quotas (CONFIG_CFS_BANDWIDTH)".to_owned());
                }
                let controllers = self.v2.as_ref().map(|root| root.join("cgroup.controllers"));
                let controllers = controllers.and_then(|file| fs::read_to_string(file).ok());
                let v2 = controllers
                    .is_some_and(|names| names.split_whitespace().any(|name| name == "cpu"));
                match v2 || self.v1_cpu.is_some() {
                    true => Ok(()),
                    false => Err("no cgroup hierarchy has the cpu controller".to_owned()),
                }
            }
            _ => Ok(()),
        }
    }

    /// Files of PSI of the machine.
    pub fn of_machine() -> [(Signal, PathBuf); 3] {
        PRESSURES.map(|(signal, name)| (signal, Path::new(MACHINE).join(name)))
    }

    /// Files of PSI of the group at `path`, if there are any.
    pub fn pressure(&self, path: &Path) -> Option<[(Signal, PathBuf); 3]> {
        let group = self.v2.as_ref()?.join(path);
        Some(PRESSURES.map(|(signal, name)| (signal, group.join(format!("{name}.pressure")))))
    }

    /// Files that may count the quota of the group at `path`: of those that are
    /// there the first that does.
    pub fn throttling(&self, path: &Path) -> Vec<PathBuf> {
        let roots = self.v2.iter().chain(&self.v1_cpu);
        roots.map(|root| root.join(path).join("cpu.stat")).collect()
    }
}

/// Reads a file of the kernel into `text`, as much as it gives at once.
///
/// # Errors
/// Of the system; the file is gone with its group, or PSI is switched off for it.
pub fn read(path: &Path, text: &mut Vec<u8>) -> io::Result<FileId> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    text.resize(FILE_MAX, 0);
    let length = file.read(text)?;
    text.truncate(length);
    Ok(FileId {
        device: metadata.dev(),
        inode: metadata.ino(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_where_services_are_named() {
        let tree = tempfile::tempdir().unwrap();
        let mounts = tree.path();
        let (v2, v1) = (mounts.join("unified"), mounts.join("cpu,cpuacct"));
        fs::create_dir_all(v2.join("x.service")).unwrap();
        fs::create_dir_all(&v1).unwrap();
        fs::write(v2.join("cgroup.controllers"), "hugetlb\n").unwrap();
        let group = Path::new("x.service");
        let stats = [&v2, &v1].map(|root| root.join("x.service/cpu.stat"));

        let places = Places::of(&Hierarchy::find(mounts));
        assert_eq!(places.throttling(group), [stats[0].clone()]);
        assert!(places.check(Probe::Throttling, 0).is_err());
        let files = places.pressure(group).unwrap();
        let memory = (Signal::MemoryPressure, v2.join("x.service/memory.pressure"));
        assert_eq!(files[2], memory);

        fs::write(v1.join("cpu.stat"), "").unwrap();
        assert_eq!(
            Places::of(&Hierarchy::find(mounts)).throttling(group),
            stats
        );
        let of_version_1 = Hierarchy {
            root: mounts.join("memory"),
            mounts: mounts.to_owned(),
            v1_controller: Some("memory"),
        };
        let places = Places::of(&of_version_1);
        assert_eq!(places.pressure(group), None);
        assert_eq!(places.throttling(group), [stats[1].clone()]);
        let why = places.check(Probe::Pressure, 0).unwrap_err();
        assert!(
            why.contains("version 1") || why.contains("CONFIG_PSI"),
            "{why}"
        );
    }
}
