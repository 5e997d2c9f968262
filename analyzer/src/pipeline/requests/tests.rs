use std::sync::LazyLock;

use honeyguide_bus::{Delivery, Record, Topic};
use proptest::prelude::*;

use super::*;
use crate::{
    config::{Config, ValidConfig},
    pipeline::{Command, Input, Pipeline},
    routes::tests::{Requests, get, header, payload},
};

const STEP_NS: u64 = 10_000_000_000;
const EPOCH_STEP: u64 = 170_000_000;

fn new(config: Config) -> Pipeline {
    Pipeline::new(config.validate().unwrap())
}

fn delivery(seq: u64, step: u64, requests: &[Requests]) -> Delivery {
    let header = header(seq, EPOCH_STEP + step);
    Delivery {
        offset: seq - 1,
        record: Record {
            topic: Topic::Histograms,
            partition: 0,
            key: Vec::new(),
            timestamp_ns: header.window_end_ns(),
            payload: payload(&header, requests),
        },
    }
}

fn take(pipeline: &mut Pipeline, delivery: &Delivery) -> Vec<Command> {
    pipeline.handle(Input::Delivery(delivery), delivery.record.timestamp_ns);
    std::iter::from_fn(|| pipeline.next_command()).collect()
}

fn totals(pipeline: &Pipeline) -> Vec<(String, u8, u64)> {
    let mut all = Vec::new();
    for of in pipeline.route_totals(usize::MAX) {
        for (class, histogram) in of.total.iter() {
            all.push((of.route.to_string(), class, histogram.count()));
        }
    }
    all
}

fn example() -> Vec<Requests> {
    vec![
        (get("/a"), 2, 90, 100),
        (get("/a"), 5, 10, 150),
        (get("/b"), 4, 7, 90),
    ]
}

#[test]
fn a_batch_counts_once_and_a_step_is_shown_when_it_is_closed() {
    let mut pipeline = new(Config::default());
    let first = delivery(1, 0, &example());
    take(&mut pipeline, &first);
    take(&mut pipeline, &first);
    let expected = [("GET /a", 2, 90), ("GET /a", 5, 10), ("GET /b", 4, 7)];
    let expected = expected.map(|(route, class, count)| (route.to_owned(), class, count));
    assert_eq!(totals(&pipeline), expected);
    assert_eq!(pipeline.counters().dropped.get(&Drop::Duplicate), Some(&1));
    assert_eq!(pipeline.counters().route_windows, 3);
    let as_of_ns = (EPOCH_STEP + 2) * STEP_NS;
    pipeline.handle(Input::CaughtUp { as_of_ns }, as_of_ns);
    let shown: Vec<_> = pipeline
        .routes()
        .into_iter()
        .map(|of| (of.route, of.rate_per_sec > 0.0, of.error_ratio))
        .collect();
    let expected = [
        ("GET /a".to_owned(), true, 0.1),
        ("GET /b".to_owned(), true, 0.0),
    ];
    assert_eq!(shown, expected);
    // The service has no series of its own from that.
    assert_eq!(pipeline.series_count(), 0);
    assert_eq!(pipeline.route_count(), 2);
}

#[test]
fn late_requests_are_in_the_totals_alone() {
    let mut pipeline = new(Config::default());
    take(&mut pipeline, &delivery(1, 5, &example()));
    let as_of_ns = (EPOCH_STEP + 8) * STEP_NS;
    pipeline.handle(Input::CaughtUp { as_of_ns }, as_of_ns);
    let rates = |pipeline: &Pipeline| -> Vec<f64> {
        pipeline.routes().iter().map(|of| of.rate_per_sec).collect()
    };
    let before = rates(&pipeline);
    take(&mut pipeline, &delivery(2, 4, &example()));
    assert_eq!(rates(&pipeline), before);
    assert_eq!(totals(&pipeline)[0].2, 180);
}

#[test]
fn bounds_are_those_of_the_configuration() {
    let mut pipeline = new(Config {
        routes_max: 2,
        routes_per_service_max: 1,
        ..Config::default()
    });
    take(&mut pipeline, &delivery(1, 0, &example()));
    assert_eq!(pipeline.counters().route_windows_as_other, 1);
    assert!(pipeline.counters().dropped.is_empty());
    assert_eq!(pipeline.route_count(), 2);
    assert_eq!(totals(&pipeline)[0], ("other".to_owned(), 4, 7));
    let mut none = new(Config {
        routes_max: 0,
        ..Config::default()
    });
    take(&mut none, &delivery(1, 0, &example()));
    assert_eq!(none.counters().dropped.get(&Drop::RoutesFull), Some(&3));
    assert!(none.routes().is_empty());
}

#[test]
fn the_routes_with_most_requests_are_forecast() {
    let mut pipeline = Pipeline::new(FEW_ROUTES.clone());
    let forecast = |pipeline: &Pipeline| -> Vec<String> {
        let routes = pipeline.routes().into_iter();
        let routes = routes.filter(|of| !of.points.is_empty());
        routes.map(|of| of.route).collect()
    };
    // There are models for two.
    let requests = [
        (get("/a"), 2, 100, 100),
        (get("/b"), 2, 300, 110),
        (get("/c"), 2, 200, 120),
    ];
    for step in 0..40 {
        take(&mut pipeline, &delivery(step + 1, step, &requests));
    }
    assert_eq!(forecast(&pipeline), ["GET /b", "GET /c"]);
    let b = pipeline.routes().remove(1);
    let p50 = b
        .points
        .iter()
        .find(|point| point.target() == v1::Target::P50);
    let (now, expected) = (b.latency.unwrap().p50, p50.unwrap().yhat);
    assert!(
        (expected / now - 1.0).abs() < 0.2,
        "{expected} s, now {now} s"
    );
    // A route that is gone gives its model to the next.
    for step in 40..80 {
        take(&mut pipeline, &delivery(step + 1, step, &requests[..2]));
    }
    assert_eq!(forecast(&pipeline), ["GET /a", "GET /b"]);
}

/// Checked once, which takes a moment.
static FEW_ROUTES: LazyLock<ValidConfig> = LazyLock::new(|| {
    let config = Config {
        routes_max: 5,
        routes_per_service_max: 3,
        route_forecasts_max: 2,
        ..Config::default()
    };
    config.validate().unwrap()
});

fn any_delivery() -> impl Strategy<Value = (u64, Vec<Requests>)> {
    let route = (0..5u8).prop_map(|number| get(&format!("/{number}")));
    let requests = prop::collection::btree_map((route, 0..6u8), (1..50u64, 0..192u8), 0..8);
    (0..20u64, requests).prop_map(|(step, all)| {
        let all = all.into_iter();
        let all = all.map(|((route, class), (count, at))| (route, class, count, at));
        (step, all.collect())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// The same input shows the same routes, and so does a pipeline that was
    /// stored and restored in between.
    #[test]
    fn routes_are_deterministic_and_survive_a_restart(
        deliveries in prop::collection::vec(any_delivery(), 1..25),
        restart in prop::sample::select(vec![0usize, 3, 10]),
    ) {
        let new = || Pipeline::new(FEW_ROUTES.clone());
        let (mut one, mut other) = (new(), new());
        let mut steps: Vec<_> = deliveries;
        steps.sort_by_key(|(step, _)| *step);
        for (number, (step, requests)) in steps.iter().enumerate() {
            let delivery = delivery(number as u64 + 1, *step, requests);
            take(&mut one, &delivery);
            take(&mut other, &delivery);
            if number == restart {
                let state = other.state();
                other = new();
                other.restore_state(state.partition, &state.series).unwrap();
                other.last_forecasts();
            }
            prop_assert_eq!(one.routes(), other.routes());
        }
        prop_assert_eq!(totals(&one), totals(&other));
        prop_assert_eq!(one.route_count(), other.route_count());
        prop_assert_eq!(one.bytes() > 0, one.route_count() + one.series_count() > 0);
    }
}
