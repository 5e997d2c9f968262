//! Reading a range of a topic back, as no member of a group: nothing is
//! committed, and nobody is disturbed.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    Message, Offset as KafkaOffset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, base_consumer::PartitionQueue},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
};

use super::{
    ClientError, ValidConfig,
    client::{Context, REQUEST_TIMEOUT, set_token},
};
use crate::{
    Delivery, Offset, PartitionId, Record, Topic,
    range::{Bound, Merge, Range},
};

/// How long the broker may stay silent while a range is read.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Kilobytes read ahead, over all partitions.
const AHEAD_KB: usize = 65_536;

/// Why a range cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RangeError {
    /// The brokers do not answer, or not with yes.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// There is no such topic.
    #[error("there is no Kafka topic {0}; `honeyguide topics apply` makes it")]
    NoTopic(&'static str),
    /// The topic has no such partition.
    #[error("{topic} has {partitions} partitions, from 0 on; there is no {partition}")]
    NoPartition {
        /// Its name.
        topic: &'static str,
        /// What was asked for.
        partition: PartitionId,
        /// How many it has.
        partitions: usize,
    },
    /// The partition does not hold this offset (any more).
    #[error(
        "partition {partition} of {topic} holds the offsets {first} to {end} (not included); \
         {offset} is not among them"
    )]
    OutOfRange {
        /// Its name.
        topic: &'static str,
        /// The partition.
        partition: PartitionId,
        /// What was asked for.
        offset: Offset,
        /// The first that is kept.
        first: Offset,
        /// After the last.
        end: Offset,
    },
}

/// What is read of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The partition.
    pub partition: PartitionId,
    /// The first offset.
    pub first: Offset,
    /// After the last offset.
    pub end: Offset,
}

/// Records of a range, merged by time; see [`Merge`].
pub struct RangeReader {
    spans: Vec<Span>,
    merge: Merge<PartitionReader, RangeError>,
}

impl RangeReader {
    /// Finds where the range begins and ends; later records do not belong to
    /// it. Blocks, as reading does.
    ///
    /// # Errors
    /// [`RangeError`].
    pub fn open(config: &ValidConfig, topic: Topic, range: &Range) -> Result<Self, RangeError> {
        let mut client = config.client();
        client
            .set("group.id", format!("{}-reader", config.config.group))
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("fetch.wait.max.ms", "10");
        let consumer: BaseConsumer<Context> = client
            .create_with_context(Context::new(config))
            .map_err(ClientError::Configuration)?;
        set_token(consumer.client(), config)?;
        let spans = Finder {
            consumer: &consumer,
            config,
            topic,
        }
        .spans(range)?;
        // Each partition has a queue of its own; so the bound is of each.
        let ahead_kb = (AHEAD_KB / spans.len().max(1)).max(1024).to_string();
        client.set("queued.max.messages.kbytes", ahead_kb);
        let consumer: BaseConsumer<Context> = client
            .create_with_context(Context::new(config))
            .map_err(ClientError::Configuration)?;
        set_token(consumer.client(), config)?;
        let merge = read(Arc::new(consumer), config, topic, &spans)?;
        Ok(Self { spans, merge })
    }

    /// What is read of each partition, in the order of partitions.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }
}

impl Iterator for RangeReader {
    type Item = Result<Delivery, RangeError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.merge.next()
    }
}

/// Finds offsets.
struct Finder<'a> {
    consumer: &'a BaseConsumer<Context>,
    config: &'a ValidConfig,
    topic: Topic,
}

impl Finder<'_> {
    fn spans(&self, range: &Range) -> Result<Vec<Span>, RangeError> {
        let partitions = self.partitions()?;
        for bound in [&range.from, &range.to].into_iter().flatten() {
            if let Bound::Offsets(offsets) = bound {
                let missing = offsets.keys().find(|id| !partitions.contains(id));
                if let Some(partition) = missing {
                    return Err(RangeError::NoPartition {
                        topic: self.topic.name(),
                        partition: *partition,
                        partitions: partitions.len(),
                    });
                }
            }
        }
        let mut kept = Vec::new();
        for id in partitions.into_iter().filter(|id| range.names(*id)) {
            let watermarks = self.consumer.fetch_watermarks(
                self.topic.name(),
                id.cast_signed(),
                REQUEST_TIMEOUT,
            );
            let (first, end) = watermarks.map_err(unreachable(self.config))?;
            kept.push(Span {
                partition: id,
                first: first.cast_unsigned(),
                end: end.cast_unsigned(),
            });
        }
        let first = self.places(range.from.as_ref(), &kept, |span| span.first)?;
        let end = self.places(range.to.as_ref(), &kept, |span| span.end)?;
        let places = kept.iter().zip(first.into_iter().zip(end));
        Ok(places
            .map(|(span, (first, end))| Span {
                partition: span.partition,
                first,
                end: end.max(first),
            })
            .collect())
    }

    fn partitions(&self) -> Result<Vec<PartitionId>, RangeError> {
        let name = self.topic.name();
        let metadata = self.consumer.fetch_metadata(Some(name), REQUEST_TIMEOUT);
        let metadata = metadata.map_err(unreachable(self.config))?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == name);
        let topic = topic.ok_or(RangeError::NoTopic(name))?;
        if let Some(error) = topic.error() {
            return Err(match RDKafkaErrorCode::from(error) {
                RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition => {
                    RangeError::NoTopic(name)
                }
                code => unreachable(self.config)(KafkaError::MetadataFetch(code)).into(),
            });
        }
        let ids = topic
            .partitions()
            .iter()
            .map(|one| one.id().cast_unsigned());
        let mut ids: Vec<PartitionId> = ids.collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// The offset of a bound in each partition; `unbounded` without one.
    fn places(
        &self,
        bound: Option<&Bound>,
        kept: &[Span],
        unbounded: impl Fn(&Span) -> Offset,
    ) -> Result<Vec<Offset>, RangeError> {
        match bound {
            None => Ok(kept.iter().map(unbounded).collect()),
            Some(Bound::Time(ns)) => self.at_time(ns / 1_000_000, kept),
            Some(Bound::Offset(offset)) => {
                let places = kept.iter().map(|span| {
                    // Partitions are not equally long.
                    let offset = (*offset).min(span.end);
                    self.held(offset, span)
                });
                places.collect()
            }
            Some(Bound::Offsets(offsets)) => {
                let places = kept.iter().map(|span| match offsets.get(&span.partition) {
                    Some(offset) => self.held(*offset, span),
                    None => Ok(unbounded(span)),
                });
                places.collect()
            }
        }
    }

    fn held(&self, offset: Offset, span: &Span) -> Result<Offset, RangeError> {
        if (span.first..=span.end).contains(&offset) {
            return Ok(offset);
        }
        Err(RangeError::OutOfRange {
            topic: self.topic.name(),
            partition: span.partition,
            offset,
            first: span.first,
            end: span.end,
        })
    }

    fn at_time(&self, ms: u64, kept: &[Span]) -> Result<Vec<Offset>, RangeError> {
        let mut times = TopicPartitionList::new();
        for span in kept {
            let time = KafkaOffset::Offset(ms.cast_signed());
            times
                .add_partition_offset(self.topic.name(), span.partition.cast_signed(), time)
                .map_err(ClientError::Configuration)?;
        }
        let found = self.consumer.offsets_for_times(times, REQUEST_TIMEOUT);
        let found = found.map_err(unreachable(self.config))?;
        let places = kept.iter().map(|span| {
            let place = found.find_partition(self.topic.name(), span.partition.cast_signed());
            match place.map(|place| place.offset()) {
                Some(KafkaOffset::Offset(offset)) => {
                    offset.cast_unsigned().clamp(span.first, span.end)
                }
                // No record is as new.
                _ => span.end,
            }
        });
        Ok(places.collect())
    }
}

/// Begins to read all spans.
fn read(
    consumer: Arc<BaseConsumer<Context>>,
    config: &ValidConfig,
    topic: Topic,
    spans: &[Span],
) -> Result<Merge<PartitionReader, RangeError>, RangeError> {
    let shared = Arc::new(Shared {
        consumer: Arc::clone(&consumer),
        brokers: config.config.brokers.clone(),
        topic,
        early: Mutex::default(),
    });
    let mut list = TopicPartitionList::new();
    let mut readers = Vec::new();
    for span in spans.iter().filter(|span| span.first < span.end) {
        let id = span.partition.cast_signed();
        let offset = KafkaOffset::Offset(span.first.cast_signed());
        list.add_partition_offset(topic.name(), id, offset)
            .map_err(ClientError::Configuration)?;
        let queue = consumer.split_partition_queue(topic.name(), id);
        let reader = PartitionReader {
            queue: queue.ok_or(RangeError::NoTopic(topic.name()))?,
            shared: Arc::clone(&shared),
            partition: span.partition,
            next: span.first,
            end: span.end,
        };
        readers.push((span.partition, reader));
    }
    consumer.assign(&list).map_err(ClientError::Configuration)?;
    Ok(Merge::new(readers))
}

/// What the partitions of a range share.
struct Shared {
    consumer: Arc<BaseConsumer<Context>>,
    brokers: String,
    topic: Topic,
    /// Records that came before their partition had its queue.
    early: Mutex<BTreeMap<PartitionId, VecDeque<Delivery>>>,
}

impl Shared {
    /// Serves the client; the next record of `partition` that came early.
    fn early(&self, partition: PartitionId) -> Option<Delivery> {
        let mut early = self.early.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(message) = self.consumer.poll(Duration::ZERO) {
            // Errors are told again by the partitions' queues, or pass.
            if let Ok(message) = message {
                let delivery = delivery(self.topic, &message);
                let of_partition = early.entry(delivery.record.partition).or_default();
                of_partition.push_back(delivery);
            }
        }
        early.get_mut(&partition)?.pop_front()
    }
}

/// Reads a partition.
struct PartitionReader {
    queue: PartitionQueue<Context>,
    shared: Arc<Shared>,
    partition: PartitionId,
    next: Offset,
    end: Offset,
}

impl PartitionReader {
    fn take(&mut self, delivery: Delivery) -> Option<Result<Delivery, RangeError>> {
        self.next = delivery.offset + 1;
        (delivery.offset < self.end).then_some(Ok(delivery))
    }
}

impl Iterator for PartitionReader {
    type Item = Result<Delivery, RangeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let asked = Instant::now();
        while self.next < self.end {
            if let Some(delivery) = self.shared.early(self.partition) {
                return self.take(delivery);
            }
            let error = match self.queue.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    let delivery = delivery(self.shared.topic, &message);
                    drop(message);
                    return self.take(delivery);
                }
                // What is left up to `end` holds no records for readers.
                Some(Err(KafkaError::PartitionEOF(_))) => return None,
                Some(Err(error)) => error,
                None => KafkaError::NoMessageReceived,
            };
            // librdkafka tries again by itself, which may help.
            let is_refused = matches!(
                error,
                KafkaError::MessageConsumption(RDKafkaErrorCode::TopicAuthorizationFailed)
            );
            if is_refused || asked.elapsed() > SILENCE_MAX {
                self.next = self.end;
                let brokers = self.shared.brokers.clone();
                let source = error;
                return Some(Err(ClientError::Unreachable { brokers, source }.into()));
            }
        }
        None
    }
}

fn delivery(topic: Topic, message: &BorrowedMessage<'_>) -> Delivery {
    let timestamp_ms = message.timestamp().to_millis().unwrap_or(0);
    Delivery {
        offset: message.offset().cast_unsigned(),
        record: Record {
            topic,
            partition: message.partition().cast_unsigned(),
            key: message.key().unwrap_or_default().to_vec(),
            timestamp_ns: timestamp_ms.max(0).cast_unsigned() * 1_000_000,
            payload: message.payload().unwrap_or_default().to_vec(),
        },
    }
}

fn unreachable(config: &ValidConfig) -> impl Fn(KafkaError) -> ClientError {
    let brokers = config.config.brokers.clone();
    move |source| ClientError::Unreachable {
        brokers: brokers.clone(),
        source,
    }
}
