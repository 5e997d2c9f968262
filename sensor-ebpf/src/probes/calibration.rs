//! Programs that measure nothing: the floor that costs are compared with, and
//! the bucket index for comparison with user space.

use aya_ebpf::{
    macros::btf_tracepoint,
    programs::{BtfTracePointContext, RawTracePointContext},
};
use sensor_common::histogram::position;

/// Returns the bucket of its first argument; run by `BPF_PROG_TEST_RUN`, never
/// attached. By hand, because aya's macro drops the return value.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/sched_switch")]
pub fn bucket_position(context: *mut core::ffi::c_void) -> i32 {
    position(RawTracePointContext::new(context).arg::<u64>(0)) as i32
}

macro_rules! empty {
    ($($name:ident on $function:literal;)*) => {
        $(
            #[btf_tracepoint(function = $function)]
            pub fn $name(_context: BtfTracePointContext) -> i32 {
                0
            }
        )*
    };
}

empty! {
    empty_sched_switch on "sched_switch";
    empty_sched_wakeup on "sched_wakeup";
    empty_sched_wakeup_new on "sched_wakeup_new";
    empty_block_complete on "block_rq_complete";
    empty_block_done on "block_io_done";
    empty_block_start on "block_io_start";
    empty_data_ready on "sk_data_ready";
    empty_receive on "sock_recv_length";
    empty_send on "sock_send_length";
    empty_state on "inet_sock_set_state";
    empty_sys_enter on "sys_enter";
    empty_sys_exit on "sys_exit";
}
