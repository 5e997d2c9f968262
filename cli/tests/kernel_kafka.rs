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

/// Takes small messages only.
const REFUSING: &str = "small";
const REFUSED: u64 = 20;

/// Writes every message with a request of its own.
async fn produce(client: &ClientConfig) {
    let producer: FutureProducer = client
        .clone()
        .set("linger.ms", "0")
        .set("batch.num.messages", "1")
        .set("acks", "all")
        .set("retries", "0")
        .create()
        .unwrap();
    for number in 0..MESSAGES {
        let payload = "x".repeat(number as usize % 50 * 20 + 1);
        let record = FutureRecord::<(), _>::to(TOPIC).payload(&payload);
        producer.send(record, TIMEOUT).await.unwrap();
    }
    let payload = "x".repeat(5000);
    for _ in 0..REFUSED {
        let record = FutureRecord::<(), _>::to(REFUSING).payload(&payload);
        producer.send(record, TIMEOUT).await.unwrap_err();
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

/// Makes the topics; an error of each one says that it is there.
async fn make_topics(client: &ClientConfig) -> Vec<bool> {
    let admin: AdminClient<DefaultClientContext> = client.create().unwrap();
    let topic = |name| NewTopic::new(name, 1, TopicReplication::Fixed(1));
    let topics = [
        topic(TOPIC),
        topic(REFUSING).set("max.message.bytes", "1000"),
    ];
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
    let made = admin.create_topics(&topics, &options).await.unwrap();
    made.iter().map(Result::is_ok).collect()
}

/// The same requests are seen by the broker and by its client.
#[tokio::test(flavor = "multi_thread")]
async fn requests_to_a_broker_are_counted_by_api_and_outcome() {
    let directory = tempfile::tempdir().unwrap();
    let jars = Jars::find().unwrap();
    let cluster = Cluster::start(&jars, directory.path(), Options::default()).unwrap();
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", cluster.bootstrap());
    assert_eq!(make_topics(&client).await, [true; 2]);

    for of_client in [false, true] {
        let running = requests::Running::start(requests::client_config());
        produce(&client).await;
        assert_eq!(make_topics(&client).await, [false; 2]);
        let read = client.clone();
        tokio::task::spawn_blocking(move || consume(&read))
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let routes = if of_client {
            running.stop(&requests::own_name()).await.by_client_route
        } else {
            running.stop("/java").await.by_route
        };
        println!("{routes:?}");
        let count = |api: &str, class| routes.get(&(api.to_owned(), class)).copied().unwrap_or(0);
        assert_eq!(count("Produce", 2), MESSAGES);
        // MESSAGE_TOO_LARGE.
        assert_eq!(count("Produce", 4), REFUSED);
        if !of_client {
            // Its client asks for metadata meanwhile.
            assert_eq!(count("CreateTopics", 4), 1);
        }
        for api in ["ApiVersions", "Metadata", "Fetch"] {
            assert!(count(api, 2) > 0, "{api}");
        }
        let unknown: u64 = routes
            .iter()
            .filter(|((_, class), _)| *class == 0)
            .map(|(_, count)| count)
            .sum();
        assert_eq!(unknown, 0);
    }
    drop(cluster);
}
