//! Following a topic of Kafka, in no group.

use std::{sync::Arc, time::Duration};

use rdkafka::{
    Message, Offset as KafkaOffset, TopicPartitionList,
    consumer::{Consumer as _, StreamConsumer},
    error::{KafkaError, RDKafkaErrorCode},
};

use super::{
    ValidConfig,
    client::{Context, REQUEST_TIMEOUT, set_token},
};
use crate::{ConsumeError, Record, Topic, tail::Tail};

/// Kilobytes read ahead.
const AHEAD_KB: &str = "1024";
/// How often it is looked whether the topic has other partitions now.
const PARTITIONS_AGAIN: Duration = Duration::from_secs(300);

/// Reads all partitions of a topic from their beginning. Connects when it is
/// first asked, and again after an error; a broker that is away is waited for.
pub struct KafkaTail {
    config: ValidConfig,
    topic: Topic,
    connected: Option<Connected>,
}

struct Connected {
    consumer: Arc<StreamConsumer<Context>>,
    partitions: usize,
    look_again: tokio::time::Instant,
}

impl KafkaTail {
    /// Will follow `topic`.
    pub fn new(config: ValidConfig, topic: Topic) -> Self {
        Self {
            config,
            topic,
            connected: None,
        }
    }

    fn client(&self) -> Result<StreamConsumer<Context>, ConsumeError> {
        let mut client = self.config.client();
        // No member of a group: nothing is committed.
        client
            .set("group.id", format!("{}-tail", self.config.config.group))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "false")
            .set("auto.offset.reset", "earliest")
            .set("queued.max.messages.kbytes", AHEAD_KB);
        let consumer: StreamConsumer<Context> = client
            .create_with_context(Context::new(&self.config))
            .map_err(broker)?;
        set_token(consumer.client(), &self.config).map_err(broker)?;
        Ok(consumer)
    }

    async fn connect(&self) -> Result<Connected, ConsumeError> {
        let consumer = Arc::new(self.client()?);
        let partitions = partitions(&consumer, self.topic).await?;
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition_offset(self.topic.name(), partition as i32, KafkaOffset::Beginning)
                .map_err(broker)?;
        }
        consumer.assign(&list).map_err(broker)?;
        Ok(Connected {
            consumer,
            partitions,
            look_again: tokio::time::Instant::now() + PARTITIONS_AGAIN,
        })
    }
}

/// Number of partitions; blocks a thread of its own meanwhile.
async fn partitions(
    consumer: &Arc<StreamConsumer<Context>>,
    topic: Topic,
) -> Result<usize, ConsumeError> {
    let consumer = Arc::clone(consumer);
    let asked = tokio::task::spawn_blocking(move || {
        consumer.fetch_metadata(Some(topic.name()), REQUEST_TIMEOUT)
    });
    let metadata = asked.await.map_err(broker)?.map_err(broker)?;
    let found = metadata
        .topics()
        .first()
        .map_or(0, |found| found.partitions().len());
    if found == 0 {
        let missing = format!(
            "there is no topic {} (`honeyguide topics apply`)",
            topic.name()
        );
        return Err(ConsumeError::Broker(missing));
    }
    Ok(found)
}

fn broker(error: impl std::fmt::Display) -> ConsumeError {
    ConsumeError::Broker(error.to_string())
}

impl Tail for KafkaTail {
    async fn next(&mut self) -> Result<Record, ConsumeError> {
        loop {
            let connected = match self.connected.take() {
                Some(connected) => connected,
                None => self.connect().await?,
            };
            let connected = self.connected.insert(connected);
            let received = tokio::time::timeout_at(connected.look_again, connected.consumer.recv());
            match received.await {
                Ok(Ok(message)) => {
                    let timestamp_ms = message.timestamp().to_millis().unwrap_or(0);
                    return Ok(Record {
                        topic: self.topic,
                        partition: message.partition().cast_unsigned(),
                        key: message.key().unwrap_or_default().to_vec(),
                        timestamp_ns: timestamp_ms.max(0).cast_unsigned() * 1_000_000,
                        payload: message.payload().unwrap_or_default().to_vec(),
                    });
                }
                // The library looks for the coordinator of the group it is named
                // after, though it joins none; without the right to it nothing is
                // missing.
                Ok(Err(KafkaError::MessageConsumption(
                    RDKafkaErrorCode::GroupAuthorizationFailed,
                ))) => {}
                Ok(Err(error)) => {
                    // The library connects again by itself while it can.
                    let fatal = connected.consumer.client().fatal_error().is_some();
                    if fatal {
                        self.connected = None;
                    }
                    return Err(broker(error));
                }
                Err(_) => {
                    connected.look_again += PARTITIONS_AGAIN;
                    let now = partitions(&connected.consumer, self.topic).await?;
                    if now != connected.partitions {
                        self.connected = None;
                    }
                }
            }
        }
    }
}
