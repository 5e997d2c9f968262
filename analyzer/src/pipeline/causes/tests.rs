use honeyguide_bus::{Delivery, Record, Topic};
use honeyguide_proto::{
    Route, ServiceKind, SparseHistogram,
    batch::{Contents, Endpoint, Header, RouteSeriesRef, SeriesRef},
    route::{Protocol, Template},
    v1,
};
use sensor_common::{Histogram, http::Method};

use super::*;
use crate::{
    config::Config,
    pipeline::{Command, Input, Pipeline},
};

const STEP_NS: u64 = 10_000_000_000;
const EPOCH_STEP: u64 = 170_000_000;
/// When the trouble begins, and how long it is looked at.
const BEGIN: u64 = 120;
const END: u64 = BEGIN + 8;
/// What the three services take themselves, and what trouble adds, in ms.
const WEB_MS: f64 = 10.0;
const API_MS: f64 = 3.0;
const DB_MS: f64 = 5.0;
const MORE_MS: f64 = 300.0;
const API_AT: &str = "10.0.0.2:80";
const DB_AT: &str = "10.0.0.3:6379";

/// Where time is lost.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Db,
    /// And its processes wait for a CPU.
    DbCpu,
    Api,
    /// Between the last two.
    Network,
}

/// What is measured of the database itself.
#[derive(Clone, Copy, PartialEq)]
enum Seen {
    All,
    /// There is no sensor where it runs.
    NotDb,
}

/// 200 requests that take about so long.
fn requests(ms: f64, step: u64) -> Histogram {
    let mut histogram = Histogram::new();
    for event in 0..200u64 {
        let noise = (event * 7919 + step * 104_729) % 1000;
        histogram.record((ms * 1e6 * (0.8 + 0.4 * noise as f64 / 1000.0)) as u64);
    }
    histogram
}

fn sparse(histogram: &Histogram) -> SparseHistogram {
    let mut sparse = SparseHistogram::default();
    for (position, count) in histogram.occupied() {
        sparse.add(position as u8, count);
    }
    sparse.add_totals(histogram.totals());
    sparse
}

/// The web server asks the API, which asks the database.
fn delivery(step: u64, fault: Fault, seen: Seen) -> Delivery {
    let lost = |here: bool| if here && step >= BEGIN { MORE_MS } else { 0.0 };
    let db = DB_MS + lost(matches!(fault, Fault::Db | Fault::DbCpu));
    let db_asked = db + 0.2 + lost(fault == Fault::Network);
    let api = API_MS + db_asked + lost(fault == Fault::Api);
    let api_asked = api + 0.2;
    let web = WEB_MS + api_asked;
    let services = ["api", "db", "web"].map(|name| ServiceId::named(ServiceKind::Process, name));
    let of_service = [api, db, web].map(|ms| requests(ms, step));
    let waiting = requests(0.1 + 0.1 * lost(fault == Fault::DbCpu), step + 1);
    let mut series: Vec<SeriesRef<'_>> = (0u32..)
        .zip(&of_service)
        .filter(|(service, _)| *service != 1 || seen == Seen::All)
        .map(|(service, histogram)| SeriesRef {
            service,
            signal: Signal::ServerRequest,
            histogram,
        })
        .collect();
    if seen == Seen::All {
        series.push(SeriesRef {
            service: 1,
            signal: Signal::RunQueue,
            histogram: &waiting,
        });
    }
    let routes = [
        (0, Route::other(Protocol::Redis).with_peer(DB_AT).unwrap()),
        (
            2,
            Route::http(Method::Get, Template::new("/cart").unwrap())
                .with_peer(API_AT)
                .unwrap(),
        ),
    ];
    let asked = [db_asked, api_asked].map(|ms| sparse(&requests(ms, step)));
    let route_series = routes.iter().zip(&asked);
    let route_series = route_series.map(|((service, route), histogram)| RouteSeriesRef {
        service: *service,
        route,
        signal: Signal::ClientRequest,
        status_class: 2,
        buckets: histogram.buckets(),
        totals: histogram.totals(),
    });
    let endpoint = |address: &str, service: &ServiceId| Endpoint {
        address: address.to_owned(),
        service: service.clone(),
        asked_by: None,
    };
    let endpoints = [
        endpoint(API_AT, &services[0]),
        endpoint(DB_AT, &services[1]),
    ];
    let contents = Contents {
        services: &services,
        series,
        route_series: route_series.collect(),
        endpoints: &endpoints,
        ..Contents::default()
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
            payload: contents.encode(&header),
        },
    }
}

fn run(fault: Fault, seen: Seen) -> Vec<Command> {
    let mut pipeline = Pipeline::new(Config::default().validate().unwrap());
    let mut commands = Vec::new();
    for step in 0..END {
        let delivery = delivery(step, fault, seen);
        let now_ns = delivery.record.timestamp_ns;
        pipeline.handle(Input::Delivery(&delivery), now_ns);
        pipeline.handle(Input::CaughtUp { as_of_ns: now_ns }, now_ns);
        commands.extend(std::iter::from_fn(|| pipeline.next_command()));
    }
    commands
}

/// Why the requests of a service are in trouble, after the last step: service,
/// signal, address, share.
fn reasons(commands: &[Command], service: &str) -> Vec<(String, String, String, f64)> {
    let newest = commands.iter().rev().find_map(|command| match command {
        Command::Forecasts(forecasts) => Some(forecasts),
        _ => None,
    });
    let key = v1::SeriesKey {
        service: service.to_owned(),
        signal: "server_request".to_owned(),
    };
    let mut forecasts = newest.unwrap().iter();
    let forecast = forecasts.find(|forecast| forecast.key.as_ref() == Some(&key));
    let reasons = &forecast.unwrap().reasons;
    let told = reasons.iter().map(|reason| {
        let key = reason.key.clone().unwrap();
        (
            key.service,
            key.signal,
            reason.peer.clone(),
            reason.contribution,
        )
    });
    told.collect()
}

fn share_of(reasons: &[(String, String, String, f64)], service: &str) -> f64 {
    let of = reasons.iter().filter(|reason| reason.0 == service);
    of.map(|reason| reason.3.abs()).sum()
}

#[test]
fn the_last_of_a_chain_is_the_reason_of_all() {
    let commands = run(Fault::Db, Seen::All);
    for service in ["process/web", "process/api"] {
        let reasons = reasons(&commands, service);
        let (first, signal, peer, share) = &reasons[0];
        assert_eq!(
            (first.as_str(), signal.as_str()),
            ("process/db", "server_request")
        );
        assert_eq!(peer, DB_AT);
        assert!(*share > 0.8, "{service}: {reasons:?}");
        assert!(
            share_of(&reasons, "process/api") < 0.1,
            "{service}: {reasons:?}"
        );
    }
    // It has nobody to blame.
    let reasons = reasons(&commands, "process/db");
    assert!(
        reasons.iter().all(|reason| reason.0 == "process/db"),
        "{reasons:?}"
    );
    let alert = commands.iter().find_map(|command| match command {
        Command::Alert(alert) if alert.key.as_ref()?.service == "process/web" => Some(alert),
        _ => None,
    });
    let summary = &alert.unwrap().summary;
    let because = "because of server_request of process/db (10.0.0.3:6379)";
    assert!(summary.contains(because), "{summary}");
}

#[test]
fn a_service_in_the_middle_is_told_from_those_around_it() {
    let commands = run(Fault::Api, Seen::All);
    let of_web = reasons(&commands, "process/web");
    assert_eq!(
        (of_web[0].0.as_str(), of_web[0].2.as_str()),
        ("process/api", API_AT)
    );
    assert!(
        of_web[0].3 > 0.8 && share_of(&of_web, "process/db") < 0.1,
        "{of_web:?}"
    );
    let of_api = reasons(&commands, "process/api");
    assert_eq!(of_api[0].0, "process/api", "{of_api:?}");
}

#[test]
fn signals_of_the_kernel_stay_among_the_reasons_of_their_service() {
    let commands = run(Fault::DbCpu, Seen::All);
    let of_db = reasons(&commands, "process/db");
    assert_eq!(
        (of_db[0].0.as_str(), of_db[0].1.as_str()),
        ("process/db", "runq")
    );
    assert!(of_db[0].3 > 0.5, "{of_db:?}");
    assert_eq!(reasons(&commands, "process/web")[0].0, "process/db");
}

#[test]
fn what_is_between_two_services_is_nobodys_fault() {
    let commands = run(Fault::Network, Seen::All);
    for service in ["process/web", "process/api"] {
        let reasons = reasons(&commands, service);
        let (first, signal, peer, share) = &reasons[0];
        assert_eq!(
            (first.as_str(), signal.as_str()),
            ("process/api", "client_request")
        );
        assert!(peer == DB_AT && *share > 0.8, "{service}: {reasons:?}");
        assert_eq!(
            share_of(&reasons, "process/db"),
            0.0,
            "{service}: {reasons:?}"
        );
    }
}

#[test]
fn a_service_that_nobody_measures_is_known_by_what_others_wait_for() {
    let commands = run(Fault::Db, Seen::NotDb);
    let reasons = reasons(&commands, "process/web");
    let (first, signal, peer, _) = &reasons[0];
    assert_eq!(
        (first.as_str(), signal.as_str()),
        ("process/db", "server_request")
    );
    assert_eq!(peer, DB_AT, "{reasons:?}");
}

#[test]
fn the_same_input_gives_the_same_reasons() {
    assert_eq!(
        run(Fault::Network, Seen::All),
        run(Fault::Network, Seen::All)
    );
}
