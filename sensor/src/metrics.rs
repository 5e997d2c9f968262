//! The sensor's own metrics, `sensor_…`.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use sensor_common::record::Loss;

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

/// A kernel program.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ProgramLabels {
    /// Its name.
    pub program: String,
}

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
    /// 0 off or refused, 1 a fallback, 2 the best level.
    pub probe_level: Family<ProbeLabels, Gauge>,
    /// Steps of the wall clock.
    pub clock_steps: Gauge,
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
            probe_level: Family::default(),
            clock_steps: Gauge::default(),
        };
        // Present from the start: a rate does not see the step from absent to one.
        for reason in Loss::ALL.map(Loss::name).into_iter().chain([BUS_STALLED]) {
            drop(metrics.events_lost.get_or_create(&ReasonLabels { reason }));
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
            "probe_level",
            "0 off or refused, 1 a fallback, 2 the best level",
            metrics.probe_level.clone(),
        );
        registry.register(
            "clock_steps",
            "Steps of the wall clock",
            metrics.clock_steps.clone(),
        );
        metrics
    }
}
