//! Prometheus native histograms.
//!
//! [`NativeHistogram`] has the integer fields of `io.prometheus.client.Histogram`
//! (spans and deltas, schema 3, seconds), so that callers fill whichever types
//! their exporter uses. Prometheus numbers a bucket by its upper bound, one
//! more than OpenTelemetry.

use sensor_common::{
    Histogram,
    histogram::{BUCKETS, MIN_INDEX, SCALE, Totals},
};

/// The integer form of a native histogram.
#[derive(Clone, Debug, PartialEq)]
pub struct NativeHistogram {
    /// Buckets per doubling as log2.
    pub schema: i32,
    /// Number of events.
    pub count: u64,
    /// Seconds.
    pub sum: f64,
    /// Runs of buckets: (distance from the end of the previous run or, for the
    /// first, the index of its first bucket; length).
    pub spans: Vec<(i32, u32)>,
    /// Count of each bucket of the runs, as the difference from its predecessor.
    pub deltas: Vec<i64>,
}

/// Why a native histogram is none of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConversionError {
    /// Coarser or finer buckets cannot be converted without loss.
    #[error("schema is {0}, expected 3")]
    Schema(i32),
    /// A bucket lies outside of our range, or has a negative count.
    #[error("bucket {0} of the histogram is outside of the range, or negative")]
    Bucket(usize),
    /// Spans and deltas do not fit each other.
    #[error("{deltas} deltas for {buckets} buckets in spans")]
    Lengths {
        /// Number of deltas.
        deltas: usize,
        /// Sum of the span lengths.
        buckets: u64,
    },
}

impl From<&Histogram> for NativeHistogram {
    fn from(histogram: &Histogram) -> Self {
        let mut spans: Vec<(i32, u32)> = Vec::new();
        let mut deltas = Vec::new();
        let (mut end, mut previous) = (0, 0i64);
        for (position, count) in histogram.occupied() {
            let index = position as i32 + MIN_INDEX + 1;
            match spans.last_mut() {
                Some((_, length)) if index == end => *length += 1,
                _ => spans.push((index - end, 1)),
            }
            end = index + 1;
            deltas.push(count.cast_signed() - previous);
            previous = count.cast_signed();
        }
        Self {
            schema: SCALE,
            count: histogram.count(),
            sum: histogram.sum_ns() as f64 / 1e9,
            spans,
            deltas,
        }
    }
}

impl TryFrom<&NativeHistogram> for Histogram {
    type Error = ConversionError;

    /// Buckets come back exactly, the sum to the nanosecond as far as a double
    /// holds it. There is no maximum: the upper bound of the highest bucket
    /// stands in. All events count as observed.
    fn try_from(native: &NativeHistogram) -> Result<Self, ConversionError> {
        if native.schema != SCALE {
            return Err(ConversionError::Schema(native.schema));
        }
        let buckets = native
            .spans
            .iter()
            .map(|(_, length)| u64::from(*length))
            .sum();
        if buckets != native.deltas.len() as u64 {
            return Err(ConversionError::Lengths {
                deltas: native.deltas.len(),
                buckets,
            });
        }
        let mut histogram = Histogram::new();
        let mut deltas = native.deltas.iter().enumerate();
        let (mut index, mut count, mut max_ns) = (0i64, 0i64, 0.0);
        for (offset, length) in &native.spans {
            index += i64::from(*offset);
            for (number, delta) in deltas.by_ref().take(*length as usize) {
                count = count.wrapping_add(*delta);
                let position = usize::try_from(index - i64::from(MIN_INDEX) - 1)
                    .ok()
                    .filter(|position| *position < BUCKETS && count >= 0)
                    .ok_or(ConversionError::Bucket(number))?;
                if count > 0 {
                    histogram.add(position, count.cast_unsigned());
                    max_ns = sensor_common::histogram::lower_bound_ns(position + 1);
                }
                index += 1;
            }
        }
        histogram.add_totals(Totals {
            samples: histogram.count(),
            sum_ns: (native.sum * 1e9).round() as u64,
            max_ns: max_ns as u64,
        });
        Ok(histogram)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn buckets_and_sum_survive(values in prop::collection::vec(0u64..15_000_000_000, 0..100)) {
            let mut histogram = Histogram::new();
            values.iter().for_each(|value| histogram.record(*value));
            let back = Histogram::try_from(&NativeHistogram::from(&histogram)).unwrap();
            prop_assert_eq!(back.buckets(), histogram.buckets());
            prop_assert_eq!(back.sum_ns(), histogram.sum_ns());
            prop_assert_eq!(back.count(), histogram.count());
        }

        #[test]
        fn foreign_histograms_never_panic(
            spans in prop::collection::vec((any::<i32>(), 0u32..4), 0..4),
            deltas in prop::collection::vec(any::<i64>(), 0..8),
        ) {
            let native = NativeHistogram { schema: 3, count: 0, sum: 0.0, spans, deltas };
            let _ = Histogram::try_from(&native);
        }
    }

    #[test]
    fn one_second_is_in_the_bucket_that_ends_at_one_second() {
        let mut histogram = Histogram::new();
        histogram.record(1_000_000_000);
        let native = NativeHistogram::from(&histogram);
        // Prometheus: bucket i of schema 3 ends at 2^(i/8).
        assert_eq!(native.spans, [(0, 1)]);
        assert_eq!(native.deltas, [1]);
    }
}
