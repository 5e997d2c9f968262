//! `honeyguide replay` from a real Apache Kafka.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "broker-tests")]

#[path = "replay/incident.rs"]
mod incident;

use std::{
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant, SystemTime},
};

use honeyguide_bus::{
    Producer, Topic,
    kafka::{Config, KafkaProducer, RangeReader, ValidConfig, topics},
    range::Range,
};
use incident::{Incident, STEP_SECS};
use kafka_node::Lent;

/// Fires and resolves at once.
const CONFIG: &str = r#"
[kafka]
partitions = 2
[[analyzer.objectives]]
name = "run-queue"
service = "*"
signal = "runq"
target = "p99"
threshold = "20ms"
horizon = "15m"
fire_probability = 1.0
fire_after = 1
resolve_after = 1
"#;

/// Two minutes that are just over: few steps, so that an analyzer that reads
/// them at once publishes every forecast.
fn incident() -> Incident {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Incident {
        epoch_secs: (now.unwrap().as_secs() - 130) / STEP_SECS * STEP_SECS,
        steps: 12,
        trouble: 5..8,
    }
}

struct System<'a> {
    broker: &'a Lent,
    config: &'a Path,
}

impl System<'_> {
    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_honeyguide"));
        command
            .arg(name)
            .args([
                "--set",
                &format!("kafka.brokers={}", self.broker.bootstrap()),
            ])
            .args(["--set", &format!("kafka.group={}", self.broker.group())])
            .env("HONEYGUIDE_CONFIG", self.config);
        command
    }

    fn replay(&self, args: &[&str]) -> Output {
        self.command("replay").args(args).output().unwrap()
    }

    /// Runs an analyzer until the incident's alert has fired and resolved.
    fn analyze(&self, kafka: &ValidConfig, log: &Path) {
        let log = std::fs::File::create(log).unwrap();
        let mut analyzer = self
            .command("analyzer")
            .args(["--set", "analyzer.grpc_listen=127.0.0.1:0"])
            .args(["--set", "analyzer.http_listen=127.0.0.1:0"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        let alerted = || RangeReader::open(kafka, Topic::Alerts, &Range::default()).unwrap();
        while alerted().count() < 2 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(500));
        }
        analyzer.kill().unwrap();
        analyzer.wait().unwrap();
        assert_eq!(alerted().count(), 2, "fired and resolved");
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_and_a_recording_of_it_replay_the_same_and_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let broker = Lent::take().await.unwrap();
    let settings = directory.path().join("honeyguide.toml");
    std::fs::write(&settings, CONFIG).unwrap();
    let system = System {
        broker: &broker,
        config: &settings,
    };
    let said = stderr(&system.replay(&["--from", "0"]));
    assert!(said.contains("honeyguide topics apply"), "{said}");

    let config = Config {
        brokers: broker.bootstrap().to_owned(),
        group: broker.group().to_owned(),
        partitions: 2,
        ..Config::default()
    };
    let config = config.validate().unwrap();
    topics::apply(&config).await.unwrap();
    let producer = KafkaProducer::connect(config.clone()).await.unwrap();
    let incident = incident();
    let file = directory.path().join("incident.hgr");
    incident.record(&file);
    let file = file.to_str().unwrap();
    let records = incident.records();
    let offered = records.into_iter().map(|record| producer.publish(record));
    for result in futures_util::future::join_all(offered).await {
        result.unwrap();
    }

    let time_of = |step: u64| {
        let time = Duration::from_secs(incident.epoch_secs + step * STEP_SECS);
        humantime::format_rfc3339(SystemTime::UNIX_EPOCH + time).to_string()
    };
    let (from, to) = (time_of(4), time_of(11));
    let ranges: [&[&str]; 3] = [
        &["--from", "0"],
        &["--from", &from, "--to", &to],
        &["--from", "0:2,1:3", "--to", "0:11"],
    ];
    for range in ranges {
        let shown = [range, &["--all", "--json"]].concat();
        let of_kafka = system.replay(&shown);
        let of_file = system.replay(&[&[file], shown.as_slice()].concat());
        assert!(of_kafka.status.success(), "{}", stderr(&of_kafka));
        assert!(of_kafka.stdout.len() > 10_000, "{range:?}");
        assert!(of_kafka.stdout == of_file.stdout, "{range:?} differs");
    }

    tokio::task::block_in_place(|| {
        system.analyze(&config, &directory.path().join("analyzer.log"));
    });
    let same = system.replay(&["--from", "2h", "--diff"]);
    let said = stderr(&same);
    assert_eq!(same.status.code(), Some(0), "{same:?}");
    assert!(said.contains("alerts: 1 alerted, 1 replayed"), "{said}");
    let deaf = r#"analyzer.objectives=[]"#;
    let other = system.replay(&["--from", "2h", "--diff", "--set", deaf]);
    assert_eq!(other.status.code(), Some(2), "{other:?}");
    let text = String::from_utf8(other.stdout).unwrap();
    assert!(text.starts_with("only alerted  "), "{text}");

    let refused = |args: &[&str], expected: &str| {
        let said = stderr(&system.replay(args));
        assert!(said.contains(expected), "{args:?}: {said}");
    };
    refused(&["--from", "0:9999"], "holds the offsets 0 to 12");
    refused(&["--from", "7:0"], "has 2 partitions");
    refused(&["--from", "1s", "--warm-up", "0s"], "no records between");
}
