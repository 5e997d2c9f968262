//! Requests of HTTP/2 and gRPC by route and outcome against real servers. Needs
//! root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "kernel-tests")]

mod grpc;
mod requests;

use std::{collections::BTreeMap, net::SocketAddr, process::Command, time::Duration};

use grpc::PATH;
use honeyguide_proto::v1::{
    GetForecastRequest, ListAlertsRequest, ListHintsRequest, ListSeriesRequest,
    WatchForecastsRequest, forecast_service_client::ForecastServiceClient,
};
use requests::{
    Copy, LOCATIONS, Running, Server, check_sampled, client_config, config, load_http2, name_of,
    own_name, published, sampled_config,
};
use tonic::transport::Channel;

fn nginx(directory: &std::path::Path) -> Server {
    Server::nginx(directory, "http2", LOCATIONS)
}

fn load(address: SocketAddr, requests: u32, streams: u32, paths: &[&str]) {
    load_by(Command::new("h2load"), address, requests, streams, paths);
}

fn load_by(h2load: Command, address: SocketAddr, requests: u32, streams: u32, paths: &[&str]) {
    load_http2(
        h2load,
        &format!("http://{address}"),
        (requests, streams),
        paths,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_one_after_the_other_are_counted() {
    let _turn = requests::turn().await;
    let directory = tempfile::tempdir().unwrap();
    let server = nginx(directory.path());
    let address = server.address;
    let work = move || load(address, 2000, 1, &["/api/v1/status?x=1", "/error"]);
    let found = published(config(), &name_of(&server.child), work).await;
    println!("{:?} {:?}", found.by_route, found.losses);
    let expected = BTreeMap::from([(("GET /api/v1/status", 2), 1000), (("GET /error", 5), 1000)]);
    assert_eq!(found.routes(), expected);
    found.check_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn multiplexed_requests_are_timed_each() {
    let _turn = requests::turn().await;
    let directory = tempfile::tempdir().unwrap();
    let server = nginx(directory.path());
    let address = server.address;
    let paths = [
        "/api/v1/status",
        "/api/v1/users/123?q",
        "/error/of/4711",
        "/missing",
    ];
    let work = move || load(address, 8000, 20, &paths);
    let found = published(config(), &name_of(&server.child), work).await;
    println!("{:?} {:?}", found.by_route, found.losses);
    let expected = BTreeMap::from([
        (("GET /api/v1/status", 2), 2000),
        (("GET /api/v1/users/{id}", 2), 2000),
        (("GET /error/of/{id}", 5), 2000),
        (("other", 4), 2000),
    ]);
    assert_eq!(found.routes(), expected);
    found.check_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn large_responses_are_followed() {
    let _turn = requests::turn().await;
    let directory = tempfile::tempdir().unwrap();
    let server = nginx(directory.path());
    let address = server.address;
    let work = move || load(address, 500, 5, &["/files/large"]);
    let found = published(config(), &name_of(&server.child), work).await;
    println!("{:?} {:?}", found.by_route, found.losses);
    assert_eq!(
        found.routes(),
        BTreeMap::from([(("GET /files/large", 2), 500)])
    );
}

/// Many at once on one connection, `times` each.
async fn call_all(client: ForecastServiceClient<Channel>, times: usize) {
    let calls: Vec<_> = (0..times)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move {
                client
                    .list_series(ListSeriesRequest::default())
                    .await
                    .unwrap();
                let missing = client.get_forecast(GetForecastRequest::default()).await;
                assert_eq!(missing.unwrap_err().code(), tonic::Code::NotFound);
                let broken = client.list_alerts(ListAlertsRequest::default()).await;
                assert_eq!(broken.unwrap_err().code(), tonic::Code::Internal);
                client.list_hints(ListHintsRequest {}).await.unwrap();
                let watch = client.watch_forecasts(WatchForecastsRequest::default());
                let mut watch = watch.await.unwrap().into_inner();
                while watch.message().await.is_ok_and(|next| next.is_some()) {}
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_grpc_are_counted_by_method_and_status() {
    let _turn = requests::turn().await;
    const TIMES: usize = 100;
    let address = grpc::serve().await;
    let runtime = tokio::runtime::Handle::current();
    let work = move || {
        runtime.block_on(async {
            let endpoint = Channel::from_shared(format!("http://{address}")).unwrap();
            let client = ForecastServiceClient::new(endpoint.connect().await.unwrap());
            call_all(client, TIMES).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        });
    };
    let found = published(client_config(), &own_name(), work).await;
    println!("{:?} {:?}", found.by_route, found.losses);
    let expected: BTreeMap<(String, u8), u64> = [
        ("ListSeries", 2),
        ("GetForecast", 4),
        ("ListAlerts", 5),
        ("ListHints", 2),
        ("WatchForecasts", 5),
    ]
    .into_iter()
    .map(|(method, class)| ((format!("{PATH}/{method}"), class), TIMES as u64))
    .collect();
    assert_eq!(found.by_route, expected);
    assert_eq!(found.by_client_route, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_count_on_the_side_that_makes_them() {
    let _turn = requests::turn().await;
    let directory = tempfile::tempdir().unwrap();
    let server = nginx(directory.path());
    let address = server.address;
    let client = Copy::of("h2load", "hg-h2-client");
    let command = client.command();
    let paths = [
        "/api/v1/status",
        "/api/v1/users/123?q",
        "/error",
        "/missing",
    ];
    let work = move || load_by(command, address, 4000, 20, &paths);
    let found = published(client_config(), &client.service(), work).await;
    println!("{:?} {:?}", found.by_client_route, found.losses);
    let expected = BTreeMap::from([
        (("GET /api/v1/status", 2), 1000),
        (("GET /api/v1/users/{id}", 2), 1000),
        (("GET /error", 5), 1000),
        (("other", 4), 1000),
    ]);
    assert_eq!(found.client_routes(), expected);
    assert_eq!((found.client_requests, found.requests), (4000, 0));
    let peer = found.by_peer.get(&address.to_string()).copied();
    assert_eq!(peer, Some(4000), "{:?}", found.by_peer);
}

#[tokio::test(flavor = "multi_thread")]
async fn sampled_requests_stand_for_all() {
    let _turn = requests::turn().await;
    let directory = tempfile::tempdir().unwrap();
    let server = nginx(directory.path());
    let address = server.address;
    let work = move || load(address, 32_000, 10, &["/api/v1/status", "/error"]);
    let found = published(sampled_config(), &name_of(&server.child), work).await;
    println!("{:?} {:?}", found.by_route, found.losses);
    let routes = found.routes();
    check_sampled(routes[&("GET /api/v1/status", 2)], 16_000, 16_000);
    check_sampled(routes[&("GET /error", 5)], 16_000, 16_000);
    found.check_whole();
}

/// The tables of a connection's begin are not known.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_older_than_the_sensor_is_timed_without_routes() {
    let _turn = requests::turn().await;
    const CALLS: u64 = 50;
    let address = grpc::serve().await;
    let endpoint = Channel::from_shared(format!("http://{address}")).unwrap();
    let mut client = ForecastServiceClient::new(endpoint.connect().await.unwrap());
    let request = ListSeriesRequest::default;
    client.list_series(request()).await.unwrap();
    let running = Running::start(config());
    for _ in 0..CALLS {
        client.list_series(request()).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let found = running.stop(&own_name()).await;
    assert_eq!(found.by_route, BTreeMap::new());
    // Window updates and answers to pings may begin an exchange, too.
    assert!(found.requests >= CALLS, "{}", found.requests);
}
