use honeyguide_bus::{Delivery, Record, Topic};
use honeyguide_proto::{
    ServiceId, ServiceKind,
    batch::{Header, SeriesRef, encode},
    v1,
};
use sensor_common::{
    Histogram, Signal,
    histogram::{Totals, position},
};

use crate::{
    config::{Config, HintsMode},
    hints::Change,
    pipeline::{Command, Input, Pipeline},
};

const STEP_NS: u64 = 10_000_000_000;
/// 2023, at the begin of a step.
const EPOCH_STEP: u64 = 170_000_000;

fn pipeline(mode: HintsMode) -> Pipeline {
    let mut config = Config::default();
    config.hints.mode = mode;
    Pipeline::new(config.validate().unwrap())
}

/// One window of a node whose run queue has 4 million events, sampled at
/// 1/2^shift, 4000 of them of service `x` with a latency of its own.
fn delivery(step: u64, shift: u8, latency_ns: u64) -> Delivery {
    let histogram = |events: u64, latency_ns: u64| {
        let mut histogram = Histogram::new();
        let samples = events >> shift;
        for sample in 0..8 {
            let value_ns = latency_ns + sample * latency_ns / 8;
            histogram.add(position(value_ns), events / 8);
            histogram.add_totals(Totals {
                samples: samples / 8,
                sum_ns: value_ns * (events / 8),
                max_ns: value_ns,
            });
        }
        histogram
    };
    let histograms = [histogram(4_000_000, 50_000), histogram(4000, latency_ns)];
    let services = ["many", "x"].map(|name| ServiceId::named(ServiceKind::Process, name));
    let series = (0..)
        .zip(&histograms)
        .map(|(service, histogram)| SeriesRef {
            service,
            signal: Signal::RunQueue,
            histogram,
        })
        .collect();
    let events = 4_004_000;
    let kernel_ns = events * 10 + (events >> shift) * 50;
    let cost = v1::SensorCost {
        kernel_ns,
        cpus: 2,
        signals: vec![v1::SignalCost {
            signal: 0,
            kernel_ns,
            events: events >> shift,
            estimated_events: events,
            ..v1::SignalCost::default()
        }],
        ..v1::SensorCost::default()
    };
    let header = Header {
        sensor_id: "node".to_owned(),
        boot_id: [1; 16],
        seq: step + 1,
        partition: 0,
        window_start_ns: (EPOCH_STEP + step) * STEP_NS,
        window_duration_ns: STEP_NS,
        more: false,
    };
    Delivery {
        offset: step,
        record: Record {
            topic: Topic::Histograms,
            partition: 0,
            key: Vec::new(),
            timestamp_ns: header.window_end_ns(),
            payload: encode(&header, &services, series, &[], Some(cost)),
        },
    }
}

/// The hints after a window that came `late_ns` after its end.
fn hints(pipeline: &mut Pipeline, delivery: &Delivery, late_ns: u64) -> Vec<Change> {
    let now_ns = delivery.record.timestamp_ns + late_ns;
    pipeline.handle(Input::Delivery(delivery), now_ns);
    let mut hints = Vec::new();
    while let Some(command) = pipeline.next_command() {
        if let Command::Hints(changes) = command {
            hints.extend(changes);
        }
    }
    hints
}

fn keys(changes: &[Change]) -> Vec<String> {
    changes.iter().map(|change| change.scope.key()).collect()
}

#[test]
fn a_costly_signal_is_sampled_and_a_series_at_risk_is_seen_all_the_same() {
    let mut pipeline = pipeline(HintsMode::On);
    let first = hints(&mut pipeline, &delivery(0, 0, 100_000), 0);
    assert_eq!(keys(&first), ["node//runq"]);
    let shift = first[0].hint.as_ref().unwrap().sampling_shift.unwrap();
    assert_eq!(shift, 4, "40 ms unsampled and 200 ms / 16 of 60 ms");
    for step in 1..20 {
        let changes = hints(&mut pipeline, &delivery(step, shift, 100_000), 0);
        let new = changes.iter().filter(|change| !change.renewed);
        assert_eq!(new.count(), 0, "step {step}: {changes:?}");
    }
    // From 0.1 ms to 40 ms: above the floor of the objective, and unusual.
    let changes = hints(&mut pipeline, &delivery(20, shift, 40_000_000), 0);
    assert_eq!(keys(&changes), ["/process/x/runq"]);
    let hint = changes[0].hint.as_ref().unwrap();
    assert_eq!(hint.sampling_shift, Some(0));
    assert!(!hint.reason.is_empty());
    assert_eq!(pipeline.hints().hints.len(), 2);
    assert_eq!(pipeline.hints().nodes.len(), 1);
    assert_eq!(pipeline.counters().hints["issued"], 2);
}

#[test]
fn who_reads_a_backlog_tells_sensors_nothing() {
    let mut pipeline = pipeline(HintsMode::On);
    let hour_ns = 3600 * 1_000_000_000;
    assert_eq!(hints(&mut pipeline, &delivery(0, 0, 100_000), hour_ns), []);
    // Once it has caught up, it does.
    let changes = hints(&mut pipeline, &delivery(1, 0, 100_000), 1_000_000_000);
    assert_eq!(keys(&changes), ["node//runq"]);
}

#[test]
fn modes_are_followed() {
    let off = hints(&mut pipeline(HintsMode::Off), &delivery(0, 0, 100_000), 0);
    assert_eq!(off, []);
    let dry = hints(
        &mut pipeline(HintsMode::DryRun),
        &delivery(0, 0, 100_000),
        0,
    );
    assert!(dry[0].hint.as_ref().unwrap().dry_run);
}
