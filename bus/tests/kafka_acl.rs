//! The rights that docs/guide.md gives to each part are enough, and no part
//! can do what another one does.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "broker-tests")]

use std::{
    ffi::CString,
    ptr,
    time::{Duration, SystemTime},
};

use honeyguide_bus::{
    Consumer, ConsumerEvent, Position, Producer, Record, Topic,
    kafka::{
        Config, KafkaConsumer, KafkaProducer, KafkaTail, PartitionReader, PartitionWriter,
        RangeReader, RecordRef, Secret, SecurityProtocol, ValidConfig, topics,
    },
    range::Range,
    tail::Tail,
};
use kafka_node::{Cluster, Jars, Options};
use rdkafka::{
    ClientConfig,
    admin::AdminClient,
    bindings::{
        rd_kafka_AclBinding_new, rd_kafka_AclOperation_t as Operation,
        rd_kafka_AclPermissionType_t as Permission, rd_kafka_CreateAcls,
        rd_kafka_CreateAcls_result_acls, rd_kafka_ResourcePatternType_t as Pattern,
        rd_kafka_ResourceType_t as Resource, rd_kafka_acl_result_error, rd_kafka_error_string,
        rd_kafka_event_CreateAcls_result, rd_kafka_event_destroy, rd_kafka_queue_destroy,
        rd_kafka_queue_new, rd_kafka_queue_poll,
    },
    client::DefaultClientContext,
};

const DESCRIBE: Operation = Operation::RD_KAFKA_ACL_OPERATION_DESCRIBE;
const DESCRIBE_CONFIGS: Operation = Operation::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS;
const READ: Operation = Operation::RD_KAFKA_ACL_OPERATION_READ;
const WRITE: Operation = Operation::RD_KAFKA_ACL_OPERATION_WRITE;
const TOPIC: Resource = Resource::RD_KAFKA_RESOURCE_TOPIC;
const GROUP: Resource = Resource::RD_KAFKA_RESOURCE_GROUP;
const TRANSACTIONAL_ID: Resource = Resource::RD_KAFKA_RESOURCE_TRANSACTIONAL_ID;

/// A row of docs/guide.md: a name ending in `*` is a prefix.
type Right = (&'static str, Resource, &'static str, &'static [Operation]);

const RIGHTS: [Right; 15] = [
    ("sensor", TOPIC, "honeyguide.histograms.v1", &[WRITE]),
    (
        "sensor",
        TOPIC,
        "honeyguide.*",
        &[DESCRIBE, DESCRIBE_CONFIGS],
    ),
    ("analyzer", TOPIC, "honeyguide.histograms.v1", &[READ]),
    ("analyzer", TOPIC, "honeyguide.state.v1", &[READ, WRITE]),
    ("analyzer", TOPIC, "honeyguide.history.v1", &[READ, WRITE]),
    (
        "analyzer",
        TRANSACTIONAL_ID,
        "honeyguide-analyzer-state-*",
        &[WRITE],
    ),
    ("analyzer", TOPIC, "honeyguide.forecasts.v1", &[WRITE]),
    ("analyzer", TOPIC, "honeyguide.alerts.v1", &[WRITE]),
    ("analyzer", TOPIC, "honeyguide.hints.v1", &[WRITE]),
    ("sensor", TOPIC, "honeyguide.hints.v1", &[READ]),
    (
        "analyzer",
        TOPIC,
        "honeyguide.*",
        &[DESCRIBE, DESCRIBE_CONFIGS],
    ),
    ("analyzer", GROUP, "honeyguide-analyzer", &[READ]),
    ("replay", TOPIC, "honeyguide.histograms.v1", &[READ]),
    ("replay", TOPIC, "honeyguide.alerts.v1", &[READ]),
    ("replay", TOPIC, "honeyguide.hints.v1", &[DESCRIBE]),
];

/// Gives the rights, as somebody who may.
fn give_rights(brokers: &str) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .unwrap();
    let client = admin.inner().native_ptr();
    for (user, resource, name, operations) in RIGHTS {
        for operation in operations {
            let (name, pattern) = match name.strip_suffix('*') {
                Some(prefix) => (prefix, Pattern::RD_KAFKA_RESOURCE_PATTERN_PREFIXED),
                None => (name, Pattern::RD_KAFKA_RESOURCE_PATTERN_LITERAL),
            };
            let [name, user, host] =
                [name, &format!("User:{user}"), "*"].map(|text| CString::new(text).unwrap());
            let mut why = [0; 256];
            // SAFETY: the client and all strings outlive the calls, lengths are
            // those of the buffers, and what was made is destroyed after use.
            // The binding itself is some bytes that a test may leave.
            unsafe {
                let mut binding = rd_kafka_AclBinding_new(
                    resource,
                    name.as_ptr(),
                    pattern,
                    user.as_ptr(),
                    host.as_ptr(),
                    *operation,
                    Permission::RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW,
                    why.as_mut_ptr(),
                    why.len(),
                );
                assert!(!binding.is_null());
                let queue = rd_kafka_queue_new(client);
                rd_kafka_CreateAcls(client, &raw mut binding, 1, ptr::null(), queue);
                let event = rd_kafka_queue_poll(queue, 30_000);
                assert!(!event.is_null(), "no answer");
                let result = rd_kafka_event_CreateAcls_result(event);
                let mut count = 0;
                let results = rd_kafka_CreateAcls_result_acls(result, &raw mut count);
                assert_eq!(count, 1);
                let error = rd_kafka_acl_result_error(*results);
                assert!(
                    error.is_null(),
                    "{:?}",
                    std::ffi::CStr::from_ptr(rd_kafka_error_string(error))
                );
                rd_kafka_event_destroy(event);
                rd_kafka_queue_destroy(queue);
            }
        }
    }
}

fn start(directory: &std::path::Path) -> Cluster {
    let properties = [
        ("sasl.enabled.mechanisms", "SCRAM-SHA-512"),
        (
            "listener.name.client.scram-sha-512.sasl.jaas.config",
            "org.apache.kafka.common.security.scram.ScramLoginModule required;",
        ),
        (
            "authorizer.class.name",
            "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        ),
        ("super.users", "User:ANONYMOUS"),
    ];
    let options = Options {
        protocol: "SASL_PLAINTEXT".to_owned(),
        properties: properties
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        scram: ["sensor", "analyzer", "replay"]
            .map(|name| format!("SCRAM-SHA-512=[name={name},password={name}-secret]"))
            .into(),
        ..Options::default()
    };
    Cluster::start(&Jars::find().unwrap(), directory, options).unwrap()
}

fn config(cluster: &Cluster, user: &str) -> ValidConfig {
    let config = Config {
        brokers: cluster.bootstrap(),
        partitions: 1,
        security_protocol: SecurityProtocol::SaslPlaintext,
        sasl_username: user.to_owned(),
        sasl_password: Secret::new(format!("{user}-secret")),
        ..Config::default()
    };
    config.validate().unwrap()
}

fn record(topic: Topic) -> Record {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Record {
        topic,
        partition: 0,
        key: b"key".to_vec(),
        timestamp_ns: now.unwrap().as_nanos() as u64,
        payload: vec![1],
    }
}

/// What may be published goes through, all else is refused.
async fn publishes(producer: &KafkaProducer, allowed: &[Topic]) {
    for topic in Topic::ALL {
        let result = producer.publish(record(topic)).await;
        match result {
            Ok(()) => assert!(allowed.contains(&topic), "{topic:?} is open"),
            Err(error) => {
                assert!(!allowed.contains(&topic), "{topic:?}: {error}");
                assert!(error.to_string().contains("authorization"), "{error}");
            }
        }
    }
}

fn read(config: &ValidConfig, topic: Topic) -> Result<usize, String> {
    tokio::task::block_in_place(|| {
        let reader = RangeReader::open(config, topic, &Range::default());
        let mut records = reader.map_err(|error| error.to_string())?;
        records.try_fold(0, |count, record| {
            record.map_err(|error| error.to_string())?;
            Ok(count + 1)
        })
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn each_part_can_do_what_it_must_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = start(directory.path());
    let admin = Config {
        brokers: cluster.internal_bootstrap(),
        partitions: 1,
        ..Config::default()
    };
    topics::apply(&admin.validate().unwrap()).await.unwrap();
    give_rights(&cluster.internal_bootstrap());
    let [sensor, analyzer, replay] =
        ["sensor", "analyzer", "replay"].map(|user| config(&cluster, user));

    let producer = KafkaProducer::connect(sensor.clone()).await.unwrap();
    publishes(&producer, &[Topic::Histograms]).await;
    let refused = read(&sensor, Topic::Histograms).unwrap_err();
    assert!(refused.contains("authorization"), "{refused}");

    let mut consumer = KafkaConsumer::join(&analyzer, Topic::Histograms)
        .await
        .unwrap();
    let reading = async {
        loop {
            if let ConsumerEvent::Delivery(delivery) = consumer.next().await.unwrap() {
                return delivery.offset;
            }
        }
    };
    let offset = tokio::time::timeout(Duration::from_secs(20), reading).await;
    let position = Position {
        topic: Topic::Histograms,
        partition: 0,
        offset: offset.unwrap() + 1,
    };
    consumer.commit(&[position]).await.unwrap();
    let producer = KafkaProducer::connect(analyzer.clone()).await.unwrap();
    let own = [
        Topic::State,
        Topic::History,
        Topic::Forecasts,
        Topic::Alerts,
        Topic::Hints,
    ];
    publishes(&producer, &own).await;
    let claim = |config: ValidConfig| {
        tokio::task::spawn_blocking(move || PartitionWriter::claim(&config, 0))
    };
    let writer = claim(analyzer.clone()).await.unwrap().unwrap();
    let last = |offsets: &[u64]| {
        (
            Topic::State,
            b"head".to_vec(),
            offsets[0].to_be_bytes().into(),
        )
    };
    let records = vec![(Topic::History, Vec::new(), vec![2])];
    writer.write(records, last).await.unwrap();
    let mut heads = 0;
    tokio::task::block_in_place(|| {
        let reader = PartitionReader::connect(&analyzer).unwrap();
        let bounds = reader.bounds(Topic::State, 0).unwrap();
        let take = |record: RecordRef<'_>| heads += usize::from(record.key == b"head");
        reader.read(Topic::State, 0, bounds, take).unwrap();
    });
    assert_eq!(heads, 1);
    assert!(claim(sensor.clone()).await.unwrap().is_err());

    assert_eq!(read(&replay, Topic::Histograms), Ok(1));
    assert_eq!(read(&replay, Topic::Alerts), Ok(1));
    // The sensor follows hints, in no group.
    let mut hints = KafkaTail::new(sensor, Topic::Hints);
    let hint = tokio::time::timeout(Duration::from_secs(20), hints.next());
    assert_eq!(hint.await.unwrap().unwrap().topic, Topic::Hints);
    let refused = read(&replay, Topic::Hints).unwrap_err();
    assert!(refused.contains("authorization"), "{refused}");
}
