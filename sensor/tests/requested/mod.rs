//! Real servers under a sensor, asked for a known number of requests: shared by
//! the kernel tests of what is seen of requests.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use honeyguide_bus::{
    Consumer, ConsumerEvent, Topic,
    memory::{self, MemoryBus, MemoryConsumer},
};
use honeyguide_proto::batch::Batch;
use honeyguide_sensor::{AttachedSensor, Config, Metrics, Sensor, program::probe::Probe};
use prometheus_client::registry::Registry;
use sensor_common::{Histogram, Signal};

/// What was published of services whose key ends in a name.
#[derive(Debug)]
pub struct Published {
    /// Requests by route and status class.
    pub by_route: BTreeMap<(String, u8), u64>,
    /// Requests of the service as a whole.
    pub requests: u64,
    /// Their latency, and that of those in routes.
    pub latency: Histogram,
    pub latency_in_routes: Histogram,
    /// Kernel losses by reason number.
    pub losses: BTreeMap<u32, u64>,
}

impl Published {
    /// `by_route` with borrowed names.
    pub fn routes(&self) -> BTreeMap<(&str, u8), u64> {
        let routes = self.by_route.iter();
        routes
            .map(|((route, class), count)| ((route.as_str(), *class), *count))
            .collect()
    }

    /// Every request is in a route, with the same latency.
    pub fn check_whole(&self) {
        assert_eq!(self.by_route.values().sum::<u64>(), self.requests);
        let [in_routes, all] = [&self.latency_in_routes, &self.latency]
            .map(|latency| (latency.buckets(), latency.sum_ns(), latency.max_ns()));
        assert_eq!(in_routes, all);
    }
}

pub fn config() -> Config {
    Config {
        flush_interval: Duration::from_secs(1),
        // Exact counts, whatever else this machine does.
        cost_ceiling: 1.0,
        probes: vec![Probe::Tcp],
        ..Config::default()
    }
}

/// A sensor and what it publishes to.
pub struct Running {
    pub sensor: Sensor,
    bus: MemoryBus,
    consumer: MemoryConsumer,
}

impl Running {
    pub fn start(config: Config) -> Self {
        let bus = MemoryBus::new(memory::Config::default());
        let consumer = bus.consumer("test", Topic::Histograms);
        let attached = AttachedSensor::attach(config.validate().unwrap()).unwrap();
        let metrics = Metrics::register(&mut Registry::default());
        let sensor = attached.start(Arc::new(bus.clone()), metrics).unwrap();
        Self {
            sensor,
            bus,
            consumer,
        }
    }

    /// Ends it; returns what it published of `name`.
    pub async fn stop(mut self, name: &str) -> Published {
        self.sensor.stop().await;
        self.bus.close();
        let mut published = Published {
            by_route: BTreeMap::new(),
            requests: 0,
            latency: Histogram::new(),
            latency_in_routes: Histogram::new(),
            losses: BTreeMap::new(),
        };
        while let Ok(event) = self.consumer.next().await {
            if let ConsumerEvent::Delivery(delivery) = event {
                add(&mut published, &delivery.record.payload, name);
            }
        }
        published
    }
}

/// Runs `work` under the sensor; returns what it published of `name`.
pub async fn published<W: FnOnce() + Send + 'static>(
    config: Config,
    name: &str,
    work: W,
) -> Published {
    let running = Running::start(config);
    tokio::task::spawn_blocking(work).await.unwrap();
    running.stop(name).await
}

fn add(published: &mut Published, payload: &[u8], name: &str) {
    let batch = Batch::decode(payload).unwrap();
    assert_eq!(batch.unknown_routes, 0);
    let is_of = |service: u32| batch.services[service as usize].key().ends_with(name);
    for series in batch.series.iter().filter(|series| is_of(series.service)) {
        if series.signal == Signal::ServerRequest {
            published.requests += series.count;
            published.latency.merge(&batch.histogram(series));
        }
    }
    for of in &batch.route_series {
        if is_of(of.series.service) {
            assert_eq!(of.series.signal, Signal::ServerRequest);
            let route = batch.route(of).to_string();
            let key = (route, of.status_class);
            *published.by_route.entry(key).or_default() += of.series.count;
            let histogram = batch.histogram(&of.series);
            published.latency_in_routes.merge(&histogram);
        }
    }
    for (reason, count) in &batch.losses {
        *published.losses.entry(*reason).or_default() += count;
    }
}

/// A server in another process, killed at the end.
pub struct Server {
    pub child: Child,
    pub address: SocketAddr,
}

impl Server {
    /// Starts a program under a name of its own; it prints its port.
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = format!("127.0.0.1:{}", line.trim()).parse().unwrap();
        Self { child, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How often each route and status class was asked for; `other` are unknown paths.
pub fn asked() -> BTreeMap<(&'static str, u8), u64> {
    BTreeMap::from([
        (("GET /users/{id}", 2), 200),
        (("GET /api/v1/status", 2), 200),
        (("GET /error/{id}", 5), 40),
        (("other", 4), 40),
    ])
}
