//! File systems the sensor reads: tracefs (tracepoints) and bpffs (pins).

use std::{fs, path::Path};

use crate::{machine::Privilege, step::quiet};

const MOUNTS: [(&str, &str); 2] = [("tracefs", "/sys/kernel/tracing"), ("bpf", "/sys/fs/bpf")];

/// Mounts what is missing, where that is possible. Without root nothing that
/// needs it can run anyway; a container may not mount even as root, and then
/// `honeyguide doctor` says what that costs.
pub fn ensure(privilege: Privilege) {
    if privilege == Privilege::None {
        return;
    }
    let mounted = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for (kind, folder) in MOUNTS {
        if is_mounted(&mounted, folder) || !Path::new(folder).is_dir() {
            continue;
        }
        println!("· mounting {kind} on {folder}");
        let mut mount = privilege.command("mount");
        if let Err(error) = quiet(
            &format!("mount-{kind}"),
            mount.args(["-t", kind, kind, folder]),
        ) {
            eprintln!("  not mounted: {error:#}");
        }
    }
}

fn is_mounted(mounts: &str, folder: &str) -> bool {
    mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == Some(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_by_its_folder() {
        let mounts = "proc /proc proc rw 0 0\ntracefs /sys/kernel/tracing tracefs rw 0 0\n";
        assert!(is_mounted(mounts, "/sys/kernel/tracing"));
        assert!(!is_mounted(mounts, "/sys/fs/bpf"));
    }
}
