//! Analyzers as processes on a real Apache Kafka, killed while they work.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "broker-tests")]

#[path = "kafka/faults.rs"]
mod faults;
mod ports;
#[path = "kafka/versions.rs"]
mod versions;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use honeyguide_analyzer::pipeline::{Command as PipelineCommand, Input, Pipeline};
use honeyguide_bus::{
    Delivery, PartitionId, Producer, Record, Topic,
    kafka::{Config, KafkaProducer, PartitionReader, RecordRef, ValidConfig, topics},
    partition_of,
};
use honeyguide_proto::{
    ServiceId, ServiceKind,
    batch::{Header, SeriesRef, encode},
    v1,
};
use kafka_node::{Cluster, Jars, Lent, Options};
use ports::free_port;
use prost::Message as _;
use sensor_common::{Histogram, Signal};
use tempfile::TempDir;

const PARTITIONS: u32 = 4;
const SENSORS: usize = 3;
const SERVICES: usize = 40;

/// An analyzer; ended with the test, by its pid.
struct Analyzer {
    process: Child,
    http: u16,
}

impl Drop for Analyzer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Analyzer {
    fn start(kafka: &Config, log: &Path) -> Self {
        let http = free_port();
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_honeyguide"));
        let process = Command::new(program.with_file_name("honeyguide-analyzer"))
            .args(["--set", &format!("kafka.brokers={}", kafka.brokers)])
            .args(["--set", &format!("kafka.group={}", kafka.group)])
            .args(["--set", &format!("kafka.partitions={PARTITIONS}")])
            .args(["--set", r#"kafka.properties={"session.timeout.ms"="6000"}"#])
            .args(["--set", "analyzer.step=1s"])
            .args(["--set", "analyzer.lateness=3s"])
            .args(["--set", "analyzer.store_interval=2s"])
            .args([
                "--set",
                &format!("analyzer.grpc_listen=127.0.0.1:{}", free_port()),
            ])
            .args(["--set", &format!("analyzer.http_listen=127.0.0.1:{http}")])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { process, http }
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn terminate(mut self) {
        self.signal(libc::SIGTERM);
        assert!(self.process.wait().unwrap().success());
    }

    fn signal(&self, signal: libc::c_int) {
        let pid = self.process.id() as libc::pid_t;
        // SAFETY: the pid is our child's, which has not been waited for.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    fn metrics(&self) -> Option<String> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.http)).ok()?;
        // One that is stopped does not answer.
        socket.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        socket.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        Some(answer)
    }
}

/// Events by service over all analyzers.
fn counted(analyzers: &[Analyzer]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for page in analyzers.iter().filter_map(Analyzer::metrics) {
        for line in page.lines() {
            let Some(rest) = line.strip_prefix("honeyguide_latency_seconds_count{service=\"")
            else {
                continue;
            };
            let (service, rest) = rest.split_once('"').unwrap();
            let count: u64 = rest.rsplit(' ').next().unwrap().parse().unwrap();
            *counts.entry(service.to_owned()).or_default() += count;
        }
    }
    counts
}

/// Publishes a second of three sensors; adds what was published to `published`.
async fn publish_second(
    producer: &impl Producer,
    second: u64,
    published: &mut BTreeMap<String, u64>,
) {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let now_ns = now.as_nanos() as u64;
    for sensor in 0..SENSORS {
        for partition in 0..PARTITIONS {
            let services: Vec<ServiceId> = (0..SERVICES)
                .map(|number| ServiceId::named(ServiceKind::Process, &format!("svc-{number}")))
                .filter(|service| partition_of(service.key().as_bytes(), PARTITIONS) == partition)
                .collect();
            let mut histograms = Vec::new();
            for (number, service) in services.iter().enumerate() {
                let events = 1 + (second * 7 + (sensor + number) as u64 * 5) % 13;
                let mut histogram = Histogram::new();
                (0..events).for_each(|event| histogram.record(50_000 + event * 10_000));
                histograms.push(histogram);
                *published.entry(service.key()).or_default() += events;
            }
            let series = (0u32..)
                .zip(&histograms)
                .map(|(service, histogram)| SeriesRef {
                    service,
                    signal: Signal::RunQueue,
                    histogram,
                });
            let header = Header {
                sensor_id: format!("node-{sensor}"),
                boot_id: [1; 16],
                seq: second + 1,
                partition,
                window_start_ns: now_ns - 1_000_000_000,
                window_duration_ns: 1_000_000_000,
                more: false,
            };
            let record = Record {
                topic: Topic::Histograms,
                partition,
                key: header.sensor_id.clone().into_bytes(),
                timestamp_ns: now_ns,
                payload: encode(&header, &services, series.collect(), &[], None),
            };
            // Now and then a sensor that was killed publishes again.
            let times = if (second + u64::from(partition)).is_multiple_of(5) {
                2
            } else {
                1
            };
            for _ in 0..times {
                producer.publish(record.clone()).await.unwrap();
            }
        }
    }
}

/// Of `HONEYGUIDE_TEST_SEED`, or another one each time.
fn seed() -> u64 {
    let seed = match std::env::var("HONEYGUIDE_TEST_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => u64::from(std::process::id()),
    };
    println!("HONEYGUIDE_TEST_SEED={seed}");
    seed
}

/// Numbers that a seed decides.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % bound
    }
}

/// Analyzers on a broker, under a known load.
struct Group {
    directory: TempDir,
    kafka: Config,
    broker: Broker,
    analyzers: Vec<Analyzer>,
    started: usize,
}

enum Broker {
    /// To be disturbed.
    Own(Cluster),
    Lent(#[expect(dead_code, reason = "is the test's until dropped")] Lent),
}

impl Group {
    /// On some broker with topics, and no analyzer yet.
    async fn start() -> (Self, ValidConfig) {
        let lent = Lent::take().await.unwrap();
        let kafka = Config {
            brokers: lent.bootstrap().to_owned(),
            group: lent.group().to_owned(),
            ..Config::default()
        };
        let directory = tempfile::tempdir().unwrap();
        Self::on(Broker::Lent(lent), kafka, directory).await
    }

    /// The same on nodes of its own.
    async fn on_own(options: Options) -> (Self, ValidConfig) {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("kafka");
        let cluster = Cluster::start(&Jars::find().unwrap(), &data, options).unwrap();
        let kafka = Config {
            brokers: cluster.bootstrap(),
            ..Config::default()
        };
        Self::on(Broker::Own(cluster), kafka, directory).await
    }

    async fn on(broker: Broker, kafka: Config, directory: TempDir) -> (Self, ValidConfig) {
        let kafka = Config {
            partitions: PARTITIONS,
            ..kafka
        };
        let config = kafka.clone().validate().unwrap();
        topics::apply(&config).await.unwrap();
        let group = Self {
            directory,
            kafka,
            broker,
            analyzers: Vec::new(),
            started: 0,
        };
        (group, config)
    }

    fn start_one(&mut self) {
        let log = self.directory.path().join(format!("{}.log", self.started));
        self.started += 1;
        self.analyzers.push(Analyzer::start(&self.kafka, &log));
    }

    /// The nodes of [`on_own`](Self::on_own).
    fn cluster(&mut self) -> &mut Cluster {
        match &mut self.broker {
            Broker::Own(cluster) => cluster,
            Broker::Lent(_) => panic!("a broker that is lent is not to be disturbed"),
        }
    }

    /// Waits until all analyzers together have counted exactly this. After a network
    /// that was away, sessions, transactions and reconnections time out one after the
    /// other, which takes half a minute, and longer where cores are few.
    async fn counts(&self, published: &BTreeMap<String, u64>) {
        let deadline = Instant::now() + Duration::from_secs(180);
        let mut equal_for = 0;
        let mut last: BTreeMap<String, u64> = BTreeMap::new();
        // Stays equal: nothing comes twice afterwards.
        while equal_for < 5 {
            if Instant::now() > deadline {
                println!("{}", self.logs());
                let wrong: Vec<_> = published
                    .iter()
                    .filter(|(service, count)| last.get(*service) != Some(count))
                    .map(|(service, count)| (service, *count, last.get(service).copied()))
                    .collect();
                panic!("(service, published, counted): {wrong:?}");
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            last = counted(&self.analyzers);
            equal_for = if last == *published { equal_for + 1 } else { 0 };
        }
    }

    fn logs(&self) -> String {
        let logs = (0..self.started).map(|number| {
            let path = self.directory.path().join(format!("{number}.log"));
            std::fs::read_to_string(path).unwrap_or_default()
        });
        logs.collect::<Vec<_>>().join("\n--- next\n")
    }
}

/// One at a time: each has a broker and several analyzers.
static QUIET: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test(flavor = "multi_thread")]
async fn killed_and_joining_analyzers_count_everything_once() {
    let mut random = Random(seed());
    let kills: Vec<u64> = [8, 20]
        .into_iter()
        .map(|second| second + random.below(5))
        .collect();
    disturbed(Group::start(), 35, |second, group| {
        if kills.contains(&second) {
            let victim = random.below(group.analyzers.len() as u64) as usize;
            group.analyzers.remove(victim).kill();
            group.start_one();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn analyzers_that_come_and_go_every_two_seconds_count_everything_once() {
    disturbed(Group::start(), 25, |second, group| {
        if !(4..20).contains(&second) || !second.is_multiple_of(2) {
            return;
        }
        if group.analyzers.len() < 3 {
            group.start_one();
        } else {
            group.analyzers.remove(1).terminate();
        }
    })
    .await;
}

/// An analyzer that stands still for longer than its session does not know yet
/// that its partitions are another's, and must not write over their state.
#[tokio::test(flavor = "multi_thread")]
async fn an_analyzer_that_was_paused_past_its_session_disturbs_nothing() {
    disturbed(Group::start(), 32, |second, group| match second {
        8 => group.analyzers[0].signal(libc::SIGSTOP),
        22 => group.analyzers[0].signal(libc::SIGCONT),
        _ => {}
    })
    .await;
}

/// While the broker is away nobody can send, so nothing is late.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_and_comes_back_changes_no_forecast() {
    disturbed(Group::on_own(Options::default()), 24, |second, group| {
        if second == 8 {
            group.cluster().kill(0).unwrap();
            std::thread::sleep(Duration::from_secs(6));
            group.cluster().restart(0).unwrap();
        }
    })
    .await;
}

/// Publishes for so many seconds while `disturb` does its worst; then all
/// analyzers together must have counted exactly what was published, and have
/// forecast what an analyzer that was never disturbed forecasts.
async fn disturbed(
    group: impl Future<Output = (Group, ValidConfig)>,
    seconds: u64,
    mut disturb: impl FnMut(u64, &mut Group),
) {
    let _quiet = QUIET.lock().await;
    let (mut group, config) = group.await;
    let producer = KafkaProducer::connect(config.clone()).await.unwrap();
    group.start_one();
    group.start_one();
    let mut published = BTreeMap::new();
    let begun = Instant::now();
    for second in 0..seconds {
        publish_second(&producer, second, &mut published).await;
        disturb(second, &mut group);
        let next = begun + Duration::from_secs(second + 1);
        tokio::time::sleep_until(next.into()).await;
    }
    group.counts(&published).await;
    let compared = tokio::task::spawn_blocking(move || compare_forecasts(&config));
    assert!(compared.await.unwrap() > seconds as usize * SERVICES / 2);
}

type ForecastKey = (PartitionId, i64, String);

/// What was published must be what one pipeline per partition makes of the
/// same records; nothing may be missing between. Returns how many forecasts.
fn compare_forecasts(config: &ValidConfig) -> usize {
    let reader = PartitionReader::connect(config).unwrap();
    let read = |topic, partition, take: &mut dyn FnMut(RecordRef<'_>)| {
        let range = reader.bounds(topic, partition).unwrap();
        reader.read(topic, partition, range, take).unwrap();
    };
    let mut compared = 0;
    for partition in 0..PARTITIONS {
        let mut expected = BTreeMap::new();
        let mut pipeline = Pipeline::new(analyzer_config());
        read(Topic::Histograms, partition, &mut |record| {
            let delivery = Delivery {
                offset: record.offset,
                record: Record {
                    topic: Topic::Histograms,
                    partition,
                    key: Vec::new(),
                    timestamp_ns: record.timestamp_ns,
                    payload: record.value.to_vec(),
                },
            };
            pipeline.handle(Input::Delivery(&delivery), record.timestamp_ns);
            while let Some(command) = pipeline.next_command() {
                if let PipelineCommand::Forecasts(forecasts) = command {
                    let forecasts = forecasts.into_iter();
                    expected.extend(forecasts.map(|one| (key_of(partition, &one), one)));
                }
            }
        });
        let mut published = BTreeSet::new();
        read(Topic::Forecasts, partition, &mut |record| {
            let forecast = v1::Forecast::decode(record.value).unwrap();
            let key = key_of(partition, &forecast);
            // Steps that only the clock has closed are not in the other run.
            if let Some(expected) = expected.get(&key) {
                // Short, whatever differs.
                assert_eq!(forecast.now, expected.now, "{key:?}");
                assert!(forecast == *expected, "{key:?} has another forecast");
                published.insert(key);
            }
        });
        let last = published.last().map(|key| key.1).unwrap();
        let missing: Vec<_> = expected
            .keys()
            .filter(|key| key.1 <= last && !published.contains(*key))
            .collect();
        assert_eq!(missing, Vec::<&ForecastKey>::new());
        compared += published.len();
    }
    compared
}

fn key_of(partition: PartitionId, forecast: &v1::Forecast) -> ForecastKey {
    let key = forecast.key.as_ref().unwrap();
    let made_at = forecast.made_at.as_ref().unwrap();
    (
        partition,
        made_at.seconds,
        format!("{} {}", key.service, key.signal),
    )
}

/// As [`Analyzer::start`] sets it.
fn analyzer_config() -> honeyguide_analyzer::ValidConfig {
    honeyguide_analyzer::Config {
        step: Duration::from_secs(1),
        lateness: Duration::from_secs(3),
        ..honeyguide_analyzer::Config::default()
    }
    .validate()
    .unwrap()
}
