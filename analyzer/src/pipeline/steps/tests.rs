//! When steps close, with what, and what becomes of alerts meanwhile.

use std::collections::BTreeMap;

use honeyguide_bus::Delivery;
use honeyguide_proto::{
    batch::{Batch, Header, SeriesRef, encode},
    v1,
};
use sensor_common::Signal;

use super::super::{
    Command, Drop, Input, Pipeline,
    tests::{EPOCH_STEP, STEP_NS, alerts, caught_up, delivery, history, pipeline, run},
};
use crate::config::Config;

#[test]
fn late_and_skewed_windows_are_counted_and_left_out() {
    let mut pipeline = pipeline();
    let deliveries: Vec<_> = (0..5).map(|step| delivery(step, step + 1, 1000)).collect();
    run(&mut pipeline, &deliveries);
    let now_ns = (EPOCH_STEP + 6) * STEP_NS;
    pipeline.handle(Input::Delivery(&delivery(1, 6, 1000)), now_ns);
    pipeline.handle(Input::Delivery(&delivery(100_000, 7, 1000)), now_ns);
    assert_eq!(pipeline.counters().dropped[&Drop::Late], 1);
    assert_eq!(pipeline.counters().dropped[&Drop::ClockSkew], 1);
}

#[test]
fn long_window_fills_the_steps_it_covers() {
    let mut pipeline = pipeline();
    let mut long = delivery(0, 1, 1000);
    let batch = Batch::decode(&long.record.payload).unwrap();
    let header = Header {
        window_duration_ns: 3 * STEP_NS,
        ..batch.header.clone()
    };
    let histogram = batch.histogram(&batch.series[0]);
    let series = vec![SeriesRef {
        service: 0,
        signal: Signal::RunQueue,
        histogram: &histogram,
    }];
    long.record.payload = encode(&header, &batch.services, series, &[], None);
    long.record.timestamp_ns = header.window_end_ns();
    run(&mut pipeline, &[long]);
    let series = &pipeline.services.values().next().unwrap().series[0];
    assert_eq!(history(&pipeline), 3);
    assert!(
        (series.facts.last.rate - 1000.0 / 30.0).abs() < 0.01,
        "{}",
        series.facts.last.rate
    );
}

/// The batch of one of two sensors.
fn of_sensor(sensor: &str, step: u64) -> Delivery {
    let mut delivery = delivery(step, step + 1, 100_000);
    let batch = Batch::decode(&delivery.record.payload).unwrap();
    let header = Header {
        sensor_id: sensor.to_owned(),
        ..batch.header.clone()
    };
    let histogram = batch.histogram(&batch.series[0]);
    let series = vec![SeriesRef {
        service: 0,
        signal: Signal::RunQueue,
        histogram: &histogram,
    }];
    delivery.record.payload = encode(&header, &batch.services, series, &[], None);
    delivery
}

#[test]
fn a_step_closes_when_the_last_sensor_has_sent_it_and_not_for_one_that_is_gone() {
    let mut pipeline = pipeline();
    let mut steps = |delivery: Option<&Delivery>, now_ns| {
        if let Some(delivery) = delivery {
            pipeline.handle(Input::Delivery(delivery), now_ns);
        }
        caught_up(&mut pipeline, now_ns);
        pipeline.counters().steps
    };
    let end_ns = |step: u64| (EPOCH_STEP + step + 1) * STEP_NS;
    assert_eq!(
        steps(Some(&of_sensor("a", 0)), end_ns(0)),
        1,
        "nobody else is known"
    );
    assert_eq!(
        steps(Some(&of_sensor("b", 1)), end_ns(1)),
        1,
        "a is to come"
    );
    assert_eq!(steps(Some(&of_sensor("a", 1)), end_ns(1)), 2);
    assert_eq!(
        steps(Some(&of_sensor("a", 2)), end_ns(2)),
        2,
        "b is to come"
    );
    // Half a window and the lateness of 2 s after it was due.
    assert_eq!(steps(None, end_ns(2) + STEP_NS / 2 + 2_000_000_000), 2);
    assert_eq!(steps(None, end_ns(2) + STEP_NS / 2 + 2_000_000_001), 3);
    assert_eq!(steps(Some(&of_sensor("a", 3)), end_ns(3)), 4, "b is gone");
}

#[test]
fn what_was_open_before_a_long_pause_is_closed_with_its_data() {
    let mut pipeline = pipeline();
    for step in [0, 1, 2000] {
        let delivery = delivery(step, step + 1, 100_000);
        pipeline.handle(Input::Delivery(&delivery), delivery.record.timestamp_ns);
    }
    assert_eq!(pipeline.counters().dropped, BTreeMap::new());
    assert_eq!(history(&pipeline), 2001);
    let series = &pipeline.services.values().next().unwrap().series[0];
    use honeyguide_models::History;
    for (ago, events) in [(0, 1000.0), (1, 0.0), (1998, 0.0), (1999, 1000.0)] {
        let samples = series.ring.window(ago).samples;
        assert!((samples - events).abs() < 2.0, "{ago}: {samples}");
    }
}

#[test]
fn a_sensor_with_a_clock_ahead_makes_nobody_late() {
    let mut pipeline = pipeline();
    for step in 0..20 {
        let now_ns = (EPOCH_STEP + step + 1) * STEP_NS;
        for delivery in [of_sensor("ahead", step + 30), of_sensor("right", step)] {
            pipeline.handle(Input::Delivery(&delivery), now_ns);
            caught_up(&mut pipeline, now_ns);
        }
    }
    // Only the first step was over before the other sensor was known.
    let dropped = &pipeline.counters().dropped;
    assert_eq!(*dropped, BTreeMap::from([(Drop::Late, 1)]));
}

/// A pipeline with an alert that fires, after 36 steps.
fn firing() -> Pipeline {
    let mut pipeline = pipeline();
    let latency_ns = |step| if step < 30 { 100_000 } else { 40_000_000 };
    let deliveries: Vec<_> = (0..36)
        .map(|step| delivery(step, step + 1, latency_ns(step)))
        .collect();
    run(&mut pipeline, &deliveries);
    assert!(fires(&pipeline));
    pipeline
}

fn fires(pipeline: &Pipeline) -> bool {
    let fires = |alert: &v1::Alert| alert.state() == v1::AlertState::Firing;
    pipeline.alerts().iter().any(fires)
}

/// Whether these commands resolve one alert, and tell no other.
fn resolve_one(commands: &[Command]) -> bool {
    let states: Vec<_> = alerts(commands).iter().map(|alert| alert.state()).collect();
    states == [v1::AlertState::Resolved]
}

#[test]
fn an_alert_of_an_objective_that_is_no_more_resolves() {
    let mut pipeline = firing();
    let config = Config {
        objectives: Vec::new(),
        ..Config::default()
    };
    pipeline.config = config.validate().unwrap();
    let deliveries: Vec<_> = (36..70)
        .map(|step| delivery(step, step + 1, 40_000_000))
        .collect();
    assert!(resolve_one(&run(&mut pipeline, &deliveries)));
    assert!(!fires(&pipeline));
}

/// The process is gone when the bus comes back: many steps are skipped at once.
#[test]
fn an_alert_of_a_series_that_a_pause_ended_resolves() {
    let mut pipeline = firing();
    let mut other = of_sensor("other", 1000);
    other.record.payload = {
        let batch = Batch::decode(&other.record.payload).unwrap();
        encode(&batch.header, &[], Vec::new(), &[], None)
    };
    assert!(resolve_one(&run(&mut pipeline, &[other])));
    assert!(!fires(&pipeline));
}
