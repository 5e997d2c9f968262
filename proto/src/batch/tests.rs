use proptest::prelude::*;
use prost::Message;
use sensor_common::Histogram;

use super::*;
use crate::{
    Route, ServiceKind,
    route::{Protocol, Template},
};
use sensor_common::http::Method;

fn header() -> Header {
    Header {
        sensor_id: "node-1".to_owned(),
        boot_id: [7; 16],
        seq: 1,
        partition: 3,
        window_start_ns: 1_700_000_000_000_000_000,
        window_duration_ns: 10_000_000_000,
        more: false,
    }
}

fn services(count: usize) -> Vec<ServiceId> {
    (0..count)
        .map(|index| ServiceId::named(ServiceKind::Process, &format!("service-{index}")))
        .collect()
}

/// (service, signal) with its events: (nanoseconds, sampling shift).
type Events = Vec<(u64, u8)>;

fn histogram(events: &Events) -> Histogram {
    let mut histogram = Histogram::new();
    for (value_ns, shift) in events {
        histogram.add(sensor_common::histogram::position(*value_ns), 1 << shift);
        histogram.add_totals(Totals {
            samples: 1,
            sum_ns: value_ns << shift,
            max_ns: *value_ns,
        });
    }
    histogram
}

fn encoded(series: &std::collections::BTreeMap<(u32, u8), Events>) -> (Vec<u8>, Vec<Histogram>) {
    let histograms: Vec<Histogram> = series.values().map(histogram).collect();
    let references = series
        .keys()
        .zip(&histograms)
        .map(|((service, signal), histogram)| SeriesRef {
            service: *service,
            signal: Signal::from_number(*signal).unwrap(),
            histogram,
        });
    let payload = encode(
        &header(),
        &services(5),
        references.collect(),
        &[(1, 2)],
        None,
    );
    (payload, histograms)
}

fn any_series() -> impl Strategy<Value = std::collections::BTreeMap<(u32, u8), Events>> {
    let event = (1_000u64..20_000_000_000, 0u8..7);
    prop::collection::btree_map(
        (0u32..5, 0u8..24),
        prop::collection::vec(event, 1..40),
        0..20,
    )
}

fn example() -> Vec<u8> {
    let series = [
        ((0, 0), vec![(5_000, 0), (9_000_000, 0)]),
        ((2, 7), vec![(70_000, 3)]),
    ];
    encoded(&series.into_iter().collect()).0
}

/// Decodes `example()` after `change` was made to the message.
fn changed(change: impl FnOnce(&mut v1::HistogramBatch)) -> Result<Batch, DecodeError> {
    let mut message = v1::HistogramBatch::decode(example().as_slice()).unwrap();
    change(&mut message);
    Batch::decode(&message.encode_to_vec())
}

proptest! {
    #[test]
    fn batches_round_trip(series in any_series()) {
        let (payload, histograms) = encoded(&series);
        let batch = Batch::decode(&payload).unwrap();
        prop_assert_eq!(&batch.header, &header());
        prop_assert_eq!(&batch.losses, &[(1, 2)]);
        let keys: Vec<_> = batch.series.iter().map(|s| (s.service, s.signal.number())).collect();
        prop_assert_eq!(keys, series.keys().copied().collect::<Vec<_>>());
        for (series, expected) in batch.series.iter().zip(histograms) {
            prop_assert_eq!(batch.histogram(series), expected);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Batch::decode(&bytes);
    }

    #[test]
    fn changed_bytes_never_panic(at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let mut payload = example();
        let at = at.index(payload.len());
        payload[at] = byte;
        payload.truncate(cut.index(payload.len() + 1));
        if let Ok(batch) = Batch::decode(&payload) {
            for series in &batch.series {
                prop_assert!(series.totals.samples <= series.count);
                prop_assert_eq!(batch.histogram(series).count(), series.count);
            }
        }
    }
}

#[test]
fn wrong_fields_are_errors_that_name_them() {
    type Change = fn(&mut v1::HistogramBatch);
    let cases: [(&str, Change); 8] = [
        ("sensor_id", |m| m.sensor_id.clear()),
        ("boot_id", |m| m.boot_id.push(0)),
        ("seq", |m| m.seq = 0),
        ("window_duration_ns", |m| m.window_duration_ns = 1),
        ("window_start_ns", |m| m.window_start_ns = u64::MAX),
        ("samples", |m| m.series.as_mut().unwrap().samples.push(1)),
        ("service 0", |m| m.services[0].name = 99),
        ("series 0", |m| {
            m.series.as_mut().unwrap().sampling_shift[0] = 40
        }),
    ];
    for (name, change) in cases {
        let error = changed(change).unwrap_err().to_string();
        assert!(error.contains(name), "{error} does not name {name}");
    }
}

#[test]
fn series_twice_is_an_error() {
    let error = changed(|m| {
        let columns = m.series.as_mut().unwrap();
        columns.service_delta[1] = 0;
        columns.signal[1] = 0;
    });
    assert!(
        matches!(error, Err(DecodeError::Series { index: 1, .. })),
        "{error:?}"
    );
}

#[test]
fn unknown_signal_is_left_out_and_counted() {
    let batch = changed(|m| m.series.as_mut().unwrap().signal[1] = 200).unwrap();
    assert_eq!(batch.unknown_signals, 1);
    assert_eq!(batch.series.len(), 1);
}

#[test]
fn too_long_payload_is_refused_unread() {
    let error = Batch::decode(&vec![0; PAYLOAD_LEN_MAX + 1]).unwrap_err();
    assert_eq!(error.reason(), "too_long");
}

fn cost() -> v1::SensorCost {
    v1::SensorCost {
        user_space_ns: 5,
        kernel_ns: 70,
        cpus: 2,
        signals: [0, 7]
            .map(|signal| v1::SignalCost {
                signal,
                kernel_ns: 35,
                events: 100,
                estimated_events: 800,
                shed_shift: 3,
                detached: false,
            })
            .to_vec(),
        hints: Some(v1::HintCounts {
            applied: 1,
            active: 1,
            ..v1::HintCounts::default()
        }),
        ceiling_ns: 200_000_000,
        shedding_level: 3,
    }
}

#[test]
fn the_cost_comes_back_as_it_was() {
    let batch = changed(|message| message.cost = Some(cost())).unwrap();
    assert_eq!(batch.cost, Some(cost()));
}

#[test]
fn a_cost_of_an_old_sensor_is_accepted() {
    // user_space_ns = 5, kernel_ns = 70, cpus = 2: all there was.
    let old = [0x08, 5, 0x10, 70, 0x18, 2];
    let decoded = v1::SensorCost::decode(&old[..]).unwrap();
    let batch = changed(|message| message.cost = Some(decoded.clone())).unwrap();
    assert_eq!(batch.cost.unwrap().signals, []);
    assert_eq!((decoded.kernel_ns, decoded.hints), (70, None));
}

#[test]
fn costs_by_signal_are_bounded_and_in_order() {
    let with = |signals: Vec<u32>| {
        let mut cost = cost();
        cost.signals = signals
            .into_iter()
            .map(|signal| v1::SignalCost {
                signal,
                ..v1::SignalCost::default()
            })
            .collect();
        changed(|message| message.cost = Some(cost))
    };
    // Signals that this reader does not know are somebody's all the same.
    assert!(with(vec![0, 3, 31, 900]).is_ok());
    for wrong in [vec![3, 3], vec![3, 2], (0..33).collect()] {
        let error = with(wrong).unwrap_err().to_string();
        assert!(error.contains("cost.signals"), "{error}");
    }
}

type RouteKey = (u32, Route, u8, u8);

fn any_route() -> impl Strategy<Value = Route> {
    let template = prop::sample::select(vec!["/", "/users/{id}", "/users", "/orders/{id}/items"]);
    let operation = prop::sample::select(vec!["GET", "SELECT", "CONFIG GET", "Produce", "AAAA"]);
    let named = prop::sample::select(&Protocol::ALL[2..6]);
    let route = prop_oneof![
        prop::sample::select(&Protocol::ALL[..]).prop_map(Route::other),
        (prop::sample::select(&Method::ALL[..]), template.clone())
            .prop_map(|(method, path)| Route::http(method, Template::new(path).unwrap())),
        template
            .clone()
            .prop_map(|path| Route::grpc(Template::new(path).unwrap())),
        (named, operation, prop_oneof![Just(""), template])
            .prop_map(|(protocol, name, rest)| { Route::operation(protocol, name, rest).unwrap() }),
    ];
    let peer = prop::sample::select(vec!["10.0.0.7:6379", "[::1]:80"]);
    (route, prop::option::weighted(0.2, peer)).prop_map(|(route, peer)| match peer {
        Some(peer) => route.with_peer(peer).unwrap(),
        None => route,
    })
}

fn any_route_series() -> impl Strategy<Value = std::collections::BTreeMap<RouteKey, Events>> {
    let key = (0u32..5, any_route(), 0u8..24, 0u8..6);
    let event = (1_000u64..20_000_000_000, 0u8..7);
    prop::collection::btree_map(key, prop::collection::vec(event, 1..20), 0..20)
}

/// A batch with series by route next to `series`, and their histograms.
fn encoded_with_routes(
    series: &std::collections::BTreeMap<(u32, u8), Events>,
    by_route: &std::collections::BTreeMap<RouteKey, Events>,
) -> (Vec<u8>, Vec<Histogram>) {
    let whole: Vec<Histogram> = series.values().map(histogram).collect();
    let histograms: Vec<Histogram> = by_route.values().map(histogram).collect();
    let occupied: Vec<Vec<(u8, u64)>> = histograms
        .iter()
        .map(|of| of.occupied().map(|(at, count)| (at as u8, count)).collect())
        .collect();
    let route_series = by_route.keys().zip(&histograms).zip(&occupied);
    let contents = Contents {
        services: &services(5),
        series: (series.keys().zip(&whole))
            .map(|((service, signal), histogram)| SeriesRef {
                service: *service,
                signal: Signal::from_number(*signal).unwrap(),
                histogram,
            })
            .collect(),
        route_series: route_series
            .map(
                |(((service, route, signal, class), histogram), buckets)| RouteSeriesRef {
                    service: *service,
                    route,
                    signal: Signal::from_number(*signal).unwrap(),
                    status_class: *class,
                    buckets,
                    totals: histogram.totals(),
                },
            )
            .collect(),
        endpoints: &[],
        losses: &[(1, 2)],
        cost: None,
    };
    (contents.encode(&header()), histograms)
}

/// Decodes a batch with a route after `change` was made to the message.
fn changed_routes(change: impl FnOnce(&mut v1::HistogramBatch)) -> Result<Batch, DecodeError> {
    let template = Template::new("/users/{id}").unwrap();
    let get = Route::http(Method::Get, template);
    let by_route = [
        ((1, Route::other(Protocol::Http), 7, 4), vec![(5_000, 0)]),
        ((1, get.clone(), 7, 2), vec![(70_000, 0), (80_000, 0)]),
        ((1, get, 7, 5), vec![(900_000, 0)]),
    ];
    let (payload, _) = encoded_with_routes(&Default::default(), &by_route.into_iter().collect());
    let mut message = v1::HistogramBatch::decode(payload.as_slice()).unwrap();
    change(&mut message);
    Batch::decode(&message.encode_to_vec())
}

/// A batch of one service with endpoints.
fn with_endpoints(endpoints: &[Endpoint]) -> Vec<u8> {
    let contents = Contents {
        services: &services(1),
        endpoints,
        ..Contents::default()
    };
    contents.encode(&header())
}

#[test]
fn endpoints_round_trip_and_are_checked() {
    let endpoint = |address: &str, asked_by| Endpoint {
        address: address.to_owned(),
        service: services(3).remove(2),
        asked_by,
    };
    let endpoints = [
        endpoint("10.0.0.1:80", None),
        endpoint("[2001:db8::1]:443", None),
        endpoint("127.0.0.1:6379", Some(0)),
    ];
    let batch = Batch::decode(&with_endpoints(&endpoints)).unwrap();
    assert_eq!(batch.endpoints, endpoints);
    for wrong in [endpoint("10.0.0.1", None), endpoint("10.0.0.1:80", Some(1))] {
        let error = Batch::decode(&with_endpoints(&[wrong])).unwrap_err();
        assert_eq!(error.reason(), "bad_endpoint", "{error}");
    }
    let many = vec![endpoint("10.0.0.1:80", None); ENDPOINTS_MAX + 1];
    assert!(Batch::decode(&with_endpoints(&many)).is_err());
}

proptest! {
    #[test]
    fn series_by_route_round_trip(series in any_series(), by_route in any_route_series()) {
        let (payload, histograms) = encoded_with_routes(&series, &by_route);
        let batch = Batch::decode(&payload).unwrap();
        let keys: Vec<RouteKey> = batch
            .route_series
            .iter()
            .map(|of| {
                let signal = of.series.signal.number();
                (of.series.service, batch.route(of).clone(), signal, of.status_class)
            })
            .collect();
        prop_assert_eq!(keys, by_route.into_keys().collect::<Vec<_>>());
        for (of, expected) in batch.route_series.iter().zip(histograms) {
            prop_assert_eq!(batch.histogram(&of.series), expected);
        }
        // Readers that know no routes see what they always saw.
        let (without, _) = encoded(&series);
        let mut message = v1::HistogramBatch::decode(payload.as_slice()).unwrap();
        message.routes.clear();
        message.route_series = None;
        let old = Batch::decode(&message.encode_to_vec()).unwrap();
        prop_assert_eq!(old, Batch::decode(&without).unwrap());
    }

    #[test]
    fn changed_bytes_of_routes_never_panic(at: prop::sample::Index, byte: u8) {
        let template = Template::new("/users/{id}").unwrap();
        let route = Route::http(Method::Post, template).with_peer("[::1]:80").unwrap();
        let key = (1, route, 7, 2);
        let by_route = [(key, vec![(5_000, 0), (9_000_000, 2)])].into_iter().collect();
        let (mut payload, _) = encoded_with_routes(&Default::default(), &by_route);
        let at = at.index(payload.len());
        payload[at] = byte;
        if let Ok(batch) = Batch::decode(&payload) {
            for of in &batch.route_series {
                prop_assert!(usize::from(of.status_class) < sensor_common::http::STATUS_CLASSES);
                prop_assert_eq!(batch.histogram(&of.series).count(), of.series.count);
                let _ = batch.route(of).to_string();
            }
        }
    }
}

/// Routes cost nothing where there are none.
#[test]
fn a_batch_without_routes_is_what_it_was() {
    let series = [((0, 0), vec![(5_000, 0)])].into_iter().collect();
    let (with, _) = encoded_with_routes(&series, &Default::default());
    assert_eq!(with, encoded(&series).0);
}

#[test]
fn wrong_routes_are_errors_that_name_them() {
    type Change = fn(&mut v1::HistogramBatch);
    let cases: [(&str, Change); 12] = [
        ("route 0: has a template", |m| {
            m.routes[0].protocol = Protocol::Http.number().into();
            m.routes[0].template = 2;
        }),
        ("route 1: has no peer", |m| m.routes[1].peer = 1),
        ("route 1: has a template without an operation", |m| {
            m.routes[1].protocol = Protocol::Dns.number().into();
            m.routes[1].method = 0;
        }),
        ("route 1: has no operation", |m| {
            m.routes[1].protocol = Protocol::Redis.number().into();
            m.routes[1].method = 0;
            m.strings.push("caf\u{e9}".to_owned());
            m.routes[1].operation = m.strings.len() as u32;
        }),
        ("route 0: refers to no service", |m| m.routes[0].service = 9),
        ("route 1: refers to no string", |m| {
            m.routes[1].template = 99
        }),
        ("route 1: has no template", |m| m.routes[1].template = 0),
        ("route 1: is not after", |m| m.routes.swap(0, 1)),
        ("status_class", |m| {
            m.route_series.as_mut().unwrap().status_class.push(0)
        }),
        ("series by route 2: is not after", |m| {
            m.route_series.as_mut().unwrap().status_class[2] = 2
        }),
        ("series by route 1: refers to no", |m| {
            let columns = m.route_series.as_mut().unwrap();
            columns.series.as_mut().unwrap().service_delta[1] = 7;
        }),
        ("no template of paths", |m| {
            let template = m.routes[1].template as usize;
            m.strings[template - 1] = "no path".to_owned();
        }),
    ];
    for (name, change) in cases {
        let error = changed_routes(change).unwrap_err().to_string();
        assert!(error.contains(name), "{error} does not name {name}");
    }
}

#[test]
fn unknown_routes_are_left_out_and_counted() {
    type Change = fn(&mut v1::HistogramBatch);
    let cases: [(usize, Change); 7] = [
        (0, |_| {}),
        // Of the same protocol, but with what it does not have so far.
        (2, |m| m.routes[1].operation = 1),
        (2, |m| m.routes[1].protocol = Protocol::Grpc.number().into()),
        (2, |m| {
            m.routes[1].protocol = Protocol::Kafka.number().into()
        }),
        (2, |m| m.routes[1].method = 77),
        (2, |m| m.routes[1].protocol = 77),
        (1, |m| m.route_series.as_mut().unwrap().status_class[2] = 6),
    ];
    for (unknown, change) in cases {
        let batch = changed_routes(change).unwrap();
        assert_eq!(
            (batch.unknown_routes, batch.route_series.len()),
            (unknown, 3 - unknown)
        );
        for of in &batch.route_series {
            assert_eq!(batch.histogram(&of.series).count(), of.series.count);
        }
    }
}
