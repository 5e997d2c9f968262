//! Run-queue delay.
//!
//! `run_queue` needs no wakeup hook: the scheduler itself notes when a task
//! was queued (`sched_info`, CONFIG_SCHED_INFO). A task that waits on several
//! queues in turn, because it is migrated, has what it waited before added to
//! `run_delay`; the difference to the value when it last ran is that part.
//! By the scheduler's clock a wakeup that preempts at once, or finds its CPU
//! idle, waits for nothing: the clock is not updated in between. Such waits
//! (the latency of leaving idle, some microseconds) count in the first bucket.
//!
//! The fallback times the way from wakeup (or preemption) to switch itself.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use sensor_common::{Signal, record::Loss};

use crate::{
    config::{self, Draw},
    histogram::{Event, record_alone},
    kernel::{
        OFFSET_CFS_RQ_RQ, OFFSET_RQ_CLOCK, OFFSET_TASK_CFS_RQ, OFFSET_TASK_LAST_QUEUED,
        OFFSET_TASK_PCOUNT, OFFSET_TASK_PID, OFFSET_TASK_RUN_DELAY, OFFSET_TASK_STATE, Object,
        load, now_ns,
    },
    loss, service,
};

#[btf_tracepoint(function = "sched_switch")]
pub fn run_queue(context: BtfTracePointContext) -> i32 {
    // SAFETY: arguments of the tracepoint: preempt, prev, next, prev_state.
    unsafe { on_switch(context.arg(2)) };
    0
}

#[inline(always)]
unsafe fn on_switch(next: Object) -> Option<()> {
    let global = config::global()?;
    let draw = Draw::first_stage(global, Signal::RunQueue as u32)?;
    // SAFETY: `next` is a task; each load follows a pointer just loaded.
    unsafe {
        let queued_ns: u64 = load(next, &OFFSET_TASK_LAST_QUEUED);
        // The idle task is never queued.
        if queued_ns == 0 {
            return None;
        }
        let cfs_rq: Object = load(next, &OFFSET_TASK_CFS_RQ);
        let rq: Object = load(cfs_rq, &OFFSET_CFS_RQ_RQ);
        let clock_ns: u64 = load(rq, &OFFSET_RQ_CLOCK);
        // Clocks of two CPUs may disagree by a little.
        let on_this_queue_ns = if clock_ns > queued_ns {
            clock_ns - queued_ns
        } else {
            0
        };
        let state = service::task_state(next)?;

        let run_delay_ns: u64 = load(next, &OFFSET_TASK_RUN_DELAY);
        let runs: u64 = load(next, &OFFSET_TASK_PCOUNT);
        // After an unsampled run its delay is in the difference too: then only
        // the last queue is known. `sched_info_arrive` raises `pcount` right
        // after this tracepoint, so this run's number is the next one's before.
        let on_earlier_queues_ns = if runs == state.runs && run_delay_ns > state.run_delay_ns {
            run_delay_ns - state.run_delay_ns
        } else {
            0
        };
        state.runs = runs + 1;
        state.run_delay_ns = run_delay_ns + on_this_queue_ns;

        let charged = service::of_task(global, next, state)?;
        let weight = draw.passes(charged.config(Signal::RunQueue as u32))?;
        let event = Event {
            signal: Signal::RunQueue as u32,
            value_ns: on_this_queue_ns + on_earlier_queues_ns,
            weight,
        };
        record_alone(global, charged, event);
    }
    Some(())
}

#[btf_tracepoint(function = "sched_wakeup")]
pub fn run_queue_wakeup(context: BtfTracePointContext) -> i32 {
    // SAFETY: the task woken is the first argument.
    unsafe { becomes_runnable(context.arg(0), now_ns()) };
    0
}

#[btf_tracepoint(function = "sched_wakeup_new")]
pub fn run_queue_wakeup_new(context: BtfTracePointContext) -> i32 {
    // SAFETY: the task woken is the first argument.
    unsafe { becomes_runnable(context.arg(0), now_ns()) };
    0
}

#[btf_tracepoint(function = "sched_switch")]
pub fn run_queue_switch(context: BtfTracePointContext) -> i32 {
    // SAFETY: arguments of the tracepoint: preempt, prev, next, prev_state.
    unsafe { on_switch_after_wakeup(context.arg(1), context.arg(2)) };
    0
}

#[inline(always)]
unsafe fn becomes_runnable(task: Object, now_ns: u64) {
    // SAFETY: the caller passes a task of a tracepoint.
    if let Some(state) = unsafe { service::task_state(task) }
        && state.runnable_ns == 0
    {
        state.runnable_ns = now_ns;
    }
}

#[inline(always)]
unsafe fn on_switch_after_wakeup(prev: Object, next: Object) -> Option<()> {
    const TASK_RUNNING: u32 = 0;
    let global = config::global()?;
    // SAFETY: both are tasks of the tracepoint.
    unsafe {
        let now_ns = now_ns();
        // Whatever woke it while it ran was no wait: a preempted task waits from
        // now on, a blocked one from its next wakeup.
        if load::<u32>(prev, &OFFSET_TASK_PID) != 0
            && let Some(state) = service::existing_task_state(prev)
        {
            let preempted = load::<u32>(prev, &OFFSET_TASK_STATE) == TASK_RUNNING;
            state.runnable_ns = if preempted { now_ns } else { 0 };
        }
        if load::<u32>(next, &OFFSET_TASK_PID) == 0 {
            return None;
        }
        let state = service::existing_task_state(next)?;
        let runnable_ns = core::mem::take(&mut state.runnable_ns);
        if runnable_ns == 0 || runnable_ns < global.resumed_ns {
            loss::count(Loss::UnmatchedEnd);
            return None;
        }
        let draw = Draw::first_stage(global, Signal::RunQueue as u32)?;
        let charged = service::of_task(global, next, state)?;
        let weight = draw.passes(charged.config(Signal::RunQueue as u32))?;
        let event = Event {
            signal: Signal::RunQueue as u32,
            value_ns: if now_ns > runnable_ns {
                now_ns - runnable_ns
            } else {
                0
            },
            weight,
        };
        record_alone(global, charged, event);
    }
    Some(())
}
