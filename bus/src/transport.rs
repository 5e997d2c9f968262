//! The traits a transport implements.

use std::future::Future;

use crate::{Delivery, PartitionId, Position, Record, Topic};

/// Publishes records. Cheap to clone or share; used from many tasks.
pub trait Producer: Send + Sync {
    /// Number of partitions of a topic.
    fn partitions(&self, topic: Topic) -> u32;

    /// Publishes one record and returns once it is accepted: stored by the
    /// in-process bus, or acknowledged by the broker.
    ///
    /// # Errors
    /// [`PublishError`]; the record comes back in it, nothing is lost.
    fn publish(&self, record: Record) -> impl Future<Output = Result<(), PublishError>> + Send;
}

/// Why a record was not accepted; it is returned with the reason.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The partition holds as much as it may and nobody reads fast enough.
    #[error("partition {} of {} is full", .0.partition, .0.topic.name())]
    Full(Box<Record>),
    /// The topic has no such partition.
    #[error("{} has no partition {}", .0.topic.name(), .0.partition)]
    NoSuchPartition(Box<Record>),
    /// The bus was closed.
    #[error("the bus is closed")]
    Closed(Box<Record>),
    /// Larger than the bus takes.
    #[error("a record of {} bytes is larger than {} takes", .0.payload.len(), .0.topic.name())]
    TooLarge(Box<Record>),
    /// The broker will never take it, for instance because its time is too far
    /// ahead of the broker's.
    #[error("{} refuses a record (is the clock right?): {why}", record.topic.name())]
    Refused {
        /// What was offered.
        record: Box<Record>,
        /// What the broker says.
        why: String,
    },
    /// The broker does not answer, or not with yes; it may later.
    #[error("{} takes nothing now: {why}", record.topic.name())]
    Unavailable {
        /// What was offered.
        record: Box<Record>,
        /// What the broker says.
        why: String,
    },
}

impl PublishError {
    /// The record, if the bus may take it later.
    pub fn try_later(self) -> Option<Record> {
        match self {
            PublishError::Full(record) | PublishError::Unavailable { record, .. } => Some(*record),
            PublishError::NoSuchPartition(_)
            | PublishError::Closed(_)
            | PublishError::TooLarge(_)
            | PublishError::Refused { .. } => None,
        }
    }

    /// The reason as a metric label.
    pub fn reason(&self) -> &'static str {
        match self {
            PublishError::Full(_) => "bus_full",
            PublishError::NoSuchPartition(_) => "no_such_partition",
            PublishError::Closed(_) => "bus_closed",
            PublishError::TooLarge(_) => "too_large",
            PublishError::Refused { .. } => "bus_refused",
            PublishError::Unavailable { .. } => "bus_unavailable",
        }
    }
}

/// Reads the partitions of one topic assigned to one member of a group.
pub trait Consumer: Send {
    /// Number of partitions of the topic.
    fn partitions(&self) -> u32;

    /// The next thing that happened. Cancel safe: what was not returned comes
    /// again. Pends while there is nothing to read.
    ///
    /// # Errors
    /// [`ConsumeError`] when nothing more can be read.
    fn next(&mut self) -> impl Future<Output = Result<ConsumerEvent, ConsumeError>> + Send;

    /// Where to read a partition from, instead of what was committed: what the
    /// state restored for it already contains ends there. To be called between
    /// [`ConsumerEvent::Assigned`] and the next call of [`next`](Self::next).
    fn begin_at(&mut self, position: Position);

    /// Says that the state of everything before these positions is stored.
    /// A restarted group continues there.
    ///
    /// # Errors
    /// [`ConsumeError`] when the commit is not recorded; the records will be
    /// delivered again after a restart.
    fn commit(
        &mut self,
        positions: &[Position],
    ) -> impl Future<Output = Result<(), ConsumeError>> + Send;
}

/// What a consumer has to act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsumerEvent {
    /// These partitions are this member's from the next call of
    /// [`Consumer::next`] on: restore their state first.
    Assigned(Vec<PartitionId>),
    /// These partitions are taken away at the next call of [`Consumer::next`]:
    /// store their state, commit, and forget it first.
    Revoked(Vec<PartitionId>),
    /// Everything that the bus took in this partition before a time was
    /// delivered: so much time has passed in it, records or not. Comes again
    /// as time goes on, about once a second.
    CaughtUp {
        /// Which.
        partition: PartitionId,
        /// Nanoseconds since the Unix epoch.
        as_of_ns: u64,
    },
    /// A record. Offsets ascend within a partition; after a restart delivery
    /// begins at the committed position.
    Delivery(Delivery),
}

/// Why reading or committing failed.
#[derive(Debug, thiserror::Error)]
pub enum ConsumeError {
    /// The bus was closed and everything was read.
    #[error("the bus is closed")]
    Closed,
    /// The position is beyond what this member was given.
    #[error("offset {} of partition {} was never delivered", .0.offset, .0.partition)]
    NeverDelivered(Position),
    /// The broker's answer.
    #[error("kafka: {0}")]
    Broker(String),
    /// The partition is not assigned to this member (any more).
    #[error("partition {0} is not assigned here")]
    NotAssigned(PartitionId),
}
