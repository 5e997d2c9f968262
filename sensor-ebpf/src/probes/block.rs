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
    config::{self, Draw, SignalNumber},
    histogram::{Event, record},
    kernel::{
        OFFSET_HARDWARE_QUEUE_NUMBER, OFFSET_REQUEST_HARDWARE_QUEUE, OFFSET_REQUEST_INTERNAL_TAG,
        OFFSET_REQUEST_IO_START, OFFSET_REQUEST_START, OFFSET_REQUEST_TAG, Object, current_task,
        load, now_ns,
    },
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

/// Where a request's submitter is noted: by its tag, which it keeps from start
/// to completion (the scheduler's tag where the queue has a scheduler).
#[inline(always)]
unsafe fn entry(request: Object) -> u32 {
    // SAFETY: the caller passes a request of a tracepoint.
    unsafe {
        let scheduler_tag: i32 = load(request, &OFFSET_REQUEST_INTERNAL_TAG);
        let tag = if scheduler_tag >= 0 {
            scheduler_tag
        } else {
            load(request, &OFFSET_REQUEST_TAG)
        };
        let context: Object = load(request, &OFFSET_REQUEST_HARDWARE_QUEUE);
        let queue: u32 = load(context, &OFFSET_HARDWARE_QUEUE_NUMBER);
        (tag as u32).wrapping_add(queue << 8) & (SUBMITTERS_MAX - 1)
    }
}

#[btf_tracepoint(function = "block_io_start")]
pub fn block_start(context: BtfTracePointContext) -> i32 {
    // SAFETY: the request is the first argument.
    unsafe { note_submitter(context.arg(0)) };
    0
}

#[inline(always)]
unsafe fn note_submitter(request: Object) -> Option<()> {
    let global = config::global()?;
    let task = current_task();
    // SAFETY: the current task is trusted; `submitter` is a live map value.
    unsafe {
        let submitter = SUBMITTERS.get_ptr_mut(entry(request))?;
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
unsafe fn submitter_of(request: Object) -> Option<Charged> {
    // SAFETY: the caller passes a request of a tracepoint; a live map value.
    unsafe {
        let submitter = SUBMITTERS.get_ptr_mut(entry(request))?;
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
    let draw = Draw::first_stage(global, Signal::BlockIo as u32)?;
    // SAFETY: `request` is a request of the tracepoint.
    unsafe {
        let start_ns: u64 = load(request, &OFFSET_REQUEST_START);
        let io_start_ns: u64 = load(request, &OFFSET_REQUEST_IO_START);
        let now_ns = now_ns();
        let charged = submitter_of(request)?;
        if start_ns != 0 {
            count(
                global,
                charged,
                draw,
                Signal::BlockIo as u32,
                start_ns,
                now_ns,
            );
        }
        if io_start_ns != 0 {
            count(
                global,
                charged,
                draw,
                Signal::BlockIoDevice as u32,
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
    signal: SignalNumber,
    begin_ns: u64,
    now_ns: u64,
) -> Option<()> {
    let weight = draw.passes(charged.config(signal))?;
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
    let draw = Draw::first_stage(global, Signal::BlockIoDevice as u32)?;
    let key = request as u64;
    // SAFETY: values are plain numbers.
    let Some(begin_ns) = (unsafe { REQUESTS.get(key).copied() }) else {
        loss::count(Loss::UnmatchedEnd);
        return None;
    };
    let _ = REQUESTS.remove(key);
    let charged = Charged::host()?;
    count(
        global,
        charged,
        draw,
        Signal::BlockIoDevice as u32,
        begin_ns,
        now_ns(),
    )
}
