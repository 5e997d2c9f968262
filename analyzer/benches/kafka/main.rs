//! The analyzer on a real Kafka, with the broker on the same machine: how many
//! series-windows a second go from the sensor's encoder into windows, beside a
//! bare loop of the same payloads; how long after a window its forecasts are
//! out; and how long a restarted analyzer takes to serve.
//!
//! With `HONEYGUIDE_BENCH_OUT` set, writes the figures there. Under `cargo
//! test` it only moves a little. A word on the command line chooses one part.

mod delay;
mod restart;
mod throughput;

use std::{env, fs};

use honeyguide_bus::kafka::{self, ValidConfig, topics};
use kafka_node::{Cluster, Jars, Options};
use serde_json::{Map, Value, json};

const PARTITIONS: u32 = 4;

fn main() {
    let full = env::args().any(|arg| arg == "--bench");
    let chosen = |part: &str| {
        let mut words = env::args().skip(1).filter(|arg| !arg.starts_with('-'));
        let first = words.next();
        first.is_none_or(|word| word == part)
    };
    let jars = match Jars::find() {
        Ok(jars) => jars,
        Err(error) => {
            println!("skipped: {error}");
            return;
        }
    };
    let directory = env::temp_dir().join(format!("honeyguide-bench-kafka-{}", std::process::id()));
    let mut metrics = Map::new();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if chosen("throughput") {
        let size = match full {
            true => throughput::Size {
                services: 2000,
                windows: 200,
                rounds: 3,
            },
            false => throughput::Size {
                services: 20,
                windows: 3,
                rounds: 1,
            },
        };
        let node = Node::start(&jars, &directory);
        let config = runtime.block_on(node.config(PARTITIONS));
        let measuring = async move { throughput::measure(&config, &size).await };
        let found = runtime.block_on(runtime.spawn(measuring));
        let found = found.expect("measured");
        println!(
            "{:.0} series-windows/s end to end, {:.0} in the bare loop",
            found.series_windows_per_s, found.bare_per_s
        );
        let ratio = found.series_windows_per_s / found.bare_per_s;
        metrics.insert(
            "series_windows_per_s".into(),
            found.series_windows_per_s.into(),
        );
        metrics.insert("vs_bare_loop".into(), ratio.into());
    }
    if chosen("delay") {
        let size = match full {
            true => delay::Size {
                sensors: 10,
                services: 2000,
                windows: 12,
                flush_secs: 10,
            },
            false => delay::Size {
                sensors: 2,
                services: 4,
                windows: 2,
                flush_secs: 1,
            },
        };
        let node = Node::start(&jars, &directory);
        let found = runtime.block_on(async {
            let config = node.config(PARTITIONS).await;
            delay::measure(&config, &size).await
        });
        println!(
            "window end to forecast out: p50 {:.2} s, p99 {:.2} s, max {:.2} s",
            found.p50_s, found.p99_s, found.max_s
        );
        metrics.insert("e2e_p99_over_flush_s".into(), found.p99_s.into());
        metrics.insert("e2e_p50_s".into(), found.p50_s.into());
    }
    if chosen("restart") {
        let size = match full {
            true => restart::Size {
                services: 10_000,
                stores: 72,
                steps_per_store: 30,
                steps: 3,
            },
            false => restart::Size {
                services: 8,
                stores: 3,
                steps_per_store: 30,
                steps: 2,
            },
        };
        let node = Node::start(&jars, &directory);
        let restart_s = runtime.block_on(async {
            let config = node.config(restart::PARTITIONS).await;
            restart::measure(&config, &size).await
        });
        println!(
            "{restart_s:.1} s to the forecasts of {} series",
            size.series()
        );
        metrics.insert("restart_50k_s".into(), restart_s.into());
    }
    if let Some(out) = env::var_os("HONEYGUIDE_BENCH_OUT") {
        let mut skipped = Map::<String, Value>::new();
        let why = "the fault tests of `cargo xtask test` check it exactly";
        skipped.insert("lost_or_doubled".into(), why.into());
        let report = json!({"metrics": metrics, "skipped": skipped});
        fs::write(&out, report.to_string()).expect("the report's folder exists");
    }
}

/// A broker of its own, gone with its data when dropped.
struct Node {
    cluster: Option<Cluster>,
    directory: std::path::PathBuf,
}

impl Node {
    fn start(jars: &Jars, directory: &std::path::Path) -> Self {
        let options = Options {
            heap_mb: 1024,
            ..Options::default()
        };
        Self {
            cluster: Some(Cluster::start(jars, directory, options).expect("Kafka starts")),
            directory: directory.to_owned(),
        }
    }

    /// With the topics made.
    async fn config(&self, partitions: u32) -> ValidConfig {
        let brokers = self.cluster.as_ref().map(Cluster::bootstrap);
        let config = kafka::Config {
            brokers: brokers.unwrap_or_default(),
            partitions,
            ..kafka::Config::default()
        };
        let config = config.validate().expect("a valid configuration");
        topics::apply(&config).await.expect("topics");
        config
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.cluster = None;
        let _ = fs::remove_dir_all(&self.directory);
    }
}
