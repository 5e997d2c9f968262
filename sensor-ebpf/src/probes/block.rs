//! Block I/O latency.
//!
//! `block_complete` needs no state: the request carries when it was made
//! (`start_time_ns`) and when it went to the device (`io_start_time_ns`; 0 for
//! flushes and where accounting is off). It is charged to whoever submitted it,
//! as far as `block_start` saw it, else to the machine. Write-back is
//! submitted by kernel threads and so charged to them.

use aya_ebpf::{
    macros::{btf_tracepoint, map},
    maps::{Array, LruHashMap},
    programs::BtfTracePointContext,
};
use sensor_common::{
    Signal,
    record::{GlobalConfig, Loss},
};

use crate::{
    config::{self, Draw},
    histogram::{Event, record},
    kernel::{OFFSET_REQUEST_IO_START, OFFSET_REQUEST_START, Object, current_task, load, now_ns},
    loss,
    service::{self, Charged},
};

/// Entries of [`SUBMITTERS`]; a power of two. Two requests in flight that
/// share an entry cost the earlier its submitter, not its latency.
const SUBMITTERS_MAX: u32 = 4096;

/// Who submitted a request; found by the request's address.
#[repr(C)]
struct Submitter {
    request: u64,
    index: u32,
    generation: u32,
}

#[map]
static SUBMITTERS: Array<Submitter> = Array::with_max_entries(SUBMITTERS_MAX, 0);

/// Requests in flight by address, for kernels whose requests carry no times.
#[map]
static REQUESTS: LruHashMap<u64, u64> = LruHashMap::with_max_entries(16_384, 0);

#[inline(always)]
fn entry(request: Object) -> u32 {
    // Requests are allocated in slabs of a few hundred bytes.
    let address = request as u64;
    ((address >> 6) ^ (address >> 18)) as u32 & (SUBMITTERS_MAX - 1)
}

#[btf_tracepoint(function = "block_io_start")]
pub fn block_start(context: BtfTracePointContext) -> i32 {
    note_submitter(context.arg(0));
    0
}

#[inline(always)]
fn note_submitter(request: Object) -> Option<()> {
    let global = config::global()?;
    let task = current_task();
    let submitter = SUBMITTERS.get_ptr_mut(entry(request))?;
    // SAFETY: the current task is trusted; `submitter` is a live map value.
    unsafe {
        let state = service::task_state(task)?;
        let charged = service::of_task(global, task, state)?;
        (*submitter).index = charged.index;
        (*submitter).generation = charged.generation;
        (*submitter).request = request as u64;
    }
    Some(())
}

/// Whoever submitted `request`, else the machine.
#[inline(always)]
fn submitter_of(request: Object) -> Option<Charged> {
    let submitter = SUBMITTERS.get_ptr_mut(entry(request))?;
    // SAFETY: a live map value.
    unsafe {
        if (*submitter).request == request as u64 {
            (*submitter).request = 0;
            if let Some(charged) = Charged::cached((*submitter).index, (*submitter).generation) {
                return Some(charged);
            }
        }
    }
    Charged::host()
}

#[btf_tracepoint(function = "block_rq_complete")]
pub fn block_complete(context: BtfTracePointContext) -> i32 {
    // SAFETY: arguments of the tracepoint: request, error, bytes.
    unsafe { on_complete(context.arg(0)) };
    0
}

#[inline(always)]
unsafe fn on_complete(request: Object) -> Option<()> {
    let global = config::global()?;
    let draw = Draw::first_stage(global, Signal::BlockIo)?;
    // SAFETY: `request` is a request of the tracepoint.
    unsafe {
        let start_ns: u64 = load(request, &OFFSET_REQUEST_START);
        let io_start_ns: u64 = load(request, &OFFSET_REQUEST_IO_START);
        let now_ns = now_ns();
        let charged = submitter_of(request)?;
        if start_ns != 0 {
            count(global, charged, draw, Signal::BlockIo, start_ns, now_ns);
        }
        if io_start_ns != 0 {
            count(
                global,
                charged,
                draw,
                Signal::BlockIoDevice,
                io_start_ns,
                now_ns,
            );
        }
    }
    Some(())
}

#[inline(always)]
fn count(
    global: &GlobalConfig,
    charged: Charged,
    draw: Draw,
    signal: Signal,
    begin_ns: u64,
    now_ns: u64,
) -> Option<()> {
    // SAFETY: a live map value.
    let weight = draw.passes(unsafe { (*charged.service).config[signal as usize] })?;
    if now_ns < begin_ns {
        loss::count(Loss::NegativeDuration);
        return None;
    }
    let event = Event {
        signal,
        value_ns: now_ns - begin_ns,
        weight,
    };
    record(global, charged, event);
    Some(())
}

#[btf_tracepoint(function = "block_rq_issue")]
pub fn block_issue_timed(context: BtfTracePointContext) -> i32 {
    let request: Object = context.arg(0);
    if REQUESTS.insert(request as u64, now_ns(), 0).is_err() {
        loss::count(Loss::StateFull);
    }
    0
}

#[btf_tracepoint(function = "block_rq_complete")]
pub fn block_complete_timed(context: BtfTracePointContext) -> i32 {
    on_complete_timed(context.arg(0));
    0
}

#[inline(always)]
fn on_complete_timed(request: Object) -> Option<()> {
    let global = config::global()?;
    let draw = Draw::first_stage(global, Signal::BlockIoDevice)?;
    let key = request as u64;
    // SAFETY: values are plain numbers.
    let Some(begin_ns) = (unsafe { REQUESTS.get(key).copied() }) else {
        loss::count(Loss::UnmatchedEnd);
        return None;
    };
    let _ = REQUESTS.remove(key);
    let charged = submitter_of(request)?;
    count(
        global,
        charged,
        draw,
        Signal::BlockIoDevice,
        begin_ns,
        now_ns(),
    )
}
