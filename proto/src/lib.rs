//! The wire contract between sensors, analyzers and users.
//!
//! - [`v1`]: the generated messages and the gRPC forecast service.
//! - [`batch`]: histogram batches, encoded compactly and decoded with every
//!   check; foreign bytes give a [`batch::DecodeError`], never a panic.
//! - [`hint`]: how closely sensors should look, checked likewise.
//! - [`service`]: who a series belongs to; [`route`]: which requests of it.
//! - [`otlp`] and [`native_histogram`]: lossless conversions of
//!   [`sensor_common::Histogram`].
//!
//! It deliberately does no I/O. Read `honeyguide/v1/telemetry.proto` first.
#![forbid(unsafe_code)]

pub mod batch;
pub mod hint;
pub mod native_histogram;
pub mod otlp;
pub mod route;
pub mod service;
mod sparse_histogram;

pub use hint::Hint;
pub use route::Route;
pub use service::{ServiceId, ServiceKind};
pub use sparse_histogram::SparseHistogram;

/// Generated from `honeyguide/v1/*.proto`.
#[allow(
    missing_docs,
    clippy::all,
    reason = "generated; documented in the .proto files"
)]
pub mod v1 {
    tonic::include_proto!("honeyguide.v1");

    /// Encoded file descriptors, for gRPC reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}
