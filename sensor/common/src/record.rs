//! The `#[repr(C)]` records of the maps shared with the kernel programs.
//!
//! Counters are **cumulative**: the kernel only ever adds, user space keeps
//! the last snapshot and publishes the (wrapping) difference. Nothing is reset,
//! so nothing can be lost between a read and a reset.
//!
//! A *service* here is what the kernel can tell apart cheaply, a
//! [`ServiceKey`]; user space names it and merges those with the same name. A
//! *row* holds one histogram of one service and signal, once per stripe (a CPU
//! or a group of CPUs).

use crate::{
    histogram::BUCKETS,
    signal::{SIGNALS, SIGNALS_MAX, Signal},
};

/// Services the kernel can tell apart; further ones share [`OTHER_SERVICE`].
pub const SERVICES_MAX: u32 = 4096;
/// Default number of rows, with row 0 unused; further ones are lost and counted.
pub const ROWS_MAX: u32 = 16_384;
/// Service index that collects what has no index of its own.
pub const OTHER_SERVICE: u32 = 0;
/// Service index of the machine itself: what no service can be charged with.
pub const HOST_SERVICE: u32 = 1;
/// First index given to a [`ServiceKey`].
pub const FIRST_SERVICE: u32 = 2;
/// Row number that means "none yet".
pub const NO_ROW: u32 = 0;
/// Length of a command name in the kernel (`TASK_COMM_LEN`).
pub const COMM_LEN: usize = 16;

/// What the kernel tells services apart by.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// Inode number of the cgroup's directory.
    pub cgroup_id: u64,
    /// Command name of the thread group's leader, NUL padded.
    pub comm: [u8; COMM_LEN],
}

/// Switches of one signal of one service, written by user space.
///
/// Bit 7 set: off. Bits 0..=5: `k` of the sampling ratio 1/2^k.
pub type SignalConfig = u8;
/// Bit of [`SignalConfig`] that turns the signal off.
pub const SIGNAL_OFF: SignalConfig = 1 << 7;
/// Largest `k` of a sampling ratio 1/2^k.
pub const SAMPLING_SHIFT_MAX: u8 = 16;
/// Bits of [`SignalConfig`] that hold the sampling shift.
pub const SAMPLING_SHIFT_MASK: SignalConfig = 0x1f;

/// One service as the kernel knows it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// Raised by user space when the index is given to another key.
    pub generation: u32,
    /// Thread group that caused the entry, to find the executable.
    pub tgid: u32,
    /// What the entry was made for.
    pub key: ServiceKey,
    /// Switches by signal number.
    pub config: [SignalConfig; SIGNALS_MAX],
    /// Row by signal number, [`NO_ROW`] until the first event.
    pub rows: [u32; SIGNALS_MAX],
}

/// Who a row belongs to; written once when the row is taken, before its first event.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowOwner {
    /// Index of the service.
    pub service: u32,
    /// Signal number plus 1; 0 while the row is free.
    pub signal_plus_one: u32,
}

/// One histogram of one stripe.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Events observed.
    pub samples: u64,
    /// Weighted sum in nanoseconds.
    pub sum_ns: u64,
    /// Maximum in nanoseconds of the windows with even and odd epoch.
    pub max_ns: [u64; 2],
    /// Weighted counts; they wrap.
    pub buckets: [u32; BUCKETS],
}

const _: () = assert!(core::mem::size_of::<Row>() == 800);
const _: () = assert!(core::mem::size_of::<Service>() == 192);
const _: () = assert!(core::mem::size_of::<ServiceKey>() == 24);
const _: () = assert!(SIGNALS <= SIGNALS_MAX);

/// What applies to a signal of every service.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GlobalConfig {
    /// Flush number; its lowest bit selects the maximum of a [`Row`].
    pub epoch: u32,
    /// Number of stripes minus 1; stripes are a power of two.
    pub stripe_mask: u32,
    /// Switches of services not seen before.
    pub default: [SignalConfig; SIGNALS_MAX],
    /// Smallest sampling shift (or [`SIGNAL_OFF`]) over all services: decided
    /// before the service is looked up, so that an unsampled event costs little.
    pub first_stage: [SignalConfig; SIGNALS_MAX],
    /// What began before this time (of the kernel's monotonic clock) has no
    /// end that belongs to it: a probe was paused meanwhile.
    pub resumed_ns: u64,
    /// Routes of a service that requests are told apart by, at most; 0: requests
    /// are not parsed.
    pub routes_per_service: u64,
    /// [`lesson_bit`](crate::route::lesson_bit) of all lessons for every service.
    pub lessons: u64,
    /// 1 if requests are parsed on the side that makes them, too.
    pub client_routes: u64,
}

/// Why the kernel side lost an event, or part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Loss {
    /// No service index was free: the event went to [`OTHER_SERVICE`].
    ServicesFull = 0,
    /// No row was free: the event is lost.
    RowsFull = 1,
    /// An end without its begin (begun before the sensor, or its state was evicted).
    UnmatchedEnd = 2,
    /// Kernel memory could not be read, or it or a cgroup file held what cannot be.
    ReadError = 3,
    /// Task, socket or request state could not be allocated.
    StateFull = 4,
    /// The clock went backwards between begin and end.
    NegativeDuration = 5,
    /// No route or row of a route was free: the request counts for its service
    /// only.
    RoutesFull = 6,
    /// The buffer of a request or response is not known (io_uring, splice): it
    /// has no route, or no status.
    BufferUnknown = 7,
    /// A request line came in pieces: the request counts for its service only. Or
    /// a status line did, or the error code of a response is out of reach: the
    /// outcome is not known.
    RequestIncomplete = 8,
    /// The kernel left out a run of a program that the same CPU was in the midst
    /// of, as an interrupt may find it: whatever the program would have counted is
    /// lost. The kernel's own count, which user space reads.
    RunMissed = 9,
}

impl Loss {
    /// Every reason, ordered by number.
    pub const ALL: [Loss; 10] = [
        Loss::ServicesFull,
        Loss::RowsFull,
        Loss::UnmatchedEnd,
        Loss::ReadError,
        Loss::StateFull,
        Loss::NegativeDuration,
        Loss::RoutesFull,
        Loss::BufferUnknown,
        Loss::RequestIncomplete,
        Loss::RunMissed,
    ];

    /// The reason as a metric label.
    pub const fn name(self) -> &'static str {
        match self {
            Loss::ServicesFull => "services_full",
            Loss::RowsFull => "rows_full",
            Loss::UnmatchedEnd => "unmatched_end",
            Loss::ReadError => "read_error",
            Loss::StateFull => "state_full",
            Loss::NegativeDuration => "negative_duration",
            Loss::RoutesFull => "routes_full",
            Loss::BufferUnknown => "buffer_unknown",
            Loss::RequestIncomplete => "request_incomplete",
            Loss::RunMissed => "run_missed",
        }
    }
}

/// Entries of the tables by system-call number.
pub const SYSCALLS_MAX: u32 = 512;

/// What the second argument of a system call says of the buffer it reads from
/// or writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SyscallBuffer {
    /// There is none.
    None = 0,
    /// It is the buffer.
    Direct = 1,
    /// It points to `struct iovec`.
    Vectors = 2,
    /// It points to `struct msghdr`.
    Message = 3,
}

/// The syscall class table holds [`Signal`] numbers; this checks that they fit.
const _: () = assert!(Signal::SyscallOther.number() < 255);

#[cfg(feature = "user")]
mod user {
    use super::*;

    // SAFETY: all are `#[repr(C)]`, `Copy`, without padding and valid for any bits.
    unsafe impl aya::Pod for ServiceKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Service {}
    // SAFETY: as above.
    unsafe impl aya::Pod for RowOwner {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Row {}
    // SAFETY: as above.
    unsafe impl aya::Pod for GlobalConfig {}
}
