//! The sensor with its default configuration, no ceiling, and nobody behind it,
//! to measure what it uses itself (`cargo xtask bench overhead`).
//!
//! Prints the number of windows, services and bytes published after each
//! window; ends with its standard input.

use std::{
    io::{self, Read},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::Result;
use honeyguide_bus::{Producer, PublishError, Record, Topic};
use honeyguide_sensor::{AttachedSensor, Config, Metrics};
use prometheus_client::registry::Registry;

const PARTITIONS: u32 = 8;

/// Accepts everything and keeps only its size.
#[derive(Default)]
struct Discard {
    published_bytes: AtomicUsize,
}

impl Producer for Discard {
    fn partitions(&self, _topic: Topic) -> u32 {
        PARTITIONS
    }

    async fn publish(&self, record: Record) -> Result<(), PublishError> {
        self.published_bytes
            .fetch_add(record.payload.len(), Ordering::Relaxed);
        Ok(())
    }
}

#[tokio::main(worker_threads = 1)]
async fn main() -> Result<()> {
    let config = Config {
        cost_ceiling: 1.0,
        ..Config::default()
    };
    let sensor = AttachedSensor::attach(config.validate()?)?;
    let mut registry = Registry::default();
    let discard = Arc::new(Discard::default());
    let sensor = sensor.start(Arc::clone(&discard), Metrics::register(&mut registry))?;
    let mut status = sensor.status();
    let end = tokio::task::spawn_blocking(|| io::stdin().read_to_end(&mut Vec::new()));
    tokio::pin!(end);
    loop {
        tokio::select! {
            _ = &mut end => break,
            changed = status.changed() => changed?,
        }
        let status = status.borrow_and_update().clone();
        println!(
            "{} {} {}",
            status.windows,
            status.services,
            discard.published_bytes.load(Ordering::Relaxed)
        );
    }
    sensor.stop().await;
    Ok(())
}
