//! Looking through what was read or written, beyond its first bytes.
//!
//! Functions of their own with numbers as arguments, so that the verifier walks
//! through each once. What they look at is copied to memory of this CPU first.

use core::ffi::c_void;

use aya_ebpf::{helpers::generated::bpf_loop, macros::map, maps::PerCpuArray};
use sensor_common::{
    http, postgresql,
    record::Loss,
    redis::{self, Bytes, COMMANDS_MAX, Cursor, SCAN_LEN, STEPS_MAX},
};

use crate::{
    http1, http2, loss,
    pipeline::{WAITING_MAX, Waiting},
    route, scratch,
    user_buffer::UserBuffer,
};

/// What is being looked through, and what was found.
#[repr(C)]
pub struct Scan {
    pub bytes: Bytes,
    pub cursor: Cursor,
    pub postgresql: postgresql::Cursor,
    pub http2: http2::Reading,
    /// Of HTTP/1.1; its responses, too.
    pub requests: http::pipeline::Cursor,
    pub responses_max: u32,
    /// Whose requests they are, and which lessons there are for it.
    pub service: u32,
    pub side_bit: u32,
    pub lesson_bits: u64,
    pub part: http1::Part,
    /// Commands, or classes of replies, or statuses of responses.
    pub found: [u16; COMMANDS_MAX],
    /// Requests on their way to a map.
    pub waiting: [Waiting; WAITING_MAX],
}

#[map]
static SCAN: PerCpuArray<Scan> = PerCpuArray::with_max_entries(scratch::SLOTS, 0);

/// The scan on this CPU.
#[inline(always)]
pub fn current() -> Option<&'static mut Scan> {
    // SAFETY: a value of this CPU that no other program uses meanwhile.
    unsafe { SCAN.get_ptr_mut(scratch::slot())?.as_mut() }
}

/// Commands of one read.
pub struct Commands {
    pub count: u32,
    /// Number of the first.
    pub first: u16,
}

/// The commands in what was read; those behind the first are in the scan.
#[inline(always)]
pub fn commands(buffer: UserBuffer) -> Commands {
    let found = redis_commands(buffer.address(), buffer.len());
    Commands {
        count: found as u32 & 0xff,
        first: (found >> 8) as u16,
    }
}

/// Count in the lowest byte, then the first command.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn redis_commands(address: u64, len: u64) -> u64 {
    let Some(scan) = current() else {
        return 0;
    };
    let Some(len) = UserBuffer::new(address, len).fill_front::<SCAN_LEN>(&mut scan.bytes) else {
        return 0;
    };
    scan.cursor = Cursor::new(len, 0);
    repeat(STEPS_MAX, step_commands);
    let count = scan.cursor.count;
    if !scan.cursor.is_whole() && count >= COMMANDS_MAX as u32 {
        loss::count(Loss::RequestIncomplete);
    }
    u64::from(count) | u64::from(scan.found[0]) << 8
}

/// 1 ends a loop.
pub type Step = extern "C" fn(index: u32, context: *mut c_void) -> i64;

/// Takes steps until one ends it. The verifier walks through one step, which
/// keeps what it knows in the scan.
#[inline(always)]
pub fn repeat(max: u32, step: Step) {
    // SAFETY: the kernel calls a function of the type that it wants.
    unsafe { bpf_loop(max, step as *mut c_void, core::ptr::null_mut(), 0) };
}

#[inline(never)]
extern "C" fn step_commands(_index: u32, _context: *mut c_void) -> i64 {
    current().map_or(1, |scan| {
        let goes_on = redis::step_commands(&scan.bytes, &mut scan.cursor, &mut scan.found);
        i64::from(!goes_on)
    })
}

#[inline(never)]
extern "C" fn step_replies(_index: u32, _context: *mut c_void) -> i64 {
    current().map_or(1, |scan| {
        let goes_on = redis::step_replies(&scan.bytes, &mut scan.cursor, &mut scan.found);
        i64::from(!goes_on)
    })
}

/// Replies in one write.
pub struct Replies {
    pub count: u32,
    /// Whether the next one begins the next write.
    pub is_whole: bool,
}

/// How the replies in what was sent ended, `max` of them at most; the scan has
/// their classes.
#[inline(always)]
pub fn replies(buffer: UserBuffer, max: u32) -> Replies {
    let found = redis_replies(buffer.address(), buffer.len(), u64::from(max));
    Replies {
        count: found as u32 & 0xff,
        is_whole: found >> 8 != 0,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn redis_replies(address: u64, len: u64, max: u64) -> u64 {
    let Some(scan) = current() else {
        return 0;
    };
    let Some(read) = UserBuffer::new(address, len).fill_front::<SCAN_LEN>(&mut scan.bytes) else {
        return 0;
    };
    scan.cursor = Cursor::new(read, (max as usize).min(COMMANDS_MAX));
    repeat(STEPS_MAX, step_replies);
    let is_whole = scan.cursor.is_whole() && read as u64 == len;
    u64::from(scan.cursor.count) | u64::from(is_whole) << 8
}

/// Nothing is known of how requests ended.
#[inline(always)]
pub fn unknown() {
    if let Some(scan) = current() {
        scan.found = [0; COMMANDS_MAX];
    }
}

/// Number of the verb of the PostgreSQL request in the line buffer.
#[inline(always)]
pub fn verb(first: u8, len: u32) -> Option<u16> {
    let scan = current()?;
    match postgresql::begin_request(first, len as usize)? {
        Ok(verb) => Some(verb),
        Err(cursor) => {
            scan.postgresql = cursor;
            Some(postgresql_verb() as u16)
        }
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn postgresql_verb() -> u64 {
    repeat(postgresql::STEPS_MAX, step_postgresql);
    current().map_or(0, |scan| u64::from(scan.postgresql.verb()))
}

#[inline(never)]
extern "C" fn step_postgresql(_index: u32, _context: *mut c_void) -> i64 {
    let (Some(scan), Some(line)) = (current(), route::line_buffer()) else {
        return 1;
    };
    i64::from(!scan.postgresql.step(line.bytes()))
}

/// Status class of the PostgreSQL response in a buffer.
#[inline(always)]
pub fn postgresql_outcome(buffer: UserBuffer) -> Option<u32> {
    let class = postgresql_class(buffer.address(), buffer.len());
    (class != 0).then_some(class as u32)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn postgresql_class(address: u64, len: u64) -> u64 {
    let (Some(scan), Some(line)) = (current(), route::line_buffer()) else {
        return 0;
    };
    let Some((_, len)) = UserBuffer::new(address, len).fill_line(line) else {
        return 0;
    };
    scan.postgresql = postgresql::begin_response(len as usize);
    repeat(postgresql::STEPS_MAX, step_postgresql);
    u64::from(scan.postgresql.class())
}
