//! How long after the end of a window its forecasts are out: published, and
//! taken by a reader of the topic of forecasts.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::future::join_all;
use honeyguide_analyzer::{Analyzer, Config, Outlet, StateTopic};
use honeyguide_bus::{
    Consumer, ConsumerEvent, Producer, Record, Topic,
    kafka::{self, KafkaConsumer, KafkaProducer, ValidConfig},
    partition_of,
};
use honeyguide_proto::{
    ServiceId, ServiceKind,
    batch::{Header, SeriesRef, encode},
    v1,
};
use prost::Message;
use sensor_common::{Histogram, Signal};

const SIGNALS: [Signal; 5] = [
    Signal::RunQueue,
    Signal::BlockIo,
    Signal::ServerRequest,
    Signal::ServerQueue,
    Signal::ClientRequest,
];
/// Of the analyzer: twice in a run, so that what storing costs is in it.
const STORE_EVERY_WINDOWS: u64 = 5;

pub struct Size {
    /// Each has its share of the services.
    pub sensors: usize,
    pub services: usize,
    pub windows: u64,
    pub flush_secs: u64,
}

pub struct Delay {
    pub p50_s: f64,
    pub p99_s: f64,
    pub max_s: f64,
}

pub async fn measure(config: &ValidConfig, size: &Size) -> Delay {
    let flush = Duration::from_secs(size.flush_secs);
    let analyzer_config = Config {
        step: flush,
        store_interval: flush * STORE_EVERY_WINDOWS as u32,
        grpc_listen: ([127, 0, 0, 1], 0).into(),
        http_listen: ([127, 0, 0, 1], 0).into(),
        ..Config::default()
    };
    let analyzer_config = analyzer_config.validate().expect("a valid configuration");
    let consumer = KafkaConsumer::join(config, Topic::Histograms)
        .await
        .expect("a consumer");
    let state = StateTopic::connect(config.clone())
        .await
        .expect("a state topic");
    let analyzer = Analyzer::start(
        analyzer_config,
        consumer,
        Outlet::Kafka(Box::new(state)),
        Arc::default(),
    )
    .await
    .expect("an analyzer");
    let reader = tokio::spawn(read(
        config.clone(),
        size.services * SIGNALS.len(),
        size.windows,
    ));
    publish(config, size, flush).await;
    let mut delays_s = reader.await.expect("forecasts");
    analyzer.stop().await;
    delays_s.sort_by(f64::total_cmp);
    let at = |share: f64| delays_s[((delays_s.len() - 1) as f64 * share) as usize];
    Delay {
        p50_s: at(0.5),
        p99_s: at(0.99),
        max_s: at(1.0),
    }
}

fn since_epoch() -> Duration {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.expect("after 1970")
}

/// Seconds from window end to here of every forecast, but those of the first
/// window, before all sensors are known.
async fn read(config: ValidConfig, series: usize, windows: u64) -> Vec<f64> {
    let config = kafka::Config {
        group: "bench-forecasts".to_owned(),
        ..config.config.clone()
    };
    let config = config.validate().expect("a valid configuration");
    let mut consumer = KafkaConsumer::join(&config, Topic::Forecasts)
        .await
        .expect("a consumer");
    let wanted = series * (windows as usize - 1);
    let mut delays_s = Vec::with_capacity(wanted);
    let mut first_step = None;
    while delays_s.len() < wanted {
        let ConsumerEvent::Delivery(delivery) = consumer.next().await.expect("an event") else {
            continue;
        };
        let now = since_epoch();
        let forecast = v1::Forecast::decode(delivery.record.payload.as_slice());
        let made_at = forecast.expect("a forecast").made_at.expect("a time");
        if *first_step.get_or_insert(made_at.seconds) == made_at.seconds {
            continue;
        }
        delays_s.push(now.as_secs_f64() - made_at.seconds as f64);
    }
    delays_s
}

/// Every sensor at the end of every window, as sensors do: just after it.
async fn publish(config: &ValidConfig, size: &Size, flush: Duration) {
    let producer = KafkaProducer::connect(config.clone())
        .await
        .expect("a producer");
    let partitions = config.config.partitions;
    let services: Vec<ServiceId> = (0..size.services)
        .map(|number| ServiceId::named(ServiceKind::Process, &format!("service-{number}")))
        .collect();
    let mut histogram = Histogram::new();
    let begin = since_epoch().as_secs() / size.flush_secs + 2;
    for window in 0..size.windows {
        let end = flush * (begin + window) as u32;
        (0..300).for_each(|event| histogram.record(40_000 + event * event * (13 + window)));
        tokio::time::sleep(end.saturating_sub(since_epoch()) + Duration::from_millis(2)).await;
        let mut records = Vec::new();
        for sensor in 0..size.sensors {
            for partition in 0..partitions {
                let own = services.iter().skip(sensor).step_by(size.sensors);
                let own: Vec<_> = own
                    .filter(|id| partition_of(id.key().as_bytes(), partitions) == partition)
                    .cloned()
                    .collect();
                let header = Header {
                    sensor_id: format!("node-{sensor}"),
                    boot_id: [1; 16],
                    seq: window + 1,
                    partition,
                    window_start_ns: (end - flush).as_nanos() as u64,
                    window_duration_ns: flush.as_nanos() as u64,
                    more: false,
                };
                let series = (0..own.len() as u32).flat_map(|service| {
                    SIGNALS.map(|signal| SeriesRef {
                        service,
                        signal,
                        histogram: &histogram,
                    })
                });
                records.push(Record {
                    topic: Topic::Histograms,
                    partition,
                    key: Vec::new(),
                    timestamp_ns: header.window_end_ns(),
                    payload: encode(&header, &own, series.collect(), &[], None),
                });
            }
        }
        for result in join_all(records.into_iter().map(|record| producer.publish(record))).await {
            result.expect("the broker takes it");
        }
    }
}
