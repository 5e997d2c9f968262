//! Counting what is lost.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use sensor_common::record::Loss;

#[map]
static LOSSES: PerCpuArray<u64> = PerCpuArray::with_max_entries(Loss::ALL.len() as u32, 0);

/// Counts one loss.
#[inline(always)]
pub fn count(loss: Loss) {
    if let Some(counter) = LOSSES.get_ptr_mut(loss as u32) {
        // SAFETY: a per-CPU value of a live map.
        unsafe { *counter += 1 }
    }
}
