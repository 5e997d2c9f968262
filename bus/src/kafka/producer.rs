//! Publishing to Kafka.

use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock},
    time::Duration,
};

use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    producer::{FutureProducer, FutureRecord, Producer as _},
};
use tracing::warn;

use super::{ClientError, ValidConfig, client::Context, topics};
use crate::{Producer, PublishError, Record, Topic};

/// How long librdkafka tries before a record is given back.
const DELIVERY_TIMEOUT_MS: &str = "10000";
/// How long a record waits for room in librdkafka's queue.
const QUEUE_TIMEOUT: Duration = Duration::from_millis(500);

/// An idempotent producer that waits for all in-sync replicas.
pub struct KafkaProducer {
    config: ValidConfig,
    producer: RwLock<FutureProducer<Context>>,
    partitions: BTreeMap<Topic, u32>,
}

impl KafkaProducer {
    /// Connects, and checks that the topics exist as they should.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn connect(config: ValidConfig) -> Result<Self, ClientError> {
        let partitions = topics::check(&config).await?;
        let producer = create(&config)?;
        Ok(Self {
            config,
            producer: RwLock::new(producer),
            partitions,
        })
    }

    /// After a fatal error the idempotence of the old producer is void.
    fn replace_if_fatal(&self) {
        let mut producer = self
            .producer
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((code, why)) = producer.client().fatal_error() {
            warn!(%code, "kafka: the producer starts anew: {why}");
            match create(&self.config) {
                Ok(new) => *producer = new,
                Err(error) => warn!(%error, "kafka: no new producer"),
            }
        }
    }
}

fn create(config: &ValidConfig) -> Result<FutureProducer<Context>, ClientError> {
    let mut client = config.client();
    let defaults = [
        ("enable.idempotence", "true"),
        ("acks", "all"),
        ("compression.type", "zstd"),
        ("linger.ms", "20"),
        ("batch.size", "1000000"),
        ("message.timeout.ms", DELIVERY_TIMEOUT_MS),
        ("queue.buffering.max.kbytes", "65536"),
    ];
    for (property, value) in defaults {
        if client.get(property).is_none() {
            client.set(property, value);
        }
    }
    client
        .create_with_context(Context::new(config))
        .map_err(ClientError::Configuration)
}

impl Producer for KafkaProducer {
    fn partitions(&self, topic: Topic) -> u32 {
        self.partitions.get(&topic).copied().unwrap_or(1)
    }

    async fn publish(&self, record: Record) -> Result<(), PublishError> {
        if record.partition >= self.partitions(record.topic) {
            return Err(PublishError::NoSuchPartition(Box::new(record)));
        }
        // Clones share the client.
        let producer = self
            .producer
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let message = FutureRecord::to(record.topic.name())
            .partition(record.partition.cast_signed())
            .key(&record.key)
            .timestamp((record.timestamp_ns / 1_000_000).cast_signed());
        let message = match record.payload.as_slice() {
            // What a compacted topic needs to forget a key.
            [] => message,
            payload => message.payload(payload),
        };
        let Err((error, _)) = producer.send(message, QUEUE_TIMEOUT).await else {
            return Ok(());
        };
        self.replace_if_fatal();
        let record = Box::new(record);
        Err(match error {
            KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge) => {
                PublishError::TooLarge(record)
            }
            KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => {
                PublishError::Full(record)
            }
            // What else was in its batch comes back as unavailable, to be
            // offered again without it.
            error @ KafkaError::MessageProduction(
                RDKafkaErrorCode::InvalidTimestamp | RDKafkaErrorCode::InvalidRecord,
            ) => PublishError::Refused {
                record,
                why: error.to_string(),
            },
            error => PublishError::Unavailable {
                record,
                why: error.to_string(),
            },
        })
    }
}
