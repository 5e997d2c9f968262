//! How long a restarted analyzer takes until it serves the forecasts of all
//! series again, with six hours of history.
//!
//! The state is stored as an analyzer does it, five minutes at a time, so the
//! topics hold what they hold in operation: old states included.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use honeyguide_analyzer::{
    Analyzer, Config, Outlet, StateTopic,
    pipeline::{Command, HistoryRow, Input, Pipeline},
};
use honeyguide_bus::{
    Delivery, Record, Topic,
    kafka::{KafkaConsumer, ValidConfig},
    partition_of,
};
use honeyguide_models::{TARGETS, Window};
use honeyguide_proto::{
    ServiceId, ServiceKind,
    batch::{Header, SeriesRef, encode},
};
use sensor_common::{Histogram, Signal};

/// The default.
pub const PARTITIONS: u32 = 16;
const SIGNALS: [Signal; 5] = [
    Signal::RunQueue,
    Signal::BlockIo,
    Signal::ServerRequest,
    Signal::ServerQueue,
    Signal::ClientRequest,
];
const STEP_NS: u64 = 10_000_000_000;

pub struct Size {
    pub services: usize,
    pub stores: u64,
    pub steps_per_store: u64,
    /// Closed with models before the last store.
    pub steps: u64,
}

impl Size {
    pub fn series(&self) -> usize {
        self.services * SIGNALS.len()
    }
}

/// Seconds.
pub async fn measure(config: &ValidConfig, size: &Size) -> f64 {
    let topic = StateTopic::connect(config.clone())
        .await
        .expect("a state topic");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now_step = now.expect("after 1970").as_nanos() as u64 / STEP_NS;
    let begun = Instant::now();
    for partition in 0..PARTITIONS {
        store(&topic, partition, size, now_step).await;
        println!(
            "partition {partition} stored after {:.0} s",
            begun.elapsed().as_secs_f64()
        );
    }
    drop(topic);
    let begun = Instant::now();
    let consumer = KafkaConsumer::join(config, Topic::Histograms)
        .await
        .expect("a consumer");
    let state = StateTopic::connect(config.clone())
        .await
        .expect("a state topic");
    let analyzer = Analyzer::start(
        analyzer_config(),
        consumer,
        Outlet::Kafka(Box::new(state)),
        Arc::default(),
    )
    .await
    .expect("an analyzer");
    let mut snapshots = analyzer.snapshot();
    let all = |snapshot: &honeyguide_analyzer::Snapshot| snapshot.forecasts_len() == size.series();
    let serves = tokio::time::timeout(Duration::from_secs(300), snapshots.wait_for(all));
    drop(serves.await.expect("it serves").expect("it runs"));
    let elapsed_s = begun.elapsed().as_secs_f64();
    analyzer.stop().await;
    elapsed_s
}

fn analyzer_config() -> honeyguide_analyzer::ValidConfig {
    let config = Config {
        grpc_listen: ([127, 0, 0, 1], 0).into(),
        http_listen: ([127, 0, 0, 1], 0).into(),
        ..Config::default()
    };
    config.validate().expect("a valid configuration")
}

/// Fills a partition as an analyzer does that ran for six hours.
async fn store(topic: &StateTopic, partition: u32, size: &Size, now_step: u64) {
    let services: Vec<ServiceId> = (0..size.services)
        .map(|number| ServiceId::named(ServiceKind::Process, &format!("service-{number}")))
        .filter(|id| partition_of(id.key().as_bytes(), PARTITIONS) == partition)
        .collect();
    let claiming = topic.clone();
    let claimed = tokio::task::spawn_blocking(move || {
        claiming.claim(partition, || Pipeline::new(analyzer_config()))
    });
    let (claimed, mut pipeline, _) = claimed.await.expect("a task").expect("a claim");
    let mut noise = Noise(u64::from(partition) + 1);
    let first_step = now_step - size.stores * size.steps_per_store - size.steps;
    for store in 0..size.stores {
        let begin = first_step + store * size.steps_per_store;
        pipeline.restore(rows(
            begin..begin + size.steps_per_store,
            &services,
            &mut noise,
        ));
        // Of what was restored the last part is not stored yet.
        pipeline.handle(Input::Stored { step: begin - 1 }, 0);
        while pipeline.next_command().is_some() {}
        claimed.store(pipeline.state()).await.expect("stored");
    }
    let begin = first_step + size.stores * size.steps_per_store;
    pipeline.handle(Input::Stored { step: begin - 1 }, 0);
    for step in begin..begin + size.steps {
        let delivery = delivery(step, step - begin + 1, partition, &services, &mut noise);
        pipeline.handle(Input::Delivery(&delivery), delivery.record.timestamp_ns);
        while let Some(command) = pipeline.next_command() {
            if let Command::Forecasts(forecasts) = command {
                assert_eq!(forecasts.len(), services.len() * SIGNALS.len());
            }
        }
    }
    claimed.store(pipeline.state()).await.expect("stored");
}

struct Noise(u64);

impl Noise {
    /// -1 to 1, mostly near 0.
    fn next(&mut self) -> f32 {
        let mut sum = 0.0;
        for _ in 0..3 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            sum += (self.0 >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
        }
        sum / 1.5
    }
}

/// Latencies that jitter by some tens of percent, and a load that does too.
fn rows(steps: std::ops::Range<u64>, services: &[ServiceId], noise: &mut Noise) -> Vec<HistoryRow> {
    let mut rows = Vec::new();
    for step in steps {
        for service in services {
            let key = service.key();
            for signal in SIGNALS {
                let level = 0.3 * noise.next();
                let y = std::array::from_fn(|target| match target {
                    target if target + 1 == TARGETS => 4.0 + 0.2 * noise.next(),
                    target => level - 7.0 + target as f32 * 0.5 + 0.1 * noise.next(),
                });
                rows.push(HistoryRow {
                    step,
                    service: key.clone(),
                    signal,
                    window: Window {
                        y,
                        samples: 400.0 + 100.0 * noise.next(),
                        completeness: 1.0,
                    },
                });
            }
        }
    }
    rows
}

fn delivery(
    step: u64,
    seq: u64,
    partition: u32,
    services: &[ServiceId],
    noise: &mut Noise,
) -> Delivery {
    let header = Header {
        sensor_id: "node".to_owned(),
        boot_id: [1; 16],
        seq,
        partition,
        window_start_ns: step * STEP_NS,
        window_duration_ns: STEP_NS,
        more: false,
    };
    let histograms: Vec<Histogram> = (0..services.len() * SIGNALS.len())
        .map(|_| {
            let mut histogram = Histogram::new();
            for _ in 0..200 {
                histogram.record((1e6 * f64::from(0.4 * noise.next()).exp()) as u64);
            }
            histogram
        })
        .collect();
    let series = histograms
        .iter()
        .enumerate()
        .map(|(number, histogram)| SeriesRef {
            service: (number / SIGNALS.len()) as u32,
            signal: SIGNALS[number % SIGNALS.len()],
            histogram,
        });
    Delivery {
        offset: seq - 1,
        record: Record {
            topic: Topic::Histograms,
            partition,
            key: Vec::new(),
            timestamp_ns: header.window_end_ns(),
            payload: encode(&header, services, series.collect(), &[], None),
        },
    }
}
