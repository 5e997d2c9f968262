//! OpenTelemetry exponential histograms.
//!
//! [`ExponentialHistogram`] has the fields of an OTLP
//! `ExponentialHistogramDataPoint` that describe the distribution, in seconds,
//! so that callers fill whichever generation of the OTLP types they link.

use sensor_common::{
    Histogram,
    histogram::{BUCKETS, MIN_INDEX, SCALE, Totals},
};

/// The distribution part of an `ExponentialHistogramDataPoint`.
#[derive(Clone, Debug, PartialEq)]
pub struct ExponentialHistogram {
    /// Buckets per doubling as log2; always 3 when made here.
    pub scale: i32,
    /// Number of events.
    pub count: u64,
    /// Seconds.
    pub sum: f64,
    /// Seconds; absent when empty.
    pub max: Option<f64>,
    /// Index of the first bucket.
    pub offset: i32,
    /// Counts of consecutive buckets from `offset`.
    pub bucket_counts: Vec<u64>,
    /// Events of exactly zero.
    pub zero_count: u64,
}

/// Why a data point is none of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConversionError {
    /// Coarser or finer buckets cannot be converted without loss.
    #[error("scale is {0}, expected 3")]
    Scale(i32),
    /// A bucket lies outside of our range.
    #[error("bucket index {0} is outside of {MIN_INDEX} to 31")]
    OutOfRange(i64),
    /// Count differs from the sum of the buckets.
    #[error("count is {count}, but the buckets hold {buckets}")]
    Count {
        /// As given.
        count: u64,
        /// As summed.
        buckets: u64,
    },
}

impl From<&Histogram> for ExponentialHistogram {
    fn from(histogram: &Histogram) -> Self {
        let first = histogram
            .occupied()
            .next()
            .map_or(0, |(position, _)| position);
        let end = histogram
            .occupied()
            .last()
            .map_or(0, |(position, _)| position + 1);
        Self {
            scale: SCALE,
            count: histogram.count(),
            sum: histogram.sum_ns() as f64 / 1e9,
            max: (!histogram.is_empty()).then(|| histogram.max_ns() as f64 / 1e9),
            offset: first as i32 + MIN_INDEX,
            bucket_counts: histogram.buckets()[first..end].to_vec(),
            zero_count: 0,
        }
    }
}

impl TryFrom<&ExponentialHistogram> for Histogram {
    type Error = ConversionError;

    /// Buckets come back exactly, sum and maximum to the nanosecond as far as
    /// a double holds them (2^53 ns = 104 days). OTLP has no sample count: all
    /// events count as observed. Zeros go to the first bucket.
    fn try_from(point: &ExponentialHistogram) -> Result<Self, ConversionError> {
        if point.scale != SCALE {
            return Err(ConversionError::Scale(point.scale));
        }
        let mut histogram = Histogram::new();
        for (index, count) in (i64::from(point.offset)..).zip(&point.bucket_counts) {
            if *count == 0 {
                continue;
            }
            let position = usize::try_from(index - i64::from(MIN_INDEX))
                .ok()
                .filter(|position| *position < BUCKETS)
                .ok_or(ConversionError::OutOfRange(index))?;
            histogram.add(position, *count);
        }
        if point.zero_count > 0 {
            histogram.add(0, point.zero_count);
        }
        if histogram.count() != point.count {
            return Err(ConversionError::Count {
                count: point.count,
                buckets: histogram.count(),
            });
        }
        histogram.add_totals(Totals {
            samples: point.count,
            sum_ns: (point.sum * 1e9).round() as u64,
            max_ns: (point.max.unwrap_or(0.0) * 1e9).round() as u64,
        });
        Ok(histogram)
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::metrics::v1::{
        ExponentialHistogramDataPoint, exponential_histogram_data_point::Buckets,
    };
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    /// Through the bytes of the official message and back.
    fn through_otlp(histogram: &Histogram) -> Histogram {
        let ours = ExponentialHistogram::from(histogram);
        let point = ExponentialHistogramDataPoint {
            scale: ours.scale,
            count: ours.count,
            sum: Some(ours.sum),
            max: ours.max,
            positive: Some(Buckets {
                offset: ours.offset,
                bucket_counts: ours.bucket_counts,
            }),
            ..Default::default()
        };
        let point =
            ExponentialHistogramDataPoint::decode(point.encode_to_vec().as_slice()).unwrap();
        let positive = point.positive.unwrap();
        let read = ExponentialHistogram {
            scale: point.scale,
            count: point.count,
            sum: point.sum.unwrap(),
            max: point.max,
            offset: positive.offset,
            bucket_counts: positive.bucket_counts,
            zero_count: point.zero_count,
        };
        Histogram::try_from(&read).unwrap()
    }

    proptest! {
        #[test]
        fn nothing_is_lost(values in prop::collection::vec(0u64..100_000_000_000, 0..100)) {
            let mut histogram = Histogram::new();
            values.iter().for_each(|value| histogram.record(*value));
            prop_assert_eq!(through_otlp(&histogram), histogram);
        }
    }

    #[test]
    fn foreign_points_are_errors() {
        let mut point = ExponentialHistogram::from(&Histogram::new());
        point.scale = 4;
        assert_eq!(Histogram::try_from(&point), Err(ConversionError::Scale(4)));
        point.scale = 3;
        point.offset = 40;
        point.bucket_counts = vec![1];
        assert_eq!(
            Histogram::try_from(&point),
            Err(ConversionError::OutOfRange(40))
        );
        point.offset = 0;
        let error = ConversionError::Count {
            count: 0,
            buckets: 1,
        };
        assert_eq!(Histogram::try_from(&point), Err(error));
    }
}
