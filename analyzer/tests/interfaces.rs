//! The running analyzer through its real interfaces: gRPC over a socket, and
//! a real Prometheus that scrapes it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, SystemTime},
};

use honeyguide_analyzer::{Analyzer, Config, Outlet};
use honeyguide_bus::{
    Producer, Record, Topic,
    memory::{self, MemoryBus},
};
use honeyguide_proto::{
    ServiceId, ServiceKind,
    batch::{Header, SeriesRef, encode},
    v1::{
        GetForecastRequest, ListAlertsRequest, ListSeriesRequest, SeriesFilter, SeriesKey,
        WatchForecastsRequest, forecast_service_client::ForecastServiceClient,
    },
};
use prometheus_client::registry::Registry;
use sensor_common::{Histogram, Signal, histogram::lower_bound_ns};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

const STEP: Duration = Duration::from_secs(1);

fn config() -> Config {
    Config {
        step: STEP,
        lateness: Duration::from_millis(200),
        grpc_listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        http_listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        ..Config::default()
    }
}

async fn start(bus: &MemoryBus, config: Config) -> Analyzer {
    let consumer = bus.consumer("analyzer", Topic::Histograms);
    Analyzer::start(
        config.validate().unwrap(),
        consumer,
        Outlet::None,
        Arc::new(Registry::default()),
    )
    .await
    .unwrap()
}

fn histogram() -> Histogram {
    let mut histogram = Histogram::new();
    for event in 0..2000u64 {
        histogram.record(50_000 + event * event * 7);
    }
    histogram
}

/// Publishes the window that ends now, for two services.
async fn publish(bus: &MemoryBus, seq: u64) {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_nanos() as u64;
    let header = Header {
        sensor_id: "node".to_owned(),
        boot_id: [1; 16],
        seq,
        partition: 0,
        window_start_ns: now - STEP.as_nanos() as u64,
        window_duration_ns: STEP.as_nanos() as u64,
        more: false,
    };
    let services = ["alpha", "beta"].map(|name| ServiceId::named(ServiceKind::Process, name));
    let histogram = histogram();
    let series = (0..2).map(|service| SeriesRef {
        service,
        signal: Signal::RunQueue,
        histogram: &histogram,
    });
    let record = Record {
        topic: Topic::Histograms,
        partition: 0,
        key: Vec::new(),
        timestamp_ns: now,
        payload: encode(&header, &services, series.collect(), &[], None),
    };
    bus.publish(record).await.unwrap();
}

/// Publishes `windows` windows in real time.
async fn publish_for(bus: &MemoryBus, windows: u64) {
    for seq in 1..=windows {
        publish(bus, seq).await;
        tokio::time::sleep(STEP).await;
    }
}

async fn client(analyzer: &Analyzer) -> ForecastServiceClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", analyzer.grpc_address)).unwrap();
    ForecastServiceClient::new(endpoint.connect().await.unwrap())
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    write!(
        socket,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn forecasts_are_listed_got_watched_and_missing_ones_explained() {
    let bus = MemoryBus::new(memory::Config::default());
    let analyzer = start(&bus, config()).await;
    assert!(get(analyzer.http_address, "/live").contains("200 OK"));
    assert!(get(analyzer.http_address, "/ready").contains("503"));
    let mut watcher = client(&analyzer).await;
    let filter = Some(SeriesFilter {
        service: "process/al*".to_owned(),
        signal: String::new(),
    });
    let mut watched = watcher
        .watch_forecasts(WatchForecastsRequest { filter })
        .await
        .unwrap()
        .into_inner();
    publish_for(&bus, 5).await;

    let mut client = client(&analyzer).await;
    let mut page = client
        .list_series(ListSeriesRequest {
            page_size: 1,
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        page.series[0].key.as_ref().unwrap().service,
        "process/alpha"
    );
    page = client
        .list_series(ListSeriesRequest {
            page_token: page.next_page_token,
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(page.series[0].key.as_ref().unwrap().service, "process/beta");
    assert_eq!(page.next_page_token, "");

    let key = SeriesKey {
        service: "process/alpha".to_owned(),
        signal: "runq".to_owned(),
    };
    let got = client
        .get_forecast(GetForecastRequest {
            key: Some(key.clone()),
        })
        .await
        .unwrap();
    let forecast = got.into_inner().forecast.unwrap();
    assert_eq!(forecast.points.len(), 25);
    let expected = histogram().quantile_ns(0.99).unwrap() / 1e9;
    let p99 = forecast.now.unwrap().latency.unwrap().p99;
    assert!((p99 / expected - 1.0).abs() < 1e-9, "{p99} for {expected}");

    let unknown = GetForecastRequest {
        key: Some(SeriesKey {
            service: "process/none".to_owned(),
            ..key
        }),
    };
    let error = client.get_forecast(unknown).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert!(
        error.message().contains("process/none"),
        "{}",
        error.message()
    );
    let error = client
        .get_forecast(GetForecastRequest { key: None })
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(
        client
            .list_alerts(ListAlertsRequest::default())
            .await
            .unwrap()
            .into_inner()
            .alerts
            .is_empty()
    );

    let update = watched.message().await.unwrap().unwrap().forecast.unwrap();
    assert_eq!(update.key.unwrap().service, "process/alpha");
    assert!(get(analyzer.http_address, "/ready").contains("200 OK"));
    drop(watched);
    analyzer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn taken_port_is_an_error_that_says_which_key() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = Config {
        grpc_listen: taken.local_addr().unwrap(),
        ..config()
    };
    let bus = MemoryBus::new(memory::Config::default());
    let consumer = bus.consumer("analyzer", Topic::Histograms);
    let started = Analyzer::start(
        config.validate().unwrap(),
        consumer,
        Outlet::None,
        Arc::new(Registry::default()),
    )
    .await;
    let error = started.err().expect("the port is taken").to_string();
    assert!(error.contains("grpc_listen"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn history_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config {
        data_dir: directory.path().join("history"),
        ..config()
    };
    let bus = MemoryBus::new(memory::Config::default());
    let analyzer = start(&bus, config.clone()).await;
    publish_for(&bus, 4).await;
    analyzer.stop().await;
    assert_eq!(
        bus.retained(Topic::Histograms),
        0,
        "everything stored was committed"
    );
    let analyzer = start(&bus, config).await;
    publish(&bus, 5).await;
    tokio::time::sleep(3 * STEP).await;
    let request = GetForecastRequest {
        key: Some(SeriesKey {
            service: "process/alpha".to_owned(),
            signal: "runq".to_owned(),
        }),
    };
    let got = client(&analyzer)
        .await
        .get_forecast(request)
        .await
        .unwrap()
        .into_inner();
    let windows = got.forecast.unwrap().history_windows;
    assert!(windows >= 5, "{windows} windows, of which 4 were restored");
    analyzer.stop().await;
}

/// A Prometheus that ends with the test, by its pid.
struct Prometheus {
    child: Child,
    address: SocketAddr,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    fn start(directory: &std::path::Path, scraped: SocketAddr) -> Prometheus {
        let config = directory.join("prometheus.yml");
        let text = format!(
            "global:\n  scrape_interval: 1s\nscrape_configs:\n  - job_name: honeyguide\n    \
             static_configs:\n      - targets: ['{scraped}']\n"
        );
        std::fs::write(&config, text).unwrap();
        let address = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.join("tsdb").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .arg("--enable-feature=native-histograms")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus is installed (`cargo xtask setup --for test` does it)");
        Prometheus { child, address }
    }

    /// The first result of an instant query, once there is one.
    async fn query(&self, expression: &str) -> serde_json::Value {
        for _ in 0..60 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            if TcpStream::connect(self.address).is_err() {
                continue;
            }
            let answer = get(self.address, &format!("/api/v1/query?query={expression}"));
            let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            let json = body.find('{').and_then(|begin| {
                serde_json::from_str::<serde_json::Value>(&body[begin..=body.rfind('}')?]).ok()
            });
            if let Some(result) = json.and_then(|json| json["data"]["result"].get(0).cloned()) {
                return result;
            }
        }
        panic!("{expression}: Prometheus never answered with a result");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_scrapes_our_buckets_unchanged() {
    let bus = MemoryBus::new(memory::Config::default());
    let analyzer = start(&bus, config()).await;
    publish(&bus, 1).await;
    let directory = tempfile::tempdir().unwrap();
    let prometheus = Prometheus::start(directory.path(), analyzer.http_address);
    let expected = histogram();

    let series = "honeyguide_latency_seconds%7Bservice=%22process/alpha%22%7D";
    let result = prometheus.query(series).await;
    let scraped = &result["histogram"][1];
    assert_eq!(scraped["count"], expected.count().to_string());
    let buckets = scraped["buckets"].as_array().expect("a native histogram");
    assert_eq!(buckets.len(), expected.occupied().count());
    let number = |value: &serde_json::Value| value.as_str().unwrap().parse::<f64>().unwrap();
    for (bucket, (position, count)) in buckets.iter().zip(expected.occupied()) {
        let (lower, upper) = (
            lower_bound_ns(position) / 1e9,
            lower_bound_ns(position + 1) / 1e9,
        );
        assert!(
            (number(&bucket[1]) / lower - 1.0).abs() < 1e-9,
            "{bucket} begins at {lower}"
        );
        assert!(
            (number(&bucket[2]) / upper - 1.0).abs() < 1e-9,
            "{bucket} ends at {upper}"
        );
        assert_eq!(number(&bucket[3]), count as f64);
    }
    let quantile = prometheus
        .query(&format!("histogram_quantile(0.99,{series})"))
        .await;
    let p99 = number(&quantile["value"][1]);
    let ours = expected.quantile_ns(0.99).unwrap() / 1e9;
    assert!((p99 / ours).log2().abs() <= 0.125, "{p99} for {ours}");
    drop(prometheus);
    analyzer.stop().await;
}
