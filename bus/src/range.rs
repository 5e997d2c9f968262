//! A range of records, and the one order in which several partitions are read
//! back.
//!
//! Both are the same for a recording and for a topic of Kafka, which keeps
//! times to the millisecond: so are they compared here.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Delivery, Offset, PartitionId};

/// One end of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// In each partition the first record of this time or later, in
    /// nanoseconds since the Unix epoch.
    Time(u64),
    /// This offset in every partition.
    Offset(Offset),
    /// These partitions and no other, each at its offset.
    Offsets(BTreeMap<PartitionId, Offset>),
}

impl Bound {
    fn is_reached(&self, delivery: &Delivery) -> bool {
        match self {
            Bound::Time(ns) => time_ms(delivery) >= ns / 1_000_000,
            Bound::Offset(offset) => delivery.offset >= *offset,
            Bound::Offsets(offsets) => {
                let offset = offsets.get(&delivery.record.partition);
                offset.is_none_or(|offset| delivery.offset >= *offset)
            }
        }
    }

    fn names(&self, partition: PartitionId) -> bool {
        match self {
            Bound::Time(_) | Bound::Offset(_) => true,
            Bound::Offsets(offsets) => offsets.contains_key(&partition),
        }
    }
}

/// Records from one bound, which belongs to it, to another, which does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Where it begins; `None`: with the first record.
    pub from: Option<Bound>,
    /// Where it ends; `None`: after the last record.
    pub to: Option<Bound>,
}

impl Range {
    /// Whether anything of a partition belongs to it.
    pub fn names(&self, partition: PartitionId) -> bool {
        let mut bounds = [&self.from, &self.to].into_iter().flatten();
        bounds.all(|bound| bound.names(partition))
    }

    /// The records of one partition, in the order of offsets, that belong to it.
    pub fn of<I, E>(&self, partition: I) -> impl Iterator<Item = Result<Delivery, E>> + use<I, E>
    where
        I: Iterator<Item = Result<Delivery, E>>,
    {
        let Range { from, to } = self.clone();
        let reached = |bound: &Option<Bound>, next: &Result<Delivery, E>, unbounded| match next {
            Ok(delivery) => bound
                .as_ref()
                .map_or(unbounded, |bound| bound.is_reached(delivery)),
            // An error is let through.
            Err(_) => unbounded,
        };
        partition
            .skip_while(move |next| !reached(&from, next, true))
            .take_while(move |next| !reached(&to, next, false))
    }
}

fn time_ms(delivery: &Delivery) -> u64 {
    delivery.record.timestamp_ns / 1_000_000
}

/// Merges partitions by time: the same records give the same order, however
/// fast which partition comes.
///
/// Within a partition the order of offsets stays. A record that is older than
/// one before it counts as of that one's time. At one time the lower partition
/// comes first. An error ends its partition, and the first one comes last.
#[derive(Debug)]
pub struct Merge<I, E> {
    partitions: BTreeMap<PartitionId, Partition<I>>,
    /// The next record of each partition, by time in milliseconds.
    heads: BTreeMap<(u64, PartitionId), Delivery>,
    /// Whose next record is to be fetched.
    without_head: BTreeSet<PartitionId>,
    error: Option<E>,
}

#[derive(Debug)]
struct Partition<I> {
    records: I,
    newest_ms: u64,
}

impl<I, E> Merge<I, E>
where
    I: Iterator<Item = Result<Delivery, E>>,
{
    /// Merges these partitions; each holds one record at a time.
    pub fn new(partitions: impl IntoIterator<Item = (PartitionId, I)>) -> Self {
        let partitions = partitions.into_iter().map(|(id, records)| {
            let newest_ms = 0;
            (id, Partition { records, newest_ms })
        });
        let partitions: BTreeMap<_, _> = partitions.collect();
        Self {
            without_head: partitions.keys().copied().collect(),
            partitions,
            heads: BTreeMap::new(),
            error: None,
        }
    }

    fn fetch_heads(&mut self) {
        while let Some(id) = self.without_head.pop_first() {
            let Some(partition) = self.partitions.get_mut(&id) else {
                continue;
            };
            match partition.records.next() {
                Some(Ok(delivery)) => {
                    partition.newest_ms = partition.newest_ms.max(time_ms(&delivery));
                    self.heads.insert((partition.newest_ms, id), delivery);
                }
                Some(Err(error)) => {
                    self.error.get_or_insert(error);
                    self.partitions.remove(&id);
                }
                None => drop(self.partitions.remove(&id)),
            }
        }
    }
}

impl<I, E> Iterator for Merge<I, E>
where
    I: Iterator<Item = Result<Delivery, E>>,
{
    type Item = Result<Delivery, E>;

    fn next(&mut self) -> Option<Self::Item> {
        self.fetch_heads();
        match self.heads.pop_first() {
            Some(((_, id), delivery)) => {
                self.without_head.insert(id);
                Some(Ok(delivery))
            }
            None => self.error.take().map(Err),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Record, Topic};

    fn delivery(partition: PartitionId, offset: Offset, ms: u64) -> Delivery {
        Delivery {
            offset,
            record: Record {
                topic: Topic::Histograms,
                partition,
                key: Vec::new(),
                timestamp_ns: ms * 1_000_000 + 7,
                payload: Vec::new(),
            },
        }
    }

    type Read = Result<Delivery, &'static str>;

    fn partition(id: PartitionId, times_ms: &[u64]) -> Vec<Read> {
        let records = (0..).zip(times_ms);
        records
            .map(|(offset, ms)| Ok(delivery(id, offset, *ms)))
            .collect()
    }

    fn merged(partitions: Vec<Vec<Read>>) -> Vec<Result<(PartitionId, Offset), &'static str>> {
        let partitions = (0..).zip(partitions.into_iter().map(Vec::into_iter));
        let merge = Merge::new(partitions);
        merge
            .map(|next| next.map(|delivery| (delivery.record.partition, delivery.offset)))
            .collect()
    }

    #[test]
    fn partitions_merge_by_time_and_keep_their_order() {
        let order = merged(vec![
            partition(0, &[10, 30, 20, 40]),
            partition(1, &[10, 15, 35]),
        ]);
        // The late record of partition 0 stays behind the one before it.
        let expected = [(0, 0), (1, 0), (1, 1), (0, 1), (0, 2), (1, 2), (0, 3)];
        assert_eq!(order, expected.map(Ok));
    }

    #[test]
    fn an_error_ends_its_partition_and_comes_last() {
        let mut broken = partition(0, &[10]);
        broken.push(Err("cut off"));
        broken.push(Ok(delivery(0, 1, 11)));
        let order = merged(vec![broken, partition(1, &[20])]);
        assert_eq!(order, [Ok((0, 0)), Ok((1, 0)), Err("cut off")]);
    }

    fn check(range: &Range, expected: &[Offset]) {
        let read = range.of(partition(1, &[10, 30, 20, 40, 50]).into_iter());
        let offsets: Vec<Offset> = read.map(|read| read.unwrap().offset).collect();
        assert_eq!(offsets, expected, "{range:?}");
    }

    #[test]
    fn a_range_begins_and_ends_with_the_first_record_that_reaches_its_bounds() {
        let ms = |ms: u64| Some(Bound::Time(ms * 1_000_000));
        let range = |from, to| Range { from, to };
        check(&range(None, None), &[0, 1, 2, 3, 4]);
        check(&range(ms(15), None), &[1, 2, 3, 4]);
        check(&range(ms(15), ms(40)), &[1, 2]);
        check(&range(None, ms(30)), &[0]);
        check(&range(ms(60), None), &[]);
        check(&range(Some(Bound::Offset(3)), None), &[3, 4]);
        let of_it = Some(Bound::Offsets(BTreeMap::from([(1, 1)])));
        check(&range(of_it.clone(), Some(Bound::Offset(4))), &[1, 2, 3]);
        assert!(range(of_it.clone(), None).names(1));
        assert!(!range(of_it, None).names(0));
    }
}
