//! The bus on a real Apache Kafka.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "broker-tests")]

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use honeyguide_bus::{
    Consumer, ConsumerEvent, Position, Producer, PublishError, Record, Topic,
    kafka::{ClientError, Config, KafkaConsumer, KafkaProducer, KafkaTail, ValidConfig, topics},
    tail::Tail,
};
use kafka_node::{Cluster, Jars, Lent, Options};
use tempfile::TempDir;

/// Nodes of one test, which ends or starts some, and their data.
struct Broker {
    cluster: Cluster,
    _directory: TempDir,
}

impl Broker {
    fn start(options: Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let jars = Jars::find().unwrap();
        let cluster = Cluster::start(&jars, directory.path(), options).unwrap();
        Self {
            cluster,
            _directory: directory,
        }
    }

    fn config(&self) -> Config {
        Config {
            brokers: self.cluster.bootstrap(),
            partitions: 4,
            ..Config::default()
        }
    }
}

fn config_of(lent: &Lent) -> Config {
    Config {
        brokers: lent.bootstrap().to_owned(),
        group: lent.group().to_owned(),
        partitions: 4,
        ..Config::default()
    }
}

async fn with_topics(config: Config) -> ValidConfig {
    let config = config.validate().unwrap();
    topics::apply(&config).await.unwrap();
    config
}

fn record(number: u64) -> Record {
    Record {
        topic: Topic::Histograms,
        partition: (number % 4) as u32,
        key: b"node".to_vec(),
        timestamp_ns: 1_700_000_000_000_000_000 + number * 1_000_000,
        payload: number.to_le_bytes().to_vec(),
    }
}

fn number(record: &Record) -> u64 {
    u64::from_le_bytes(record.payload.as_slice().try_into().unwrap())
}

/// Publishes until the broker takes it, as the spool does.
async fn publish(producer: &KafkaProducer, numbers: std::ops::Range<u64>) {
    let numbers: Vec<u64> = numbers.collect();
    for chunk in numbers.chunks(20) {
        let mut records: Vec<Record> = chunk.iter().copied().map(record).collect();
        while !records.is_empty() {
            let offered = records.drain(..).map(|record| producer.publish(record));
            for result in futures_util::future::join_all(offered).await {
                match result {
                    Ok(()) => {}
                    Err(PublishError::Full(record) | PublishError::Unavailable { record, .. }) => {
                        records.push(*record);
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
}

/// What a member of the group was given.
#[derive(Default)]
struct Member {
    assigned: Vec<u32>,
    revoked: Vec<u32>,
    numbers: BTreeMap<u32, Vec<u64>>,
    positions: BTreeMap<u32, Position>,
}

impl Member {
    fn count(&self) -> usize {
        self.numbers.values().map(Vec::len).sum()
    }

    /// Takes events until `enough`; fails after a minute.
    async fn read(&mut self, consumer: &mut KafkaConsumer, enough: impl Fn(&Member) -> bool) {
        let reading = async {
            while !enough(self) {
                // Asked again in between: `enough` may depend on others.
                let event = tokio::time::timeout(Duration::from_millis(100), consumer.next());
                let Ok(event) = event.await else {
                    continue;
                };
                match event.unwrap() {
                    ConsumerEvent::Assigned(partitions) => self.assigned.extend(partitions),
                    ConsumerEvent::Revoked(partitions) => {
                        for partition in &partitions {
                            if let Some(position) = self.positions.remove(partition) {
                                consumer.commit(&[position]).await.unwrap();
                            }
                        }
                        self.revoked.extend(partitions);
                    }
                    ConsumerEvent::CaughtUp { .. } => {}
                    ConsumerEvent::Delivery(delivery) => {
                        let record = &delivery.record;
                        let position = Position {
                            topic: Topic::Histograms,
                            partition: record.partition,
                            offset: delivery.offset + 1,
                        };
                        self.positions.insert(record.partition, position);
                        let numbers = self.numbers.entry(record.partition).or_default();
                        numbers.push(number(record));
                    }
                }
            }
        };
        let result = tokio::time::timeout(Duration::from_secs(60), reading).await;
        let counts = self.numbers.iter().map(|(id, numbers)| (id, numbers.len()));
        let counts: Vec<_> = counts.collect();
        assert!(result.is_ok(), "by partition within a minute: {counts:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_made_checked_and_never_changed() {
    let broker = Lent::take().await.unwrap();
    let config = config_of(&broker).validate().unwrap();
    let missing = topics::check(&config).await.unwrap_err().to_string();
    assert!(missing.contains("honeyguide.histograms.v1"), "{missing}");
    assert!(missing.contains("honeyguide topics apply"), "{missing}");
    let made = topics::apply(&config).await.unwrap();
    assert!(made.iter().all(|topic| topic.made && topic.partitions == 4));
    let again = topics::apply(&config).await.unwrap();
    assert!(again.iter().all(|topic| !topic.made));
    let other = Config {
        partitions: 8,
        ..config_of(&broker)
    };
    let other = other.validate().unwrap();
    let Err(ClientError::Topics(wrong)) = topics::apply(&other).await else {
        panic!("a wrong number of partitions was taken");
    };
    assert!(
        wrong
            .to_string()
            .contains("4 partitions, kafka.partitions is 8"),
        "{wrong}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_not_there_is_an_error_that_names_it() {
    let config = Config {
        brokers: "127.0.0.1:1".to_owned(),
        ..Config::default()
    };
    let error = KafkaProducer::connect(config.validate().unwrap()).await;
    let error = error.err().unwrap().to_string();
    assert!(error.contains("127.0.0.1:1"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_member_takes_partitions_over_where_the_old_one_committed() {
    let broker = Lent::take().await.unwrap();
    let config = with_topics(config_of(&broker)).await;
    let producer = KafkaProducer::connect(config.clone()).await.unwrap();
    assert_eq!(producer.partitions(Topic::Histograms), 4);
    publish(&producer, 0..100).await;
    let mut first_consumer = KafkaConsumer::join(&config, Topic::Histograms)
        .await
        .unwrap();
    let mut first = Member::default();
    first
        .read(&mut first_consumer, |member| member.count() == 100)
        .await;
    for (partition, numbers) in &first.numbers {
        let expected: Vec<u64> = (0..100)
            .filter(|n| n % 4 == u64::from(*partition))
            .collect();
        assert_eq!(numbers, &expected);
    }
    let mut second_consumer = KafkaConsumer::join(&config, Topic::Histograms)
        .await
        .unwrap();
    let mut second = Member::default();
    let is_shared = AtomicBool::new(false);
    tokio::join!(
        // It lets go of its partitions when it asks for more.
        first.read(&mut first_consumer, |_| is_shared.load(Relaxed)),
        async {
            let two = |member: &Member| member.assigned.len() == 2;
            second.read(&mut second_consumer, two).await;
            is_shared.store(true, Relaxed);
        }
    );
    assert_eq!(first.revoked.len(), 2);
    publish(&producer, 100..200).await;
    tokio::join!(
        first.read(&mut first_consumer, |member| member.count() == 150),
        second.read(&mut second_consumer, |member| member.count() == 50),
    );
    let mut all: Vec<u64> = [&first, &second]
        .into_iter()
        .flat_map(|member| member.numbers.values().flatten().copied())
        .collect();
    all.sort_unstable();
    assert_eq!(all, (0..200).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_begins_where_the_restored_state_ends() {
    let broker = Lent::take().await.unwrap();
    let config = with_topics(config_of(&broker)).await;
    let producer = KafkaProducer::connect(config.clone()).await.unwrap();
    publish(&producer, 0..40).await;
    let mut consumer = KafkaConsumer::join(&config, Topic::Histograms)
        .await
        .unwrap();
    let event = consumer.next().await.unwrap();
    let ConsumerEvent::Assigned(partitions) = event else {
        panic!("{event:?}");
    };
    let ends = |partition: &u32| Position {
        topic: Topic::Histograms,
        partition: *partition,
        offset: 7,
    };
    // The state is newer than what was committed.
    let committed: Vec<_> = partitions.iter().map(ends).collect();
    let earlier = committed.iter().map(|end| Position { offset: 3, ..*end });
    consumer.commit(&earlier.collect::<Vec<_>>()).await.unwrap();
    for position in committed {
        consumer.begin_at(position);
    }
    let mut member = Member::default();
    member
        .read(&mut consumer, |member| member.count() == 12)
        .await;
    for (partition, numbers) in &member.numbers {
        let expected = (7..10).map(|offset| offset * 4 + u64::from(*partition));
        assert_eq!(numbers, &expected.collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_loses_nothing_and_repeats_nothing() {
    let mut broker = Broker::start(Options::default());
    let config = with_topics(broker.config()).await;
    let producer = KafkaProducer::connect(config.clone()).await.unwrap();
    let publishing = tokio::spawn(async move { publish(&producer, 0..2000).await });
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        broker.cluster.restart(0).unwrap();
    }
    publishing.await.unwrap();
    let mut consumer = KafkaConsumer::join(&config, Topic::Histograms)
        .await
        .unwrap();
    let mut member = Member::default();
    member
        .read(&mut consumer, |member| member.count() >= 2000)
        .await;
    let mut all: Vec<u64> = member.numbers.into_values().flatten().collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all, (0..2000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_lose_their_leader_and_no_record() {
    let mut broker = Broker::start(Options {
        nodes: 3,
        heap_mb: 256,
        ..Options::default()
    });
    let config = Config {
        replication: 3,
        ..broker.config()
    };
    let config = config.validate().unwrap();
    topics::apply(&config).await.unwrap();
    let producer = KafkaProducer::connect(config.clone()).await.unwrap();
    let publishing = tokio::spawn(async move { publish(&producer, 0..3000).await });
    // Leaders are spread over the nodes: each death takes some.
    for node in 0..2 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        broker.cluster.kill(node).unwrap();
        tokio::time::sleep(Duration::from_secs(4)).await;
        broker.cluster.restart(node).unwrap();
    }
    publishing.await.unwrap();
    let mut consumer = KafkaConsumer::join(&config, Topic::Histograms)
        .await
        .unwrap();
    let mut member = Member::default();
    let whole = |member: &Member| {
        let numbers = member.numbers.values().flatten();
        numbers.collect::<std::collections::BTreeSet<_>>().len() == 3000
    };
    member.read(&mut consumer, whole).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_is_what_was_not_read_committed_or_not() {
    const RECORDS: usize = 400;
    let broker = Lent::take().await.unwrap();
    let config = with_topics(config_of(&broker)).await;
    let producer = KafkaProducer::connect(config.clone()).await.unwrap();
    publish(&producer, 0..RECORDS as u64).await;
    let mut consumer = KafkaConsumer::join(&config, Topic::Histograms)
        .await
        .unwrap();
    let lags = consumer.lags();
    let lag = || lags().values().sum::<u64>() as usize;
    let mut member = Member::default();
    member
        .read(&mut consumer, |member| member.count() > 0)
        .await;
    // Slowly, for longer than it takes to renew the numbers.
    for _ in 0..60 {
        let count = member.count();
        member
            .read(&mut consumer, |member| member.count() > count)
            .await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let read = member.count();
    let behind = lag();
    assert!(
        (RECORDS - read..RECORDS).contains(&behind),
        "{behind} behind after {read} of {RECORDS}"
    );
    member
        .read(&mut consumer, |member| member.count() == RECORDS)
        .await;
    member.read(&mut consumer, |_| lag() == 0).await;
    assert_eq!(lags().len(), 4, "every partition assigned has a lag");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_reads_everything_in_no_group_and_outlives_the_broker() {
    const RECORDS: u64 = 400;
    let mut broker = Broker::start(Options::default());
    // Asked before the topic is there.
    let unready = broker.config().validate().unwrap();
    let mut early = KafkaTail::new(unready, Topic::Histograms);
    assert!(early.next().await.is_err());
    let config = with_topics(broker.config()).await;
    let producer = KafkaProducer::connect(config.clone()).await.unwrap();
    publish(&producer, 0..RECORDS).await;
    let mut late = KafkaTail::new(config, Topic::Histograms);
    let mut seen = [BTreeMap::new(), BTreeMap::new()];
    for round in 1..=2 {
        for (tail, seen) in [&mut early, &mut late].into_iter().zip(&mut seen) {
            let reading = async {
                while seen.len() < (round * RECORDS) as usize {
                    // An error is the broker's absence; it may be asked again.
                    match tail.next().await {
                        Ok(record) => *seen.entry(number(&record)).or_insert(0) += 1,
                        Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
                    }
                }
            };
            let read = tokio::time::timeout(Duration::from_secs(60), reading).await;
            assert!(read.is_ok(), "{} of round {round}", seen.len());
        }
        if round == 1 {
            broker.cluster.restart(0).unwrap();
            publish(&producer, RECORDS..2 * RECORDS).await;
        }
    }
    assert!(
        seen.iter()
            .all(|seen| seen.keys().copied().eq(0..2 * RECORDS))
    );
}
