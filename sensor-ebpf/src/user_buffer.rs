//! What was read or written, in memory of the current task.
//!
//! The socket tracepoints do not have the buffer, but the saved registers of the
//! task do, see [`OfSystemCall`]. A task that is in none of the system calls that
//! name one buffer (io_uring, splice, a kernel thread) has none. Who knows the
//! buffer passes it as it is.

use aya_ebpf::{
    helpers::{
        bpf_probe_read_user,
        generated::{bpf_probe_read_user as bpf_probe_read_user_bytes, bpf_task_pt_regs},
    },
    macros::map,
    maps::Array,
};
use sensor_common::{
    http::PATH_LEN_MAX,
    record::{SYSCALLS_MAX, SyscallBuffer},
};

use crate::{
    kernel::{OFFSET_REGISTERS_SECOND, OFFSET_REGISTERS_SYSCALL, Object, current_task, load},
    route::{METHOD_LEN, RequestLine},
};

/// [`SyscallBuffer`] by system-call number; user space fills it.
#[map]
static SYSCALL_BUFFERS: Array<u8> = Array::with_max_entries(SYSCALLS_MAX, 0);

/// Where the bytes of one read or write are, looked up only if they are needed.
pub trait Source: Copy {
    /// The first of them, if it is known where they are.
    fn buffer(self) -> Option<UserBuffer>;
    /// How many there are in all.
    fn total(self) -> u64;
}

/// The first so many bytes of the current system call's buffer; of several
/// buffers those in the first.
#[derive(Clone, Copy)]
pub struct OfSystemCall(pub u32);

impl Source for OfSystemCall {
    #[inline(always)]
    fn buffer(self) -> Option<UserBuffer> {
        UserBuffer::current(self.0)
    }

    #[inline(always)]
    fn total(self) -> u64 {
        u64::from(self.0)
    }
}

/// Memory of the current task.
#[derive(Clone, Copy)]
pub struct UserBuffer {
    address: u64,
    len: u64,
    /// Where the vectors are that have this buffer and those behind it, 0 if it
    /// is the only one.
    vectors: u64,
}

impl Source for UserBuffer {
    #[inline(always)]
    fn buffer(self) -> Option<UserBuffer> {
        Some(self)
    }

    #[inline(always)]
    fn total(self) -> u64 {
        self.len
    }
}

/// `struct iovec`.
pub type IoVector = [u64; 2];
/// Offset of `msg_iov` in `struct user_msghdr` of 64-bit systems.
const MESSAGE_VECTORS: u64 = 16;

impl UserBuffer {
    /// `len` bytes at `address`.
    #[inline(always)]
    pub fn new(address: u64, len: u64) -> UserBuffer {
        UserBuffer {
            address,
            len,
            vectors: 0,
        }
    }

    #[inline(always)]
    pub fn vectors(self) -> u64 {
        self.vectors
    }

    #[inline(always)]
    pub fn address(self) -> u64 {
        self.address
    }

    #[inline(always)]
    pub fn len(self) -> u64 {
        self.len
    }

    /// Fills the first `MAX` of `bytes` from the begin; returns how much there was.
    #[inline(always)]
    pub fn fill_front<const MAX: usize>(self, bytes: &mut [u8]) -> Option<usize> {
        let len = self.len.min(MAX as u64) as u32;
        if len == 0 || len > MAX as u32 || bytes.len() < MAX {
            return None;
        }
        let to = bytes.as_mut_ptr().cast();
        // SAFETY: there is room for `len`; the helper checks the address.
        let result = unsafe { bpf_probe_read_user_bytes(to, len, self.address as *const _) };
        (result == 0).then_some(len as usize)
    }

    #[inline(always)]
    fn current(transferred: u32) -> Option<UserBuffer> {
        // SAFETY: the current task is trusted; the fields are the registers'.
        let (number, second): (u32, u64) = unsafe {
            let registers = bpf_task_pt_regs(current_task().cast_mut().cast()) as Object;
            (
                load(registers, &OFFSET_REGISTERS_SYSCALL),
                load(registers, &OFFSET_REGISTERS_SECOND),
            )
        };
        let kind = *SYSCALL_BUFFERS.get(number)?;
        let transferred = u64::from(transferred);
        if kind == SyscallBuffer::Direct as u8 {
            return Some(UserBuffer {
                address: second,
                len: transferred,
                vectors: 0,
            });
        }
        let vectors = if kind == SyscallBuffer::Vectors as u8 {
            second
        } else if kind == SyscallBuffer::Message as u8 {
            read::<u64>(second.wrapping_add(MESSAGE_VECTORS))?
        } else {
            return None;
        };
        let [address, len] = read::<IoVector>(vectors)?;
        Some(UserBuffer {
            address,
            len: len.min(transferred),
            vectors: if len < transferred { vectors } else { 0 },
        })
    }

    /// Fills `line` from the begin; returns its first eight bytes, the first of
    /// them the most significant one, and how many bytes there were in all.
    #[inline(always)]
    pub fn fill_line(self, line: &mut RequestLine) -> Option<(u64, u32)> {
        const MAX: u32 = (METHOD_LEN + PATH_LEN_MAX) as u32;
        let len = self.len.min(u64::from(MAX)) as u32;
        if len == 0 || len > MAX {
            return None;
        }
        // What fewer than eight bytes leave of the last request is not of this.
        line.method = [0; 4];
        let [a, b, c, d, ..] = &mut line.path.bytes;
        (*a, *b, *c, *d) = (0, 0, 0, 0);
        let to = (&raw mut *line).cast::<core::ffi::c_void>();
        // SAFETY: method and path follow each other and have room for `len`; the
        // helper checks the address.
        if unsafe { bpf_probe_read_user_bytes(to, len, self.address as *const _) } != 0 {
            return None;
        }
        let [e, f, g, h] = line.method;
        let [a, b, c, d, ..] = line.path.bytes;
        Some((u64::from_be_bytes([e, f, g, h, a, b, c, d]), len))
    }

    /// Fills `bytes` with what begins at `offset`; returns how much there was.
    #[inline(always)]
    pub fn fill<const N: usize>(self, offset: u64, bytes: &mut [u8; N]) -> Option<usize> {
        let len = self.len.checked_sub(offset)?.min(N as u64) as u32;
        if len == 0 || len > N as u32 {
            return None;
        }
        let from = self.address.wrapping_add(offset);
        // SAFETY: `bytes` has room for `len`; the helper checks the address.
        let result =
            unsafe { bpf_probe_read_user_bytes(bytes.as_mut_ptr().cast(), len, from as *const _) };
        (result == 0).then_some(len as usize)
    }
}

#[inline(always)]
pub fn read<T>(address: u64) -> Option<T> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_user(address as *const T) }.ok()
}
