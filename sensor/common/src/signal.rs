//! The signals a sensor measures.
//!
//! A signal's number is its position in the kernel's per-service tables and on
//! the wire, so numbers are never reused: a retired signal leaves a hole.

/// Upper bound on the number of signals, fixed by the layout of
/// [`crate::record::Service`].
pub const SIGNALS_MAX: usize = 32;

/// One kind of latency; its number is stable (see the module).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Signal {
    /// Time a runnable task waited for a CPU.
    RunQueue = 0,
    /// Block request: from creation to completion (queue + device).
    BlockIo = 1,
    /// Block request: from issue to the device to completion.
    BlockIoDevice = 2,
    /// TCP connect: SYN sent to established.
    TcpConnect = 3,
    /// Smoothed TCP round-trip time, sampled when a request is sent or served.
    TcpRtt = 4,
    /// TCP retransmission; the value is the smoothed round-trip time at that moment.
    TcpRetransmit = 5,
    /// Direct memory reclaim: time a task was held up freeing memory.
    Reclaim = 6,
    /// Served request: data ready to first response byte.
    ServerRequest = 7,
    /// Served request: data ready to first read (the wait in the socket queue).
    ServerQueue = 8,
    /// Served request: first read to first response byte.
    ServerService = 9,
    /// Served request: data ready to last response byte.
    ServerResponse = 10,
    /// Issued request: first byte sent to first response byte read.
    ClientRequest = 11,
    /// Issued request: first byte sent to last response byte read.
    ClientResponse = 12,
    /// System calls that read data.
    SyscallRead = 13,
    /// System calls that write data.
    SyscallWrite = 14,
    /// System calls that flush data to storage.
    SyscallSync = 15,
    /// Futex waits and wakes.
    SyscallFutex = 16,
    /// Waits for readiness: poll, select, epoll.
    SyscallPoll = 17,
    /// File metadata: open, close, stat, rename, directory listing.
    SyscallFile = 18,
    /// Socket set-up: socket, connect, accept, shutdown.
    SyscallSocket = 19,
    /// Memory mapping and advice.
    SyscallMemory = 20,
    /// Process life: clone, exec, wait, exit.
    SyscallProcess = 21,
    /// Deliberate sleeps.
    SyscallSleep = 22,
    /// All other system calls.
    SyscallOther = 23,
    /// CPU pressure: time within a second in which a task of the service waited
    /// for a CPU; one event per cgroup and flush, as of the next two.
    CpuPressure = 24,
    /// The same of I/O.
    IoPressure = 25,
    /// The same of memory.
    MemoryPressure = 26,
    /// Period in which the CPU quota was used up: how long its tasks were
    /// kept from running then, the sum over CPUs.
    CpuThrottled = 27,
}

/// Number of signals defined.
pub const SIGNALS: usize = 28;
const _: () = assert!(SIGNALS <= SIGNALS_MAX);

impl Signal {
    /// Every signal, ordered by number.
    pub const ALL: [Signal; SIGNALS] = [
        Signal::RunQueue,
        Signal::BlockIo,
        Signal::BlockIoDevice,
        Signal::TcpConnect,
        Signal::TcpRtt,
        Signal::TcpRetransmit,
        Signal::Reclaim,
        Signal::ServerRequest,
        Signal::ServerQueue,
        Signal::ServerService,
        Signal::ServerResponse,
        Signal::ClientRequest,
        Signal::ClientResponse,
        Signal::SyscallRead,
        Signal::SyscallWrite,
        Signal::SyscallSync,
        Signal::SyscallFutex,
        Signal::SyscallPoll,
        Signal::SyscallFile,
        Signal::SyscallSocket,
        Signal::SyscallMemory,
        Signal::SyscallProcess,
        Signal::SyscallSleep,
        Signal::SyscallOther,
        Signal::CpuPressure,
        Signal::IoPressure,
        Signal::MemoryPressure,
        Signal::CpuThrottled,
    ];

    /// The signal of a number, if there is one.
    pub const fn from_number(number: u8) -> Option<Signal> {
        if (number as usize) < SIGNALS {
            Some(Self::ALL[number as usize])
        } else {
            None
        }
    }

    /// The signal's number.
    #[inline(always)]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The name used in metrics, queries and configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Signal::RunQueue => "runq",
            Signal::BlockIo => "blkio",
            Signal::BlockIoDevice => "blkio_device",
            Signal::TcpConnect => "tcp_connect",
            Signal::TcpRtt => "tcp_rtt",
            Signal::TcpRetransmit => "tcp_retransmit",
            Signal::Reclaim => "reclaim",
            Signal::ServerRequest => "server_request",
            Signal::ServerQueue => "server_queue",
            Signal::ServerService => "server_service",
            Signal::ServerResponse => "server_response",
            Signal::ClientRequest => "client_request",
            Signal::ClientResponse => "client_response",
            Signal::SyscallRead => "syscall_read",
            Signal::SyscallWrite => "syscall_write",
            Signal::SyscallSync => "syscall_sync",
            Signal::SyscallFutex => "syscall_futex",
            Signal::SyscallPoll => "syscall_poll",
            Signal::SyscallFile => "syscall_file",
            Signal::SyscallSocket => "syscall_socket",
            Signal::SyscallMemory => "syscall_memory",
            Signal::SyscallProcess => "syscall_process",
            Signal::SyscallSleep => "syscall_sleep",
            Signal::SyscallOther => "syscall_other",
            Signal::CpuPressure => "cpu_pressure",
            Signal::IoPressure => "io_pressure",
            Signal::MemoryPressure => "memory_pressure",
            Signal::CpuThrottled => "cpu_throttled",
        }
    }

    /// The signal of a name, if there is one.
    pub fn from_name(name: &str) -> Option<Signal> {
        Self::ALL.into_iter().find(|signal| signal.name() == name)
    }

    /// Whether the signal is a class of system calls (off by default).
    pub const fn is_syscall(self) -> bool {
        self.number() >= Signal::SyscallRead.number()
            && self.number() <= Signal::SyscallOther.number()
    }
}

impl core::fmt::Display for Signal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_is_found_by_its_number_and_name() {
        for (number, signal) in Signal::ALL.into_iter().enumerate() {
            assert_eq!(signal.number() as usize, number);
            assert_eq!(Signal::from_number(number as u8), Some(signal));
            assert_eq!(Signal::from_name(signal.name()), Some(signal));
        }
        assert_eq!(Signal::from_number(SIGNALS as u8), None);
        assert_eq!(Signal::from_name("nope"), None);
    }
}
