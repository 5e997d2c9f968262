//! The state of a partition in storable form, so that another analyzer goes on
//! exactly where this one stopped: totals, deduplication, alerts, models and
//! windows come back bit for bit.

mod topic;

use std::borrow::Cow;

use honeyguide_models::{SeriesModel, recalibration::Recalibration, wasserstein::Wasserstein};
use honeyguide_proto::{
    ServiceId,
    batch::{Batch, DecodeError, Header, SeriesRef, WINDOW_DURATION_NS, encode},
    v1,
};
use sensor_common::{Histogram, Signal};
use serde::{Deserialize, Serialize};

use crate::series::{Because, Facts};

pub(crate) use topic::Claimed;
pub use topic::StateTopic;

/// Of everything here and in `models`; another is refused.
pub const VERSION: u32 = 9;
/// Bytes of a piece, about: below what brokers accept as a record.
pub(crate) const PIECE_LEN: usize = 800_000;
/// Series, or routes, of one encoded batch.
pub(crate) const SERIES_PER_BATCH: usize = 4096;

/// Why a state cannot be restored.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Written by another version.
    #[error("the state is of version {0}, this analyzer reads {VERSION}")]
    Version(u32),
    /// Pieces are missing or damaged.
    #[error("the state's {0} cannot be read")]
    Damaged(&'static str),
    /// Histograms cannot be decoded.
    #[error("histograms of the state: {0}")]
    Histograms(#[from] DecodeError),
    /// A field has an impossible value.
    #[error("the state's {0} is not as it must be")]
    Field(&'static str),
}

/// All that a pipeline knows, in pieces.
#[derive(Debug)]
pub struct StoredState {
    /// Beside series.
    pub(crate) partition: v1::PartitionState,
    /// Of all series, as [`StoredSeries`].
    pub(crate) series: Vec<Vec<u8>>,
    /// Windows since the last store, as [`StoredWindows`].
    pub(crate) windows: Vec<Vec<u8>>,
    /// The last step that is closed.
    pub(crate) last_step: u64,
}

impl StoredState {
    /// Of the next record to take.
    pub fn next_offset(&self) -> honeyguide_bus::Offset {
        self.partition.next_offset
    }
}

/// A series without its windows and histograms.
#[derive(Serialize, Deserialize)]
pub(crate) struct StoredSeries<'a> {
    pub(crate) service: Cow<'a, str>,
    pub(crate) signal: u8,
    pub(crate) number: u32,
    pub(crate) facts: Facts,
    pub(crate) model: Cow<'a, SeriesModel>,
    pub(crate) distribution: Cow<'a, Wasserstein>,
    pub(crate) reasons: Cow<'a, [Because]>,
    pub(crate) recalibrations: Cow<'a, [(String, Recalibration)]>,
}

/// What stands before the columns of a piece of windows, which all end with
/// the same step.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct StoredWindows {
    pub(crate) last_step: u64,
    /// Number of the series, and of its windows.
    pub(crate) series: Vec<(u32, u32)>,
}

/// The bytes of a value of ours, which always has some.
pub(crate) fn to_bytes<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).expect("plain values in memory are serialisable")
}

/// A value of ours, and the bytes after it.
pub(crate) fn take_from_bytes<'a, T: Deserialize<'a>>(
    bytes: &'a [u8],
    what: &'static str,
) -> Result<(T, &'a [u8]), StateError> {
    postcard::take_from_bytes(bytes).map_err(|_| StateError::Damaged(what))
}

/// Of batches in a state, where it says nothing.
pub(crate) fn header() -> Header {
    Header {
        sensor_id: "state".to_owned(),
        boot_id: [0; 16],
        seq: 1,
        partition: 0,
        window_start_ns: 0,
        window_duration_ns: *WINDOW_DURATION_NS.start(),
        more: false,
    }
}

/// Encodes histograms, which must not be empty, in the order given (by
/// service, then signal).
pub(crate) fn encode_series<'a>(
    series: impl Iterator<Item = (&'a ServiceId, Signal, &'a Histogram)>,
) -> Vec<Vec<u8>> {
    let header = header();
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
                histogram: *histogram,
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
