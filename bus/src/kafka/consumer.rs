//! Reading from Kafka as a member of a group.
//!
//! librdkafka asks for partitions to be taken over or let go in a callback.
//! Here both wait: partitions are let go when [`KafkaConsumer::next`] is called
//! after the event said so, when their state is stored; and they are read from
//! where their restored state ends.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use rdkafka::{
    ClientContext, Message, Offset as KafkaOffset, Statistics, TopicPartitionList,
    client::OAuthToken,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, StreamConsumer},
    error::KafkaError,
    types::RDKafkaRespErr,
};
use tokio::sync::Notify;
use tracing::warn;

use super::{ClientError, ValidConfig, client::Context, topics};
use crate::{
    ConsumeError, Consumer, ConsumerEvent, Delivery, Offset, PartitionId, Position, Record, Topic,
};

/// A member of the group of analyzers, on one topic.
pub struct KafkaConsumer {
    consumer: Arc<StreamConsumer<GroupContext>>,
    topic: Topic,
    partitions: u32,
    /// Told to the caller, done at its next call.
    pending: Option<Pending>,
    /// Where assigned partitions begin, if not at what was committed.
    begins: BTreeMap<PartitionId, Offset>,
}

enum Pending {
    Assign(Vec<PartitionId>),
    Revoke(Vec<PartitionId>),
}

impl KafkaConsumer {
    /// Joins the group on `topic`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn join(config: &ValidConfig, topic: Topic) -> Result<Self, ClientError> {
        let partitions = topics::check(config).await?;
        let partitions = partitions.get(&topic).copied().unwrap_or(1);
        let mut client = config.client();
        let defaults = [
            ("group.id", config.config.group.as_str()),
            ("partition.assignment.strategy", "cooperative-sticky"),
            ("session.timeout.ms", "10000"),
            ("heartbeat.interval.ms", "1000"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("enable.partition.eof", "true"),
            ("auto.offset.reset", "earliest"),
            ("queued.max.messages.kbytes", "32768"),
            ("fetch.wait.max.ms", "50"),
            ("statistics.interval.ms", "2000"),
        ];
        for (property, value) in defaults {
            if client.get(property).is_none() {
                client.set(property, value);
            }
        }
        let context = GroupContext {
            common: Context::new(config),
            events: Mutex::default(),
            changed: Notify::new(),
            closing: AtomicBool::new(false),
        };
        let consumer: StreamConsumer<_> = client
            .create_with_context(context)
            .map_err(ClientError::Configuration)?;
        consumer
            .subscribe(&[topic.name()])
            .map_err(ClientError::Configuration)?;
        Ok(Self {
            consumer: Arc::new(consumer),
            topic,
            partitions,
            pending: None,
            begins: BTreeMap::new(),
        })
    }

    /// Asks for the records behind the end, by partition; renewed every two seconds.
    pub fn lags(&self) -> impl Fn() -> BTreeMap<PartitionId, u64> + Send + Sync + 'static {
        let common = self.consumer.context().common.clone();
        move || common.lags()
    }

    /// Takes over or lets go what the last event announced: its receiver is
    /// ready when it asks for the next one.
    fn settle(&mut self) -> Result<(), ConsumeError> {
        match self.pending.take() {
            Some(Pending::Assign(partitions)) => {
                let mut list = TopicPartitionList::new();
                for partition in partitions {
                    let offset = match self.begins.remove(&partition) {
                        Some(offset) => KafkaOffset::Offset(offset.cast_signed()),
                        None => KafkaOffset::Stored,
                    };
                    list.add_partition_offset(self.topic.name(), partition.cast_signed(), offset)
                        .map_err(broker_error)?;
                }
                self.consumer
                    .incremental_assign(&list)
                    .map_err(broker_error)
            }
            Some(Pending::Revoke(partitions)) => {
                let list = self.list(&partitions);
                self.consumer
                    .incremental_unassign(&list)
                    .map_err(broker_error)
            }
            None => Ok(()),
        }
    }

    fn list(&self, partitions: &[PartitionId]) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(self.topic.name(), partition.cast_signed());
        }
        list
    }
}

fn broker_error(error: KafkaError) -> ConsumeError {
    ConsumeError::Broker(error.to_string())
}

impl Drop for KafkaConsumer {
    fn drop(&mut self) {
        // Closing waits until every partition is let go.
        self.consumer.context().closing.store(true, Relaxed);
        if let Err(error) = self.settle() {
            warn!(%error, "kafka: the group is left without notice");
        }
    }
}

impl Consumer for KafkaConsumer {
    fn partitions(&self) -> u32 {
        self.partitions
    }

    async fn next(&mut self) -> Result<ConsumerEvent, ConsumeError> {
        self.settle()?;
        loop {
            let consumer = Arc::clone(&self.consumer);
            let context = consumer.context();
            let changed = context.changed.notified();
            if let Some(event) = context.take() {
                self.pending = Some(match &event {
                    ConsumerEvent::Assigned(partitions) => Pending::Assign(partitions.clone()),
                    ConsumerEvent::Revoked(partitions) => Pending::Revoke(partitions.clone()),
                    ConsumerEvent::CaughtUp(_) | ConsumerEvent::Delivery(_) => return Ok(event),
                });
                return Ok(event);
            }
            let message = tokio::select! {
                biased;
                () = changed => continue,
                message = consumer.recv() => message,
            };
            match message {
                Ok(message) => {
                    let timestamp_ms = message.timestamp().to_millis().unwrap_or(0);
                    return Ok(ConsumerEvent::Delivery(Delivery {
                        offset: message.offset().cast_unsigned(),
                        record: Record {
                            topic: self.topic,
                            partition: message.partition().cast_unsigned(),
                            key: message.key().unwrap_or_default().to_vec(),
                            timestamp_ns: timestamp_ms.max(0).cast_unsigned() * 1_000_000,
                            payload: message.payload().unwrap_or_default().to_vec(),
                        },
                    }));
                }
                Err(KafkaError::PartitionEOF(partition)) => {
                    return Ok(ConsumerEvent::CaughtUp(partition.cast_unsigned()));
                }
                // librdkafka tries again by itself.
                Err(error) => warn!(%error, "kafka: reading"),
            }
        }
    }

    fn begin_at(&mut self, position: Position) {
        self.begins.insert(position.partition, position.offset);
    }

    async fn commit(&mut self, positions: &[Position]) -> Result<(), ConsumeError> {
        let mut list = TopicPartitionList::new();
        for position in positions {
            list.add_partition_offset(
                position.topic.name(),
                position.partition.cast_signed(),
                KafkaOffset::Offset(position.offset.cast_signed()),
            )
            .map_err(broker_error)?;
        }
        let consumer = Arc::clone(&self.consumer);
        let committed =
            tokio::task::spawn_blocking(move || consumer.commit(&list, CommitMode::Sync)).await;
        committed
            .map_err(|error| ConsumeError::Broker(error.to_string()))?
            .map_err(broker_error)
    }
}

/// Collects what the group decides.
struct GroupContext {
    common: Context,
    events: Mutex<VecDeque<ConsumerEvent>>,
    changed: Notify,
    closing: AtomicBool,
}

impl GroupContext {
    fn take(&self) -> Option<ConsumerEvent> {
        self.events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    }

    fn push(&self, event: ConsumerEvent) {
        self.events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(event);
        self.changed.notify_one();
    }
}

impl ClientContext for GroupContext {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.common.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.common.error(error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        self.common.stats(statistics);
    }

    fn generate_oauth_token(
        &self,
        config: Option<&str>,
    ) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.common.generate_oauth_token(config)
    }
}

impl ConsumerContext for GroupContext {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        err: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let elements = list.elements();
        let partitions = elements.iter().map(|one| one.partition().cast_unsigned());
        let partitions: Vec<PartitionId> = partitions.collect();
        if err == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.push(ConsumerEvent::Assigned(partitions));
        } else if self.closing.load(Relaxed) {
            if let Err(error) = consumer.incremental_unassign(list) {
                warn!(%error, "kafka: partitions not let go");
            }
        } else {
            self.push(ConsumerEvent::Revoked(partitions));
        }
    }
}
