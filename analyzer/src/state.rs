//! The state of a partition as a message, so that another analyzer goes on
//! exactly where this one stopped.

use honeyguide_proto::{
    ServiceId,
    batch::{Batch, DecodeError, Header, SeriesRef, WINDOW_DURATION_NS, encode},
};
use sensor_common::{Histogram, Signal};

/// Of the message; another is refused.
pub const VERSION: u32 = 1;
/// Series of one encoded batch.
const SERIES_PER_BATCH: usize = 4096;

/// Why a state cannot be restored.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Written by another version.
    #[error("the state is of version {0}, this analyzer reads {VERSION}")]
    Version(u32),
    /// Histograms cannot be decoded.
    #[error("histograms of the state: {0}")]
    Histograms(#[from] DecodeError),
    /// A field has an impossible value.
    #[error("the state's {0} is not as it must be")]
    Field(&'static str),
}

/// Encodes histograms, which must not be empty, in the order given (by
/// service, then signal).
pub(crate) fn encode_series<'a>(
    series: impl Iterator<Item = (&'a ServiceId, Signal, &'a Histogram)>,
) -> Vec<Vec<u8>> {
    let header = Header {
        sensor_id: "state".to_owned(),
        boot_id: [0; 16],
        seq: 1,
        partition: 0,
        window_start_ns: 0,
        window_duration_ns: *WINDOW_DURATION_NS.start(),
    };
    let all: Vec<_> = series.collect();
    let encoded = all.chunks(SERIES_PER_BATCH).map(|chunk| {
        let mut services: Vec<ServiceId> = Vec::new();
        let mut references = Vec::with_capacity(chunk.len());
        for (service, signal, histogram) in chunk {
            if services.last() != Some(*service) {
                services.push((*service).clone());
            }
            references.push(SeriesRef {
                service: services.len() as u32 - 1,
                signal: *signal,
                histogram,
            });
        }
        encode(&header, &services, references, &[], None)
    });
    encoded.collect()
}

/// Decodes what [`encode_series`] gave, in the same order.
pub(crate) fn decode_series(
    batches: &[Vec<u8>],
) -> Result<Vec<(ServiceId, Signal, Histogram)>, StateError> {
    let mut all = Vec::new();
    for payload in batches {
        let batch = Batch::decode(payload)?;
        for series in &batch.series {
            let service = batch.services[series.service as usize].clone();
            all.push((service, series.signal, batch.histogram(series)));
        }
    }
    Ok(all)
}
