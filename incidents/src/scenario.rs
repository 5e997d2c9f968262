//! What is done to which servers.

use honeyguide_evaluation::incidents::Kind;
use rand::RngExt;

use crate::profile::{Demand, Growth, random};

/// One kind of incident. Its subject is always the shop: gunicorn, with
/// PostgreSQL or Redis behind.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Name in file names.
    pub name: &'static str,
    /// Whether it could be foreseen.
    pub kind: Kind,
    /// What is done.
    pub fault: Fault,
    /// Requests per second, usually.
    pub per_sec: f64,
    /// Share of them by which they swing at most.
    pub swing: f64,
    /// Pages that are asked for, with weights.
    pub pages: &'static [(f64, &'static str)],
    /// Of the shop's 99th percentile, in milliseconds.
    pub objective_ms: f64,
    /// Share of a CPU that the shop may use.
    pub cpu: f64,
    /// The same of PostgreSQL.
    pub database_cpu: f64,
    /// Connections of the shop to it.
    pub pool: usize,
    /// Milliseconds after which a client gives up, and how often it tries again.
    pub patience: (u64, u32),
    /// Services and signals that show the fault, as reasons name them.
    pub causes: &'static [(&'static str, &'static str)],
}

/// What is done at full severity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Nothing.
    None,
    /// More requests: this share of the usual ones.
    Demand(f64),
    /// Processes that compute in the same quota of CPU time, with a larger share.
    Hogs,
    /// The disk does fewer requests in a second.
    Iops {
        /// Usually.
        from: f64,
        /// At full severity.
        to: f64,
    },
    /// Others write synchronously to the same disk.
    Writes {
        /// What the disk does in a second.
        iops: f64,
        /// Writes per second.
        per_sec: f64,
    },
    /// A transaction holds the row that many orders change for so many seconds.
    Lock(f64),
    /// A table without an index gets so many rows.
    Rows(f64),
    /// Connections of the pool that are lost.
    Hold(f64),
    /// Megabytes that are never given back, of so many.
    Leak {
        /// Lost.
        lost: f64,
        /// Limit of the shop's memory.
        limit: f64,
        /// What the disk does in a second.
        iops: f64,
    },
    /// The link to Redis in Mbit/s.
    Bandwidth {
        /// Usually.
        from: f64,
        /// At full severity.
        to: f64,
    },
    /// Share of packets to and from Redis that are lost.
    Loss(f64),
}

const USUAL: Scenario = Scenario {
    name: "quiet",
    kind: Kind::Quiet,
    fault: Fault::None,
    per_sec: 60.0,
    swing: 0.1,
    pages: &[(1.0, "item")],
    objective_ms: 100.0,
    cpu: 0.35,
    database_cpu: 0.35,
    pool: 8,
    patience: (10_000, 0),
    causes: &[],
};

const READS_AND_ORDERS: &[(f64, &str)] = &[(0.6, "item"), (0.4, "order")];
const DATABASE: &[(&str, &str)] = &[
    ("process/shop-db", "server_request"),
    ("process/shop", "client_request"),
];
const CACHE: &[(&str, &str)] = &[
    ("process/shop-kv", "server_request"),
    ("process/shop", "client_request"),
    ("process/shop", "tcp_rtt"),
    ("process/shop", "tcp_retransmit"),
];
const CPU: &[(&str, &str)] = &[("process/shop", "runq")];
const LOAD: &[(&str, &str)] = &[
    ("process/shop", "server_request load"),
    ("process/shop", "runq"),
];

/// Every scenario.
pub const SCENARIOS: [Scenario; 16] = [
    USUAL,
    Scenario {
        name: "load-growth",
        kind: Kind::Predictable,
        fault: Fault::Demand(1.7),
        cpu: 0.1,
        causes: LOAD,
        ..USUAL
    },
    Scenario {
        name: "season-growth",
        kind: Kind::Predictable,
        fault: Fault::Demand(1.9),
        swing: 0.3,
        cpu: 0.1,
        causes: LOAD,
        ..USUAL
    },
    Scenario {
        name: "retry-storm",
        kind: Kind::Predictable,
        fault: Fault::Demand(1.6),
        cpu: 0.1,
        patience: (200, 3),
        causes: LOAD,
        ..USUAL
    },
    Scenario {
        name: "noisy-neighbour",
        kind: Kind::Predictable,
        fault: Fault::Hogs,
        cpu: 0.6,
        causes: CPU,
        ..USUAL
    },
    Scenario {
        name: "noisy-neighbour-sudden",
        kind: Kind::Sudden,
        fault: Fault::Hogs,
        cpu: 0.6,
        causes: CPU,
        ..USUAL
    },
    Scenario {
        name: "slow-disk",
        kind: Kind::Predictable,
        fault: Fault::Iops {
            from: 300.0,
            to: 8.0,
        },
        pages: READS_AND_ORDERS,
        causes: DATABASE,
        ..USUAL
    },
    Scenario {
        name: "slow-disk-sudden",
        kind: Kind::Sudden,
        fault: Fault::Iops {
            from: 300.0,
            to: 8.0,
        },
        pages: READS_AND_ORDERS,
        causes: DATABASE,
        ..USUAL
    },
    Scenario {
        name: "fsync-storm",
        kind: Kind::Predictable,
        fault: Fault::Writes {
            iops: 200.0,
            per_sec: 90.0,
        },
        pages: READS_AND_ORDERS,
        causes: DATABASE,
        ..USUAL
    },
    Scenario {
        name: "lock-contention",
        kind: Kind::Predictable,
        fault: Fault::Lock(0.2),
        pages: &[(0.4, "item"), (0.4, "order"), (0.2, "order/7")],
        pool: 12,
        causes: DATABASE,
        ..USUAL
    },
    Scenario {
        name: "table-growth",
        kind: Kind::Predictable,
        fault: Fault::Rows(27_000.0),
        pages: &[(0.7, "item"), (0.3, "search")],
        database_cpu: 0.2,
        causes: DATABASE,
        ..USUAL
    },
    Scenario {
        name: "pool-leak",
        kind: Kind::Predictable,
        fault: Fault::Hold(13.0),
        pages: &[(0.2, "item"), (0.8, "report")],
        pool: 14,
        causes: &[("process/shop", "server_request")],
        ..USUAL
    },
    Scenario {
        name: "memory-leak",
        kind: Kind::Predictable,
        fault: Fault::Leak {
            lost: 106.0,
            limit: 150.0,
            iops: 20.0,
        },
        pages: &[(0.5, "item"), (0.5, "picture")],
        causes: &[("process/shop", "blkio"), ("process/shop", "reclaim")],
        ..USUAL
    },
    Scenario {
        name: "bandwidth",
        kind: Kind::Predictable,
        fault: Fault::Bandwidth {
            from: 60.0,
            to: 3.0,
        },
        per_sec: 80.0,
        pages: &[(1.0, "cart")],
        causes: CACHE,
        ..USUAL
    },
    Scenario {
        name: "packet-loss",
        kind: Kind::Predictable,
        fault: Fault::Loss(0.003),
        per_sec: 80.0,
        pages: &[(1.0, "cart")],
        causes: CACHE,
        ..USUAL
    },
    Scenario {
        name: "packet-loss-sudden",
        kind: Kind::Sudden,
        fault: Fault::Loss(0.03),
        per_sec: 80.0,
        pages: &[(1.0, "cart")],
        causes: CACHE,
        ..USUAL
    },
];

/// A scenario with everything drawn that its seed decides.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// The scenario; sizes of its fault are scaled.
    pub scenario: Scenario,
    /// Which.
    pub seed: u64,
    /// When the fault comes.
    pub growth: Growth,
    /// What the shop is asked.
    pub demand: Demand,
}

/// Windows in proportion to which onset and growth are drawn.
const WINDOWS: f64 = 300.0;

impl Scenario {
    /// Draws for a run of so many windows of a second.
    pub fn draw(&self, seed: u64, windows: usize) -> Drawn {
        let mut random = random(seed, self.name);
        let scale = windows as f64 / WINDOWS;
        let mut between = |low: f64, high: f64| low + (high - low) * random.random::<f64>();
        let growth = match self.kind {
            Kind::Predictable => Growth {
                onset_secs: (between(125.0, 150.0) * scale).round(),
                ramp_secs: between(105.0, 130.0) * scale,
            },
            Kind::Sudden => Growth {
                onset_secs: (between(150.0, 220.0) * scale).round(),
                ramp_secs: 0.0,
            },
            Kind::Quiet => Growth {
                onset_secs: f64::INFINITY,
                ramp_secs: 0.0,
            },
        };
        let mut scenario = *self;
        scenario.fault = self.fault.scaled(between(0.95, 1.15));
        let demand = Demand {
            per_sec: self.per_sec * between(0.9, 1.1),
            swing: self.swing * between(0.5, 1.0),
            period_secs: between(40.0, 80.0),
            phase: between(0.0, 1.0),
            growth: match scenario.fault {
                Fault::Demand(growth) => growth,
                _ => 0.0,
            },
        };
        Drawn {
            scenario,
            seed,
            growth,
            demand,
        }
    }
}

impl Fault {
    /// So many times as large.
    fn scaled(self, by: f64) -> Fault {
        match self {
            Fault::None | Fault::Hogs => self,
            Fault::Demand(growth) => Fault::Demand(growth * by),
            Fault::Iops { from, to } => Fault::Iops { from, to: to / by },
            Fault::Writes { iops, per_sec } => Fault::Writes {
                iops,
                per_sec: per_sec * by,
            },
            Fault::Lock(secs) => Fault::Lock(secs * by),
            Fault::Rows(rows) => Fault::Rows(rows * by),
            // One more would leave none at all, and every request unanswered.
            Fault::Hold(_) => self,
            Fault::Leak { .. } => self,
            Fault::Bandwidth { from, to } => Fault::Bandwidth { from, to: to / by },
            Fault::Loss(share) => Fault::Loss(share * by),
        }
    }
}
