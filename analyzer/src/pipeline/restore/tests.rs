use honeyguide_bus::{Delivery, Record, Topic};
use honeyguide_proto::{
    ServiceKind,
    batch::{Header, SeriesRef, encode},
};
use proptest::prelude::*;
use sensor_common::Histogram;

use super::*;
use crate::{
    config::Config,
    pipeline::{Command, Input},
};

const STEP_NS: u64 = 10_000_000_000;
const EPOCH_STEP: u64 = 170_000_000;
const STEPS: u64 = 330;
/// A service begins when the others are known well enough to lend what they learned.
const YOUNG_FROM: u64 = 300;

/// Two windows a step; some services come late or go early, and the latency
/// rises in the middle.
fn delivery(window: u64) -> Delivery {
    let step = window / 2;
    let mut services = Vec::new();
    let mut histograms = Vec::new();
    let lives = [
        (0, STEPS),
        (0, STEPS),
        (0, STEPS),
        (90, STEPS),
        (0, 60),
        (YOUNG_FROM, STEPS),
    ];
    for (number, (from, until)) in (0u64..).zip(lives) {
        if !(from..until).contains(&step) {
            continue;
        }
        services.push(ServiceId::named(
            ServiceKind::Process,
            &format!("s{number}"),
        ));
        let mut histogram = Histogram::new();
        let load = 100 + (window * 37 + number * 11) % 50;
        let slow = if (120..130).contains(&step) { 200 } else { 1 };
        for event in 0..load {
            histogram.record(slow * (50_000 + event * event * (3 + number)));
        }
        histograms.push(histogram);
    }
    let header = Header {
        sensor_id: "node".to_owned(),
        boot_id: [1; 16],
        seq: window + 1,
        partition: 0,
        window_start_ns: EPOCH_STEP * STEP_NS + window * STEP_NS / 2,
        window_duration_ns: STEP_NS / 2,
        more: false,
    };
    let series = (0u32..).zip(&histograms).flat_map(|(service, histogram)| {
        [Signal::RunQueue, Signal::ServerRequest].map(|signal| SeriesRef {
            service,
            signal,
            histogram,
        })
    });
    Delivery {
        offset: window,
        record: Record {
            topic: Topic::Histograms,
            partition: 0,
            key: Vec::new(),
            timestamp_ns: header.window_end_ns(),
            payload: encode(&header, &services, series.collect(), &[], None),
        },
    }
}

fn new() -> Pipeline {
    let config = Config {
        store_interval: std::time::Duration::from_secs(130),
        ..Config::default()
    };
    Pipeline::new(config.validate().unwrap())
}

/// What was stored: the last state, and all windows.
#[derive(Default)]
struct Storage {
    state: Option<StoredState>,
    windows: Vec<Vec<u8>>,
}

/// Takes the deliveries; returns what is to be seen of it.
fn run(
    pipeline: &mut Pipeline,
    deliveries: &[Delivery],
    mut storage: Option<&mut Storage>,
) -> Vec<Command> {
    let mut commands = Vec::new();
    for delivery in deliveries {
        let now_ns = delivery.record.timestamp_ns;
        pipeline.handle(Input::Delivery(delivery), now_ns);
        while let Some(command) = pipeline.next_command() {
            match command {
                Command::Store { .. } => {
                    let mut state = pipeline.state();
                    let step = state.last_step;
                    if let Some(storage) = &mut storage {
                        storage.windows.append(&mut state.windows);
                        storage.state = Some(state);
                    }
                    pipeline.handle(Input::Stored { step }, now_ns);
                }
                Command::Hints(_) | Command::Commit(_) => {}
                command => commands.push(command),
            }
        }
    }
    commands
}

fn restored(storage: Storage) -> (Pipeline, usize) {
    let mut pipeline = new();
    let Some(state) = storage.state else {
        return (pipeline, 0);
    };
    let offset = pipeline
        .restore_state(state.partition, &state.series)
        .unwrap();
    let mut windows = pipeline.windows();
    for piece in &storage.windows {
        windows.take(piece).unwrap();
    }
    windows.finish();
    (pipeline, offset as usize)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// An analyzer is killed, and another one goes on from what was stored:
    /// every forecast and alert after that is that of an analyzer that was
    /// never disturbed, bit for bit, and so are the totals.
    #[test]
    fn a_restored_pipeline_goes_on_as_if_nothing_had_happened(
        kill_at in prop_oneof![1..2 * STEPS, 2 * YOUNG_FROM..2 * STEPS],
    ) {
        let deliveries: Vec<_> = (0..2 * STEPS).map(delivery).collect();
        let mut undisturbed = new();
        let expected = run(&mut undisturbed, &deliveries, None);
        prop_assert!(!undisturbed.groups.is_empty());

        let mut storage = Storage::default();
        run(&mut new(), &deliveries[..kill_at as usize], Some(&mut storage));
        let (mut second, offset) = restored(storage);
        let shown = second.last_forecasts();
        let commands = run(&mut second, &deliveries[offset..], None);
        let begin = expected.len() - commands.len();
        prop_assert_eq!(&commands[..], &expected[begin..]);
        prop_assert_eq!(second.cumulative(usize::MAX), undisturbed.cumulative(usize::MAX));
        prop_assert_eq!(shown.is_empty(), offset == 0);
        if let Some(Command::Forecasts(before)) = expected[..begin].last() {
            let keys = |all: &[v1::Forecast]| all.iter().map(|one| (one.key.clone(), one.now.clone())).collect::<Vec<_>>();
            prop_assert_eq!(keys(&shown), keys(before));
        }
    }
}

#[test]
fn damaged_pieces_are_errors() {
    let mut storage = Storage::default();
    let deliveries: Vec<_> = (0..80).map(delivery).collect();
    run(&mut new(), &deliveries, Some(&mut storage));
    let state = storage.state.unwrap();
    let cut: Vec<_> = state
        .series
        .iter()
        .map(|piece| piece[..piece.len() - 1].to_vec())
        .collect();
    assert!(new().restore_state(state.partition.clone(), &cut).is_err());
    let mut pipeline = new();
    pipeline
        .restore_state(state.partition, &state.series)
        .unwrap();
    let mut windows = pipeline.windows();
    let piece = &storage.windows[0];
    assert!(windows.take(&piece[..piece.len() - 1]).is_err());
    assert!(windows.take(&[]).is_err());
}

#[test]
fn another_length_of_steps_keeps_totals_and_begins_models_anew() {
    let mut storage = Storage::default();
    let deliveries: Vec<_> = (0..80).map(delivery).collect();
    run(&mut new(), &deliveries, Some(&mut storage));
    let state = storage.state.unwrap();
    let config = Config {
        step: std::time::Duration::from_secs(5),
        ..Config::default()
    };
    let mut pipeline = Pipeline::new(config.validate().unwrap());
    let offset = pipeline
        .restore_state(state.partition, &state.series)
        .unwrap();
    assert!(pipeline.last_forecasts().is_empty());
    assert!(pipeline.cumulative(usize::MAX).len() >= 6);
    run(&mut pipeline, &deliveries[offset as usize..], None);
}
