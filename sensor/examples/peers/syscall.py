"""System call latency the way bcc's `syscount -L` measures it, as a peer of `probe-cost`.

The entry is noted by thread and looked up at the exit; count and total time
per system call. (No histogram: syscount makes none.)
"""

import signal
import sys

PROGRAM = r"""
struct total {
    u64 calls;
    u64 nanoseconds;
};
BPF_HASH(entered_at, u64, u64);
BPF_HASH(totals, u32, struct total);

TRACEPOINT_PROBE(raw_syscalls, sys_enter) {
    u64 thread = bpf_get_current_pid_tgid();
    u64 now = bpf_ktime_get_ns();
    entered_at.update(&thread, &now);
    return 0;
}

TRACEPOINT_PROBE(raw_syscalls, sys_exit) {
    u64 thread = bpf_get_current_pid_tgid();
    u64 *since = entered_at.lookup(&thread);
    if (!since)
        return 0;
    struct total none = {};
    u32 number = args->id;
    struct total *total = totals.lookup_or_try_init(&number, &none);
    if (total) {
        lock_xadd(&total->calls, 1);
        lock_xadd(&total->nanoseconds, bpf_ktime_get_ns() - *since);
    }
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
    for number, total in bpf["totals"].items():
        print(number.value, total.calls, total.nanoseconds)
