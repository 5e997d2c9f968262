//! Reading kernel structures.
//!
//! Field offsets are read-only globals that the loader patches from the
//! running kernel's BTF. The verifier knows read-only data, so each becomes a
//! constant and the access a direct, checked load.

use core::ffi::c_void;

use aya_ebpf::helpers::{
    bpf_probe_read_kernel,
    generated::{bpf_get_current_task_btf, bpf_skc_to_tcp_sock, bpf_skc_to_unix_sock},
};

/// A pointer to a kernel structure that the verifier has type information for.
pub type Object = *const c_void;

/// Offset of a field in bytes; see [`crate::kernel`].
pub struct Offset(u32);

/// Declares offsets. Every one starts from a value of its own that is not 0:
/// LLVM merges equal constants, so a patched global could otherwise change an
/// unrelated one, and an offset that was not patched is far outside of any
/// structure, so the verifier refuses the program.
macro_rules! offsets {
    ($($name:ident = $sentinel:literal;)*) => {
        $(#[unsafe(no_mangle)] pub static $name: Offset = Offset(0xa5a5_0000 + $sentinel);)*
    };
}

offsets! {
    OFFSET_TASK_PID = 1;
    OFFSET_TASK_TGID = 2;
    OFFSET_TASK_FLAGS = 3;
    OFFSET_TASK_COMM = 4;
    OFFSET_TASK_GROUP_LEADER = 5;
    OFFSET_TASK_SELF_EXEC_ID = 6;
    OFFSET_TASK_CGROUPS = 7;
    OFFSET_TASK_STATE = 8;
    OFFSET_TASK_LAST_QUEUED = 9;
    OFFSET_TASK_RUN_DELAY = 10;
    OFFSET_TASK_PCOUNT = 11;
    OFFSET_TASK_CFS_RQ = 12;
    OFFSET_CFS_RQ_RQ = 13;
    OFFSET_RQ_CLOCK = 14;
    OFFSET_CSS_SET_CGROUP = 15;
    OFFSET_CSS_SET_SUBSYS = 16;
    OFFSET_CSS_CGROUP = 17;
    OFFSET_CGROUP_KN = 18;
    OFFSET_KERNFS_ID = 19;
    OFFSET_REQUEST_START = 20;
    OFFSET_REQUEST_IO_START = 21;
    OFFSET_REQUEST_TAG = 22;
    OFFSET_REQUEST_INTERNAL_TAG = 23;
    OFFSET_REQUEST_HARDWARE_QUEUE = 24;
    OFFSET_HARDWARE_QUEUE_NUMBER = 25;
    OFFSET_SOCK_FAMILY = 26;
    OFFSET_SOCK_PROTOCOL = 27;
    OFFSET_SOCK_NUM = 28;
    OFFSET_TCP_SRTT = 29;
    OFFSET_SKB_SOCK = 30;
    OFFSET_SKB_LEN = 31;
    OFFSET_SKB_HEAD = 32;
    OFFSET_SKB_DATA = 33;
    OFFSET_SKB_TRANSPORT_HEADER = 34;
    OFFSET_REGISTERS_SYSCALL = 35;
    OFFSET_REGISTERS_SECOND = 36;
    OFFSET_SOCK_DADDR = 43;
    OFFSET_SOCK_RCV_SADDR = 44;
    OFFSET_SOCK_V6_DADDR = 45;
    OFFSET_SOCK_V6_RCV_SADDR = 46;
    OFFSET_SOCK_DPORT = 47;
    OFFSET_SOCK_NET = 48;
    OFFSET_NET_INODE = 49;
    OFFSET_TCP_RECEIVED = 37;
    OFFSET_TCP_READ = 38;
    OFFSET_SOCK_TYPE = 39;
    OFFSET_UNIX_ADDRESS = 40;
    OFFSET_UNIX_PEER = 41;
    OFFSET_UNIX_ADDRESS_USERS = 42;
}

/// Loads the field at `offset` of `object`.
///
/// # Safety
/// `object` must be a pointer whose type the verifier knows, and `offset` the
/// offset of a field of type `T` in it; the verifier checks both at load.
#[inline(always)]
pub unsafe fn load<T: Copy>(object: Object, offset: &'static Offset) -> T {
    // SAFETY: volatile, so that the compiler neither folds the sentinel in nor
    // moves the load; the rest is the caller's promise.
    unsafe {
        let offset = core::ptr::read_volatile(&raw const offset.0) as usize;
        core::ptr::read_volatile(object.byte_add(offset).cast::<T>())
    }
}

/// As [`load`], of an object that the verifier takes for another type.
///
/// # Safety
/// `object` must be a kernel object with a field of type `T` there.
#[inline(always)]
pub unsafe fn load_untyped<T>(object: Object, offset: &'static Offset) -> Option<T> {
    // SAFETY: as in [`load`]; the helper checks the address.
    unsafe {
        let offset = core::ptr::read_volatile(&raw const offset.0) as usize;
        bpf_probe_read_kernel(object.wrapping_byte_add(offset).cast::<T>()).ok()
    }
}

/// The task that runs on this CPU.
#[inline(always)]
pub fn current_task() -> Object {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_current_task_btf() as Object }
}

/// The socket as a `tcp_sock`, or null.
///
/// # Safety
/// `socket` must be a `struct sock` of a tracepoint argument.
#[inline(always)]
pub unsafe fn tcp_sock(socket: Object) -> Object {
    // SAFETY: the caller's promise.
    unsafe { bpf_skc_to_tcp_sock(socket.cast_mut()) as Object }
}

/// The socket as a `unix_sock`, or null.
///
/// # Safety
/// As [`tcp_sock`].
#[inline(always)]
pub unsafe fn unix_sock(socket: Object) -> Object {
    // SAFETY: the caller's promise.
    unsafe { bpf_skc_to_unix_sock(socket.cast_mut()) as Object }
}

/// Nanoseconds since boot.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { aya_ebpf::helpers::bpf_ktime_get_ns() }
}
