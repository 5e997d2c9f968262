//! The sensor as a process, with real kernel events, on a real Apache Kafka.
//! Needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(all(feature = "broker-tests", feature = "kernel-tests"))]

#[path = "../../sensor/tests/programs/mod.rs"]
mod programs;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use honeyguide_bus::{
    Consumer, ConsumerEvent, Topic,
    kafka::{Config, KafkaConsumer, ValidConfig, topics},
};
use honeyguide_proto::batch::Batch;
use kafka_node::{Cluster, Jars, Options};
use sensor_common::Signal;

const CALLS: u64 = 20_000;

struct Sensor {
    process: Child,
    http: u16,
}

impl Drop for Sensor {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Sensor {
    fn start(brokers: &str, spool: &Path) -> Self {
        let http = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let program = Path::new(env!("CARGO_BIN_EXE_honeyguide"));
        let process = Command::new(program.with_file_name("honeyguide-sensor"))
            .args(["--set", &format!("kafka.brokers={brokers}")])
            .args(["--set", "kafka.partitions=2"])
            .args(["--set", "sensor.flush_interval=1s"])
            // Exact counts, whatever else this machine does.
            .args(["--set", "sensor.cost_ceiling=1"])
            .args(["--set", r#"sensor.probes=["syscall"]"#])
            .args(["--set", &format!("sensor.spool_dir={}", spool.display())])
            .args(["--set", &format!("sensor.http_listen=127.0.0.1:{http}")])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let sensor = Self { process, http };
        let deadline = Instant::now() + Duration::from_secs(30);
        while !sensor
            .page("/ready")
            .is_some_and(|page| page.contains("200 OK"))
        {
            assert!(Instant::now() < deadline, "the sensor is not ready");
            std::thread::sleep(Duration::from_millis(100));
        }
        sensor
    }

    fn page(&self, path: &str) -> Option<String> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.http)).ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    fn wait_for(&self, what: &str, reached: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !reached(self) {
            assert!(Instant::now() < deadline, "{what}: not within 30 s");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn metric(&self, name: &str) -> f64 {
        let page = self.page("/metrics").unwrap();
        let mut lines = page.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap().parse().unwrap()
    }

    fn terminate(mut self) {
        let pid = self.process.id() as libc::pid_t;
        // SAFETY: the pid is our child's, which has not been waited for.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        assert!(self.process.wait().unwrap().success());
    }
}

fn write_bytes(dd: &Path) {
    let mut command = Command::new(dd);
    command.args(["if=/dev/zero", "of=/dev/null", "bs=1", "status=none"]);
    command.arg(format!("count={CALLS}"));
    assert!(command.status().unwrap().success());
}

/// Kafka goes away; the sensor counts on, is killed, and started again; Kafka
/// comes back: every system call made while a sensor ran is there once.
#[tokio::test(flavor = "multi_thread")]
async fn a_sensor_killed_while_kafka_is_away_loses_nothing_that_it_drained() {
    let directory = tempfile::tempdir().unwrap();
    let dd = directory.path().join("hg-kafka-dd");
    programs::copy("/bin/dd", &dd);
    let spool = directory.path().join("spool");
    let kafka = directory.path().join("kafka");
    let mut cluster = Cluster::start(&Jars::find().unwrap(), &kafka, Options::default()).unwrap();
    let config = Config {
        brokers: cluster.bootstrap(),
        partitions: 2,
        ..Config::default()
    };
    let config = config.validate().unwrap();
    topics::apply(&config).await.unwrap();

    let sensor = Sensor::start(&cluster.bootstrap(), &spool);
    write_bytes(&dd);
    std::thread::sleep(Duration::from_millis(2500));
    cluster.kill(0).unwrap();
    write_bytes(&dd);
    std::thread::sleep(Duration::from_millis(2500));
    assert!(sensor.metric("spool_segments") >= 1.0);
    let mut sensor = sensor;
    sensor.process.kill().unwrap();
    sensor.process.wait().unwrap();
    cluster.restart(0).unwrap();
    let sensor = Sensor::start(&cluster.bootstrap(), &spool);
    write_bytes(&dd);
    std::thread::sleep(Duration::from_millis(1500));
    sensor.terminate();
    assert_eq!(std::fs::read_dir(&spool).unwrap().count(), 0);

    assert_eq!(calls_on_topic(&config, "hg-kafka-dd").await, 3 * CALLS);
}

/// Write calls of an executable on the topic, those of each batch once. Each
/// test has one of another name: both sensors see both.
async fn calls_on_topic(config: &ValidConfig, name: &str) -> u64 {
    let mut consumer = KafkaConsumer::join(config, Topic::Histograms)
        .await
        .unwrap();
    let mut seen = std::collections::BTreeSet::new();
    let (mut counted, mut ended) = (0, std::collections::BTreeSet::new());
    while ended.len() < 2 {
        match consumer.next().await.unwrap() {
            ConsumerEvent::CaughtUp { partition, .. } => drop(ended.insert(partition)),
            ConsumerEvent::Delivery(delivery) => {
                let batch = Batch::decode(&delivery.record.payload).unwrap();
                let header = &batch.header;
                if !seen.insert((header.boot_id, header.partition, header.seq)) {
                    continue;
                }
                let of_dd = batch.series.iter().filter(|series| {
                    let service = batch.services[series.service as usize].key();
                    series.signal == Signal::SyscallWrite && service.ends_with(&format!("/{name}"))
                });
                counted += of_dd.map(|series| series.count).sum::<u64>();
            }
            ConsumerEvent::Assigned(_) | ConsumerEvent::Revoked(_) => {}
        }
    }
    counted
}

/// A small file system of its own, unmounted with the test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Self {
        std::fs::create_dir(at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(at);
        assert!(mount.status().unwrap().success());
        Self(at.to_owned())
    }

    /// Takes all that is left.
    fn fill(&self) -> PathBuf {
        let filler = self.0.join("filler");
        let full = std::fs::write(&filler, vec![0; 2 << 20]).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        filler
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// Kafka is away and the spool's disk fills up: the sensor drains on, its
/// window grows, and every system call is there once in the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_spool_on_a_full_disk_stops_no_drain_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let dd = directory.path().join("hg-full-dd");
    programs::copy("/bin/dd", &dd);
    let disk = SmallDisk::mount(&directory.path().join("spool"));
    let kafka = directory.path().join("kafka");
    let mut cluster = Cluster::start(&Jars::find().unwrap(), &kafka, Options::default()).unwrap();
    let config = Config {
        brokers: cluster.bootstrap(),
        partitions: 2,
        ..Config::default()
    };
    let config = config.validate().unwrap();
    topics::apply(&config).await.unwrap();

    let sensor = Sensor::start(&cluster.bootstrap(), &disk.0);
    write_bytes(&dd);
    sensor.wait_for("an empty spool", |sensor| {
        sensor.metric("sensor_windows_total") >= 2.0 && sensor.metric("spool_segments") == 0.0
    });
    cluster.kill(0).unwrap();
    write_bytes(&dd);
    sensor.wait_for("a segment", |sensor| sensor.metric("spool_segments") >= 1.0);
    let filler = disk.fill();
    write_bytes(&dd);
    // Each drain finds that nothing takes its window, and adds to it.
    let delayed = sensor.metric("sensor_windows_delayed_total");
    sensor.wait_for("drains that go on", |sensor| {
        sensor.metric("sensor_windows_delayed_total") >= delayed + 4.0
    });
    write_bytes(&dd);
    cluster.restart(0).unwrap();
    let windows = sensor.metric("sensor_windows_total");
    sensor.wait_for("windows again", |sensor| {
        sensor.metric("sensor_windows_total") >= windows + 2.0
    });
    std::fs::remove_file(filler).unwrap();
    write_bytes(&dd);
    std::thread::sleep(Duration::from_millis(1500));
    let metrics = sensor.page("/metrics").unwrap();
    let lost = |line: &&str| line.starts_with("spool_lost_records_total{");
    for line in metrics.lines().filter(lost) {
        assert!(line.ends_with(" 0"), "{line}");
    }
    sensor.terminate();
    assert_eq!(calls_on_topic(&config, "hg-full-dd").await, 5 * CALLS);
}
