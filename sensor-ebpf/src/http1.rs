//! Requests of HTTP/1.1 that are read together, and their responses.
//!
//! A request that is cut by the end of a read waits in a map for the rest: servers
//! that read into a small buffer cut one in every read.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_user},
    macros::map,
    maps::LruHashMap,
};
use sensor_common::{
    http::{
        PATH_LEN_MAX,
        pipeline::{self, Cursor, PART_LEN_MAX, STEPS_MAX, Step},
    },
    protocol,
    record::Loss,
    redis::SCAN_LEN,
    route::{CLIENT_SIDE, Owner, RouteKey, method},
};

use crate::{
    config, loss,
    pipeline::Waiting,
    requests::shape_of_line,
    route,
    scan::{self, repeat},
    user_buffer::UserBuffer,
};

/// The begin of a request whose rest was not read yet.
#[repr(C)]
pub struct Part {
    /// So many of the bytes, [`PART_LEN_MAX`] at most.
    len: u64,
    /// The rest is there for the verifier, which only knows the bounds of masks.
    bytes: [u8; 3 * PART_LEN_MAX],
}

/// What a length of a part is masked with: the verifier does not see bounds that
/// the compiler moves.
const PART_LEN_MASK: u64 = 2 * PART_LEN_MAX as u64 - 1;

/// Connections that wait for the rest of a request at most; those that were idle
/// for longest make room, and that request is not counted by route.
const PARTS_MAX: u32 = 256;
#[map]
static PARTS: LruHashMap<u64, Part> = LruHashMap::with_max_entries(PARTS_MAX, 0);

/// What one read holds.
pub struct Requests {
    pub count: u32,
    /// Whether another one begins that goes on in the next read.
    pub is_cut: bool,
}

/// The requests in what was read, in the scan on this CPU. Of the connection
/// `id` if the last read ended within a request; else the first request is known
/// already.
#[inline(always)]
pub fn requests(buffer: UserBuffer, owner: Owner, id: u64) -> Requests {
    let is_all = u64::from(buffer.vectors() == 0);
    let is_client = u64::from(owner.side_bit != 0);
    let service = u64::from(owner.service) | is_all << 32 | is_client << 33;
    let found = http1_requests(buffer.address(), buffer.len(), service, id);
    Requests {
        count: found as u32 & 0xff,
        is_cut: found >> 8 != 0,
    }
}

/// Count in the lowest byte, then whether a request is cut.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn http1_requests(address: u64, len: u64, service: u64, id: u64) -> u64 {
    let (Some(scan), Some(global)) = (scan::current(), config::global()) else {
        return 0;
    };
    let (mut before, mut room) = (0, SCAN_LEN as u32);
    if id != 0 {
        let Some(part) = PARTS.get_ptr(&id) else {
            loss::count(Loss::StateFull);
            return 0;
        };
        // SAFETY: a live map value.
        before = (unsafe { (*part).len } & PART_LEN_MASK) as u32;
        room = (SCAN_LEN - PART_LEN_MAX) as u32;
        let to = scan.bytes.as_mut_ptr().cast();
        // SAFETY: both have room for the length.
        unsafe {
            bpf_probe_read_kernel(to, PART_LEN_MAX as u32, (&raw const (*part).bytes).cast())
        };
    }
    let read = len.min(u64::from(room)) as u32;
    if read == 0 || read > SCAN_LEN as u32 {
        return 0;
    }
    // SAFETY: the bytes have room for twice what is looked at; the helper checks
    // the address.
    let result = unsafe {
        let to = scan.bytes.as_mut_ptr().add(before as usize);
        bpf_probe_read_user(to.cast(), read, address as *const c_void)
    };
    if result != 0 {
        return 0;
    }
    scan.requests = Cursor::new((before + read) as usize, id == 0);
    scan.service = service as u32;
    scan.side_bit = if service >> 33 != 0 { CLIENT_SIDE } else { 0 };
    scan.lesson_bits = route::lesson_bits(global, service as u32);
    repeat(STEPS_MAX, step_requests);
    let cursor = &scan.requests;
    let is_followed = id != 0 || cursor.count != 0;
    if !is_followed {
        return 0;
    }
    let is_all = service >> 32 & 1 != 0 && u64::from(read) == len;
    let mut is_cut = cursor.is_cut();
    let is_full = cursor.is_full();
    if is_full || is_cut && (!is_all || !keep_part(scan)) {
        loss::count(Loss::RequestIncomplete);
        is_cut = false;
    }
    u64::from(scan.requests.count) | u64::from(is_cut) << 8
}

/// The end of the bytes goes to the part of the scan, if it is not too long.
#[inline(always)]
fn keep_part(scan: &mut scan::Scan) -> bool {
    let begin = scan.requests.begin;
    let len = scan.requests.len.wrapping_sub(begin);
    if len == 0 || len > PART_LEN_MAX as u32 {
        return false;
    }
    scan.part.len = u64::from(len);
    // A mask, because the verifier does not see bounds that the compiler moves.
    let from = begin as usize & (SCAN_LEN - 1);
    // SAFETY: there is room for all that may be behind the begin.
    unsafe {
        let from = scan.bytes.as_ptr().add(from);
        bpf_probe_read_kernel(
            scan.part.bytes.as_mut_ptr().cast(),
            PART_LEN_MAX as u32,
            from.cast(),
        );
    }
    true
}

#[inline(never)]
extern "C" fn step_requests(_index: u32, _context: *mut c_void) -> i64 {
    let Some(scan) = scan::current() else {
        return 1;
    };
    match pipeline::step_requests(&scan.bytes, &mut scan.requests) {
        Step::End => 1,
        Step::More => 0,
        Step::Request => {
            http1_request_ends();
            0
        }
    }
}

/// The request that ended last waits; its route is looked up.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn http1_request_ends() -> u64 {
    let (Some(scan), Some(global), Some(line)) =
        (scan::current(), config::global(), route::line_buffer())
    else {
        return 0;
    };
    let cursor = &scan.requests;
    let place = cursor.count.wrapping_sub(1) as usize & (pipeline::REQUESTS_MAX - 1);
    scan.waiting[place] = Waiting {
        shape: 0,
        method: method(protocol::HTTP, 0) | scan.side_bit,
        padding: 0,
    };
    if cursor.method == 0 {
        // Known already.
        return 0;
    }
    let from = cursor.path as usize & (SCAN_LEN - 1);
    // SAFETY: there is room for a path behind every place.
    unsafe {
        let from = scan.bytes.as_ptr().add(from);
        let to = line.path.bytes.as_mut_ptr();
        bpf_probe_read_kernel(to.cast(), PATH_LEN_MAX as u32, from.cast());
    }
    let len = cursor.path_len() as u64;
    let shape = shape_of_line(len, scan.service, scan.lesson_bits);
    if shape == 0 {
        return 0;
    }
    let key = RouteKey {
        shape,
        service: scan.service,
        method: method(protocol::HTTP, cursor.method as u16) | scan.side_bit,
    };
    route::find(global, &key, &line.path);
    scan.waiting[place].shape = shape;
    scan.waiting[place].method = key.method;
    0
}

/// The begin of a request that the scan on this CPU ended in waits for the rest,
/// which is of the connection `id`; whether there was room.
#[inline(always)]
pub fn part_waits(id: u64) -> bool {
    http1_part_waits(id) != 0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn http1_part_waits(id: u64) -> u64 {
    let Some(scan) = scan::current() else {
        return 0;
    };
    u64::from(PARTS.insert(&id, &scan.part, 0).is_ok())
}

/// More of the request that waits for its rest was read; whether there was room.
#[inline(always)]
pub fn part_goes_on(id: u64, buffer: UserBuffer) -> bool {
    http1_part_goes_on(id, buffer.address(), buffer.len()) != 0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn http1_part_goes_on(id: u64, address: u64, len: u64) -> u64 {
    let Some(part) = PARTS.get_ptr_mut(&id) else {
        return 0;
    };
    // SAFETY: a live map value.
    let before = unsafe { (*part).len } & PART_LEN_MASK;
    if len == 0 || len > PART_LEN_MAX as u64 {
        return 0;
    }
    // SAFETY: there is room for both lengths; the helper checks the address.
    unsafe {
        let to = (&raw mut (*part).bytes).cast::<u8>().add(before as usize);
        if bpf_probe_read_user(to.cast(), len as u32, address as *const c_void) != 0 {
            return 0;
        }
        (*part).len = before + len;
    }
    u64::from(before + len <= PART_LEN_MAX as u64)
}

/// How many responses begin in what was sent, `max` at most; the scan has their
/// statuses.
#[inline(always)]
pub fn responses(buffer: UserBuffer, max: u32) -> u32 {
    http1_responses(buffer.address(), buffer.len(), u64::from(max)) as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn http1_responses(address: u64, len: u64, max: u64) -> u64 {
    let Some(scan) = scan::current() else {
        return 0;
    };
    let Some(read) = UserBuffer::new(address, len).fill_front::<SCAN_LEN>(&mut scan.bytes) else {
        return 0;
    };
    scan.requests = Cursor::new(read, false);
    scan.responses_max = max.min(pipeline::REQUESTS_MAX as u64) as u32;
    repeat(STEPS_MAX, step_responses);
    u64::from(scan.requests.count)
}

#[inline(never)]
extern "C" fn step_responses(_index: u32, _context: *mut c_void) -> i64 {
    scan::current().map_or(1, |scan| {
        let max = scan.responses_max;
        let goes_on =
            pipeline::step_responses(&scan.bytes, &mut scan.requests, max, &mut scan.found);
        i64::from(!goes_on)
    })
}
