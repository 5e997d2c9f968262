//! Requests on connections of HTTP/2, each timed on its own.
//!
//! Everything that such a connection carries is followed frame by frame, because
//! fields refer to earlier ones; payloads are skipped. What was read of a request
//! waits under the number of its stream until the response says how it ended.

use core::ffi::c_void;

use aya_ebpf::{helpers::generated::bpf_probe_read_kernel, macros::map, maps::LruHashMap};
use sensor_common::{
    http2::{Block, Cursor, Next, PREFACE_LEN, REST_MAX, STEPS_MAX, Side, grpc_class},
    protocol,
    record::Loss,
    redis::{Bytes, SCAN_LEN},
    route::{RouteKey, method, others},
};

use crate::{
    config::{self, Draw, SignalNumber},
    loss,
    pipeline::{self, count_answer, count_peer},
    requests::shape_of_line,
    route,
    scan::{self, Scan},
    service::Charged,
    user_buffer::{self, IoVector, UserBuffer},
};

/// Directions of connections that are followed at most; those that were idle
/// for longest make room.
const SIDES_MAX: u32 = 2048;
/// Requests under way at most, likewise.
const STREAMS_MAX: u32 = 16_384;
/// Windows of one read or write that are looked through.
const WINDOWS_MAX: u32 = 8;
/// Bytes of a window that are new.
const WINDOW: u32 = (SCAN_LEN - REST_MAX) as u32;

/// One direction of a connection.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SideKey {
    id: u64,
    /// 1 that of requests, 0 that of responses.
    is_request: u64,
}

#[repr(C)]
struct StreamKey {
    id: u64,
    stream: u64,
}

/// A request under way.
#[repr(C)]
#[derive(Clone, Copy)]
struct Stream {
    request_ns: u64,
    /// Time to the begin of its response, 0 before.
    value_ns: u64,
    shape: u64,
    /// As in [`RouteKey`].
    method: u32,
    weight: u32,
    /// Status of its response.
    status: u32,
    padding: u32,
}

#[map]
static SIDES: LruHashMap<SideKey, Side> = LruHashMap::with_max_entries(SIDES_MAX, 0);
#[map]
static STREAMS: LruHashMap<StreamKey, Stream> = LruHashMap::with_max_entries(STREAMS_MAX, 0);

/// What is being read, on this CPU.
#[repr(C)]
pub struct Reading {
    key: SideKey,
    who: u64,
    /// When what is read arrived, or what is sent was sent.
    now_ns: u64,
    signal: u32,
    /// A bit for [`RouteKey::method`].
    side_bit: u32,
    /// Of a client: hash of the address that is asked, 0 if it is not known.
    peer: u64,
    /// The buffer, what is carried in all, and how much of it was looked through.
    address: u64,
    len: u64,
    /// As of [`UserBuffer`].
    vectors: u64,
    gathering: Gathering,
    total: u64,
    offset: u64,
    cursor: Cursor,
}

/// Filling a window from several buffers.
#[repr(C)]
struct Gathering {
    /// Address of the next vector.
    vectors: u64,
    /// Bytes of it, and of those behind it, that come before the window.
    skip: u64,
    /// Place in the window.
    at: u32,
    /// Bytes that are wanted yet.
    wanted: u32,
}

/// Buffers of one window at most.
const VECTORS_MAX: u32 = 64;

/// One read or write of a connection.
pub struct Transfer {
    pub buffer: UserBuffer,
    /// Bytes in all, of which the buffer may have only the first.
    pub total: u64,
    pub is_request: bool,
    pub charged: Charged,
    pub now_ns: u64,
    pub signal: SignalNumber,
    pub side_bit: u32,
    pub peer: u64,
}

static NEW: Side = Side::NEW;

/// A connection begins whose client said the preface.
#[inline(always)]
pub fn begin(name: &mut u64) {
    let id = pipeline::id(name);
    for is_request in [0, 1] {
        let key = SideKey { id, is_request };
        if SIDES.insert(&key, &NEW, 0).is_err() {
            loss::count(Loss::StateFull);
        }
        if is_request == 1
            && let Some(side) = SIDES.get_ptr_mut(&key)
        {
            // SAFETY: a live map value.
            unsafe { (*side).skip = PREFACE_LEN };
        }
    }
}

/// Reads what a connection carries; whether it can still be followed.
#[inline(always)]
pub fn transfer(id: u64, transfer: &Transfer) -> bool {
    let Some(scan) = scan::current() else {
        return false;
    };
    let reading = &mut scan.http2;
    reading.vectors = transfer.buffer.vectors();
    reading.key = SideKey {
        id,
        is_request: u64::from(transfer.is_request),
    };
    let charged = transfer.charged;
    reading.who = u64::from(charged.index) | u64::from(charged.generation) << 32;
    reading.now_ns = transfer.now_ns;
    reading.signal = transfer.signal;
    reading.side_bit = transfer.side_bit;
    reading.peer = transfer.peer;
    http2_transfer(
        transfer.buffer.address(),
        transfer.buffer.len(),
        transfer.total,
    ) == 0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn http2_transfer(address: u64, len: u64, total: u64) -> u64 {
    let Some(scan) = scan::current() else {
        return 0;
    };
    let reading = &mut scan.http2;
    (reading.address, reading.len, reading.total) = (address, len, total);
    reading.offset = 0;
    for _ in 0..WINDOWS_MAX {
        match http2_window() {
            DONE => return 0,
            MORE => {}
            _ => return LOST,
        }
    }
    // More than is looked through.
    if let Some(side) = SIDES.get_ptr_mut(&reading.key) {
        // SAFETY: a live map value; the socket's lock keeps others away.
        lose(unsafe { &mut *side });
    }
    LOST
}

/// All of what is carried was looked through, or not yet, or it cannot be.
const DONE: u64 = 0;
const MORE: u64 = 1;
const LOST: u64 = 2;

#[inline(always)]
fn lose(side: &mut Side) -> u64 {
    side.is_lost = 1;
    loss::count(Loss::RequestIncomplete);
    LOST
}

/// Looks through the next window.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn http2_window() -> u64 {
    let Some(scan) = scan::current() else {
        return LOST;
    };
    let Some(side) = SIDES.get_ptr_mut(&scan.http2.key) else {
        // It made room for others.
        loss::count(Loss::StateFull);
        return LOST;
    };
    // SAFETY: a live map value; the socket's lock keeps others away.
    let side = unsafe { &mut *side };
    if side.is_lost != 0 {
        return LOST;
    }
    let (address, len, total) = (scan.http2.address, scan.http2.len, scan.http2.total);
    let mut offset = scan.http2.offset;
    if side.skip != 0 {
        let left = total.saturating_sub(offset);
        let step = left.min(u64::from(side.skip));
        side.skip -= step as u32;
        offset += step;
    }
    if offset >= total {
        return DONE;
    }
    let read = if scan.http2.vectors == 0 {
        read_window(side, &mut scan.bytes, address, len, offset)
    } else {
        gather_window(side, scan, offset)
    };
    let Some(read) = read else {
        return lose(side);
    };
    // Several buffers are looked through like one.
    let len = if scan.http2.vectors == 0 { len } else { total };
    let before = side.rest_len;
    side.rest_len = 0;
    scan.http2.cursor = Cursor::new(before + read, 0);
    scan::repeat(STEPS_MAX, step_http2);
    let cursor = &scan.http2.cursor;
    let rest = cursor.len.wrapping_sub(cursor.at);
    if side.is_lost != 0 || !cursor.is_between_frames() || rest > cursor.len {
        return lose(side);
    }
    scan.http2.offset = offset + u64::from(read);
    if rest == 0 {
        return MORE;
    }
    if scan.http2.offset < len && rest <= read {
        // The next window begins with it.
        scan.http2.offset -= u64::from(rest);
        return MORE;
    }
    if scan.http2.offset < total || rest > REST_MAX as u32 {
        return lose(side);
    }
    let at = cursor.at as usize & (SCAN_LEN - 1);
    let from = scan.bytes[at..].as_ptr();
    // SAFETY: `rest` has room, and behind each place of a window there is so much;
    // the helper checks the address.
    unsafe { bpf_probe_read_kernel(side.rest.as_mut_ptr().cast(), REST_MAX as u32, from.cast()) };
    side.rest_len = rest;
    DONE
}

/// Puts what was cut off before into `bytes`; returns its length.
#[inline(always)]
fn put_rest(side: &Side, bytes: &mut Bytes) -> Option<usize> {
    let len = side.rest_len as usize & (2 * REST_MAX - 1);
    if len > REST_MAX {
        return None;
    }
    if len != 0 {
        // SAFETY: `bytes` is longer; the helper checks the address.
        unsafe {
            bpf_probe_read_kernel(
                bytes.as_mut_ptr().cast(),
                REST_MAX as u32,
                side.rest.as_ptr().cast(),
            )
        };
    }
    Some(len)
}

/// Fills `bytes` with what was cut off and what follows at `offset`; returns how
/// much that is.
#[inline(always)]
fn read_window(side: &Side, bytes: &mut Bytes, address: u64, len: u64, offset: u64) -> Option<u32> {
    let before = put_rest(side, bytes)?;
    let rest = UserBuffer::new(address.wrapping_add(offset), len.checked_sub(offset)?);
    let read = rest.fill_front::<{ WINDOW as usize }>(&mut bytes[before..])?;
    Some(read as u32)
}

/// As [`read_window`], from several buffers.
#[inline(always)]
fn gather_window(side: &Side, scan: &mut Scan, offset: u64) -> Option<u32> {
    let before = put_rest(side, &mut scan.bytes)?;
    let wanted = (scan.http2.total - offset).min(u64::from(WINDOW)) as u32;
    scan.http2.gathering = Gathering {
        vectors: scan.http2.vectors,
        skip: offset,
        at: before as u32,
        wanted,
    };
    scan::repeat(VECTORS_MAX, step_gather);
    // What further buffers have is the next window's.
    let read = wanted.wrapping_sub(scan.http2.gathering.wanted);
    (read != 0 && read <= wanted).then_some(read)
}

#[inline(never)]
extern "C" fn step_gather(_index: u32, _context: *mut c_void) -> i64 {
    let Some(scan) = scan::current() else {
        return 1;
    };
    let gathering = &mut scan.http2.gathering;
    let Some([address, len]) = user_buffer::read::<IoVector>(gathering.vectors) else {
        return 1;
    };
    gathering.vectors = gathering.vectors.wrapping_add(size_of::<IoVector>() as u64);
    if gathering.skip >= len {
        gathering.skip -= len;
        return 0;
    }
    let left = (len - gathering.skip).min(u64::from(gathering.wanted));
    let from = UserBuffer::new(address.wrapping_add(gathering.skip), left);
    let at = gathering.at as usize & (SCAN_LEN - 1);
    let Some(read) = from.fill_front::<SCAN_LEN>(&mut scan.bytes[at..]) else {
        return 1;
    };
    gathering.skip = 0;
    gathering.at += read as u32;
    gathering.wanted = gathering.wanted.saturating_sub(read as u32);
    i64::from(gathering.wanted == 0)
}

#[inline(never)]
extern "C" fn step_http2(_index: u32, _context: *mut c_void) -> i64 {
    let stops = http2_step();
    // Volatile: the compiler knows that it is 0 or 1, and the verifier wants to
    // see it.
    // SAFETY: a local variable.
    (unsafe { core::ptr::read_volatile(&raw const stops) } & 1) as i64
}

/// 1 at the end of the window.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn http2_step() -> u64 {
    let (Some(scan), Some(line)) = (scan::current(), route::line_buffer()) else {
        return 1;
    };
    let reading = &mut scan.http2;
    let Some(side) = SIDES.get_ptr_mut(&reading.key) else {
        return 1;
    };
    // SAFETY: as above.
    let side = unsafe { &mut *side };
    match reading.cursor.step(&scan.bytes, side, &mut line.path.bytes) {
        Next::Step => return 0,
        Next::Stop => return 1,
        Next::Path => {
            let (service, len) = (reading.who as u32, reading.cursor.path_len() as usize);
            if len < line.path.bytes.len() {
                line.path.bytes[len] = b' ';
            }
            let bits = config::global().map_or(0, |global| route::lesson_bits(global, service));
            let shape = shape_of_line(len as u64 + 1, service, bits);
            reading.cursor.path_is_known(side, shape);
        }
        Next::Block => {
            http2_block();
        }
        Next::Reset => {
            http2_ends(if reading.key.is_request != 0 { 4 } else { 5 });
        }
        Next::End => {
            if reading.key.is_request == 0 {
                http2_ends(0);
            }
        }
    }
    0
}

/// A block of fields ended.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn http2_block() -> u64 {
    let Some(scan) = scan::current() else {
        return 0;
    };
    let reading = &mut scan.http2;
    let key = StreamKey {
        id: reading.key.id,
        stream: u64::from(reading.cursor.stream),
    };
    let block = reading.cursor.block;
    if reading.key.is_request != 0 {
        // Trailers have neither.
        if block.path != 0 || block.method != 0 {
            request_begins(reading, &key, &block);
        }
        return 0;
    }
    let Some(stream) = STREAMS.get_ptr_mut(&key) else {
        return 0;
    };
    // SAFETY: a live map value; the socket's lock keeps others away.
    let stream = unsafe { &mut *stream };
    if block.status >= 100 && block.status < 200 {
        return 0;
    }
    if stream.value_ns == 0 {
        stream.value_ns = reading.now_ns.saturating_sub(stream.request_ns).max(1);
        stream.status = block.status;
    }
    let is_grpc = stream.method >> 16 & 0xff == u32::from(protocol::GRPC);
    if is_grpc && block.grpc_status != 0 {
        http2_ends(u64::from(grpc_class(block.grpc_status - 1)));
    } else if !is_grpc || block.ends != 0 {
        http2_ends(u64::from(stream.status));
    }
    0
}

#[inline(always)]
fn request_begins(reading: &Reading, key: &StreamKey, block: &Block) -> Option<()> {
    let global = config::global()?;
    let charged = Charged::cached(reading.who as u32, (reading.who >> 32) as u32)?;
    let draw = Draw::first_stage(global, reading.signal)?;
    let weight = draw.passes(charged.config(reading.signal))?;
    let operation = if block.is_grpc != 0 {
        method(protocol::GRPC, 1)
    } else {
        method(protocol::HTTP, block.method as u16)
    };
    let mut route = RouteKey {
        shape: block.shape,
        service: charged.index,
        method: operation | reading.side_bit,
    };
    if block.shape == 0 {
        loss::count(Loss::RequestIncomplete);
        route.method = others(route.method);
    } else if block.path == 1
        && let Some(line) = route::line_buffer()
    {
        route::find(global, &route, &line.path);
    }
    let stream = Stream {
        request_ns: reading.now_ns,
        value_ns: 0,
        shape: route.shape,
        method: route.method,
        weight,
        status: 0,
        padding: 0,
    };
    if STREAMS.insert(key, &stream, 0).is_err() {
        loss::count(Loss::StateFull);
    }
    Some(())
}

/// The stream of the frame being read ended: with a class, or a status of HTTP.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn http2_ends(outcome: u64) -> u64 {
    let Some(scan) = scan::current() else {
        return 0;
    };
    let reading = &scan.http2;
    let key = StreamKey {
        id: reading.key.id,
        stream: u64::from(reading.cursor.stream),
    };
    // SAFETY: copied at once.
    let Some(stream) = (unsafe { STREAMS.get(&key) }).copied() else {
        return 0;
    };
    let value_ns = match stream.value_ns {
        0 => reading.now_ns.saturating_sub(stream.request_ns),
        value_ns => value_ns,
    };
    count_answer(
        reading.who,
        u64::from(stream.method) | outcome << 32,
        stream.shape,
        value_ns,
        u64::from(stream.weight) | u64::from(reading.signal) << 32,
    );
    if reading.peer != 0 {
        count_peer(
            reading.who,
            reading.peer,
            value_ns,
            u64::from(stream.weight) | u64::from(reading.signal) << 32,
        );
    }
    let _ = STREAMS.remove(&key);
    0
}
