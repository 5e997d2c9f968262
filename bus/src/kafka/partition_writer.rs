//! Writing to one partition number of several topics, all or nothing, by one
//! writer at a time.
//!
//! The transactional id is that of the partition, so that whoever claims it
//! ends the transaction of the writer before and fences it: an owner that was
//! paused and does not know yet that it lost the partition can write nothing
//! (KIP-98).

use std::time::Duration;

use futures_util::future::join_all;
use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    producer::{FutureProducer, FutureRecord, Producer as _},
};
use tracing::warn;

use super::{ClientError, ValidConfig, client::Context};
use crate::{Offset, PartitionId, Topic};

/// How long the coordinator may take.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a record waits for room in librdkafka's queue.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(30);

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Another writer has claimed the partition since.
    #[error("another analyzer writes partition {0} now")]
    Fenced(PartitionId),
    /// The broker does not take it now.
    #[error("kafka: {0}")]
    Broker(KafkaError),
}

/// The only writer of a partition, until another one claims it.
pub struct PartitionWriter {
    producer: FutureProducer<Context>,
    partition: PartitionId,
}

impl PartitionWriter {
    /// Claims a partition: whoever wrote before is fenced, and what it left
    /// unfinished is undone. Blocks.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn claim(config: &ValidConfig, partition: PartitionId) -> Result<Self, ClientError> {
        let mut client = config.client();
        let id = format!("{}-state-{partition}", config.config.group);
        let settings = [
            ("transactional.id", id.as_str()),
            ("transaction.timeout.ms", "60000"),
            ("compression.type", "zstd"),
            ("linger.ms", "5"),
            ("batch.size", "1000000"),
        ];
        for (property, value) in settings {
            client.set(property, value);
        }
        let producer: FutureProducer<Context> = client
            .create_with_context(Context::new(config))
            .map_err(ClientError::Configuration)?;
        producer
            .init_transactions(TRANSACTION_TIMEOUT)
            .map_err(|source| ClientError::Unreachable {
                brokers: config.config.brokers.clone(),
                source,
            })?;
        Ok(Self {
            producer,
            partition,
        })
    }

    /// Writes (topic, key, value) records, then the one that `last` makes of
    /// their offsets; all are there afterwards, or none.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn write(
        &self,
        records: Vec<(Topic, Vec<u8>, Vec<u8>)>,
        last: impl FnOnce(&[Offset]) -> (Topic, Vec<u8>, Vec<u8>),
    ) -> Result<(), WriteError> {
        self.producer
            .begin_transaction()
            .map_err(|error| self.error(error))?;
        let written = self.send_all(records, last).await;
        // Committing blocks on the coordinator.
        let producer = self.producer.clone();
        let ended = tokio::task::spawn_blocking(move || match written {
            Ok(()) => producer.commit_transaction(TRANSACTION_TIMEOUT),
            Err(error) => Err(error),
        })
        .await
        .unwrap_or(Err(KafkaError::Canceled));
        let Err(error) = ended else {
            return Ok(());
        };
        let error = self.error(error);
        if let WriteError::Broker(_) = error {
            let producer = self.producer.clone();
            let aborted = tokio::task::spawn_blocking(move || {
                producer.abort_transaction(TRANSACTION_TIMEOUT)
            });
            if let Ok(Err(error)) = aborted.await {
                warn!(partition = self.partition, %error, "kafka: transaction not ended");
            }
        }
        Err(error)
    }

    /// Whether this writer can write no more and has to be claimed anew.
    pub fn is_fatal(&self) -> bool {
        self.producer.client().fatal_error().is_some()
    }

    async fn send_all(
        &self,
        records: Vec<(Topic, Vec<u8>, Vec<u8>)>,
        last: impl FnOnce(&[Offset]) -> (Topic, Vec<u8>, Vec<u8>),
    ) -> Result<(), KafkaError> {
        let sent = records.iter().map(|record| self.send(record));
        let offsets: Result<Vec<Offset>, KafkaError> = join_all(sent).await.into_iter().collect();
        self.send(&last(&offsets?)).await.map(drop)
    }

    async fn send(
        &self,
        (topic, key, value): &(Topic, Vec<u8>, Vec<u8>),
    ) -> Result<Offset, KafkaError> {
        let record = FutureRecord::to(topic.name())
            .partition(self.partition.cast_signed())
            .key(key)
            .payload(value);
        match self.producer.send(record, QUEUE_TIMEOUT).await {
            Ok(delivery) => Ok(delivery.offset.max(0).cast_unsigned()),
            Err((error, _)) => Err(error),
        }
    }

    fn error(&self, error: KafkaError) -> WriteError {
        let fenced = [
            RDKafkaErrorCode::Fenced,
            RDKafkaErrorCode::InvalidProducerEpoch,
            RDKafkaErrorCode::ProducerFenced,
        ];
        let code = self.producer.client().fatal_error().map(|(code, _)| code);
        if code
            .or(error.rdkafka_error_code())
            .is_some_and(|code| fenced.contains(&code))
        {
            return WriteError::Fenced(self.partition);
        }
        WriteError::Broker(error)
    }
}
