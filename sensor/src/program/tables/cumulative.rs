//! What was last read of a row, and how much it grew since.

use sensor_common::histogram::BUCKETS;

/// Counters that are looked at together; most of a row are 0.
const LINE: usize = 16;
const _: () = assert!(BUCKETS.is_multiple_of(LINE));

/// Counters of one row as last read; most buckets stay empty, so only those
/// that are not are kept. They wrap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cumulative {
    /// Events observed.
    pub samples: u64,
    /// Weighted sum in nanoseconds.
    pub sum_ns: u64,
    /// Weighted counts by position, in ascending order.
    buckets: Vec<(u8, u32)>,
}

/// Counters of one row as they are now.
pub(super) struct Counters<'a> {
    pub samples: u64,
    pub sum_ns: u64,
    /// All of them.
    pub buckets: &'a [u32],
}

impl Cumulative {
    /// Moves to `now`; calls `moved` with the position and the increase of each
    /// bucket that grew, and returns the increase of samples and sum.
    pub(super) fn advance(
        &mut self,
        now: &Counters<'_>,
        moved: &mut impl FnMut(u8, u32),
    ) -> (u64, u64) {
        let (mut known, mut counted) = (0, 0);
        for (line, counters) in (0u8..).zip(now.buckets.chunks_exact(LINE)) {
            let first = line * LINE as u8;
            let next_known = self.buckets.get(known).map(|of| of.0);
            let knows_none = next_known.is_none_or(|next| next - first >= LINE as u8);
            if knows_none && counters.iter().all(|counter| *counter == 0) {
                continue;
            }
            for (position, counter) in (first..).zip(counters) {
                let is_known = self.buckets.get(known).is_some_and(|of| of.0 == position);
                if !is_known {
                    if *counter == 0 {
                        continue;
                    }
                    self.buckets.insert(known, (position, 0));
                }
                let before = &mut self.buckets[known].1;
                known += 1;
                let count = counter.wrapping_sub(*before);
                if count != 0 {
                    *before = *counter;
                    counted += u64::from(count);
                    moved(position, count);
                }
            }
        }
        let sum_increase = now.sum_ns.wrapping_sub(self.sum_ns);
        self.sum_ns = now.sum_ns;
        let samples = take_samples(&mut self.samples, now.samples, counted);
        (samples, sum_increase)
    }
}

/// Moves `last` to `now`, but not by more than `counted` events if there were
/// any; returns by how much, at most `counted`.
fn take_samples(last: &mut u64, now: u64, counted: u64) -> u64 {
    let increase = now.wrapping_sub(*last).min(counted);
    *last = if counted == 0 {
        now
    } else {
        last.wrapping_add(increase)
    };
    increase
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Also where counters wrap, to 0 even.
        #[test]
        fn what_moved_is_the_difference_to_the_last_time(
            steps in prop::collection::vec(prop::collection::vec((0usize..BUCKETS, prop_oneof![0u32..9, any::<u32>()]), 0..20), 1..8),
        ) {
            let (mut last, mut counters) = (Cumulative::default(), [0u32; BUCKETS]);
            for step in steps {
                let before = counters;
                for (position, increase) in step {
                    counters[position] = counters[position].wrapping_add(increase);
                }
                let mut moved = [0u32; BUCKETS];
                let now = Counters { samples: 0, sum_ns: 0, buckets: &counters };
                last.advance(&now, &mut |position, count| moved[usize::from(position)] = count);
                for position in 0..BUCKETS {
                    prop_assert_eq!(moved[position], counters[position].wrapping_sub(before[position]));
                }
            }
        }
    }

    #[test]
    fn there_are_never_more_samples_than_events() {
        let mut last = 0;
        let mut check = |now, counted, expected| {
            assert_eq!(take_samples(&mut last, now, counted), expected);
        };
        // One event is in its bucket only, then in the samples.
        check(4, 5, 4);
        check(7, 2, 2);
        check(9, 3, 3);
        // A sample whose event was taken before is given up.
        check(10, 0, 0);
        check(11, 1, 1);
        // Sampled events weigh more than one.
        check(12, 8, 1);
    }
}
