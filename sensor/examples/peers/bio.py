"""Block I/O latency the way bcc's biolatency measures it, as a peer of `probe-cost`.

From the start of a request, found again by device and sector when it is done;
one log2 histogram of microseconds, as biolatency makes without options.
"""

import signal
import sys

PROGRAM = r"""
struct request_key {
    u64 device;
    u64 sector;
};
BPF_HASH(started_at, struct request_key, u64);
BPF_HISTOGRAM(latencies);

TRACEPOINT_PROBE(block, block_io_start) {
    struct request_key key = {.device = args->dev, .sector = args->sector};
    u64 now = bpf_ktime_get_ns();
    started_at.update(&key, &now);
    return 0;
}

TRACEPOINT_PROBE(block, block_io_done) {
    struct request_key key = {.device = args->dev, .sector = args->sector};
    u64 *since = started_at.lookup(&key);
    if (!since)
        return 0;
    latencies.atomic_increment(bpf_log2l((bpf_ktime_get_ns() - *since) / 1000));
    started_at.delete(&key);
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
    bpf["latencies"].print_log2_hist("us")
