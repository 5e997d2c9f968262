//! Series out of columns, those of services and those of routes.

use std::ops::Range;

use sensor_common::{
    Signal,
    histogram::{BUCKETS, Totals},
};

use super::DecodeError;
use crate::{
    batch::{
        COUNT_MAX, MIXED, SERIES_MAX, SHIFT_MAX, SeriesWindow, expected_max_ns, expected_sum_ns,
    },
    v1,
};

/// One series as the columns have it.
pub(super) struct Decoded {
    /// Index of its service or route.
    pub(super) owner: u32,
    signal: u8,
    count: u64,
    totals: Totals,
    pub(super) buckets: Range<u32>,
}

impl Decoded {
    /// `None` if this reader does not know the signal.
    pub(super) fn series(&self, service: u32) -> Option<SeriesWindow> {
        Some(SeriesWindow {
            service,
            signal: Signal::from_number(self.signal)?,
            count: self.count,
            totals: self.totals,
            buckets: self.buckets.clone(),
        })
    }
}

/// Places in the columns that are not one entry per series.
pub(super) struct Cursor<'a> {
    columns: &'a v1::SeriesColumns,
    status_class: Option<&'a [u8]>,
    owner: u32,
    /// Signal and status class of the series before.
    previous: Option<(u8, u8)>,
    samples: usize,
    bucket: usize,
    gap: usize,
}

impl<'a> Cursor<'a> {
    /// At the begin of columns whose lengths are right.
    pub(super) fn new(
        columns: &'a v1::SeriesColumns,
        status_class: Option<&'a [u8]>,
        buckets: &mut Vec<(u8, u64)>,
    ) -> Result<Self, DecodeError> {
        check_lengths(columns, status_class)?;
        buckets.reserve(columns.bucket.len());
        Ok(Self {
            columns,
            status_class,
            owner: 0,
            previous: None,
            samples: 0,
            bucket: 0,
            gap: 0,
        })
    }

    /// Decodes series `index`, of one of `owners`; its buckets go to `buckets`.
    pub(super) fn next(
        &mut self,
        index: usize,
        owners: usize,
        buckets: &mut Vec<(u8, u64)>,
    ) -> Result<Decoded, &'static str> {
        let columns = self.columns;
        let delta = columns.service_delta[index];
        let signal = columns.signal[index];
        let key = (signal, self.status_class.map_or(0, |class| class[index]));
        if delta == 0 && self.previous.is_some_and(|previous| previous >= key) {
            return Err("is not after its predecessor in order");
        }
        self.previous = Some(key);
        self.owner = self
            .owner
            .checked_add(delta)
            .filter(|owner| (*owner as usize) < owners)
            .ok_or("refers to no service or route")?;
        let begin = buckets.len();
        let count = self.buckets(buckets, columns.occupied[index])?;
        let shift = columns.sampling_shift[index];
        let samples = self.samples(shift, count)?;

        let occupied = &buckets[begin..];
        let max_ns =
            expected_max_ns(occupied).wrapping_add_signed(columns.max_difference_ns[index]);
        let weight = if shift == MIXED { 1 } else { 1 << shift };
        let sum_ns = expected_sum_ns(occupied, weight, max_ns)
            .wrapping_add_signed(columns.sum_difference_ns[index]);
        Ok(Decoded {
            owner: self.owner,
            signal,
            count,
            totals: Totals {
                samples,
                sum_ns,
                max_ns,
            },
            buckets: begin as u32..buckets.len() as u32,
        })
    }

    fn samples(&mut self, shift: u8, count: u64) -> Result<u64, &'static str> {
        let samples = match shift {
            MIXED => {
                self.samples += 1;
                self.columns.samples[self.samples - 1]
            }
            shift if shift <= SHIFT_MAX && count.trailing_zeros() >= u32::from(shift) => {
                count >> shift
            }
            _ => return Err("has a sampling shift that does not divide its count"),
        };
        if samples == 0 || samples > count {
            return Err("has more samples than events, or none");
        }
        Ok(samples)
    }

    fn buckets(&mut self, buckets: &mut Vec<(u8, u64)>, occupied: u8) -> Result<u64, &'static str> {
        let columns = self.columns;
        if occupied == 0 {
            return Err("is empty");
        }
        let mut total = 0;
        let mut previous: Option<usize> = None;
        for _ in 0..occupied {
            let bucket = columns.bucket[self.bucket];
            self.bucket += 1;
            let position = if bucket & 1 == 1 {
                let gap = usize::from(columns.bucket_gap[self.gap]);
                self.gap += 1;
                match previous {
                    Some(_) if gap == 0 => return Err("has a bucket twice"),
                    Some(previous) => previous + gap,
                    None => gap,
                }
            } else {
                previous.ok_or("has no first bucket")? + 1
            };
            let count = bucket >> 1;
            if position >= BUCKETS {
                return Err("has a bucket past the last one");
            }
            if count == 0 || count > COUNT_MAX {
                return Err("has a bucket with no events, or too many");
            }
            buckets.push((position as u8, count));
            previous = Some(position);
            total += count;
        }
        Ok(total)
    }
}

/// Checks that columns have the lengths that their neighbours need.
fn check_lengths(
    columns: &v1::SeriesColumns,
    status_class: Option<&[u8]>,
) -> Result<(), DecodeError> {
    let series = columns.signal.len();
    if series > SERIES_MAX {
        return Err(DecodeError::field(
            "series",
            series as u64,
            "at most 131072 entries",
        ));
    }
    let mixed = columns
        .sampling_shift
        .iter()
        .filter(|shift| **shift == MIXED)
        .count();
    let occupied = columns
        .occupied
        .iter()
        .map(|count| usize::from(*count))
        .sum();
    let gaps = columns
        .bucket
        .iter()
        .filter(|bucket| *bucket & 1 == 1)
        .count();
    let classes = status_class.map_or(series, <[u8]>::len);
    for (column, len, expected) in [
        ("service_delta", columns.service_delta.len(), series),
        ("sampling_shift", columns.sampling_shift.len(), series),
        ("sum_difference_ns", columns.sum_difference_ns.len(), series),
        ("max_difference_ns", columns.max_difference_ns.len(), series),
        ("occupied", columns.occupied.len(), series),
        ("samples", columns.samples.len(), mixed),
        ("bucket", columns.bucket.len(), occupied),
        ("bucket_gap", columns.bucket_gap.len(), gaps),
        ("status_class", classes, series),
    ] {
        if len != expected {
            return Err(DecodeError::Column {
                column,
                len,
                expected,
            });
        }
    }
    Ok(())
}
