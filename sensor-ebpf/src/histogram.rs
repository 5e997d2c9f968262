//! Counting a value in a row.

use core::intrinsics::{AtomicOrdering::Relaxed, atomic_xadd};

use aya_ebpf::{
    helpers::bpf_get_smp_processor_id,
    macros::map,
    maps::{Array, Stack},
};
use sensor_common::{
    histogram::{BUCKETS, position},
    record::{GlobalConfig, Loss, NO_ROW, ROWS_MAX, Row, RowOwner},
    signal::SIGNALS_MAX,
};

use crate::{
    config::{MMAPABLE, SignalNumber},
    loss,
    service::Charged,
};

/// Rows of all stripes: stripe × rows per stripe + row. The loader sets the size.
#[map]
static ROWS: Array<Row> = Array::with_max_entries(ROWS_MAX, MMAPABLE);
/// Who each row belongs to.
#[map]
static ROW_OWNERS: Array<RowOwner> = Array::with_max_entries(ROWS_MAX, MMAPABLE);
/// Row numbers nobody uses; user space fills it.
#[map]
static FREE_ROWS: Stack<u32> = Stack::with_max_entries(ROWS_MAX, 0);

/// Rows per stripe; patched at load.
#[unsafe(no_mangle)]
static ROWS_PER_STRIPE: u32 = 0xa5a5_1001;

/// 1 if every CPU has a stripe of its own, else 0; patched at load.
#[unsafe(no_mangle)]
static STRIPE_PER_CPU: u32 = 0xa5a5_1003;

/// One measured event.
#[derive(Clone, Copy)]
pub struct Event {
    pub signal: SignalNumber,
    pub value_ns: u64,
    /// Events it stands for: 2^k.
    pub weight: u32,
}

/// Counts `event` for the service it is charged to.
///
/// Additions are atomic: a stripe may belong to several CPUs, and an interrupt
/// may count in the row that its CPU is counting in.
#[inline(always)]
pub fn record(global: &GlobalConfig, charged: Charged, event: Event) {
    record_with(global, charged, event, false);
}

/// As [`record`], for a signal that only one program counts, with interrupts
/// off: where every CPU has its own stripe, nobody else can count in the row
/// meanwhile, and plain additions cost a fraction of atomic ones.
#[inline(always)]
pub fn record_alone(global: &GlobalConfig, charged: Charged, event: Event) {
    // SAFETY: a read-only global, patched at load.
    let alone = unsafe { core::ptr::read_volatile(&raw const STRIPE_PER_CPU) } == 1;
    record_with(global, charged, event, alone);
}

#[inline(always)]
fn record_with(global: &GlobalConfig, charged: Charged, event: Event, alone: bool) {
    let Some(row) = row(charged, event.signal) else {
        loss::count(Loss::RowsFull);
        return;
    };
    // SAFETY: a read-only global, patched at load.
    let rows_per_stripe = unsafe { core::ptr::read_volatile(&raw const ROWS_PER_STRIPE) };
    // SAFETY: the helper has no preconditions.
    let stripe = unsafe { bpf_get_smp_processor_id() } & global.stripe_mask;
    let Some(row) = ROWS.get_ptr_mut(stripe * rows_per_stripe + row) else {
        loss::count(Loss::ReadError);
        return;
    };
    add_with(global, row, event, alone);
}

/// Adds `event` to `row`.
#[inline(always)]
pub fn add(global: &GlobalConfig, row: *mut Row, event: Event) {
    add_with(global, row, event, false);
}

#[inline(always)]
fn add_with(global: &GlobalConfig, row: *mut Row, event: Event, alone: bool) {
    let position = position(event.value_ns) & 0xff;
    if position >= BUCKETS {
        return;
    }
    // SAFETY: `row` is a live map value and `position` is within its buckets.
    unsafe {
        let bucket = (&raw mut (*row).buckets).cast::<u32>().add(position);
        let sum_ns = event.value_ns.wrapping_mul(u64::from(event.weight));
        if alone {
            *bucket = (*bucket).wrapping_add(event.weight);
            (*row).samples = (*row).samples.wrapping_add(1);
            (*row).sum_ns = (*row).sum_ns.wrapping_add(sum_ns);
        } else {
            add_u32(bucket, event.weight);
            add_u64(&raw mut (*row).samples, 1);
            add_u64(&raw mut (*row).sum_ns, sum_ns);
        }
        let max_ns = &raw mut (*row).max_ns[(global.epoch & 1) as usize];
        if event.value_ns > *max_ns {
            *max_ns = event.value_ns;
        }
    }
}

/// The service's row for `signal`, taken from the free rows on its first event.
///
/// Two CPUs may both take one: the later replaces the earlier in the service,
/// and user space merges both by owner, so that nothing is lost.
#[inline(always)]
fn row(charged: Charged, signal: SignalNumber) -> Option<u32> {
    let slot = signal as usize;
    if slot >= SIGNALS_MAX {
        return None;
    }
    // SAFETY: `charged.service` is a live map value.
    let row = unsafe { (*charged.service).rows[slot] };
    if row != NO_ROW {
        return Some(row);
    }
    let row = FREE_ROWS.pop().ok()??;
    let owner = ROW_OWNERS.get_ptr_mut(row)?;
    // SAFETY: `owner` and `charged.service` are live map values.
    unsafe {
        (*owner).service = charged.index;
        (*owner).signal_plus_one = signal + 1;
        (*charged.service).rows[slot] = row;
    }
    Some(row)
}

/// Adds atomically.
///
/// # Safety
/// `target` must be a live, aligned map value.
#[inline(always)]
pub unsafe fn add_u64(target: *mut u64, value: u64) {
    // SAFETY: the caller passes a live, aligned map value.
    unsafe { atomic_xadd::<u64, u64, { Relaxed }>(target, value) };
}

#[inline(always)]
unsafe fn add_u32(target: *mut u32, value: u32) {
    // SAFETY: the caller passes a live, aligned map value.
    unsafe { atomic_xadd::<u32, u32, { Relaxed }>(target, value) };
}
