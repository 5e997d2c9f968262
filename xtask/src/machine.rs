//! What this machine is and allows.

use std::{env, fs, path::Path, process::Command};

use crate::step::answer;

/// How a command can be run as root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// We are root.
    Root,
    /// `sudo` works without asking.
    Sudo,
    /// Neither.
    None,
}

impl Privilege {
    /// Finds out.
    pub fn detect() -> Self {
        match status_field("Uid:").as_deref() {
            Some("0") => Self::Root,
            _ if answer("sudo", &["-n", "true"]).is_some() => Self::Sudo,
            _ => Self::None,
        }
    }

    /// `program`, as root. Without a way to root it is started as it is, and
    /// says itself what it may not do.
    pub fn command(self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        match self {
            Self::Root | Self::None => Command::new(program),
            Self::Sudo => {
                let mut command = Command::new("sudo");
                command.arg("-n").arg(program);
                command
            }
        }
    }
}

/// Why kernel programs cannot run here, if they cannot.
pub fn no_bpf(privilege: Privilege) -> Option<&'static str> {
    if !cfg!(target_os = "linux") {
        return Some("this is not Linux");
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Some("the kernel has no BTF (/sys/kernel/btf/vmlinux is missing)");
    }
    match privilege {
        Privilege::None => Some("this user is not root and `sudo` would ask for a password"),
        Privilege::Sudo => None,
        Privilege::Root => match status_field("CapEff:") {
            Some(mask) if !may_use_bpf(&mask) => Some(
                "root has neither CAP_BPF with CAP_PERFMON nor CAP_SYS_ADMIN here (a container?)",
            ),
            _ => None,
        },
    }
}

/// Whether a hexadecimal capability mask allows tracing programs.
fn may_use_bpf(mask: &str) -> bool {
    const SYS_ADMIN: u32 = 21;
    const PERFMON: u32 = 38;
    const BPF: u32 = 39;
    let mask = u64::from_str_radix(mask, 16).unwrap_or(0);
    let has = |capability: u32| mask >> capability & 1 == 1;
    has(SYS_ADMIN) || (has(BPF) && has(PERFMON))
}

/// First value of a field of /proc/self/status.
fn status_field(name: &str) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1).map(str::to_owned)
}

/// Whether packages come from apt (Debian, Ubuntu and their children).
pub fn has_apt() -> bool {
    in_path("apt-get") && in_path("dpkg-query")
}

/// Whether a program is in PATH.
pub fn in_path(program: &str) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

/// "AMD EPYC 9R14, 2 CPUs, 24 GiB" and "Linux 6.18.44": what a result is worth.
pub fn description() -> (String, String) {
    let first = |path: &str, field: &str| {
        let text = fs::read_to_string(path).ok()?;
        let line = text.lines().find(|line| line.starts_with(field))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let model =
        first("/proc/cpuinfo", "model name").unwrap_or_else(|| env::consts::ARCH.to_owned());
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let memory_gib = first("/proc/meminfo", "MemTotal")
        .and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok())
        .unwrap_or(0.0)
        / 1024.0
        / 1024.0;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    (
        format!("{model}, {cpus} CPUs, {memory_gib:.0} GiB"),
        format!("Linux {}", kernel.trim()),
    )
}

/// Whole GB free where this folder is, if `df` tells.
pub fn free_disk_gb() -> Option<u64> {
    gb_of_df(&answer("df", &["--output=avail", "--block-size=GB", "."])?)
}

/// From a line like ` 73GB` under a heading.
fn gb_of_df(output: &str) -> Option<u64> {
    output
        .lines()
        .nth(1)?
        .trim()
        .strip_suffix("GB")?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracing_needs_bpf_and_perfmon_or_all_of_admin() {
        for (mask, expected) in [
            ("000001ffffffffff", true),
            ("000000c000000000", true),
            ("0000008000000000", false),
            ("00000000a80425fb", false),
            ("0000000000200000", true),
            ("not hex", false),
        ] {
            assert_eq!(may_use_bpf(mask), expected, "{mask}");
        }
    }

    #[test]
    fn free_disk_is_what_df_says() {
        assert_eq!(gb_of_df("Avail\n 73GB\n"), Some(73));
        assert_eq!(gb_of_df("Avail\n  0GB\n"), Some(0));
        assert_eq!(gb_of_df("df: no such file\n"), None);
        assert!(free_disk_gb().is_some());
    }
}
