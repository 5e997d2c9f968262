//! Giving up privileges once the programs are attached.
//!
//! What stays *permitted*: CAP_BPF and CAP_PERFMON to attach and detach while
//! running, CAP_SYS_ADMIN to ask the kernel for run times (raised only for
//! that call), CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH to read the names of
//! other users' executables. Nothing is inherited by programs that are started.
//!
//! Linux keeps capabilities per thread: call this before other threads start.

use std::io;

use caps::{CapSet, Capability, CapsHashSet};

const PERMITTED: [Capability; 5] = [
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_DAC_READ_SEARCH,
];
const EFFECTIVE: [Capability; 4] = [
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_DAC_READ_SEARCH,
];

/// Drops what the sensor no longer needs from the calling thread, and from
/// those it will start.
///
/// # Errors
/// The kernel's, if it refuses a step; the steps before it stay done.
pub fn drop_privileges() -> io::Result<()> {
    let have = caps::read(None, CapSet::Permitted).map_err(io::Error::other)?;
    let keep = |wanted: &[Capability]| -> CapsHashSet {
        wanted
            .iter()
            .copied()
            .filter(|capability| have.contains(capability))
            .collect()
    };
    caps::clear(None, CapSet::Ambient)
        .and_then(|()| caps::set(None, CapSet::Effective, &keep(&EFFECTIVE)))
        .and_then(|()| caps::set(None, CapSet::Permitted, &keep(&PERMITTED)))
        .and_then(|()| caps::clear(None, CapSet::Inheritable))
        .map_err(io::Error::other)?;
    // SAFETY: no pointers are involved.
    match unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
