use honeyguide_bus::{Record, Topic};
use honeyguide_models::Target;
use honeyguide_proto::{
    ServiceKind,
    batch::{Header, SeriesRef, encode},
};
use proptest::prelude::*;

use super::{storing::ROWS_KEPT_MAX, *};
use crate::config::Config;

pub(super) const STEP_NS: u64 = 10_000_000_000;
/// 2023, at the begin of a step.
pub(super) const EPOCH_STEP: u64 = 170_000_000;

/// With a history on this machine, so that rows are asked to be stored.
pub(super) fn pipeline() -> Pipeline {
    let config = Config {
        data_dir: "history".into(),
        ..Config::default()
    };
    Pipeline::new(config.validate().unwrap())
}

/// Of a window that fills a step.
pub(super) fn header() -> Header {
    Header {
        sensor_id: "node".to_owned(),
        boot_id: [1; 16],
        seq: 1,
        partition: 0,
        window_start_ns: 0,
        window_duration_ns: STEP_NS,
        more: false,
    }
}

/// The batch of the window that fills step number `step` after the epoch:
/// `latency_ns` for 1000 events of the run queue of one service.
pub(super) fn delivery(step: u64, seq: u64, latency_ns: u64) -> Delivery {
    let mut histogram = Histogram::new();
    for event in 0..1000 {
        histogram.record(latency_ns + event * latency_ns / 1000);
    }
    let header = Header {
        seq,
        window_start_ns: (EPOCH_STEP + step) * STEP_NS,
        ..header()
    };
    let services = [ServiceId::named(ServiceKind::Process, "x")];
    of_run_queues(&header, &services, &[histogram])
}

/// A batch of the run queue of each service.
fn of_run_queues(header: &Header, services: &[ServiceId], histograms: &[Histogram]) -> Delivery {
    let series = (0u32..)
        .zip(histograms)
        .map(|(service, histogram)| SeriesRef {
            service,
            signal: Signal::RunQueue,
            histogram,
        });
    Delivery {
        offset: header.seq - 1,
        record: Record {
            topic: Topic::Histograms,
            partition: 0,
            key: Vec::new(),
            timestamp_ns: header.window_end_ns(),
            payload: encode(header, services, series.collect(), &[], None),
        },
    }
}

/// Runs deliveries at the end of their windows, and ticks until all are closed.
pub(super) fn run(pipeline: &mut Pipeline, deliveries: &[Delivery]) -> Vec<Command> {
    let mut commands = Vec::new();
    for delivery in deliveries {
        let now_ns = delivery.record.timestamp_ns;
        pipeline.handle(Input::Delivery(delivery), now_ns);
        drain(pipeline, &mut commands);
    }
    let end_ns = deliveries
        .iter()
        .map(|d| d.record.timestamp_ns)
        .max()
        .unwrap_or(0);
    caught_up(pipeline, end_ns + STEP_NS);
    drain(pipeline, &mut commands);
    commands
}

pub(super) fn caught_up(pipeline: &mut Pipeline, as_of_ns: u64) {
    pipeline.handle(Input::CaughtUp { as_of_ns }, as_of_ns);
}

fn drain(pipeline: &mut Pipeline, commands: &mut Vec<Command>) {
    while let Some(command) = pipeline.next_command() {
        if let Command::Store { step, .. } = &command {
            pipeline.handle(Input::Stored { step: *step }, 0);
        }
        commands.push(command);
    }
}

pub(super) fn alerts(commands: &[Command]) -> Vec<&v1::Alert> {
    let alerts = commands.iter().filter_map(|command| match command {
        Command::Alert(alert) => Some(alert.as_ref()),
        _ => None,
    });
    alerts.collect()
}

pub(super) fn history(pipeline: &Pipeline) -> usize {
    outlook::history_len(&pipeline.services.values().next().unwrap().series[0])
}

#[test]
fn contention_fires_with_the_run_queue_as_reason_and_resolves() {
    let latency = |step| {
        if (30..40).contains(&step) {
            40_000_000
        } else {
            100_000
        }
    };
    let deliveries: Vec<_> = (0..70)
        .map(|step| delivery(step, step + 1, latency(step)))
        .collect();
    let commands = run(&mut pipeline(), &deliveries);
    let alerts = alerts(&commands);
    let states: Vec<_> = alerts.iter().map(|alert| alert.state()).collect();
    assert_eq!(states, [v1::AlertState::Firing, v1::AlertState::Resolved]);
    let reason = alerts[0].reasons[0].key.as_ref().unwrap();
    assert_eq!(reason.signal, "runq");
    assert!(
        alerts[0].summary.contains("process/x runq"),
        "{}",
        alerts[0].summary
    );
}

#[test]
fn an_incident_is_open_as_long_as_an_alert_fires() {
    let mut pipeline = pipeline();
    let open = |pipeline: &Pipeline| pipeline.services[0].series[0].facts.incident;
    let mut opened = Vec::new();
    for step in 0..70 {
        let slow = (30..40).contains(&step);
        let latency_ns = if slow { 40_000_000 } else { 100_000 };
        run(&mut pipeline, &[delivery(step, step + 1, latency_ns)]);
        let fires = |alert: &v1::Alert| alert.state() == v1::AlertState::Firing;
        assert_eq!(
            open(&pipeline),
            pipeline.alerts().iter().any(fires),
            "{step}"
        );
        opened.extend(open(&pipeline).then_some(step));
    }
    assert!(
        opened.contains(&39) && !opened.contains(&20) && !opened.contains(&69),
        "{opened:?}"
    );
}

#[test]
fn a_distribution_unlike_the_usual_is_an_anomaly_until_events_cease() {
    let mut pipeline = pipeline();
    let mut score = 0.0;
    for step in 0..61 {
        let latency_ns = if step == 60 { 800_000 } else { 100_000 };
        let commands = run(&mut pipeline, &[delivery(step, step + 1, latency_ns)]);
        let forecasts = commands.iter().filter_map(|command| match command {
            Command::Forecasts(forecasts) => forecasts.first(),
            _ => None,
        });
        score = forecasts
            .map(|forecast| forecast.anomaly_score)
            .fold(score, f64::max);
        assert!(step == 60 || score < 1.0, "{step}: {score}");
    }
    let of = |pipeline: &Pipeline| pipeline.services[0].series[0].distribution.score();
    assert!(of(&pipeline) > 1.0 && score >= of(&pipeline), "{score}");
    caught_up(&mut pipeline, (EPOCH_STEP + 63) * STEP_NS);
    assert_eq!(of(&pipeline), 0.0);
}

#[test]
fn a_level_that_changed_and_stayed_is_told_with_its_time() {
    let mut pipeline = pipeline();
    let deliveries: Vec<_> = (0..200)
        .map(|step| {
            let level_ns = if step < 150 { 1_000_000 } else { 4_000_000 };
            delivery(step, step + 1, level_ns + step * 7919 % 31 * 3_000)
        })
        .collect();
    let commands = run(&mut pipeline, &deliveries);
    let changes = commands.iter().filter_map(|command| match command {
        Command::Forecasts(forecasts) => Some(forecasts.first()?.change_point),
        _ => None,
    });
    let changes: Vec<_> = changes.collect();
    assert!(changes[..150].iter().all(Option::is_none), "{changes:?}");
    let change = changes.last().unwrap().unwrap();
    assert_eq!(change.target(), v1::Target::P99);
    assert!((3.0..5.5).contains(&change.ratio), "{change:?}");
    let at_ns = crate::judge::nanoseconds(&change.at.unwrap());
    let step = at_ns / STEP_NS - EPOCH_STEP;
    assert!((148..=152).contains(&step), "{step}");
}

#[test]
fn series_that_stopped_in_the_middle_of_trouble_is_calm() {
    let latency = |step| if step >= 30 { 40_000_000 } else { 100_000 };
    let deliveries: Vec<_> = (0..40)
        .map(|step| delivery(step, step + 1, latency(step)))
        .collect();
    let mut pipeline = pipeline();
    let mut commands = run(&mut pipeline, &deliveries);
    let end_ns = deliveries[39].record.timestamp_ns;
    for step in 2..15 {
        caught_up(&mut pipeline, end_ns + step * STEP_NS);
        drain(&mut pipeline, &mut commands);
    }
    let states: Vec<_> = alerts(&commands)
        .iter()
        .map(|alert| alert.state())
        .collect();
    assert_eq!(states, [v1::AlertState::Firing, v1::AlertState::Resolved]);
}

/// A run queue that is now and then near ten times its usual and never beyond.
#[test]
fn what_was_said_and_did_not_come_lowers_what_is_said() {
    let latency = |step: u64| 600_000 + 3_600_000 * u64::from((step * 7919).is_multiple_of(13));
    let deliveries: Vec<_> = (0..600)
        .map(|step| delivery(step, step + 1, latency(step)))
        .collect();
    let mut pipeline = pipeline();
    run(&mut pipeline, &deliveries);
    assert_ne!(pipeline.breach_pool, Pool::default());
    let series = &pipeline.services.values().next().unwrap().series[0];
    let (objective, recalibration) = &series.recalibrations[0];
    assert_eq!(objective, "run-queue");
    let said = honeyguide_models::breach::Breach {
        probability: 0.1,
        eta: None,
        budget_exhausted_in_secs: None,
    };
    let means = recalibration.recalibrated(&pipeline.breach_pool, said);
    assert!(means.probability < 0.1, "{means:?}");
}

/// Four services with the same restless run queue, and a fifth that begins after six
/// hundred steps.
#[test]
fn a_new_service_is_believed_to_be_like_others() {
    let deliveries: Vec<_> = (0..610).map(|step| alike(step, 600)).collect();
    let mut pipeline = pipeline();
    let commands = run(&mut pipeline, &deliveries);
    assert_eq!(pipeline.groups.len(), 1);
    let all = commands.iter().filter_map(|command| match command {
        Command::Forecasts(forecasts) => Some(forecasts),
        _ => None,
    });
    // Of the first forecast for the shortest horizon.
    let first_width = |service: &str| {
        let mut forecasts = all.clone().flatten();
        let of_service = |one: &&v1::Forecast| {
            let key = one.key.as_ref();
            key.is_some_and(|key| key.service == service) && one.now.is_some()
        };
        let forecast = forecasts.find(of_service).unwrap();
        let p99 = |point: &&v1::ForecastPoint| point.target() == v1::Target::P99;
        let nearest = forecast.points.iter().find(p99).unwrap();
        (nearest.yhat_upper_80 / nearest.yhat_lower_80).ln()
    };
    let (old, young) = (first_width("process/s0"), first_width("process/s4"));
    assert!(young < 0.5 * old, "{young} {old}");
}

/// A batch of four services, of five from step `from` on, whose latencies are within
/// ten percent of each other.
fn alike(step: u64, from: u64) -> Delivery {
    let count = if step < from { 4 } else { 5 };
    let services: Vec<_> = (0..count)
        .map(|number| ServiceId::named(ServiceKind::Process, &format!("s{number}")))
        .collect();
    let histograms: Vec<_> = (0..count)
        .map(|number| {
            let mut histogram = Histogram::new();
            let latency_ns = 100_000 + 1000 * ((step * 7919 + number * 104_729) % 11);
            (0..1000).for_each(|event| histogram.record(latency_ns + event * latency_ns / 1000));
            histogram
        })
        .collect();
    let header = Header {
        seq: step + 1,
        window_start_ns: (EPOCH_STEP + step) * STEP_NS,
        ..header()
    };
    of_run_queues(&header, &services, &histograms)
}

#[test]
fn calm_series_raises_no_alert() {
    let deliveries: Vec<_> = (0..200)
        .map(|step| delivery(step, step + 1, 100_000 + step % 7 * 3000))
        .collect();
    assert!(alerts(&run(&mut pipeline(), &deliveries)).is_empty());
}

#[test]
fn same_input_gives_the_same_commands() {
    let deliveries: Vec<_> = (0..50)
        .map(|step| delivery(step, step + 1, 100_000 << (step % 3)))
        .collect();
    assert_eq!(
        run(&mut pipeline(), &deliveries),
        run(&mut pipeline(), &deliveries)
    );
}

#[test]
fn undecodable_payload_is_counted_and_nothing_else_is_lost() {
    let mut pipeline = pipeline();
    let mut bad = delivery(1, 2, 1000);
    bad.record.payload.truncate(20);
    run(
        &mut pipeline,
        &[delivery(0, 1, 1000), bad, delivery(2, 3, 1000)],
    );
    assert_eq!(pipeline.counters().undecodable.values().sum::<u64>(), 1);
    assert_eq!(pipeline.counters().batches, 2);
    assert_eq!(pipeline.counters().batches_missing, 1);
}

#[test]
fn missing_batches_lower_completeness() {
    let mut pipeline = pipeline();
    run(&mut pipeline, &[delivery(0, 1, 1000), delivery(1, 5, 1000)]);
    let series = &pipeline.services.values().next().unwrap().series[0];
    assert_eq!(series.facts.last.completeness, 0.25);
}

/// Numbers that jump to the end, of two sensors, twice in one step.
#[test]
fn a_batch_may_have_any_number() {
    let mut pipeline = pipeline();
    let mut deliveries = vec![delivery(0, 1, 1_000_000), delivery(1, u64::MAX, 1_000_000)];
    for (step, seq) in [(0, 1), (1, u64::MAX)] {
        let header = Header {
            sensor_id: "other".to_owned(),
            seq,
            window_start_ns: (EPOCH_STEP + step) * STEP_NS,
            ..header()
        };
        let services = [ServiceId::named(ServiceKind::Process, "x")];
        deliveries.push(of_run_queues(&header, &services, &[Histogram::new()]));
    }
    deliveries.sort_by_key(|delivery| delivery.record.timestamp_ns);
    for (offset, delivery) in (0..).zip(&mut deliveries) {
        delivery.offset = offset;
    }
    run(&mut pipeline, &deliveries);
    assert_eq!(pipeline.counters.batches, 4);
    assert_eq!(pipeline.counters.batches_missing, u64::MAX);
}

#[test]
fn series_beyond_the_bound_are_counted() {
    let config = Config {
        series_max: 1,
        ..Config::default()
    };
    let mut pipeline = Pipeline::new(config.validate().unwrap());
    let mut histogram = Histogram::new();
    histogram.record(5);
    let mut second = delivery(0, 1, 1000);
    let header = Batch::decode(&second.record.payload).unwrap().header;
    let services = ["a", "b"].map(|name| ServiceId::named(ServiceKind::Process, name));
    let series = (0..2).map(|service| SeriesRef {
        service,
        signal: Signal::RunQueue,
        histogram: &histogram,
    });
    second.record.payload = encode(&header, &services, series.collect(), &[], None);
    run(&mut pipeline, &[second]);
    assert_eq!(pipeline.counters().dropped[&Drop::SeriesFull], 1);
    assert_eq!(pipeline.series_count(), 1);
}

#[test]
fn rows_that_could_not_be_stored_come_again_and_are_committed_only_then() {
    let deliveries: Vec<_> = (0..200)
        .map(|step| delivery(step, step + 1, 1000))
        .collect();
    let mut pipeline = pipeline();
    let (mut rows, mut commands) = (Vec::new(), Vec::new());
    let mut disk_is_full = true;
    for (offset, delivery) in (0..).zip(&deliveries) {
        let mut delivery = delivery.clone();
        delivery.offset = offset;
        let now_ns = delivery.record.timestamp_ns;
        pipeline.handle(Input::Delivery(&delivery), now_ns);
        while let Some(command) = pipeline.next_command() {
            if let Command::Store { step, rows: asked } = &command {
                let input = if disk_is_full {
                    Input::NotStored {
                        rows: asked.clone(),
                    }
                } else {
                    rows.extend(asked.clone());
                    Input::Stored { step: *step }
                };
                pipeline.handle(input, now_ns);
            }
            commands.push(command);
        }
        if offset == 100 {
            disk_is_full = false;
            let commit = |command: &Command| matches!(command, Command::Commit(_));
            assert!(pipeline.counters().store_failures > 3);
            assert!(!commands.iter().any(commit));
        }
    }
    pipeline.finish();
    drain(&mut pipeline, &mut commands);
    rows.extend(stored(&commands[commands.len() - 2..]));
    let steps: Vec<u64> = rows.iter().map(|row| row.step).collect();
    assert_eq!(steps, (steps[0]..steps[0] + 200).collect::<Vec<_>>());
    assert_eq!(commit(&commands), 200);
    assert_eq!(pipeline.counters().rows_given_up, 0);
}

#[test]
fn a_disk_that_stays_full_costs_the_oldest_rows_and_never_the_forecasts() {
    let mut pipeline = pipeline();
    let row = |step: u64| HistoryRow {
        step,
        service: "process/a".to_owned(),
        signal: Signal::RunQueue,
        window: Window::MISSING,
    };
    let rows: Vec<_> = (0..ROWS_KEPT_MAX as u64 + 10).map(row).collect();
    pipeline.handle(Input::NotStored { rows }, 0);
    assert_eq!(pipeline.counters().rows_given_up, 10);
    assert_eq!(pipeline.rows[0].step, 10);
    assert_eq!(pipeline.stored_step, Some(9));
}

/// Everything that was stored, by (step, service, signal).
fn stored(commands: &[Command]) -> Vec<HistoryRow> {
    let stores = commands.iter().filter_map(|command| match command {
        Command::Store { rows, .. } => Some(rows.clone()),
        _ => None,
    });
    stores.flatten().collect()
}

fn commit(commands: &[Command]) -> u64 {
    let mut commits = commands.iter().filter_map(|command| match command {
        Command::Commit(positions) => Some(positions[0].offset),
        _ => None,
    });
    commits.next_back().unwrap_or(0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The analyzer is killed at any moment and started again: it restores
    /// what was stored and is given again what was not committed. Every window
    /// is stored exactly once, whatever was repeated in between.
    #[test]
    fn restart_loses_nothing_and_counts_nothing_twice(kill_at in 1usize..120, repeat in 0usize..120) {
        let mut deliveries: Vec<_> = (0..120).map(|step| delivery(step, step + 1, 100_000)).collect();
        let again = deliveries[repeat].clone();
        deliveries.insert((repeat + 3).min(deliveries.len()), again);
        for (offset, delivery) in deliveries.iter_mut().enumerate() {
            delivery.offset = offset as u64;
        }
        let mut first = pipeline();
        let mut commands = Vec::new();
        for delivery in &deliveries[..kill_at] {
            first.handle(Input::Delivery(delivery), delivery.record.timestamp_ns);
            drain(&mut first, &mut commands);
        }
        let mut rows = stored(&commands);
        let resume = commit(&commands) as usize;
        let mut second = pipeline();
        second.restore(rows.clone());
        let mut commands = run(&mut second, &deliveries[resume..]);
        second.finish();
        drain(&mut second, &mut commands);
        rows.extend(stored(&commands));
        let steps: Vec<u64> = rows.iter().map(|row| row.step - EPOCH_STEP).collect();
        prop_assert_eq!(steps, (0..120).collect::<Vec<_>>());
        prop_assert!(rows.iter().all(|row| Target::Rate.to_natural(row.window.value(Target::Rate).unwrap()).round() == 100.0));
    }
}
