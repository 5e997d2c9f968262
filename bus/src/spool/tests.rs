use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::*;
use crate::{
    Consumer, ConsumerEvent,
    memory::{self, MemoryBus},
};

/// A bus that can be away.
#[derive(Clone)]
struct Flaky {
    bus: MemoryBus,
    is_away: Arc<AtomicBool>,
}

impl Producer for Flaky {
    fn partitions(&self, topic: Topic) -> u32 {
        self.bus.partitions(topic)
    }

    async fn publish(&self, record: Record) -> Result<(), PublishError> {
        if self.is_away.load(Relaxed) {
            let record = Box::new(record);
            let why = "away".to_owned();
            return Err(PublishError::Unavailable { record, why });
        }
        self.bus.publish(record).await
    }
}

fn flaky(is_away: bool) -> Flaky {
    Flaky {
        bus: MemoryBus::new(memory::Config::default()),
        is_away: Arc::new(AtomicBool::new(is_away)),
    }
}

fn config(directory: &Path) -> Config {
    Config {
        directory: directory.to_owned(),
        bytes_max: 1 << 30,
        age_max: Duration::from_secs(3600),
    }
}

fn record(number: u64) -> Record {
    Record {
        topic: Topic::Histograms,
        partition: (number % 4) as u32,
        key: Vec::new(),
        timestamp_ns: number,
        payload: number.to_le_bytes().to_vec(),
    }
}

/// Everything on the bus, by time.
async fn read_all(bus: &MemoryBus) -> Vec<u64> {
    let mut consumer = bus.consumer("test", Topic::Histograms);
    bus.close();
    let mut numbers = Vec::new();
    while let Ok(event) = consumer.next().await {
        if let ConsumerEvent::Delivery(delivery) = event {
            numbers.push(delivery.record.timestamp_ns);
        }
    }
    numbers
}

async fn publish_range(spool: &Spool<Flaky>, range: std::ops::Range<u64>) {
    for number in range {
        spool.publish(record(number)).await.unwrap();
    }
}

#[tokio::test]
async fn what_waited_while_the_bus_was_away_comes_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let flaky = flaky(true);
    let spool = Spool::open(config(directory.path()), flaky.clone()).unwrap();
    publish_range(&spool, 0..100).await;
    assert!(spool.status()().bytes > 0);
    flaky.is_away.store(false, Relaxed);
    publish_range(&spool, 100..120).await;
    spool.close(Duration::from_secs(10)).await;
    assert_eq!(read_all(&flaky.bus).await, (0..120).collect::<Vec<_>>());
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_killed_process_leaves_its_records_to_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let away = flaky(true);
    let spool = Spool::open(config(directory.path()), away).unwrap();
    publish_range(&spool, 0..50).await;
    // As a kill would: nothing is closed, and the last write is cut off.
    spool.publisher.abort();
    let left = segments(directory.path()).unwrap();
    let last = File::options()
        .write(true)
        .open(&left.last().unwrap().path)
        .unwrap();
    last.set_len(last.metadata().unwrap().len() - 3).unwrap();
    let back = flaky(false);
    let spool = Spool::open(config(directory.path()), back.clone()).unwrap();
    publish_range(&spool, 50..60).await;
    spool.close(Duration::from_secs(10)).await;
    let mut expected: Vec<u64> = (0..49).collect();
    expected.extend(50..60);
    assert_eq!(read_all(&back.bus).await, expected);
}

#[tokio::test]
async fn a_full_spool_gives_up_its_oldest_and_counts_them() {
    let directory = tempfile::tempdir().unwrap();
    let flaky = flaky(true);
    let mut small = config(directory.path());
    small.bytes_max = 20 << 20;
    let spool = Spool::open(small, flaky.clone()).unwrap();
    // Not compressible, half a megabyte each.
    let mut state = 1u64;
    for number in 0..100 {
        let payload = (0..1 << 16).flat_map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_le_bytes()
        });
        let record = Record {
            payload: payload.collect(),
            partition: 0,
            ..record(number)
        };
        spool.publish(record).await.unwrap();
        assert!(spool.status()().bytes <= 21 << 20);
    }
    let status = spool.status();
    let lost = status().lost.full;
    assert!(lost >= 50, "{lost}");
    flaky.is_away.store(false, Relaxed);
    spool.close(Duration::from_secs(20)).await;
    let read = read_all(&flaky.bus).await;
    assert_eq!(read.len() as u64 + status().lost.full, 100);
    assert_eq!(read.last(), Some(&99));
}

#[tokio::test]
async fn segments_that_are_too_old_are_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let away = flaky(true);
    let spool = Spool::open(config(directory.path()), away).unwrap();
    publish_range(&spool, 0..5).await;
    spool.publisher.abort();
    let mut impatient = config(directory.path());
    impatient.age_max = Duration::ZERO;
    let back = flaky(false);
    let spool = Spool::open(impatient, back.clone()).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(spool.status()().lost.old, 5);
    assert_eq!(read_all(&back.bus).await, [0; 0]);
}

#[tokio::test]
async fn damage_costs_the_rest_of_one_segment_and_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let away = flaky(true);
    let spool = Spool::open(config(directory.path()), away).unwrap();
    publish_range(&spool, 0..20).await;
    spool.publisher.abort();
    let path = segments(directory.path()).unwrap().pop().unwrap().path;
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    let back = flaky(false);
    let spool = Spool::open(config(directory.path()), back.clone()).unwrap();
    publish_range(&spool, 20..25).await;
    let status = spool.status();
    spool.close(Duration::from_secs(10)).await;
    assert_eq!(status().lost.damaged, 1);
    let read = read_all(&back.bus).await;
    assert!(
        read.starts_with(&[0, 1, 2]) && read.ends_with(&[20, 21, 22, 23, 24]),
        "{read:?}"
    );
}

#[tokio::test]
async fn a_directory_that_takes_nothing_is_passed_by() {
    let directory = tempfile::tempdir().unwrap();
    let spool_directory = directory.path().join("spool");
    let flaky = flaky(false);
    let spool = Spool::open(config(&spool_directory), flaky.clone()).unwrap();
    std::fs::remove_dir(&spool_directory).unwrap();
    publish_range(&spool, 0..5).await;
    assert_eq!(spool.status()().past, 5);
    assert_eq!(read_all(&flaky.bus).await, (0..5).collect::<Vec<_>>());
}

#[test]
fn a_full_disk_is_said_at_once_and_then_once_a_minute() {
    let begun = Instant::now();
    let after = |secs| begun + Duration::from_secs(secs);
    let mut disk = Disk::default();
    assert_eq!(disk.took(after(0)), None);
    assert_eq!(disk.refused(after(0)), Some(1));
    let said: Vec<u64> = (1..130)
        .filter_map(|secs| disk.refused(after(secs)))
        .collect();
    assert_eq!(said, [60, 60]);
    // Comes and goes within a minute: nothing new.
    assert_eq!(disk.took(after(130)), None);
    assert_eq!(disk.refused(after(131)), None);
    assert_eq!(disk.took(after(180)), Some(10));
    assert_eq!(disk.took(after(240)), None);
    assert_eq!(disk.refused(after(240)), Some(1));
}
