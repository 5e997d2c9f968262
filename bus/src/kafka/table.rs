//! Reading a partition of a compacted topic as a table.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};

use super::{
    ClientError, ValidConfig,
    client::{Context, REQUEST_TIMEOUT, set_token},
};
use crate::{PartitionId, Topic};

/// How long the broker may stay silent while a table is read.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// The newest value of each key of a partition, up to its end now. Blocks.
///
/// # Errors
/// [`ClientError::Unreachable`].
pub fn read_table(
    config: &ValidConfig,
    topic: Topic,
    partition: PartitionId,
) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, ClientError> {
    let unreachable = |source| ClientError::Unreachable {
        brokers: config.config.brokers.clone(),
        source,
    };
    let mut client = config.client();
    // No member of a group: nothing is committed.
    client
        .set("group.id", format!("{}-reader", config.config.group))
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "10");
    let consumer: BaseConsumer<Context> = client
        .create_with_context(Context::new(config))
        .map_err(ClientError::Configuration)?;
    set_token(consumer.client(), config)?;
    let id = partition.cast_signed();
    let (_, end) = consumer
        .fetch_watermarks(topic.name(), id, REQUEST_TIMEOUT)
        .map_err(unreachable)?;
    let mut table = BTreeMap::new();
    if end == 0 {
        return Ok(table);
    }
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic.name(), id, Offset::Beginning)
        .map_err(ClientError::Configuration)?;
    consumer.assign(&list).map_err(ClientError::Configuration)?;
    let mut heard = Instant::now();
    loop {
        match consumer.poll(Duration::from_millis(500)) {
            Some(Ok(message)) => {
                heard = Instant::now();
                let key = message.key().unwrap_or_default().to_vec();
                match message.payload() {
                    Some(value) => drop(table.insert(key, value.to_vec())),
                    None => drop(table.remove(&key)),
                }
                if message.offset() + 1 >= end {
                    return Ok(table);
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(table),
            // librdkafka tries again by itself.
            Some(Err(error)) if heard.elapsed() > SILENCE_MAX => return Err(unreachable(error)),
            None if heard.elapsed() > SILENCE_MAX => {
                return Err(unreachable(KafkaError::NoMessageReceived));
            }
            Some(Err(_)) | None => {}
        }
    }
}
