"""Run-queue delay the way bcc's runqlat measures it, as a peer of `probe-cost`.

A task's time is noted when it becomes runnable (woken, new, or switched away
from while still runnable) and looked up when it gets the CPU; one log2
histogram of microseconds, as runqlat makes without options. On the format of
the tracepoints, because raw arguments would need headers of exactly this kernel.
"""

import signal
import sys

PROGRAM = r"""
BPF_HASH(queued_at, u32, u64);
BPF_HISTOGRAM(delays);

static inline void queue(u32 pid) {
    u64 now = bpf_ktime_get_ns();
    if (pid)
        queued_at.update(&pid, &now);
}

TRACEPOINT_PROBE(sched, sched_wakeup) {
    queue(args->pid);
    return 0;
}

TRACEPOINT_PROBE(sched, sched_wakeup_new) {
    queue(args->pid);
    return 0;
}

TRACEPOINT_PROBE(sched, sched_switch) {
    // Preempted tasks are shown as 0x100, which is no state.
    if (!(args->prev_state & 0xff))
        queue(args->prev_pid);
    u32 pid = args->next_pid;
    u64 *since = queued_at.lookup(&pid);
    if (!since)
        return 0;
    delays.atomic_increment(bpf_log2l((bpf_ktime_get_ns() - *since) / 1000));
    queued_at.delete(&pid);
    return 0;
}
"""

try:
    from bcc import BPF

    bpf = BPF(text=PROGRAM)
except Exception as error:
    sys.exit(str(error))
# Where this was started with the signal ignored, Python leaves it so.
signal.signal(signal.SIGINT, signal.default_int_handler)
print("ready", flush=True)
try:
    signal.pause()
except KeyboardInterrupt:
    bpf["delays"].print_log2_hist("us")
