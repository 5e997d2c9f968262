use honeyguide_proto::{
    ServiceId, ServiceKind,
    batch::{Contents, Header, RouteSeriesRef},
    route::{Protocol, Template},
};
use proptest::prelude::*;
use sensor_common::http::Method;

use super::*;

const STEP_NS: u64 = 10_000_000_000;

pub(crate) fn get(template: &str) -> Route {
    Route::http(Method::Get, Template::new(template).unwrap())
}

/// A route's requests of one class: (route, class, how many, bucket).
pub(crate) type Requests = (Route, u8, u64, u8);

fn histogram(count: u64, position: u8) -> SparseHistogram {
    let mut histogram = SparseHistogram::default();
    histogram.add(position, count);
    let middle = sensor_common::histogram::lower_bound_ns(usize::from(position)) as u64;
    histogram.add_totals(sensor_common::histogram::Totals {
        samples: count,
        sum_ns: count * middle,
        max_ns: middle,
    });
    histogram
}

/// A payload of service `x` with these requests, each (route, class) once.
pub(crate) fn payload(header: &Header, requests: &[Requests]) -> Vec<u8> {
    let of: Vec<_> = requests
        .iter()
        .map(|(_, _, count, position)| histogram(*count, *position))
        .collect();
    let route_series = requests.iter().zip(&of);
    let route_series = route_series.map(|((route, status_class, ..), histogram)| RouteSeriesRef {
        service: 0,
        route,
        signal: Signal::ServerRequest,
        status_class: *status_class,
        buckets: histogram.buckets(),
        totals: histogram.totals(),
    });
    let contents = Contents {
        services: &[ServiceId::named(ServiceKind::Process, "x")],
        route_series: route_series.collect(),
        ..Contents::default()
    };
    contents.encode(header)
}

pub(crate) fn header(seq: u64, step: u64) -> Header {
    Header {
        sensor_id: "node".to_owned(),
        boot_id: [1; 16],
        seq,
        partition: 0,
        window_start_ns: step * STEP_NS,
        window_duration_ns: STEP_NS,
        more: false,
    }
}

const ROOMY: Room = Room {
    of_service: 100,
    free: 100,
};

fn collect(routes: &mut Routes, step: u64, requests: &[Requests], room: &mut Room) -> Taken {
    let batch = Batch::decode(&payload(&header(1, step), requests)).unwrap();
    let arrival = Arrival {
        batch: &batch,
        steps: step..=step,
        first_step: step,
    };
    routes.collect(&arrival, &batch.route_series, room)
}

fn close(routes: &mut Routes, recent: &mut RecentSteps, step: u64) {
    recent.close(step, true);
    routes.close_step(&closing(step), 100);
}

fn closing(step: u64) -> ClosingStep {
    ClosingStep {
        step,
        step_ns: STEP_NS,
        empty: honeyguide_models::Window::MISSING,
        completeness: 1.0,
    }
}

#[test]
fn classes_are_merged_and_errors_are_a_share() {
    let (mut routes, mut recent) = (Routes::default(), RecentSteps::default());
    let requests = [(get("/a"), 2, 90, 100), (get("/a"), 5, 10, 150)];
    collect(&mut routes, 7, &requests, &mut ROOMY.clone());
    close(&mut routes, &mut recent, 7);
    let all: Vec<_> = routes.summaries("process/x", &recent, STEP_NS).collect();
    let [of] = all.as_slice() else {
        panic!("{all:?}")
    };
    assert_eq!((of.rate_per_sec, of.errors_per_sec), (10.0, 1.0));
    assert_eq!(of.error_ratio, 0.1);
    let latency = of.latency.as_ref().unwrap();
    let secs = |at| sensor_common::histogram::lower_bound_ns(at) / 1e9;
    assert!(
        (secs(100)..=secs(101)).contains(&latency.p50),
        "{latency:?}"
    );
    assert!((latency.p99 / secs(150) - 1.0).abs() < 1e-6, "{latency:?}");
    let classes: Vec<_> = of
        .classes
        .iter()
        .map(|class| (class.status_class, class.rate_per_sec, class.requests))
        .collect();
    assert_eq!(classes, [(2, 9.0, 90), (5, 1.0, 10)]);
    assert_eq!(of.route, "GET /a");
}

#[test]
fn what_the_client_did_wrong_is_an_error_of_the_client_alone() {
    let errors = |signal| (0..6).filter(|class| is_error(signal, *class)).count();
    assert_eq!(errors(Signal::ServerRequest), 1);
    assert_eq!(errors(Signal::ClientRequest), 2);
}

#[test]
fn now_is_the_last_minute_and_totals_stay() {
    let (mut routes, mut recent) = (Routes::default(), RecentSteps::default());
    collect(
        &mut routes,
        7,
        &[(get("/a"), 2, 60, 100)],
        &mut ROOMY.clone(),
    );
    let rate = |routes: &Routes, recent: &RecentSteps| {
        let of = routes
            .summaries("process/x", recent, STEP_NS)
            .next()
            .unwrap();
        (
            of.rate_per_sec,
            of.classes[0].requests,
            of.latency.is_some(),
        )
    };
    for (step, expected) in (7..).zip([6.0, 3.0, 2.0, 1.5, 1.2, 1.0]) {
        close(&mut routes, &mut recent, step);
        assert_eq!(rate(&routes, &recent), (expected, 60, true));
    }
    close(&mut routes, &mut recent, 13);
    assert_eq!(rate(&routes, &recent), (0.0, 60, false));
    close(&mut routes, &mut recent, 106);
    assert_eq!(routes.len(), 1);
    close(&mut routes, &mut recent, 107);
    assert!(routes.is_empty(), "forgotten after 100 steps");
}

#[test]
fn steps_of_which_nothing_is_known_do_not_count() {
    let (mut routes, mut recent) = (Routes::default(), RecentSteps::default());
    collect(
        &mut routes,
        7,
        &[(get("/a"), 2, 60, 100)],
        &mut ROOMY.clone(),
    );
    close(&mut routes, &mut recent, 7);
    recent.close(8, false);
    routes.close_step(&closing(8), 100);
    let of = routes
        .summaries("process/x", &recent, STEP_NS)
        .next()
        .unwrap();
    assert_eq!(of.rate_per_sec, 6.0);
}

#[test]
fn requests_beyond_the_bounds_are_counted_with_the_others() {
    let mut routes = Routes::default();
    let mut room = Room {
        of_service: 2,
        free: 100,
    };
    let requests: Vec<Requests> = (0..10)
        .map(|n| (get(&format!("/{n}")), 2, 1, 100))
        .collect();
    let taken = collect(&mut routes, 7, &requests, &mut room);
    let expected = Taken {
        taken: 10,
        as_other: 8,
        ..Taken::default()
    };
    assert_eq!((taken, room.free), (expected, 97));
    let names: Vec<_> = routes.iter().map(|one| one.route.to_string()).collect();
    assert_eq!(names, ["other", "GET /0", "GET /1"]);
    // A place that nobody else needs does not make it full.
    let mut room = Room {
        of_service: 2,
        free: 0,
    };
    let mut none = Routes::default();
    let taken = collect(&mut none, 7, &requests, &mut room);
    assert_eq!((taken.full, taken.taken, none.len()), (10, 0, 0));
}

#[test]
fn addresses_that_are_asked_have_a_bound_of_their_own() {
    let mut routes = Routes::default();
    let mut room = Room {
        of_service: 3,
        free: 100,
    };
    let asked = |host: u8| {
        let peer = format!("10.0.0.{host}:80");
        Route::other(Protocol::Tcp).with_peer(&peer).unwrap()
    };
    let mut requests: Vec<Requests> = (0..9).map(|host| (asked(host), 2, 1, 100)).collect();
    requests.push((get("/a"), 2, 1, 100));
    requests.sort_by(|a, b| a.0.cmp(&b.0));
    let taken = collect(&mut routes, 7, &requests, &mut room);
    assert_eq!((taken.taken, taken.as_other), (10, 6));
    let named = |has_peer: bool| {
        let with = routes
            .iter()
            .filter(|one| one.route.peer().is_some() == has_peer);
        with.map(|one| one.route.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(named(true).len(), 3);
    assert_eq!(named(false), ["GET /a", "tcp other"]);
}

fn any_requests() -> impl Strategy<Value = Vec<Requests>> {
    let route = prop_oneof![
        Just(Route::other(Protocol::Http)),
        (0..12u8).prop_map(|number| get(&format!("/{number}"))),
        (0..4u8).prop_map(|number| {
            Route::operation(Protocol::Redis, &format!("COMMAND{number}"), "").unwrap()
        }),
    ];
    let key = (route, 0..6u8);
    prop::collection::btree_map(key, (1..50u64, 0..192u8), 0..20).prop_map(|all| {
        all.into_iter()
            .map(|((route, class), (count, position))| (route, class, count, position))
            .collect()
    })
}

proptest! {
    /// However little room there is, bounds hold and no request is lost that
    /// is not told of.
    #[test]
    fn bounds_hold_and_nothing_gets_lost(
        steps in prop::collection::vec(any_requests(), 1..8),
        of_service in 0..6usize,
        free in 0..8usize,
    ) {
        let mut routes = Routes::default();
        let mut room = Room { of_service, free };
        let (mut taken, mut windows) = (Taken::default(), 0);
        let mut sent = [0u64; 6];
        for (step, requests) in (7..).zip(&steps) {
            taken += collect(&mut routes, step, requests, &mut room);
            windows += requests.len() as u64;
            for (_, class, count, _) in requests {
                sent[usize::from(*class)] += count;
            }
        }
        prop_assert_eq!(taken.taken + taken.full, windows);
        prop_assert!(routes.len() + room.free == free);
        let named = routes.iter().filter(|one| !one.route.is_other()).count();
        prop_assert!(named <= of_service);
        let mut counted = [0u64; 6];
        for one in routes.iter() {
            for (class, histogram) in one.total.iter() {
                counted[usize::from(class)] += histogram.count();
            }
        }
        if taken.full == 0 {
            prop_assert_eq!(counted, sent);
        }
        let keys: Vec<_> = routes.iter().map(RouteRequests::key).collect();
        prop_assert!(keys.is_sorted());
    }

    /// What is stored comes back as it was.
    #[test]
    fn state_round_trips(steps in prop::collection::vec(any_requests(), 1..10), closed in 0..10usize) {
        let (mut routes, mut recent) = (Routes::default(), RecentSteps::default());
        for (step, requests) in (7..).zip(&steps) {
            collect(&mut routes, step, requests, &mut ROOMY.clone());
        }
        for step in 7..7 + closed.min(steps.len()) as u64 {
            close(&mut routes, &mut recent, step);
        }
        let service = ServiceId::named(ServiceKind::Process, "x");
        let state = stored(routes.iter().map(|one| (&service, one)), &recent);
        prop_assert_eq!(state.is_none(), routes.is_empty() && closed == 0);
        let Some(state) = state else { return Ok(()) };
        let (recent_again, all) = restored(state.clone()).unwrap();
        prop_assert_eq!(&recent_again, &recent);
        let mut again = Routes::default();
        let mut room = ROOMY;
        all.into_iter().for_each(|one| again.restore(one, &mut room));
        prop_assert_eq!(again.named, routes.named);
        let state_again = stored(again.iter().map(|one| (&service, one)), &recent_again);
        prop_assert_eq!(state_again, Some(state.clone()));
        for step in 7..30 {
            close(&mut routes, &mut recent.clone(), step);
            close(&mut again, &mut recent.clone(), step);
            let then = |routes: &Routes| -> Vec<_> {
                routes.summaries("x", &recent, STEP_NS).collect()
            };
            prop_assert_eq!(then(&again), then(&routes));
        }
        // Damaged states are errors.
        let mut damaged = state;
        damaged.first_step.push(7);
        prop_assert!(restored(damaged).is_err());
    }
}

/// What a route takes, as documented in `default.toml`.
#[test]
fn a_busy_route_takes_up_to_four_kilobytes() {
    let (mut routes, mut recent) = (Routes::default(), RecentSteps::default());
    for step in 7..20 {
        for position in 80..100 {
            let requests = [(get("/users/{id}/orders"), 2, 5, position)];
            collect(&mut routes, step, &requests, &mut ROOMY.clone());
        }
        close(&mut routes, &mut recent, step);
    }
    let bytes = routes.bytes();
    assert!(bytes < 4096, "{bytes}");
}
