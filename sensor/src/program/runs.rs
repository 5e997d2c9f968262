//! What the kernel says of the runs of programs: how long they took, and how many
//! it left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use super::Kernel;

/// BPF run time of one program since it was loaded, while statistics are on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunStats {
    /// Nanoseconds, including the kernel's own two clock reads.
    pub run_time_ns: u64,
    /// Runs counted.
    pub runs: u64,
    /// Runs the kernel left out because the program was running on that CPU
    /// already; counted always (Linux 5.12).
    pub missed_runs: u64,
}

/// Runs that the kernel left out, of programs that are loaded and of those that
/// were: the kernel forgets its count with the program.
#[derive(Debug, Default)]
pub(super) struct MissedRuns {
    by_program: BTreeMap<String, u64>,
    sum: u64,
}

impl MissedRuns {
    /// Takes what the programs that are loaded `now` have missed since they were
    /// loaded.
    pub fn take(&mut self, now: BTreeMap<String, RunStats>) {
        let now = now
            .into_iter()
            .map(|(name, stats)| (name, stats.missed_runs));
        let now: BTreeMap<_, _> = now.collect();
        for (name, missed) in &now {
            // Fewer than before: it was loaded anew.
            let before = self.by_program.get(name).filter(|before| *before <= missed);
            self.sum += missed - before.copied().unwrap_or_default();
        }
        self.by_program = now;
    }

    /// All of them.
    pub fn sum(&self) -> u64 {
        self.sum
    }
}

impl Kernel {
    /// Run-time statistics by program name, of the programs that are loaded.
    /// They only grow while statistics are on (see [`enable_run_stats`]).
    pub fn run_stats(&self) -> BTreeMap<String, RunStats> {
        let mut stats = BTreeMap::new();
        for (name, program) in self.ebpf.programs() {
            if let Ok(fd) = program.fd()
                && let Some(run) = run_stats(fd)
            {
                stats.insert(name.to_owned(), run);
            }
        }
        stats
    }

    /// Notes what the kernel left out until now.
    pub(super) fn take_missed_runs(&mut self) {
        self.missed.take(self.run_stats());
    }
}

/// While the returned value lives the kernel measures the run time of BPF
/// programs, which costs each run about two clock reads.
///
/// # Errors
/// The system call's (CAP_SYS_ADMIN is needed).
pub fn enable_run_stats() -> io::Result<OwnedFd> {
    aya::sys::enable_stats(aya::sys::Stats::RunTime).map_err(|error| error.io_error)
}

/// Run-time statistics by id of those BPF programs of the machine, whoever
/// loaded them, whose id is `wanted`.
pub fn run_stats_by_id(wanted: &BTreeSet<u32>) -> BTreeMap<u32, RunStats> {
    aya::programs::loaded_programs()
        .flatten()
        .filter(|program| wanted.contains(&program.id()))
        .filter_map(|program| Some((program.id(), run_stats(&program.fd().ok()?)?)))
        .collect()
}

/// Run-time statistics of a program: `BPF_OBJ_GET_INFO_BY_FD`, fields of
/// `struct bpf_prog_info` (include/uapi/linux/bpf.h) that aya does not expose.
fn run_stats(program: &aya::programs::ProgramFd) -> Option<RunStats> {
    const INFO_LEN: usize = 232;
    const RUN_TIME_NS: usize = 192;
    const RUN_CNT: usize = 200;
    const RECURSION_MISSES: usize = 208;
    let mut info = [0u8; INFO_LEN];
    object_info(program.as_fd(), &mut info).ok()?;
    let field = |at: usize| info[at..at + 8].try_into().map(u64::from_ne_bytes).ok();
    Some(RunStats {
        run_time_ns: field(RUN_TIME_NS)?,
        runs: field(RUN_CNT)?,
        missed_runs: field(RECURSION_MISSES)?,
    })
}

fn object_info(fd: BorrowedFd<'_>, info: &mut [u8]) -> io::Result<()> {
    const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
    #[repr(C)]
    struct Attributes {
        fd: u32,
        info_len: u32,
        info: u64,
    }
    let attributes = Attributes {
        fd: fd.as_raw_fd() as u32,
        info_len: info.len() as u32,
        info: info.as_mut_ptr() as u64,
    };
    // SAFETY: the attributes describe a buffer that lives through the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_GET_INFO_BY_FD,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missed_runs_are_kept_when_their_program_is_unloaded_or_loaded_anew() {
        let mut missed = MissedRuns::default();
        let mut sum_after = |programs: &[(&str, u64)]| {
            let stats = programs.iter().map(|(name, missed_runs)| {
                let stats = RunStats {
                    missed_runs: *missed_runs,
                    ..RunStats::default()
                };
                ((*name).to_owned(), stats)
            });
            missed.take(stats.collect());
            missed.sum
        };
        assert_eq!(sum_after(&[("a", 3)]), 3);
        assert_eq!(sum_after(&[("a", 5), ("b", 1)]), 6);
        assert_eq!(sum_after(&[("b", 1)]), 6);
        assert_eq!(sum_after(&[("a", 2), ("b", 1)]), 8);
        assert_eq!(sum_after(&[("a", 1), ("b", 4)]), 12);
    }
}
