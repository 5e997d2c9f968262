//! System-call latency by class.
//!
//! Two programs on every system call: off by default, and only attached while
//! a class is wanted.

use aya_ebpf::{
    macros::{btf_tracepoint, map},
    maps::Array,
    programs::BtfTracePointContext,
};
use sensor_common::{
    record::{Loss, SYSCALLS_MAX},
    signal::SIGNALS_MAX,
};

use crate::{
    config::{self, Draw, SignalNumber},
    histogram::{Event, record},
    kernel::{current_task, now_ns},
    loss, service,
};

/// Signal number of each system call; 255 where there is none.
#[map]
static SYSCALL_SIGNALS: Array<u8> = Array::with_max_entries(SYSCALLS_MAX, 0);

/// The class of a system call.
#[inline(always)]
fn class_of(number: u32) -> Option<SignalNumber> {
    let signal = *SYSCALL_SIGNALS.get(number)?;
    if usize::from(signal) >= SIGNALS_MAX {
        return None;
    }
    Some(u32::from(signal))
}

#[btf_tracepoint(function = "sys_enter")]
pub fn syscall_enter(context: BtfTracePointContext) -> i32 {
    on_enter(context.arg::<i64>(1) as u32);
    0
}

#[inline(always)]
fn on_enter(number: u32) -> Option<()> {
    let global = config::global()?;
    let signal = class_of(number)?;
    let draw = Draw::first_stage(global, signal)?;
    // SAFETY: the current task is trusted.
    let state = unsafe { service::task_state(current_task()) }?;
    state.syscall_number = number as u16;
    state.syscall_shift = u16::from(draw.first());
    state.syscall_begin_ns = now_ns();
    Some(())
}

#[btf_tracepoint(function = "sys_exit")]
pub fn syscall_exit(_context: BtfTracePointContext) -> i32 {
    on_exit();
    0
}

/// A call without a begin was not sampled, or began before the sensor.
#[inline(always)]
fn on_exit() -> Option<()> {
    let task = current_task();
    // SAFETY: the current task is trusted.
    let state = unsafe { service::existing_task_state(task) }?;
    let begin_ns = core::mem::take(&mut state.syscall_begin_ns);
    if begin_ns == 0 {
        return None;
    }
    let global = config::global()?;
    if begin_ns < global.resumed_ns {
        loss::count(Loss::UnmatchedEnd);
        return None;
    }
    let value_ns = now_ns() - begin_ns;
    let signal = class_of(u32::from(state.syscall_number))?;
    // SAFETY: as above.
    let charged = unsafe { service::of_task(global, task, state) }?;
    // The first stage was drawn at the begin, at the ratio of then (a call may
    // wait for long); this draw decides the rest.
    let first = state.syscall_shift as u8;
    let weight = Draw::second_stage(first, charged.config(signal))?;
    let event = Event {
        signal,
        value_ns,
        weight,
    };
    record(global, charged, event);
    Some(())
}
