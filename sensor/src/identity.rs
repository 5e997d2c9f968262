//! Who a kernel service is, for people.
//!
//! The kernel knows a cgroup id (the inode number of the cgroup's directory)
//! and a command name. The directory's path tells the rest: a container of a
//! pod, a container, or a systemd unit; what is in none of them (login
//! sessions, the root group) is known by its executable.

mod cgroup_path;

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use honeyguide_proto::{ServiceId, ServiceKind};
use sensor_common::record::{HOST_SERVICE, OTHER_SERVICE, ServiceKey};

pub use cgroup_path::{Owner, owner, service_group};

/// Directories of a cgroup tree visited at most in one scan.
const DIRECTORIES_MAX: usize = 65_536;
/// Command name the kernel programs give to all kernel threads.
const KERNEL_COMM: &[u8] = b"[kernel]";
/// Longest command name the kernel keeps; a longer one is cut there.
const COMM_CUT: usize = 15;

/// The cgroup hierarchy whose groups name services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub root: PathBuf,
    /// Where all hierarchies are mounted.
    pub mounts: PathBuf,
    /// The version 1 controller it belongs to; `None` for version 2.
    pub v1_controller: Option<&'static str>,
}

impl Hierarchy {
    /// The hierarchy of this machine: version 2 if it holds groups, else the
    /// version 1 `memory` or `cpu` controller, else version 2 even if empty.
    /// `mounts` replaces `/sys/fs/cgroup` (in a container, the host's tree).
    pub fn find(mounts: &Path) -> Hierarchy {
        let v2_root = [mounts.to_owned(), mounts.join("unified")]
            .into_iter()
            .find(|candidate| candidate.join("cgroup.controllers").exists());
        let has_groups = |path: &Path| {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            entries
                .into_iter()
                .any(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        };
        let v2 = |root: PathBuf| Hierarchy {
            root,
            mounts: mounts.to_owned(),
            v1_controller: None,
        };
        if let Some(found) = v2_root.clone().filter(|path| has_groups(path)) {
            return v2(found);
        }
        for controller in ["memory", "cpu"] {
            let path = mounts.join(controller);
            if path.join("cgroup.procs").exists() && has_groups(&path) {
                return Hierarchy {
                    root: path,
                    mounts: mounts.to_owned(),
                    v1_controller: Some(controller),
                };
            }
        }
        v2(v2_root.unwrap_or_else(|| mounts.to_owned()))
    }
}

/// Names kernel services; remembers the cgroup tree.
#[derive(Debug)]
pub struct Names {
    hierarchy: Hierarchy,
    host: ServiceId,
    paths: HashMap<u64, PathBuf>,
}

impl Names {
    /// Reads the tree of `hierarchy` once.
    pub fn new(hierarchy: Hierarchy, hostname: &str) -> Self {
        let mut names = Self {
            hierarchy,
            host: ServiceId::named(ServiceKind::Host, hostname),
            paths: HashMap::new(),
        };
        names.scan();
        names
    }

    /// Reads the tree again, for groups made since.
    pub fn scan(&mut self) {
        self.paths.clear();
        let mut pending = vec![self.hierarchy.root.clone()];
        while let Some(directory) = pending.pop() {
            if self.paths.len() == DIRECTORIES_MAX {
                tracing::warn!(
                    DIRECTORIES_MAX,
                    "cgroup tree too large; the rest is named by executable"
                );
                return;
            }
            // A group may vanish between listing and looking.
            let Ok(metadata) = fs::metadata(&directory) else {
                continue;
            };
            let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
            let groups = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            pending.extend(groups.map(|entry| entry.path()));
            self.paths.insert(metadata.ino(), directory);
        }
    }

    /// Whether the group is one that the last scan saw.
    pub fn knows(&self, cgroup_id: u64) -> bool {
        self.paths.contains_key(&cgroup_id)
    }

    /// The cgroup that is the service with `key` as a whole, relative to the root
    /// of the hierarchy, if there is one.
    pub fn group(&self, key: &ServiceKey) -> Option<PathBuf> {
        if key.comm.starts_with(KERNEL_COMM) {
            return None;
        }
        let path = self.paths.get(&key.cgroup_id)?;
        service_group(path.strip_prefix(&self.hierarchy.root).ok()?).map(Path::to_owned)
    }

    /// The name of the kernel service `index` with `key`; `tgid` is a process
    /// of it that may have ended.
    pub fn name(&self, index: u32, key: &ServiceKey, tgid: u32) -> ServiceId {
        match index {
            OTHER_SERVICE => return ServiceId::named(ServiceKind::Host, "other"),
            HOST_SERVICE => return self.host.clone(),
            _ => {}
        }
        let comm = comm(key);
        if key.comm.starts_with(KERNEL_COMM) {
            return ServiceId::named(ServiceKind::Process, &comm);
        }
        let path = self.paths.get(&key.cgroup_id);
        let relative = path.and_then(|path| path.strip_prefix(&self.hierarchy.root).ok());
        match relative.map_or(Owner::Executable, owner) {
            Owner::Pod { uid, container } => {
                // The namespace is not in the path; the Kubernetes API tells it.
                ServiceId::kubernetes("_", &uid, container.as_deref().unwrap_or("_"))
                    .unwrap_or_else(|_| ServiceId::named(ServiceKind::Container, &uid))
            }
            Owner::Container { id } => ServiceId::named(ServiceKind::Container, &id),
            Owner::Unit { name } => ServiceId::named(ServiceKind::Systemd, &name),
            Owner::Executable => ServiceId::named(ServiceKind::Process, &whole_name(&comm, tgid)),
        }
    }
}

fn comm(key: &ServiceKey) -> String {
    let end = key
        .comm
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(key.comm.len());
    String::from_utf8_lossy(&key.comm[..end]).into_owned()
}

/// The executable's name where the command name was cut from it.
fn whole_name(comm: &str, tgid: u32) -> String {
    if comm.len() < COMM_CUT {
        return comm.to_owned();
    }
    let executable = fs::read_link(format!("/proc/{tgid}/exe")).ok();
    let name = executable
        .as_deref()
        .and_then(Path::file_name)
        .map(|name| name.to_string_lossy());
    // What the kernel adds to one that was replaced meanwhile (proc_pid_exe(5)).
    let name = name.as_deref().map(|name| {
        let whole = name.strip_suffix(" (deleted)");
        whole.unwrap_or(name)
    });
    match name {
        Some(name) if name.starts_with(comm) => name.to_owned(),
        _ => comm.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn key(cgroup_id: u64, comm: &str) -> ServiceKey {
        let mut key = ServiceKey {
            cgroup_id,
            ..ServiceKey::default()
        };
        key.comm[..comm.len()].copy_from_slice(comm.as_bytes());
        key
    }

    fn inode(path: &Path) -> u64 {
        fs::metadata(path).unwrap().ino()
    }

    #[test]
    fn services_are_named_from_the_tree() {
        let tree = tempfile::tempdir().unwrap();
        let root = tree.path();
        fs::write(root.join("cgroup.controllers"), "").unwrap();
        let unit = root.join("system.slice/nginx.service");
        let session = root.join("user.slice/user-1000.slice/session-1.scope");
        fs::create_dir_all(&unit).unwrap();
        fs::create_dir_all(&session).unwrap();
        let hierarchy = Hierarchy::find(root);
        assert_eq!(hierarchy.v1_controller, None);
        let names = Names::new(hierarchy, "box");
        for (index, key, expected) in [
            (5, key(inode(&unit), "nginx"), "systemd/nginx.service"),
            (6, key(inode(&session), "vim"), "process/vim"),
            (7, key(inode(root), "postgres"), "process/postgres"),
            (8, key(0, "[kernel]"), "process/[kernel]"),
            (9, key(99, "gone"), "process/gone"),
            (HOST_SERVICE, ServiceKey::default(), "host/box"),
        ] {
            assert_eq!(names.name(index, &key, 0).key(), expected);
        }
        let group = |path: &Path, comm| names.group(&key(inode(path), comm));
        let whole = Path::new("system.slice/nginx.service");
        assert_eq!(group(&unit, "nginx").as_deref(), Some(whole));
        assert_eq!(group(&unit, "[kernel]"), None);
        assert_eq!(group(root, "postgres"), None);
    }

    #[test]
    fn a_long_name_stays_when_the_executable_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hg-a-long-name-of-a-program");
        fs::copy("/bin/sleep", &path).unwrap();
        let mut child = Command::new(&path).arg("60").spawn().unwrap();
        let names = [(); 2].map(|()| {
            let name = whole_name("hg-a-long-name-", child.id());
            let _ = fs::remove_file(&path);
            name
        });
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(names, ["hg-a-long-name-of-a-program"; 2]);
    }

    #[test]
    fn version_1_tree_is_used_when_version_2_is_empty() {
        let tree = tempfile::tempdir().unwrap();
        let root = tree.path();
        fs::create_dir_all(root.join("unified")).unwrap();
        fs::write(root.join("unified/cgroup.controllers"), "").unwrap();
        assert_eq!(Hierarchy::find(root).root, root.join("unified"));
        fs::create_dir_all(root.join("memory/docker")).unwrap();
        fs::write(root.join("memory/cgroup.procs"), "").unwrap();
        assert_eq!(Hierarchy::find(root).v1_controller, Some("memory"));
    }

    #[test]
    fn group_made_later_is_known_after_a_scan() {
        let tree = tempfile::tempdir().unwrap();
        let mut names = Names::new(Hierarchy::find(tree.path()), "box");
        let unit = tree.path().join("new.service");
        fs::create_dir(&unit).unwrap();
        assert!(!names.knows(inode(&unit)));
        names.scan();
        assert!(names.knows(inode(&unit)));
    }
}
