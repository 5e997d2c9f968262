//! A histogram of which only the occupied buckets are kept, as batches have it.

use sensor_common::{Histogram, histogram::Totals};

use crate::batch::Counted;

/// For what there is much of: a window of most series occupies a few buckets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SparseHistogram {
    buckets: Vec<(u8, u64)>,
    totals: Totals,
}

impl SparseHistogram {
    /// Adds events to the bucket at `position`.
    pub fn add(&mut self, position: u8, count: u64) {
        match self.buckets.binary_search_by_key(&position, |of| of.0) {
            Ok(place) => self.buckets[place].1 += count,
            Err(place) => self.buckets.insert(place, (position, count)),
        }
    }

    /// Adds samples and sum, and takes the larger maximum.
    pub fn add_totals(&mut self, totals: Totals) {
        self.totals.samples = self.totals.samples.wrapping_add(totals.samples);
        self.totals.sum_ns = self.totals.sum_ns.wrapping_add(totals.sum_ns);
        self.totals.max_ns = self.totals.max_ns.max(totals.max_ns);
    }

    /// Adds all of it to a histogram.
    pub fn add_to(&self, histogram: &mut Histogram) {
        for (position, count) in &self.buckets {
            histogram.add(usize::from(*position), *count);
        }
        histogram.add_totals(self.totals);
    }

    /// Empties it; its memory stays.
    pub fn clear(&mut self) {
        self.buckets.clear();
        self.totals = Totals::default();
    }

    /// Occupied buckets in ascending order: (position, count).
    pub fn buckets(&self) -> &[(u8, u64)] {
        &self.buckets
    }

    /// Samples, sum and maximum.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Estimated events.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }

    /// Gives back memory for buckets that are not there.
    pub fn shrink_to_fit(&mut self) {
        self.buckets.shrink_to_fit();
    }

    /// Heap bytes.
    pub fn bytes(&self) -> usize {
        self.buckets.capacity() * size_of::<(u8, u64)>()
    }
}

impl Counted for SparseHistogram {
    fn append_occupied(&self, occupied: &mut Vec<(u8, u64)>) {
        occupied.extend_from_slice(&self.buckets);
    }

    fn totals(&self) -> Totals {
        self.totals
    }

    fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_holds_what_a_full_one_holds(events in prop::collection::vec((0u8..192, 1u64..9), 0..50)) {
            let (mut sparse, mut full) = (SparseHistogram::default(), Histogram::new());
            for (position, count) in events {
                sparse.add(position, count);
                full.add(usize::from(position), count);
                let totals = Totals { samples: 1, sum_ns: count, max_ns: u64::from(position) };
                sparse.add_totals(totals);
                full.add_totals(totals);
            }
            let occupied: Vec<_> = full.occupied().map(|(at, count)| (at as u8, count)).collect();
            prop_assert_eq!(sparse.buckets(), occupied.as_slice());
            prop_assert_eq!(sparse.totals(), full.totals());
            prop_assert_eq!(sparse.count(), full.count());
            let mut added = Histogram::new();
            sparse.add_to(&mut added);
            prop_assert_eq!(added, full);
        }
    }
}
