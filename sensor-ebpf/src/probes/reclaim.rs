//! Direct memory reclaim: a task that needs memory frees some itself.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use sensor_common::{Signal, record::Loss};

use crate::{
    config::{self, Draw},
    histogram::{Event, record},
    kernel::{current_task, now_ns},
    loss, service,
};

#[btf_tracepoint(function = "mm_vmscan_direct_reclaim_begin")]
pub fn reclaim_begin(_context: BtfTracePointContext) -> i32 {
    // SAFETY: the current task is trusted.
    if let Some(state) = unsafe { service::task_state(current_task()) } {
        state.reclaim_begin_ns = now_ns();
    }
    0
}

#[btf_tracepoint(function = "mm_vmscan_direct_reclaim_end")]
pub fn reclaim_end(_context: BtfTracePointContext) -> i32 {
    on_end();
    0
}

#[inline(always)]
fn on_end() -> Option<()> {
    let global = config::global()?;
    let task = current_task();
    // SAFETY: the current task is trusted.
    let state = unsafe { service::task_state(task) }?;
    let begin_ns = core::mem::take(&mut state.reclaim_begin_ns);
    if begin_ns == 0 || begin_ns < global.resumed_ns {
        loss::count(Loss::UnmatchedEnd);
        return None;
    }
    let draw = Draw::first_stage(global, Signal::Reclaim as u32)?;
    // SAFETY: as above.
    let charged = unsafe { service::of_task(global, task, state) }?;
    let weight = draw.passes(charged.config(Signal::Reclaim as u32))?;
    let event = Event {
        signal: Signal::Reclaim as u32,
        value_ns: now_ns() - begin_ns,
        weight,
    };
    record(global, charged, event);
    Some(())
}
