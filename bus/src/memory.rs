//! The in-process bus of one machine.
//!
//! Keeps records until every group has committed past them, within a bound of
//! bytes per partition. A full partition makes producers wait; a producer that
//! would wait longer than [`Config::publish_timeout`] gets its record back.
//! A group has one member at a time here; when it goes, the next member starts
//! from the committed positions and is given again what was not committed.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use tokio::sync::Notify;

use crate::{
    ConsumeError, Consumer, ConsumerEvent, Delivery, Offset, PartitionId, Position, Producer,
    PublishError, Record, Topic,
};

/// Bounds of the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Partitions of every topic, at least 1.
    pub partitions: u32,
    /// Bytes of payload and key that a partition holds.
    pub partition_bytes_max: usize,
    /// How long a producer waits for a full partition.
    pub publish_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            partitions: 4,
            partition_bytes_max: 32 << 20,
            publish_timeout: Duration::from_secs(1),
        }
    }
}

/// The bus. Clones share it.
#[derive(Clone, Debug)]
pub struct MemoryBus(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: Config,
    state: Mutex<State>,
    /// Something was published, committed or closed.
    changed: Notify,
    waits: AtomicU64,
    refusals: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    partitions: BTreeMap<(Topic, PartitionId), Partition>,
    /// Committed position of each group.
    committed: BTreeMap<(String, Topic, PartitionId), Offset>,
    /// Groups that were ever joined, with their topic.
    groups: Vec<(String, Topic)>,
    closed: bool,
}

#[derive(Debug, Default)]
struct Partition {
    first: Offset,
    records: VecDeque<Record>,
    bytes: usize,
}

impl Partition {
    fn get(&self, offset: Offset) -> Option<&Record> {
        self.records
            .get(usize::try_from(offset.checked_sub(self.first)?).ok()?)
    }

    fn end(&self) -> Offset {
        self.first + self.records.len() as u64
    }

    fn trim(&mut self, before: Offset) {
        while self.first < before {
            let Some(record) = self.records.pop_front() else {
                return;
            };
            self.bytes -= size(&record);
            self.first += 1;
        }
    }
}

fn size(record: &Record) -> usize {
    record.payload.len() + record.key.len()
}

impl MemoryBus {
    /// An empty bus.
    ///
    /// # Panics
    /// If `config.partitions` is 0.
    pub fn new(config: Config) -> Self {
        assert!(config.partitions > 0, "a topic needs a partition");
        Self(Arc::new(Shared {
            config,
            state: Mutex::default(),
            changed: Notify::new(),
            waits: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
        }))
    }

    /// Joins `group` on `topic`. A member that is still there keeps its right
    /// to read, but both get everything: close it first.
    pub fn consumer(&self, group: &str, topic: Topic) -> MemoryConsumer {
        let mut state = self.0.lock();
        let member = (group.to_owned(), topic);
        if !state.groups.contains(&member) {
            state.groups.push(member);
        }
        let positions = (0..self.0.config.partitions).map(|partition| {
            let committed = state.committed.get(&(group.to_owned(), topic, partition));
            let first = state
                .partitions
                .get(&(topic, partition))
                .map_or(0, |p| p.first);
            (partition, committed.copied().unwrap_or(0).max(first))
        });
        MemoryConsumer {
            bus: self.clone(),
            group: group.to_owned(),
            topic,
            positions: positions.collect(),
            assigned: false,
            caught_up: BTreeSet::new(),
        }
    }

    /// Ends the bus: producers are refused, consumers read what is there and then end.
    pub fn close(&self) {
        self.0.lock().closed = true;
        self.0.changed.notify_waiters();
    }

    /// How often a producer had to wait for a full partition.
    pub fn publish_waits(&self) -> u64 {
        self.0.waits.load(Relaxed)
    }

    /// How often a producer got its record back because the wait was too long.
    pub fn publish_refusals(&self) -> u64 {
        self.0.refusals.load(Relaxed)
    }

    /// Records published and not yet committed by every group.
    pub fn retained(&self, topic: Topic) -> usize {
        let state = self.0.lock();
        let of_topic = state.partitions.iter().filter(|((t, _), _)| *t == topic);
        of_topic.map(|(_, partition)| partition.records.len()).sum()
    }

    /// Appends the record if there is room, else gives it back.
    fn try_publish(&self, record: Record) -> Result<(), PublishError> {
        let mut state = self.0.lock();
        if state.closed {
            return Err(PublishError::Closed(Box::new(record)));
        }
        if record.partition >= self.0.config.partitions {
            return Err(PublishError::NoSuchPartition(Box::new(record)));
        }
        let wanted = state.groups.iter().any(|(_, topic)| *topic == record.topic);
        let partition = state
            .partitions
            .entry((record.topic, record.partition))
            .or_default();
        let full = partition.bytes + size(&record) > self.0.config.partition_bytes_max;
        if full && !wanted {
            // Nobody ever joined: keep the newest, as a broker's retention would.
            partition.trim(partition.first + 1);
        } else if full && !partition.records.is_empty() {
            return Err(PublishError::Full(Box::new(record)));
        }
        partition.bytes += size(&record);
        partition.records.push_back(record);
        drop(state);
        self.0.changed.notify_waiters();
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // State is consistent between statements, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Producer for MemoryBus {
    fn partitions(&self, _topic: Topic) -> u32 {
        self.0.config.partitions
    }

    async fn publish(&self, record: Record) -> Result<(), PublishError> {
        let deadline = tokio::time::Instant::now() + self.0.config.publish_timeout;
        let mut record = record;
        let mut waited = false;
        loop {
            // Registered before trying, so that no change in between is missed.
            let changed = self.0.changed.notified();
            record = match self.try_publish(record) {
                Err(PublishError::Full(record)) => *record,
                other => return other,
            };
            if !waited {
                waited = true;
                self.0.waits.fetch_add(1, Relaxed);
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                self.0.refusals.fetch_add(1, Relaxed);
                return Err(PublishError::Full(Box::new(record)));
            }
        }
    }
}

/// How often a consumer is told that there is still nothing.
const CAUGHT_UP_AGAIN: Duration = Duration::from_millis(500);

fn now_ns() -> u64 {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since_epoch.map_or(0, |since| since.as_nanos() as u64)
}

/// The member of a group; see [`MemoryBus::consumer`].
#[derive(Debug)]
pub struct MemoryConsumer {
    bus: MemoryBus,
    group: String,
    topic: Topic,
    positions: BTreeMap<PartitionId, Offset>,
    assigned: bool,
    /// Partitions that were lately said to be read to their end.
    caught_up: BTreeSet<PartitionId>,
}

impl MemoryConsumer {
    /// The next record of any partition, the one with the earliest event time
    /// first, so that partitions advance together.
    fn try_next(&mut self) -> Option<Delivery> {
        let state = self.bus.0.lock();
        let heads = self.positions.iter().filter_map(|(partition, offset)| {
            let record = state
                .partitions
                .get(&(self.topic, *partition))?
                .get(*offset)?;
            Some((record.timestamp_ns, *partition, *offset, record))
        });
        let (_, partition, offset, record) =
            heads.min_by_key(|(time, partition, ..)| (*time, *partition))?;
        let record = record.clone();
        drop(state);
        self.positions.insert(partition, offset + 1);
        self.caught_up.remove(&partition);
        Some(Delivery { offset, record })
    }

    /// A partition that has nothing more and was not said to be so yet.
    fn newly_caught_up(&mut self) -> Option<PartitionId> {
        let newly = self
            .positions
            .keys()
            .find(|partition| !self.caught_up.contains(partition));
        let newly = newly.copied()?;
        self.caught_up.insert(newly);
        Some(newly)
    }
}

impl Consumer for MemoryConsumer {
    fn partitions(&self) -> u32 {
        self.bus.0.config.partitions
    }

    async fn next(&mut self) -> Result<ConsumerEvent, ConsumeError> {
        if !self.assigned {
            self.assigned = true;
            return Ok(ConsumerEvent::Assigned(
                self.positions.keys().copied().collect(),
            ));
        }
        let bus = self.bus.clone();
        loop {
            let changed = bus.0.changed.notified();
            if let Some(delivery) = self.try_next() {
                return Ok(ConsumerEvent::Delivery(delivery));
            }
            if bus.0.lock().closed {
                return Err(ConsumeError::Closed);
            }
            let as_of_ns = now_ns();
            if let Some(partition) = self.newly_caught_up() {
                return Ok(ConsumerEvent::CaughtUp {
                    partition,
                    as_of_ns,
                });
            }
            if tokio::time::timeout(CAUGHT_UP_AGAIN, changed)
                .await
                .is_err()
            {
                self.caught_up.clear();
            }
        }
    }

    fn begin_at(&mut self, position: Position) {
        self.positions.insert(position.partition, position.offset);
    }

    async fn commit(&mut self, positions: &[Position]) -> Result<(), ConsumeError> {
        let mut state = self.bus.0.lock();
        for position in positions {
            let Some(next) = self.positions.get(&position.partition) else {
                return Err(ConsumeError::NotAssigned(position.partition));
            };
            if position.topic != self.topic || position.offset > *next {
                return Err(ConsumeError::NeverDelivered(*position));
            }
            let key = (self.group.clone(), self.topic, position.partition);
            let committed = state.committed.entry(key).or_default();
            *committed = position.offset.max(*committed);
        }
        for position in positions {
            state.trim(self.topic, position.partition);
        }
        drop(state);
        self.bus.0.changed.notify_waiters();
        Ok(())
    }
}

impl State {
    /// Forgets what every group of the topic has committed.
    fn trim(&mut self, topic: Topic, id: PartitionId) {
        let groups = self.groups.iter().filter(|(_, of)| *of == topic);
        let committed = groups.map(|(group, _)| {
            self.committed
                .get(&(group.clone(), topic, id))
                .copied()
                .unwrap_or(0)
        });
        let Some(before) = committed.min() else {
            return;
        };
        if let Some(partition) = self.partitions.get_mut(&(topic, id)) {
            let before = before.min(partition.end());
            partition.trim(before);
        }
    }
}

#[cfg(test)]
mod tests;
