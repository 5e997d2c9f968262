//! Series-windows per second from the sensor's encoder to windows, beside a
//! bare loop of the same payloads.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use futures_util::future::join_all;
use honeyguide_analyzer::{Analyzer, Config, Outlet};
use honeyguide_bus::{
    Producer, Record, Topic,
    kafka::{self, KafkaConsumer, KafkaProducer, ValidConfig},
    partition_of,
};
use honeyguide_proto::{
    ServiceId, ServiceKind,
    batch::{Header, SeriesRef, encode},
};
use rdkafka::{
    ClientConfig, Message,
    consumer::{Consumer as _, StreamConsumer},
    producer::{FutureProducer, FutureRecord},
};
use sensor_common::{Histogram, Signal};

const SIGNALS: [Signal; 3] = [Signal::RunQueue, Signal::ServerRequest, Signal::BlockIo];
/// Batches that are offered at once, as a spool does.
const AT_ONCE: usize = 16;

/// How much is moved.
pub struct Size {
    pub services: usize,
    pub windows: u64,
    pub rounds: usize,
}

/// What was moved per second, medians of the rounds.
pub struct Throughput {
    pub series_windows_per_s: f64,
    pub bare_per_s: f64,
}

pub async fn measure(config: &ValidConfig, size: &Size) -> Throughput {
    let load = Arc::new(Load::new(size, config.config.partitions));
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 0..size.rounds {
        ours.push(end_to_end(config, &load, round).await);
        bare.push(bare_loop(config, &load, round).await);
    }
    println!(
        "{} batches of {:.0} series a round",
        load.batches(),
        load.series_per_batch()
    );
    Throughput {
        series_windows_per_s: median(&mut ours) * load.series_per_batch(),
        bare_per_s: median(&mut bare) * load.series_per_batch(),
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What a sensor publishes: the same services window after window.
struct Load {
    services: BTreeMap<u32, Vec<ServiceId>>,
    histogram: Histogram,
    windows: u64,
    start_ns: u64,
}

impl Load {
    fn new(size: &Size, partitions: u32) -> Self {
        let mut services = BTreeMap::<u32, Vec<ServiceId>>::new();
        for number in 0..size.services {
            let service = ServiceId::named(ServiceKind::Process, &format!("service-{number}"));
            let partition = partition_of(service.key().as_bytes(), partitions);
            services.entry(partition).or_default().push(service);
        }
        let mut histogram = Histogram::new();
        for event in 0..400u64 {
            histogram.record(40_000 + event * event * 13);
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self {
            services,
            histogram,
            windows: size.windows,
            start_ns: now.expect("after 1970").as_nanos() as u64,
        }
    }

    fn batches(&self) -> usize {
        self.windows as usize * self.services.len()
    }

    fn series_per_batch(&self) -> f64 {
        let services: usize = self.services.values().map(Vec::len).sum();
        (services * SIGNALS.len()) as f64 / self.services.len() as f64
    }

    /// Encodes one batch. Windows lie close together, so that all are of now.
    fn record(&self, round: usize, window: u64, partition: u32) -> Record {
        let services = &self.services[&partition];
        let header = Header {
            sensor_id: "bench".to_owned(),
            boot_id: [round as u8; 16],
            seq: window + 1,
            partition,
            window_start_ns: self.start_ns + window * 1_000_000,
            window_duration_ns: 1_000_000,
            more: false,
        };
        let mut series = Vec::with_capacity(services.len() * SIGNALS.len());
        for service in 0..services.len() as u32 {
            series.extend(SIGNALS.map(|signal| SeriesRef {
                service,
                signal,
                histogram: &self.histogram,
            }));
        }
        Record {
            topic: Topic::Histograms,
            partition,
            key: b"bench".to_vec(),
            timestamp_ns: header.window_end_ns(),
            payload: encode(&header, services, series, &[], None),
        }
    }

    /// (window, partition) of all batches, in the order of publishing.
    fn order(&self) -> Vec<(u64, u32)> {
        let partitions = || self.services.keys().copied();
        (0..self.windows)
            .flat_map(|window| partitions().map(move |partition| (window, partition)))
            .collect()
    }
}

/// Batches per second from histograms to the windows of an analyzer.
async fn end_to_end(config: &ValidConfig, load: &Arc<Load>, round: usize) -> f64 {
    let config = kafka::Config {
        group: format!("bench-{round}"),
        properties: BTreeMap::from([("auto.offset.reset".to_owned(), "latest".to_owned())]),
        ..config.config.clone()
    };
    let config = config.validate().expect("a valid configuration");
    let producer = KafkaProducer::connect(config.clone())
        .await
        .expect("a producer");
    let consumer = KafkaConsumer::join(&config, Topic::Histograms)
        .await
        .expect("a consumer");
    let analyzer_config = Config {
        grpc_listen: ([127, 0, 0, 1], 0).into(),
        http_listen: ([127, 0, 0, 1], 0).into(),
        ..Config::default()
    };
    let analyzer_config = analyzer_config.validate().expect("a valid configuration");
    let analyzer = Analyzer::start(analyzer_config, consumer, Outlet::None, Arc::default())
        .await
        .expect("an analyzer");
    // Ready when every partition is read from its end.
    while counted(&analyzer, "analyzer_partitions").await < u64::from(config.config.partitions) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let begun = Instant::now();
    let publishing = tokio::spawn({
        let load = Arc::clone(load);
        async move {
            for chunk in load.order().chunks(AT_ONCE) {
                let records = chunk
                    .iter()
                    .map(|(window, partition)| load.record(round, *window, *partition));
                for result in join_all(records.map(|record| producer.publish(record))).await {
                    result.expect("the broker takes it");
                }
            }
        }
    });
    publishing.await.expect("published");
    let batches = load.batches() as u64;
    while counted(&analyzer, "analyzer_batches_total").await < batches {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let elapsed = begun.elapsed();
    let windows = counted(&analyzer, "analyzer_series_windows_total").await as f64;
    let expected = load.batches() as f64 * load.series_per_batch();
    assert!((windows - expected).abs() < 0.5, "{windows} of {expected}");
    analyzer.stop().await;
    load.batches() as f64 / elapsed.as_secs_f64()
}

/// A number on the analyzer's page of metrics.
async fn counted(analyzer: &Analyzer, name: &str) -> u64 {
    let page = tokio::task::block_in_place(|| {
        let mut socket = TcpStream::connect(analyzer.http_address)?;
        socket.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut page = String::new();
        socket.read_to_string(&mut page).map(|_| page)
    });
    let page = page.expect("it answers");
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// Batches per second of rdkafka alone: the payloads are there already, and
/// nobody looks at them.
async fn bare_loop(config: &ValidConfig, load: &Load, round: usize) -> f64 {
    let brokers = config.config.brokers.as_str();
    let order = load.order();
    let payloads: Vec<(u32, Vec<u8>)> = order
        .iter()
        .map(|(window, partition)| (*partition, load.record(round, *window, *partition).payload))
        .collect();
    let topic = Topic::Forecasts.name();
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("compression.type", "zstd")
        .set("linger.ms", "20")
        .set("batch.size", "1000000")
        .create()
        .expect("a producer");
    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", format!("bare-{round}"))
        .set("auto.offset.reset", "latest")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "50")
        .create()
        .expect("a consumer");
    consumer.subscribe(&[topic]).expect("subscribed");
    let mut at_end = 0;
    while at_end < config.config.partitions {
        at_end += u32::from(consumer.recv().await.is_err());
    }
    let begun = Instant::now();
    let count = payloads.len();
    let publishing = tokio::spawn(async move {
        for chunk in payloads.chunks(AT_ONCE) {
            let sent = chunk.iter().map(|(partition, payload)| {
                let record = FutureRecord::<(), _>::to(topic)
                    .partition(partition.cast_signed())
                    .payload(payload);
                producer.send(record, Duration::from_secs(10))
            });
            for result in join_all(sent).await {
                result.expect("the broker takes it");
            }
        }
    });
    let mut taken = 0;
    while taken < count {
        if let Ok(message) = consumer.recv().await {
            taken += usize::from(message.payload().is_some());
        }
    }
    let elapsed = begun.elapsed();
    publishing.await.expect("published");
    count as f64 / elapsed.as_secs_f64()
}
