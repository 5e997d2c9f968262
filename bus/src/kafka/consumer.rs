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
    time::{Duration, SystemTime},
};

use rdkafka::{
    ClientContext, Message, Offset as KafkaOffset, Statistics, TopicPartitionList,
    client::OAuthToken,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, StreamConsumer},
    error::KafkaError,
    types::RDKafkaRespErr,
};
use tokio::{
    sync::Notify,
    task::{JoinError, JoinHandle},
    time::Instant,
};
use tracing::{debug, warn};

use super::{
    ClientError, ValidConfig,
    client::{Context, REQUEST_TIMEOUT},
    topics,
};
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
    /// Where each assigned partition is read next.
    next: BTreeMap<PartitionId, Offset>,
    /// Asking for the ends of partitions.
    ends: Option<Asked<Ends>>,
    ask_at: Instant,
}

type Asked<T> = JoinHandle<Result<T, KafkaError>>;

/// Where partitions ended.
struct Ends {
    /// Before this time, in nanoseconds since the Unix epoch, nothing was taken
    /// by the broker that lies beyond.
    as_of_ns: u64,
    offsets: BTreeMap<PartitionId, Offset>,
}

/// How often the ends of partitions are asked for.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

/// The answer, if something was asked; else never.
async fn finished<T>(asked: &mut Option<JoinHandle<T>>) -> Result<T, JoinError> {
    match asked {
        Some(asked) => asked.await,
        None => std::future::pending().await,
    }
}

enum Pending {
    Assign(Vec<PartitionId>),
    /// Asking where these partitions begin.
    Place(Vec<PartitionId>, Asked<BTreeMap<PartitionId, Offset>>),
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
            // A topic that is made again is found within so long.
            ("topic.metadata.refresh.interval.ms", "10000"),
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
            begins_at_end: client
                .get("auto.offset.reset")
                .is_some_and(|reset| matches!(reset, "latest" | "largest" | "end")),
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
            next: BTreeMap::new(),
            ends: None,
            ask_at: Instant::now(),
        })
    }

    /// Asks for the records behind the end, by partition; renewed every two seconds.
    pub fn lags(&self) -> impl Fn() -> BTreeMap<PartitionId, u64> + Send + Sync + 'static {
        let common = self.consumer.context().common.clone();
        move || common.lags()
    }

    /// Takes over or lets go what the last event announced: its receiver is
    /// ready when it asks for the next one. Cancel safe.
    async fn settle(&mut self) -> Result<(), ConsumeError> {
        if let Some(Pending::Assign(partitions)) = &self.pending {
            let place = Place {
                consumer: Arc::clone(&self.consumer),
                topic: self.topic,
                begins: std::mem::take(&mut self.begins),
            };
            let partitions = partitions.clone();
            let of = partitions.clone();
            let asked = tokio::task::spawn_blocking(move || place.all(&of));
            self.pending = Some(Pending::Place(partitions, asked));
        }
        if let Some(Pending::Place(partitions, asked)) = &mut self.pending {
            let places = asked
                .await
                .map_err(|error| ConsumeError::Broker(error.to_string()))?;
            match places {
                Ok(places) => {
                    let partitions = std::mem::take(partitions);
                    self.pending = None;
                    return self.assign(&partitions, &places);
                }
                // Reading anywhere would lose records or the way back.
                Err(error) => {
                    warn!(%error, "kafka: it is not known where partitions begin; asking again");
                    tokio::time::sleep(ASK_INTERVAL).await;
                    let partitions = std::mem::take(partitions);
                    self.pending = Some(Pending::Assign(partitions));
                    return Ok(());
                }
            }
        }
        self.let_go()
    }

    fn assign(
        &mut self,
        partitions: &[PartitionId],
        places: &BTreeMap<PartitionId, Offset>,
    ) -> Result<(), ConsumeError> {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            let offset = match places.get(partition) {
                Some(offset) => KafkaOffset::Offset(offset.cast_signed()),
                None => KafkaOffset::Stored,
            };
            list.add_partition_offset(self.topic.name(), partition.cast_signed(), offset)
                .map_err(broker_error)?;
        }
        self.next.extend(places);
        self.consumer
            .incremental_assign(&list)
            .map_err(broker_error)
    }

    fn let_go(&mut self) -> Result<(), ConsumeError> {
        match self.pending.take() {
            Some(Pending::Assign(partitions) | Pending::Place(partitions, _)) => {
                self.assign(&partitions, &BTreeMap::new())
            }
            Some(Pending::Revoke(partitions)) => {
                for partition in &partitions {
                    self.next.remove(partition);
                }
                let list = self.list(&partitions);
                self.consumer
                    .incremental_unassign(&list)
                    .map_err(broker_error)
            }
            None => Ok(()),
        }
    }

    /// Asks for the ends of partitions, once a second.
    fn ask_for_ends(&mut self) {
        if self.ends.is_some() || self.next.is_empty() || self.ask_at > Instant::now() {
            return;
        }
        self.ask_at = Instant::now() + ASK_INTERVAL;
        let (consumer, topic) = (Arc::clone(&self.consumer), self.topic);
        let partitions: Vec<_> = self.next.keys().copied().collect();
        self.ends = Some(tokio::task::spawn_blocking(move || {
            ends(&consumer, topic, &partitions)
        }));
    }

    /// Tells of the partitions that were read to where they ended, or further.
    fn compare_ends(&mut self, ends: Ends) {
        let mut events = Vec::new();
        for (partition, end) in ends.offsets {
            if self.next.get(&partition).is_some_and(|next| *next >= end) {
                events.push(ConsumerEvent::CaughtUp {
                    partition,
                    as_of_ns: ends.as_of_ns,
                });
            }
        }
        self.consumer.context().extend(events);
    }

    fn list(&self, partitions: &[PartitionId]) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(self.topic.name(), partition.cast_signed());
        }
        list
    }
}

/// Where reading may really begin. A topic that was deleted and made again
/// has other records at the offsets that states end with, or none yet. Kafka
/// forgets what was committed when it deletes a topic; so of a partition of
/// which nothing is committed, or that ends before its state does, everything
/// is read. Readers drop what they have seen.
struct Place {
    consumer: Arc<StreamConsumer<GroupContext>>,
    topic: Topic,
    begins: BTreeMap<PartitionId, Offset>,
}

impl Place {
    /// Blocks.
    fn all(&self, partitions: &[PartitionId]) -> Result<BTreeMap<PartitionId, Offset>, KafkaError> {
        let committed = self.committed(partitions)?;
        let mut places = BTreeMap::new();
        for partition in partitions {
            let id = partition.cast_signed();
            let (first, end) =
                self.consumer
                    .fetch_watermarks(self.topic.name(), id, REQUEST_TIMEOUT)?;
            let (first, end) = (first.max(0).cast_unsigned(), end.max(0).cast_unsigned());
            let committed = committed.get(partition).copied();
            let wanted = match (self.begins.get(partition).copied(), committed) {
                (Some(0) | None, committed) => committed.unwrap_or_else(|| self.reset(first, end)),
                (Some(begin), Some(_)) if begin <= end => begin,
                (Some(begin), _) => {
                    warn!(
                        partition,
                        offset = begin,
                        end,
                        "kafka: {} was made again; the partition is read from its beginning",
                        self.topic.name()
                    );
                    first
                }
            };
            places.insert(*partition, wanted.clamp(first, end));
        }
        Ok(places)
    }

    /// Where a group begins that has never read.
    fn reset(&self, first: Offset, end: Offset) -> Offset {
        if self.consumer.context().begins_at_end {
            end
        } else {
            first
        }
    }

    fn committed(
        &self,
        partitions: &[PartitionId],
    ) -> Result<BTreeMap<PartitionId, Offset>, KafkaError> {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(self.topic.name(), partition.cast_signed());
        }
        let committed = self.consumer.committed_offsets(list, REQUEST_TIMEOUT)?;
        let elements = committed.elements();
        let known = elements.iter().filter_map(|one| match one.offset() {
            KafkaOffset::Offset(offset) => {
                Some((one.partition().cast_unsigned(), offset.cast_unsigned()))
            }
            _ => None,
        });
        Ok(known.collect())
    }
}

/// Blocks.
fn ends(
    consumer: &StreamConsumer<GroupContext>,
    topic: Topic,
    partitions: &[PartitionId],
) -> Result<Ends, KafkaError> {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition_offset(topic.name(), partition.cast_signed(), KafkaOffset::End)?;
    }
    let ends = consumer.offsets_for_times(list, REQUEST_TIMEOUT)?;
    let elements = ends.elements();
    let known = elements.iter().filter_map(|one| match one.offset() {
        KafkaOffset::Offset(offset) if one.error().is_ok() => {
            Some((one.partition().cast_unsigned(), offset.cast_unsigned()))
        }
        _ => None,
    });
    Ok(Ends {
        as_of_ns: since_epoch.map_or(0, |since| since.as_nanos() as u64),
        offsets: known.collect(),
    })
}

fn broker_error(error: KafkaError) -> ConsumeError {
    ConsumeError::Broker(error.to_string())
}

impl Drop for KafkaConsumer {
    fn drop(&mut self) {
        // Closing waits until every partition is let go.
        self.consumer.context().closing.store(true, Relaxed);
        if let Err(error) = self.let_go() {
            warn!(%error, "kafka: the group is left without notice");
        }
    }
}

impl Consumer for KafkaConsumer {
    fn partitions(&self) -> u32 {
        self.partitions
    }

    async fn next(&mut self) -> Result<ConsumerEvent, ConsumeError> {
        self.settle().await?;
        loop {
            let consumer = Arc::clone(&self.consumer);
            let context = consumer.context();
            let changed = context.changed.notified();
            if let Some(event) = context.take() {
                self.pending = Some(match &event {
                    ConsumerEvent::Assigned(partitions) => Pending::Assign(partitions.clone()),
                    ConsumerEvent::Revoked(partitions) => Pending::Revoke(partitions.clone()),
                    ConsumerEvent::CaughtUp { .. } | ConsumerEvent::Delivery(_) => {
                        return Ok(event);
                    }
                });
                return Ok(event);
            }
            self.ask_for_ends();
            let ask_at = self.ask_at;
            let message = tokio::select! {
                biased;
                () = changed => continue,
                ends = finished(&mut self.ends) => {
                    self.ends = None;
                    match ends {
                        Ok(Ok(ends)) => self.compare_ends(ends),
                        Ok(Err(error)) => debug!(%error, "kafka: the ends are not known"),
                        Err(error) => warn!(%error, "kafka: the ends are not known"),
                    }
                    continue;
                }
                message = consumer.recv() => message,
                () = tokio::time::sleep_until(ask_at), if self.ends.is_none() => continue,
            };
            match message {
                Ok(message) => {
                    let timestamp_ms = message.timestamp().to_millis().unwrap_or(0);
                    let partition = message.partition().cast_unsigned();
                    let offset = message.offset().cast_unsigned();
                    let expected = self.next.insert(partition, offset + 1);
                    if expected.is_some_and(|expected| expected > offset) {
                        warn!(
                            partition,
                            offset,
                            expected,
                            "kafka: the partition begins anew: its topic was made again"
                        );
                    }
                    return Ok(ConsumerEvent::Delivery(Delivery {
                        offset,
                        record: Record {
                            topic: self.topic,
                            partition,
                            key: message.key().unwrap_or_default().to_vec(),
                            timestamp_ns: timestamp_ms.max(0).cast_unsigned() * 1_000_000,
                            payload: message.payload().unwrap_or_default().to_vec(),
                        },
                    }));
                }
                // The end at some time, but at which?
                Err(KafkaError::PartitionEOF(_)) => self.ask_at = Instant::now(),
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
    /// Whether a group that has never read begins at the end.
    begins_at_end: bool,
}

impl GroupContext {
    fn take(&self) -> Option<ConsumerEvent> {
        self.events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    }

    fn push(&self, event: ConsumerEvent) {
        self.extend([event]);
    }

    fn extend(&self, events: impl IntoIterator<Item = ConsumerEvent>) {
        self.events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(events);
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
