//! Entry points, one file per subject.

mod block;
mod calibration;
mod reclaim;
mod scheduler;
mod syscalls;
mod tcp;
mod tcp_packets;
mod tls;
mod udp;
mod unix;
