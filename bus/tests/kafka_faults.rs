//! What is published through a spool while the network to a real Apache Kafka
//! is disturbed, or a segment is damaged.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "broker-tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use honeyguide_bus::{
    Producer, Record, Topic,
    kafka::{Config, KafkaProducer, RangeReader, ValidConfig, topics},
    range::Range,
    spool::{self, Spool},
};
use kafka_node::{Cluster, Jars, Options};

const PARTITIONS: u32 = 4;

async fn cluster(directory: &Path) -> (Cluster, ValidConfig) {
    let options = Options {
        has_network: true,
        ..Options::default()
    };
    let data = directory.join("kafka");
    let cluster = Cluster::start(&Jars::find().unwrap(), &data, options).unwrap();
    let config = Config {
        brokers: cluster.bootstrap(),
        partitions: PARTITIONS,
        ..Config::default()
    };
    let config = config.validate().unwrap();
    topics::apply(&config).await.unwrap();
    (cluster, config)
}

async fn spool(directory: &Path, config: &ValidConfig) -> Spool<KafkaProducer> {
    let bounds = spool::Config {
        directory: directory.join("spool"),
        bytes_max: 64 << 20,
        age_max: Duration::from_secs(3600),
    };
    let producer = KafkaProducer::connect(config.clone()).await.unwrap();
    Spool::open(bounds, producer).unwrap()
}

fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap().as_nanos() as u64
}

fn record(number: u64) -> Record {
    Record {
        topic: Topic::Histograms,
        partition: (number % u64::from(PARTITIONS)) as u32,
        key: b"node".to_vec(),
        timestamp_ns: now_ns(),
        payload: number.to_le_bytes().to_vec(),
    }
}

/// Publishes one record every ten milliseconds for so long.
async fn publish_for(spool: &Spool<KafkaProducer>, next: &mut u64, duration: Duration) {
    let end = *next + duration.as_millis() as u64 / 10;
    while *next < end {
        spool.publish(record(*next)).await.unwrap();
        *next += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What is on the topic, by partition.
async fn on_topic(config: &ValidConfig) -> BTreeMap<u32, Vec<u64>> {
    let config = config.clone();
    let read = tokio::task::spawn_blocking(move || {
        let mut numbers = BTreeMap::<u32, Vec<u64>>::new();
        for delivery in RangeReader::open(&config, Topic::Histograms, &Range::default()).unwrap() {
            let record = delivery.unwrap().record;
            let number = u64::from_le_bytes(record.payload.as_slice().try_into().unwrap());
            numbers.entry(record.partition).or_default().push(number);
        }
        numbers
    });
    read.await.unwrap()
}

/// Each partition holds its numbers below `end` in order, each once.
fn assert_in_order_and_once(read: &BTreeMap<u32, Vec<u64>>, end: u64) {
    for (partition, numbers) in read {
        let id = u64::from(*partition);
        let expected = (0..end).filter(|number| number % u64::from(PARTITIONS) == id);
        let expected: Vec<u64> = expected.collect();
        assert_eq!(numbers, &expected, "partition {partition}");
    }
    assert_eq!(read.len(), PARTITIONS as usize);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_away_for_seconds_keeps_records_in_order_and_once() {
    let directory = tempfile::tempdir().unwrap();
    let (cluster, config) = cluster(directory.path()).await;
    let spool = spool(directory.path(), &config).await;
    let network = cluster.network(0);
    let mut next = 0;
    publish_for(&spool, &mut next, Duration::from_secs(1)).await;
    network.stall();
    publish_for(&spool, &mut next, Duration::from_secs(5)).await;
    assert!(spool.status()().segments > 0, "nothing waits");
    network.mend();
    publish_for(&spool, &mut next, Duration::from_secs(1)).await;
    for _ in 0..5 {
        network.cut();
        publish_for(&spool, &mut next, Duration::from_millis(500)).await;
        network.mend();
        publish_for(&spool, &mut next, Duration::from_millis(300)).await;
    }
    let status = spool.status();
    spool.close(Duration::from_secs(20)).await;
    assert_eq!(
        (status().segments, status().lost),
        (0, spool::Lost::default())
    );
    assert_in_order_and_once(&on_topic(&config).await, next);
}

/// Longer than a record's delivery may take: the spool offers it again, and
/// then it may be on the topic twice, as it may have arrived. Nothing is
/// missing, and what is first there is in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_network_away_for_longer_repeats_at_most_what_was_on_its_way() {
    let directory = tempfile::tempdir().unwrap();
    let (cluster, config) = cluster(directory.path()).await;
    let spool = spool(directory.path(), &config).await;
    let mut next = 0;
    publish_for(&spool, &mut next, Duration::from_secs(1)).await;
    cluster.network(0).stall();
    publish_for(&spool, &mut next, Duration::from_secs(15)).await;
    cluster.network(0).mend();
    publish_for(&spool, &mut next, Duration::from_secs(1)).await;
    let status = spool.status();
    spool.close(Duration::from_secs(20)).await;
    assert_eq!(
        (status().segments, status().lost),
        (0, spool::Lost::default())
    );
    let mut read = on_topic(&config).await;
    let mut repeated = BTreeSet::new();
    for numbers in read.values_mut() {
        let mut seen = BTreeSet::new();
        numbers.retain(|number| {
            let is_new = seen.insert(*number);
            if !is_new {
                repeated.insert(*number);
            }
            is_new
        });
    }
    println!("repeated: {repeated:?}");
    assert_in_order_and_once(&read, next);
    // What was published in the second before the network stalled.
    assert!(repeated.iter().all(|number| *number < 200), "{repeated:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_segment_costs_its_rest_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let (cluster, config) = cluster(directory.path()).await;
    let first = spool(directory.path(), &config).await;
    cluster.network(0).cut();
    // As a process that is killed leaves it: what is in flight stays too.
    let mut next = 0;
    publish_for(&first, &mut next, Duration::from_millis(400)).await;
    first.close(Duration::ZERO).await;
    let segments = fs::read_dir(directory.path().join("spool")).unwrap();
    let mut segments: Vec<_> = segments.map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    let newest = segments.pop().unwrap();
    let mut bytes = fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 40].fill(0xff);
    fs::write(&newest, bytes).unwrap();

    cluster.network(0).mend();
    let second = spool(directory.path(), &config).await;
    publish_for(&second, &mut next, Duration::from_millis(200)).await;
    let status = second.status();
    second.close(Duration::from_secs(20)).await;
    assert_eq!(status().lost.damaged, 1);
    let read: BTreeSet<u64> = on_topic(&config).await.into_values().flatten().collect();
    let missing: Vec<u64> = (0..next).filter(|number| !read.contains(number)).collect();
    // One piece, and it ends with the segment.
    assert_eq!(missing.last(), Some(&39), "{missing:?}");
    assert!(missing[0] > 0, "{missing:?}");
    assert_eq!(missing.len() as u64, 40 - missing[0], "{missing:?}");
}

/// Kafka refuses records of the future; the spool must not wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_ahead_holds_nothing_up() {
    let directory = tempfile::tempdir().unwrap();
    let (_cluster, config) = cluster(directory.path()).await;
    let spool = spool(directory.path(), &config).await;
    for number in 0..40 {
        let mut record = record(number);
        if (10..20).contains(&number) {
            record.timestamp_ns += 2 * 3600 * 1_000_000_000;
        }
        spool.publish(record).await.unwrap();
    }
    let status = spool.status();
    spool.close(Duration::from_secs(20)).await;
    assert_eq!((status().segments, status().lost.refused), (0, 10));
    let read: BTreeSet<u64> = on_topic(&config).await.into_values().flatten().collect();
    let expected: BTreeSet<u64> = (0..10).chain(20..40).collect();
    assert_eq!(read, expected);
}
