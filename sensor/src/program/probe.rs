//! What can be measured, by which programs, and at which level.

use std::fmt;

use sensor_common::Signal;

use super::openssl;

/// What measures something users know by name: a group of programs, or files of
/// the kernel ([`crate::stalls`]).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// Run-queue delay.
    Runq,
    /// Block I/O.
    Blkio,
    /// Exchanges, connects and round-trip times on TCP sockets.
    Tcp,
    /// TCP retransmissions.
    TcpRetransmit,
    /// Direct memory reclaim.
    Reclaim,
    /// System calls by class.
    Syscall,
    /// Pressure stall information; from files, without kernel programs.
    Pressure,
    /// CPU quotas used up; likewise.
    Throttling,
}

/// One way to measure, best first.
#[derive(Debug)]
pub struct Level {
    /// What it gives, for people.
    pub what: &'static str,
    /// Its programs; all are needed. None where files are read instead.
    pub programs: &'static [ProgramSpec],
}

/// A program and what it needs.
#[derive(Clone, Copy, Debug)]
pub struct ProgramSpec {
    /// Name in the object.
    pub program: &'static str,
    /// BTF tracepoint.
    pub tracepoint: &'static str,
    /// Offsets it reads, by the names in [`OFFSETS`].
    pub offsets: &'static [&'static str],
}

const fn spec(
    program: &'static str,
    tracepoint: &'static str,
    offsets: &'static [&'static str],
) -> ProgramSpec {
    ProgramSpec {
        program,
        tracepoint,
        offsets,
    }
}

/// Global in the object → member whose offset it holds.
pub const OFFSETS: &[(&str, &str)] = &[
    ("OFFSET_TASK_PID", "task_struct.pid"),
    ("OFFSET_TASK_TGID", "task_struct.tgid"),
    ("OFFSET_TASK_FLAGS", "task_struct.flags"),
    ("OFFSET_TASK_COMM", "task_struct.comm"),
    ("OFFSET_TASK_GROUP_LEADER", "task_struct.group_leader"),
    ("OFFSET_TASK_SELF_EXEC_ID", "task_struct.self_exec_id"),
    ("OFFSET_TASK_CGROUPS", "task_struct.cgroups"),
    ("OFFSET_TASK_STATE", "task_struct.__state"),
    (
        "OFFSET_TASK_LAST_QUEUED",
        "task_struct.sched_info.last_queued",
    ),
    ("OFFSET_TASK_RUN_DELAY", "task_struct.sched_info.run_delay"),
    ("OFFSET_TASK_PCOUNT", "task_struct.sched_info.pcount"),
    ("OFFSET_TASK_CFS_RQ", "task_struct.se.cfs_rq"),
    ("OFFSET_CFS_RQ_RQ", "cfs_rq.rq"),
    ("OFFSET_RQ_CLOCK", "rq.clock"),
    ("OFFSET_CSS_SET_CGROUP", "css_set.dfl_cgrp"),
    ("OFFSET_CSS_SET_SUBSYS", "css_set.subsys"),
    ("OFFSET_CSS_CGROUP", "cgroup_subsys_state.cgroup"),
    ("OFFSET_CGROUP_KN", "cgroup.kn"),
    ("OFFSET_KERNFS_ID", "kernfs_node.id"),
    ("OFFSET_REQUEST_START", "request.start_time_ns"),
    ("OFFSET_REQUEST_IO_START", "request.io_start_time_ns"),
    ("OFFSET_REQUEST_TAG", "request.tag"),
    ("OFFSET_REQUEST_INTERNAL_TAG", "request.internal_tag"),
    ("OFFSET_REQUEST_HARDWARE_QUEUE", "request.mq_hctx"),
    ("OFFSET_HARDWARE_QUEUE_NUMBER", "blk_mq_hw_ctx.queue_num"),
    ("OFFSET_SOCK_FAMILY", "sock_common.skc_family"),
    ("OFFSET_SOCK_PROTOCOL", "sock.sk_protocol"),
    ("OFFSET_SOCK_NUM", "sock_common.skc_num"),
    ("OFFSET_TCP_SRTT", "tcp_sock.srtt_us"),
    ("OFFSET_SOCK_DADDR", "sock_common.skc_daddr"),
    ("OFFSET_SOCK_RCV_SADDR", "sock_common.skc_rcv_saddr"),
    ("OFFSET_SOCK_V6_DADDR", "sock_common.skc_v6_daddr"),
    ("OFFSET_SOCK_V6_RCV_SADDR", "sock_common.skc_v6_rcv_saddr"),
    ("OFFSET_SOCK_DPORT", "sock_common.skc_dport"),
    ("OFFSET_SOCK_NET", "sock_common.skc_net"),
    ("OFFSET_NET_INODE", "net.ns.inum"),
    ("OFFSET_SKB_SOCK", "sk_buff.sk"),
    ("OFFSET_SKB_LEN", "sk_buff.len"),
    ("OFFSET_SKB_HEAD", "sk_buff.head"),
    ("OFFSET_SKB_DATA", "sk_buff.data"),
    ("OFFSET_SKB_TRANSPORT_HEADER", "sk_buff.transport_header"),
    ("OFFSET_TCP_RECEIVED", "tcp_sock.rcv_nxt"),
    ("OFFSET_TCP_READ", "tcp_sock.copied_seq"),
    ("OFFSET_SOCK_TYPE", "sock.sk_type"),
    ("OFFSET_UNIX_ADDRESS", "unix_sock.addr"),
    ("OFFSET_UNIX_PEER", "unix_sock.peer"),
    ("OFFSET_UNIX_ADDRESS_USERS", "unix_address.refcnt"),
    ("OFFSET_REGISTERS_SYSCALL", REGISTERS_SYSCALL),
    ("OFFSET_REGISTERS_SECOND", REGISTERS_SECOND),
];

/// Where a task's saved registers have the number of the system call it is in,
/// and that call's second argument.
#[cfg(target_arch = "aarch64")]
const REGISTERS_SYSCALL: &str = "pt_regs.syscallno";
#[cfg(target_arch = "aarch64")]
const REGISTERS_SECOND: &str = "pt_regs.regs.1";
/// No other architecture has such members: its kernels refuse what needs them.
#[cfg(not(target_arch = "aarch64"))]
const REGISTERS_SYSCALL: &str = "pt_regs.orig_ax";
#[cfg(not(target_arch = "aarch64"))]
const REGISTERS_SECOND: &str = "pt_regs.si";

const SERVICE: &[&str] = &[
    "OFFSET_TASK_TGID",
    "OFFSET_TASK_FLAGS",
    "OFFSET_TASK_COMM",
    "OFFSET_TASK_GROUP_LEADER",
    "OFFSET_TASK_SELF_EXEC_ID",
    "OFFSET_TASK_CGROUPS",
    "OFFSET_CSS_SET_CGROUP",
    "OFFSET_CGROUP_KN",
    "OFFSET_KERNFS_ID",
];
const SOCKET: &[&str] = &["OFFSET_SOCK_FAMILY", "OFFSET_SOCK_PROTOCOL"];
/// Of requests: [`ENDS`], the buffer of the system call, and what is unread.
const REQUESTS: &[&str] = &[
    "OFFSET_SOCK_FAMILY",
    "OFFSET_SOCK_PROTOCOL",
    "OFFSET_SOCK_NUM",
    "OFFSET_SOCK_DADDR",
    "OFFSET_SOCK_RCV_SADDR",
    "OFFSET_SOCK_V6_DADDR",
    "OFFSET_SOCK_V6_RCV_SADDR",
    "OFFSET_SOCK_DPORT",
    "OFFSET_SOCK_NET",
    "OFFSET_NET_INODE",
    "OFFSET_REGISTERS_SYSCALL",
    "OFFSET_REGISTERS_SECOND",
    "OFFSET_TCP_RECEIVED",
    "OFFSET_TCP_READ",
];
/// Of who is at both ends of a connection: those of [`REQUESTS`] before the
/// registers.
const ENDS: &[&str] = REQUESTS.split_at(10).0;

impl Probe {
    /// Every probe.
    pub const ALL: [Probe; 8] = [
        Probe::Runq,
        Probe::Blkio,
        Probe::Tcp,
        Probe::TcpRetransmit,
        Probe::Reclaim,
        Probe::Syscall,
        Probe::Pressure,
        Probe::Throttling,
    ];

    /// The name in configuration and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Probe::Runq => "runq",
            Probe::Blkio => "blkio",
            Probe::Tcp => "tcp",
            Probe::TcpRetransmit => "tcp_retransmit",
            Probe::Reclaim => "reclaim",
            Probe::Syscall => "syscall",
            Probe::Pressure => "pressure",
            Probe::Throttling => "throttling",
        }
    }

    /// The probe that measures `signal`.
    pub const fn of_signal(signal: Signal) -> Probe {
        match signal {
            Signal::RunQueue => Probe::Runq,
            Signal::BlockIo | Signal::BlockIoDevice => Probe::Blkio,
            Signal::TcpRetransmit => Probe::TcpRetransmit,
            Signal::Reclaim => Probe::Reclaim,
            Signal::CpuPressure | Signal::IoPressure | Signal::MemoryPressure => Probe::Pressure,
            Signal::CpuThrottled => Probe::Throttling,
            signal if signal.is_syscall() => Probe::Syscall,
            _ => Probe::Tcp,
        }
    }

    /// Whether there are kernel programs, whose events can be sampled, and which
    /// can be detached. Files are read once per flush whatever happens.
    pub const fn is_sampled(self) -> bool {
        !matches!(self, Probe::Pressure | Probe::Throttling)
    }

    /// The probe that a kernel program belongs to.
    pub fn of_program(program: &str) -> Option<Probe> {
        if openssl::is_program(program) {
            return Some(Self::Tcp);
        }
        Self::ALL.into_iter().find(|probe| {
            let mut programs = probe.levels().iter().flat_map(|level| level.programs);
            programs.any(|spec| spec.program == program)
        })
    }

    /// Ways to measure it, best first.
    pub const fn levels(self) -> &'static [Level] {
        match self {
            Probe::Runq => RUNQ,
            Probe::Blkio => BLKIO,
            Probe::Tcp => TCP,
            Probe::TcpRetransmit => TCP_RETRANSMIT,
            Probe::Reclaim => RECLAIM,
            Probe::Syscall => SYSCALL,
            Probe::Pressure => PRESSURE,
            Probe::Throttling => THROTTLING,
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

const RUNQ: &[Level] = &[
    Level {
        what: "from the scheduler's own times, one program",
        programs: &[spec(
            "run_queue",
            "sched_switch",
            &[
                "OFFSET_TASK_LAST_QUEUED",
                "OFFSET_TASK_RUN_DELAY",
                "OFFSET_TASK_PCOUNT",
                "OFFSET_TASK_CFS_RQ",
                "OFFSET_CFS_RQ_RQ",
                "OFFSET_RQ_CLOCK",
            ],
        )],
    },
    Level {
        what: "timed from wakeup to switch, three programs",
        programs: &[
            spec("run_queue_wakeup", "sched_wakeup", SERVICE),
            spec("run_queue_wakeup_new", "sched_wakeup_new", SERVICE),
            spec(
                "run_queue_switch",
                "sched_switch",
                &["OFFSET_TASK_PID", "OFFSET_TASK_STATE"],
            ),
        ],
    },
];

const BLKIO: &[Level] = &[
    Level {
        what: "from the request's own times, by submitting service",
        programs: &[
            spec("block_start", "block_io_start", SERVICE),
            spec(
                "block_complete",
                "block_rq_complete",
                &["OFFSET_REQUEST_START", "OFFSET_REQUEST_IO_START"],
            ),
        ],
    },
    Level {
        what: "from the request's own times, for the machine as a whole",
        programs: &[spec(
            "block_complete",
            "block_rq_complete",
            &["OFFSET_REQUEST_START", "OFFSET_REQUEST_IO_START"],
        )],
    },
    Level {
        what: "timed from issue to completion, device time only, for the machine as a whole",
        programs: &[
            spec("block_issue_timed", "block_rq_issue", &[]),
            spec("block_complete_timed", "block_rq_complete", &[]),
        ],
    },
];

/// The level of [`Probe::Tcp`] that does not look at requests.
pub const TCP_WITHOUT_ROUTES: usize = 2;

const TCP: &[Level] = &[
    Level {
        what: "exchanges with queue wait and service time, both sides, and routes of every protocol",
        programs: &[
            spec("tcp_state", "inet_sock_set_state", ENDS),
            spec("tcp_data_ready", "sk_data_ready", SOCKET),
            spec("tcp_receive_requests", "sock_recv_length", REQUESTS),
            spec("tcp_send_requests", "sock_send_length", REQUESTS),
        ],
    },
    // Without the helper `bpf_loop`, which is of 5.17.
    Level {
        what: "exchanges with queue wait and service time, both sides, and routes of HTTP/1.1",
        programs: &[
            spec("tcp_state", "inet_sock_set_state", ENDS),
            spec("tcp_data_ready", "sk_data_ready", SOCKET),
            spec("tcp_receive_http", "sock_recv_length", REQUESTS),
            spec("tcp_send_http", "sock_send_length", REQUESTS),
        ],
    },
    Level {
        what: "exchanges with queue wait and service time, both sides",
        programs: &[
            spec("tcp_state", "inet_sock_set_state", ENDS),
            spec("tcp_data_ready", "sk_data_ready", SOCKET),
            spec("tcp_receive", "sock_recv_length", SOCKET),
            spec("tcp_send", "sock_send_length", SOCKET),
        ],
    },
    Level {
        what: "exchanges with queue wait and service time, both sides, from packets",
        programs: &[
            spec("tcp_state_by_address", "inet_sock_set_state", SOCKET),
            spec(
                "tcp_segment",
                "tcp_probe",
                &["OFFSET_SKB_LEN", "OFFSET_SKB_DATA", "OFFSET_TCP_SRTT"],
            ),
            spec("tcp_read", "tcp_rcv_space_adjust", SOCKET),
            spec(
                "tcp_transmit",
                "net_dev_start_xmit",
                &[
                    "OFFSET_SKB_SOCK",
                    "OFFSET_SKB_LEN",
                    "OFFSET_SKB_HEAD",
                    "OFFSET_SKB_DATA",
                    "OFFSET_SKB_TRANSPORT_HEADER",
                ],
            ),
        ],
    },
    Level {
        what: "connects only",
        programs: &[spec("tcp_state", "inet_sock_set_state", ENDS)],
    },
];

const TCP_RETRANSMIT: &[Level] = &[Level {
    what: "every retransmission",
    programs: &[spec(
        "tcp_retransmit",
        "tcp_retransmit_skb",
        &["OFFSET_TCP_SRTT"],
    )],
}];

const RECLAIM: &[Level] = &[Level {
    what: "every direct reclaim",
    programs: &[
        spec("reclaim_begin", "mm_vmscan_direct_reclaim_begin", SERVICE),
        spec("reclaim_end", "mm_vmscan_direct_reclaim_end", SERVICE),
    ],
}];

const SYSCALL: &[Level] = &[Level {
    what: "every system call, by class",
    programs: &[
        spec("syscall_enter", "sys_enter", SERVICE),
        spec("syscall_exit", "sys_exit", SERVICE),
    ],
}];

const PRESSURE: &[Level] = &[
    Level {
        what: "stalls at every flush, by service and for the machine as a whole",
        programs: &[],
    },
    Level {
        what: "stalls at every flush, for the machine as a whole",
        programs: &[],
    },
];

const THROTTLING: &[Level] = &[Level {
    what: "periods in which a CPU quota was used up, at every flush",
    programs: &[],
}];

/// A level that does not work here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its number in [`Probe::levels`].
    pub level: usize,
    /// What the kernel said, on one line.
    pub why: String,
}

/// Whether a probe runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeState {
    /// Not wanted.
    Off,
    /// Loaded and detached, because the sensor would cost more than it may.
    Paused {
        /// As of [`ProbeState::Running`].
        level: usize,
        /// As of [`ProbeState::Running`].
        refusals: Vec<Refusal>,
    },
    /// Attached.
    Running {
        /// Number of the level in [`Probe::levels`]; 0 is the best.
        level: usize,
        /// Why not a better one.
        refusals: Vec<Refusal>,
    },
    /// No level works here.
    Refused(Vec<Refusal>),
}

/// A probe and how it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeStatus {
    /// Which.
    pub probe: Probe,
    /// How.
    pub state: ProbeState,
}

impl ProbeStatus {
    /// What it measures now, or why it does not, on one line.
    pub fn describe(&self) -> String {
        match &self.state {
            ProbeState::Off => "off".to_owned(),
            ProbeState::Paused { .. } => "detached, it would cost more than it may".to_owned(),
            ProbeState::Running { level, .. } => self.probe.levels()[*level].what.to_owned(),
            ProbeState::Refused(refusals) => refusals
                .first()
                .map_or_else(|| "refused".to_owned(), |refusal| refusal.why.clone()),
        }
    }

    /// Whether it measures at all.
    pub fn is_running(&self) -> bool {
        matches!(self.state, ProbeState::Running { .. })
    }
}
