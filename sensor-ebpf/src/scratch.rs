//! Which memory of this CPU a program may use to look at requests.
//!
//! The programs on sockets are not interrupted by others that do so, too. Those on
//! OpenSSL's functions may lose the CPU to another task, whose programs then run;
//! so they have memory of their own, and take turns at it.

use aya_ebpf::{helpers::bpf_get_current_pid_tgid, macros::map, maps::PerCpuArray};
use sensor_common::record::Loss;

use crate::loss;

/// Memory of the programs on sockets, and of those on OpenSSL's functions.
pub const SLOTS: u32 = 2;

/// Whether a program on sockets looks at requests, and which thread does in
/// OpenSSL, 0 if none.
#[map]
static SCRATCH_USERS: PerCpuArray<[u64; 2]> = PerCpuArray::with_max_entries(1, 0);

/// The slot of the program that runs.
#[inline(always)]
pub fn slot() -> u32 {
    // SAFETY: a value of this CPU; plain numbers.
    match unsafe { SCRATCH_USERS.get_ptr(0).and_then(|users| users.as_ref()) } {
        Some([0, _]) => 1,
        _ => 0,
    }
}

/// A program on sockets begins, or ends, to look at requests.
#[inline(always)]
pub fn set_in_socket(is_in_socket: bool) {
    if let Some(users) = SCRATCH_USERS.get_ptr_mut(0) {
        // SAFETY: a value of this CPU.
        unsafe { (*users)[0] = u64::from(is_in_socket) };
    }
}

/// Does `work` in a program on OpenSSL's functions, unless another thread was
/// interrupted while it did: then a loss is counted. Whether it was done.
#[inline(always)]
pub fn in_openssl(work: impl FnOnce()) -> bool {
    let Some(users) = SCRATCH_USERS.get_ptr_mut(0) else {
        return false;
    };
    let thread = bpf_get_current_pid_tgid();
    // SAFETY: a value of this CPU, on which a program stays.
    unsafe {
        if core::ptr::read_volatile(&raw const (*users)[1]) != 0 {
            loss::count(Loss::StateFull);
            return false;
        }
        core::ptr::write_volatile(&raw mut (*users)[1], thread);
        work();
        core::ptr::write_volatile(&raw mut (*users)[1], 0);
    }
    true
}
