//! How many series-windows a second go from the sensor's encoder over a real
//! Kafka into the analyzer's windows, with the broker on the same machine;
//! beside a bare loop that produces and consumes the same payloads.
//!
//! With `HONEYGUIDE_BENCH_OUT` set, writes the figures there. Under `cargo
//! test` it only moves a few batches.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use futures_util::future::join_all;
use honeyguide_analyzer::{
    Config,
    pipeline::{Input, Pipeline},
};
use honeyguide_bus::{
    Consumer, ConsumerEvent, Producer, Record, Topic,
    kafka::{self, KafkaConsumer, KafkaProducer, ValidConfig, topics},
    partition_of,
};
use honeyguide_proto::{
    ServiceId, ServiceKind,
    batch::{Header, SeriesRef, encode},
};
use kafka_node::{Cluster, Jars, Options};
use rdkafka::{
    ClientConfig, Message,
    consumer::{Consumer as _, StreamConsumer},
    producer::{FutureProducer, FutureRecord},
};
use sensor_common::{Histogram, Signal};
use serde_json::json;

const PARTITIONS: u32 = 4;
const SIGNALS: [Signal; 3] = [Signal::RunQueue, Signal::ServerRequest, Signal::BlockIo];
/// Batches that are offered at once, as a spool does.
const AT_ONCE: usize = 16;

/// How much is moved.
struct Size {
    services: usize,
    windows: u64,
    rounds: usize,
}

const FULL: Size = Size {
    services: 2000,
    windows: 200,
    rounds: 3,
};
const SMALL: Size = Size {
    services: 20,
    windows: 3,
    rounds: 1,
};

fn main() {
    let size = if env::args().any(|arg| arg == "--bench") {
        FULL
    } else {
        SMALL
    };
    let jars = match Jars::find() {
        Ok(jars) => jars,
        Err(error) => {
            println!("skipped: {error}");
            return;
        }
    };
    let directory = env::temp_dir().join(format!("honeyguide-bench-kafka-{}", std::process::id()));
    let cluster = Cluster::start(&jars, &directory, Options::default()).expect("Kafka starts");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    let load = Arc::new(Load::new(&size));
    runtime.block_on(async {
        let config = kafka::Config {
            brokers: cluster.bootstrap(),
            partitions: PARTITIONS,
            ..kafka::Config::default()
        };
        let config = config.validate().expect("a valid configuration");
        topics::apply(&config).await.expect("topics");
        for round in 0..size.rounds {
            ours.push(end_to_end(&config, &load, round).await);
            bare.push(bare_loop(&cluster.bootstrap(), &load, round).await);
        }
    });
    drop(cluster);
    let _ = fs::remove_dir_all(&directory);
    let series_windows_per_s = median(&mut ours) * load.series_per_batch();
    let bare_per_s = median(&mut bare) * load.series_per_batch();
    println!(
        "{series_windows_per_s:.0} series-windows/s end to end, {bare_per_s:.0} in the bare loop \
         ({} batches of {:.0} series a round)",
        load.batches(),
        load.series_per_batch()
    );
    if let Some(out) = env::var_os("HONEYGUIDE_BENCH_OUT") {
        let not_yet = "not measured by this bench yet";
        let report = json!({
            "metrics": {
                "series_windows_per_s": series_windows_per_s,
                "vs_bare_loop": series_windows_per_s / bare_per_s,
            },
            "skipped": {
                "restart_50k_s": not_yet,
                "e2e_p99_over_flush_s": not_yet,
                "lost_or_doubled": "the fault tests of `cargo xtask test` check it exactly",
            },
        });
        fs::write(&out, report.to_string()).expect("the report's folder exists");
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
    fn new(size: &Size) -> Self {
        let mut services = BTreeMap::<u32, Vec<ServiceId>>::new();
        for number in 0..size.services {
            let service = ServiceId::named(ServiceKind::Process, &format!("service-{number}"));
            let partition = partition_of(service.key().as_bytes(), PARTITIONS);
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

/// Batches per second from histograms to the windows of pipelines.
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
    let mut consumer = KafkaConsumer::join(&config, Topic::Histograms)
        .await
        .expect("a consumer");
    let analyzer = Config::default().validate().expect("the default is valid");
    let mut pipelines = BTreeMap::new();
    let mut caught_up = BTreeSet::new();
    // Ready when every partition is read from its end.
    while caught_up.len() < PARTITIONS as usize {
        match consumer.next().await.expect("an event") {
            ConsumerEvent::CaughtUp { partition, .. } => drop(caught_up.insert(partition)),
            ConsumerEvent::Assigned(partitions) => {
                for partition in partitions {
                    pipelines.insert(partition, Pipeline::new(analyzer.clone()));
                }
            }
            ConsumerEvent::Revoked(_) | ConsumerEvent::Delivery(_) => {}
        }
    }
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
    let mut taken = 0;
    while taken < load.batches() {
        if let ConsumerEvent::Delivery(delivery) = consumer.next().await.expect("an event") {
            let now_ns = delivery.record.timestamp_ns;
            let pipeline = pipelines
                .get_mut(&delivery.record.partition)
                .expect("an assigned partition");
            pipeline.handle(Input::Delivery(&delivery), now_ns);
            taken += 1;
        }
    }
    let elapsed = begun.elapsed();
    publishing.await.expect("published");
    let counted: u64 = pipelines
        .values()
        .map(|pipeline| pipeline.counters().series_windows)
        .sum();
    let expected = load.batches() as f64 * load.series_per_batch();
    assert!(
        (counted as f64 - expected).abs() < 0.5,
        "{counted} of {expected}"
    );
    load.batches() as f64 / elapsed.as_secs_f64()
}

/// Batches per second of rdkafka alone: the payloads are there already, and
/// nobody looks at them.
async fn bare_loop(brokers: &str, load: &Load, round: usize) -> f64 {
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
    while at_end < PARTITIONS {
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
