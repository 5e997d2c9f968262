//! Requests by API and outcome against a real Apache Kafka. Needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(all(feature = "broker-tests", feature = "kernel-tests"))]

#[path = "../../sensor/tests/requests/mod.rs"]
mod requests;

use std::time::Duration;

use kafka_node::{Cluster, Jars, Options};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    producer::{FutureProducer, FutureRecord},
};

const TOPIC: &str = "orders";
const MESSAGES: u64 = 300;
const TIMEOUT: Duration = Duration::from_secs(20);

/// Writes every message with a request of its own.
async fn produce(client: &ClientConfig) {
    let producer: FutureProducer = client
        .clone()
        .set("linger.ms", "0")
        .set("batch.num.messages", "1")
        .set("acks", "all")
        .create()
        .unwrap();
    for number in 0..MESSAGES {
        let payload = "x".repeat(number as usize % 50 * 20 + 1);
        let record = FutureRecord::<(), _>::to(TOPIC).payload(&payload);
        producer.send(record, TIMEOUT).await.unwrap();
    }
}

/// Reads all of them.
fn consume(client: &ClientConfig) {
    let consumer: BaseConsumer = client.clone().set("group.id", "test").create().unwrap();
    let mut partitions = TopicPartitionList::new();
    partitions
        .add_partition_offset(TOPIC, 0, Offset::Beginning)
        .unwrap();
    consumer.assign(&partitions).unwrap();
    for _ in 0..MESSAGES {
        consumer.poll(TIMEOUT).unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_to_a_broker_are_counted_by_api() {
    let directory = tempfile::tempdir().unwrap();
    let jars = Jars::find().unwrap();
    let cluster = Cluster::start(&jars, directory.path(), Options::default()).unwrap();
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", cluster.bootstrap());
    let admin: AdminClient<DefaultClientContext> = client.create().unwrap();
    let topic = NewTopic::new(TOPIC, 1, TopicReplication::Fixed(1));
    let made = admin
        .create_topics(
            [&topic],
            &AdminOptions::new().operation_timeout(Some(TIMEOUT)),
        )
        .await
        .unwrap();
    made.into_iter().for_each(|topic| {
        topic.unwrap();
    });

    let running = requests::Running::start(requests::config());
    produce(&client).await;
    let read = client.clone();
    tokio::task::spawn_blocking(move || consume(&read))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let found = running.stop("/java").await;
    println!("{:?} {:?}", found.by_route, found.losses);
    let routes = found.routes();
    assert_eq!(routes[&("Produce", 2)], MESSAGES);
    for api in ["ApiVersions", "Metadata", "Fetch"] {
        assert!(routes[&(api, 2)] > 0, "{api}");
    }
    drop(cluster);
}
