//! The sensor's own metrics, `sensor_…`.

use std::sync::atomic::AtomicU64;

use honeyguide_proto::hint::HintError;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use sensor_common::record::Loss;

use crate::hints::{COUNTED, Counted, Outcome};

/// Reason of events in a window that was dropped because the bus stood still.
pub(crate) const BUS_STALLED: &str = "bus_stalled";

/// Why something was lost.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabels {
    /// A name of `sensor_common::record::Loss`, of `honeyguide_bus::PublishError`,
    /// or `bus_stalled`.
    pub reason: &'static str,
}

/// A probe.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ProbeLabels {
    /// Its name.
    pub probe: &'static str,
}

/// What processes use for TLS.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TlsLabels {
    /// `openssl`, `other`, `unknown`.
    pub library: &'static str,
}

/// A kernel program.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ProgramLabels {
    /// Its name.
    pub program: String,
}

/// What became of a hint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct HintLabels {
    /// A name of [`crate::hints::Outcome`].
    pub outcome: &'static str,
    /// Why; of a fixed set, see [`crate::hints::COUNTED`].
    pub reason: &'static str,
}

impl From<Counted> for HintLabels {
    fn from(counted: Counted) -> Self {
        Self {
            outcome: counted.outcome.name(),
            reason: counted.reason,
        }
    }
}

/// What the sensor did about its cost.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ShedLabels {
    /// `shed`, `recovered`, `trial_failed`.
    pub action: &'static str,
}

pub(crate) const SHED: ShedLabels = ShedLabels { action: "shed" };
pub(crate) const RECOVERED: ShedLabels = ShedLabels {
    action: "recovered",
};
pub(crate) const TRIAL_FAILED: ShedLabels = ShedLabels {
    action: "trial_failed",
};

/// Counters and gauges; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Events lost in the kernel and on the way to the bus, by reason.
    pub events_lost: Family<ReasonLabels, Counter>,
    /// Windows that grew because the bus was slow.
    pub windows_delayed: Counter,
    /// Windows published.
    pub windows: Counter,
    /// Events published (estimated where sampled).
    pub events: Counter,
    /// Time from the end of a window to its batches being queued.
    pub flush_duration: Histogram,
    /// CPU time of the sensor in user space.
    pub cpu: Counter<f64, AtomicU64>,
    /// Estimated run time of each kernel program.
    pub program_run_time: Family<ProgramLabels, Counter<f64, AtomicU64>>,
    /// Services and series with events in the last window.
    pub services: Gauge,
    /// Series with events in the last window.
    pub series: Gauge,
    /// Routes that requests are told apart by.
    pub routes: Gauge,
    /// Requests that have none of their own (estimated where sampled).
    pub requests_other: Counter,
    /// Files of OpenSSL that are attached to.
    pub tls_libraries: Gauge,
    /// Processes that speak TLS, by what they do so with.
    pub tls_processes: Family<TlsLabels, Gauge>,
    /// 0 off or refused, 1 a fallback, 2 the best level.
    pub probe_level: Family<ProbeLabels, Gauge>,
    /// Steps of the wall clock.
    pub clock_steps: Gauge,
    /// Hints by what became of them.
    pub hints: Family<HintLabels, Counter>,
    /// Hints in force.
    pub hints_active: Gauge,
    /// Cost in the last window as a fraction of all CPUs.
    pub cost_ratio: Gauge<f64, AtomicU64>,
    /// What it may be.
    pub cost_ceiling_ratio: Gauge<f64, AtomicU64>,
    /// Steps shed.
    pub shedding_level: Gauge,
    /// Changes of what is shed.
    pub shedding: Family<ShedLabels, Counter>,
}

impl Metrics {
    /// Makes and registers all of them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            events_lost: Family::default(),
            windows_delayed: Counter::default(),
            windows: Counter::default(),
            events: Counter::default(),
            // 0.1 ms to 1.6 s.
            flush_duration: Histogram::new((0..15).map(|power| 1e-4 * f64::from(1 << power))),
            cpu: Counter::default(),
            program_run_time: Family::default(),
            services: Gauge::default(),
            series: Gauge::default(),
            routes: Gauge::default(),
            requests_other: Counter::default(),
            tls_libraries: Gauge::default(),
            tls_processes: Family::default(),
            probe_level: Family::default(),
            clock_steps: Gauge::default(),
            hints: Family::default(),
            hints_active: Gauge::default(),
            cost_ratio: Gauge::default(),
            cost_ceiling_ratio: Gauge::default(),
            shedding_level: Gauge::default(),
            shedding: Family::default(),
        };
        // Present from the start: a rate does not see the step from absent to one.
        for reason in Loss::ALL.map(Loss::name).into_iter().chain([BUS_STALLED]) {
            drop(metrics.events_lost.get_or_create(&ReasonLabels { reason }));
        }
        let rejected = HintError::REASONS.map(|reason| Counted {
            outcome: Outcome::Rejected,
            reason,
        });
        for counted in COUNTED.into_iter().chain(rejected) {
            drop(metrics.hints.get_or_create(&counted.into()));
        }
        for labels in [SHED, RECOVERED, TRIAL_FAILED] {
            drop(metrics.shedding.get_or_create(&labels));
        }
        let registry = registry.sub_registry_with_prefix("sensor");
        registry.register(
            "events_lost",
            "Events lost in the kernel and on the way to the bus",
            metrics.events_lost.clone(),
        );
        registry.register(
            "windows_delayed",
            "Windows that grew because the bus was slow",
            metrics.windows_delayed.clone(),
        );
        registry.register("windows", "Windows published", metrics.windows.clone());
        registry.register(
            "events",
            "Events published, estimated where sampled",
            metrics.events.clone(),
        );
        registry.register_with_unit(
            "flush_duration",
            "Time to drain, encode and queue a window",
            Unit::Seconds,
            metrics.flush_duration.clone(),
        );
        registry.register_with_unit(
            "cpu",
            "CPU time of the sensor in user space",
            Unit::Seconds,
            metrics.cpu.clone(),
        );
        registry.register_with_unit(
            "program_run_time",
            "Estimated run time of the kernel programs",
            Unit::Seconds,
            metrics.program_run_time.clone(),
        );
        registry.register(
            "services",
            "Services seen in the last window",
            metrics.services.clone(),
        );
        registry.register(
            "series",
            "Series with events in the last window",
            metrics.series.clone(),
        );
        registry.register(
            "routes",
            "Routes that HTTP requests are told apart by",
            metrics.routes.clone(),
        );
        registry.register(
            "requests_other",
            "HTTP requests without a route of their own: too many routes, or unknown paths answered with 404",
            metrics.requests_other.clone(),
        );
        registry.register(
            "tls_libraries",
            "Files of OpenSSL whose users are seen inside TLS",
            metrics.tls_libraries.clone(),
        );
        registry.register(
            "tls_processes",
            "Processes by what they use for TLS: openssl is seen into, other is not, of unknown the libraries may not be read",
            metrics.tls_processes.clone(),
        );
        registry.register(
            "probe_level",
            "0 off or refused, 1 a fallback, 2 the best level",
            metrics.probe_level.clone(),
        );
        registry.register(
            "clock_steps",
            "Steps of the wall clock",
            metrics.clock_steps.clone(),
        );
        registry.register(
            "hints",
            "Hints by what became of them",
            metrics.hints.clone(),
        );
        registry.register(
            "hints_active",
            "Hints in force",
            metrics.hints_active.clone(),
        );
        registry.register(
            "cost_ratio",
            "Cost of the sensor in the last window as a fraction of all CPUs, kernel programs included",
            metrics.cost_ratio.clone(),
        );
        registry.register(
            "cost_ceiling_ratio",
            "What the cost may be before the sensor sheds",
            metrics.cost_ceiling_ratio.clone(),
        );
        registry.register(
            "shedding_level",
            "Steps by which the sensor looks less closely than told, to stay under its ceiling",
            metrics.shedding_level.clone(),
        );
        registry.register(
            "shedding",
            "Changes of what is shed, by action",
            metrics.shedding.clone(),
        );
        metrics
    }
}
