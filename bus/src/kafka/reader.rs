//! Reading a stretch of a partition, outside of any group.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use rdkafka::{
    Message, Offset as KafkaOffset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};

use super::{
    ClientError, ValidConfig,
    client::{Context, REQUEST_TIMEOUT, set_token},
};
use crate::{Offset, PartitionId, Topic};

/// Without a record or an answer for so long, the broker counts as away.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// A record as it is read back.
#[derive(Clone, Copy, Debug)]
pub struct RecordRef<'a> {
    /// Its place in the partition.
    pub offset: Offset,
    /// Nanoseconds since the Unix epoch, as [`crate::Record::timestamp_ns`].
    pub timestamp_ns: u64,
    /// Empty if it has none.
    pub key: &'a [u8],
    /// Empty if it has none.
    pub value: &'a [u8],
}

/// Reads records whose transaction was committed, and those without one.
pub struct PartitionReader {
    consumer: BaseConsumer<Context>,
    brokers: String,
}

impl PartitionReader {
    /// Makes the client; the brokers are asked at the first read.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn connect(config: &ValidConfig) -> Result<Self, ClientError> {
        let mut client = config.client();
        // No member of a group: nothing is committed.
        client
            .set("group.id", format!("{}-reader", config.config.group))
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed")
            .set("fetch.wait.max.ms", "10")
            // Several partitions are read at once, and memory that is used again
            // costs less than new memory.
            .set("max.partition.fetch.bytes", "4194304")
            .set("queued.max.messages.kbytes", "16384");
        let consumer: BaseConsumer<Context> = client
            .create_with_context(Context::new(config))
            .map_err(ClientError::Configuration)?;
        set_token(consumer.client(), config)?;
        Ok(Self {
            consumer,
            brokers: config.config.brokers.clone(),
        })
    }

    /// First offset that is kept, and the one after the last.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`].
    pub fn bounds(
        &self,
        topic: Topic,
        partition: PartitionId,
    ) -> Result<Range<Offset>, ClientError> {
        let (first, end) = self
            .consumer
            .fetch_watermarks(topic.name(), partition.cast_signed(), REQUEST_TIMEOUT)
            .map_err(|source| self.unreachable(source))?;
        Ok(first.max(0).cast_unsigned()..end.max(0).cast_unsigned())
    }

    /// Hands the records of `range` that are kept to `take`. Blocks.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn read(
        &self,
        topic: Topic,
        partition: PartitionId,
        range: Range<Offset>,
        mut take: impl FnMut(RecordRef<'_>),
    ) -> Result<(), ClientError> {
        if range.is_empty() {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        let begin = KafkaOffset::Offset(range.start.cast_signed());
        list.add_partition_offset(topic.name(), partition.cast_signed(), begin)
            .map_err(ClientError::Configuration)?;
        self.consumer
            .assign(&list)
            .map_err(ClientError::Configuration)?;
        let mut heard = Instant::now();
        loop {
            match self.consumer.poll(Duration::from_millis(500)) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    let offset = message.offset().cast_unsigned();
                    if offset < range.end {
                        let timestamp_ms = message.timestamp().to_millis().unwrap_or(0);
                        take(RecordRef {
                            offset,
                            timestamp_ns: timestamp_ms.max(0).cast_unsigned() * 1_000_000,
                            key: message.key().unwrap_or_default(),
                            value: message.payload().unwrap_or_default(),
                        });
                    }
                    if offset + 1 >= range.end {
                        break;
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => break,
                // librdkafka tries again by itself.
                Some(Err(error)) if heard.elapsed() > SILENCE_MAX => {
                    return Err(self.unreachable(error));
                }
                None if heard.elapsed() > SILENCE_MAX => {
                    return Err(self.unreachable(KafkaError::NoMessageReceived));
                }
                Some(Err(_)) | None => {}
            }
        }
        self.consumer.unassign().map_err(ClientError::Configuration)
    }

    fn unreachable(&self, source: KafkaError) -> ClientError {
        ClientError::Unreachable {
            brokers: self.brokers.clone(),
            source,
        }
    }
}
