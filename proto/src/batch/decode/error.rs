//! Why a payload is no batch.

use crate::{batch::PAYLOAD_LEN_MAX, service::ServiceIdError};

/// Why a payload is no batch.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// Longer than a batch may be.
    #[error("payload of {len} bytes exceeds {PAYLOAD_LEN_MAX}; split the batch")]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// Not a protobuf message of this kind.
    #[error("not a HistogramBatch: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// A field has a value that it cannot have.
    #[error("{field} is {value}, expected {expected}")]
    Field {
        /// Name in `telemetry.proto`.
        field: &'static str,
        /// What it holds.
        value: u64,
        /// What it may hold.
        expected: &'static str,
    },
    /// A column has another length than its neighbours need.
    #[error("column {column} has {len} entries, expected {expected}")]
    Column {
        /// Name in `telemetry.proto`.
        column: &'static str,
        /// Its length.
        len: usize,
        /// The length of the others.
        expected: usize,
    },
    /// A service is no service.
    #[error("service {index}: {source}")]
    Service {
        /// Its place in the batch.
        index: usize,
        /// What is wrong.
        source: ServiceIdError,
    },
    /// A route is not as it must be.
    #[error("route {index}: {what}")]
    Route {
        /// Its place in the batch.
        index: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// A series by route is not as it must be.
    #[error("series by route {index}: {what}")]
    RouteSeries {
        /// Its place in the columns.
        index: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// An endpoint is not as it must be.
    #[error("endpoint {index}: {what}")]
    Endpoint {
        /// Its place in the batch.
        index: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// A series is not as it must be.
    #[error("series {index}: {what}")]
    Series {
        /// Its place in the columns.
        index: usize,
        /// What is wrong.
        what: &'static str,
    },
}

impl DecodeError {
    /// Of a field that has a value that it cannot have.
    pub(super) fn field(field: &'static str, value: u64, expected: &'static str) -> Self {
        DecodeError::Field {
            field,
            value,
            expected,
        }
    }

    /// The kind of error as a metric label.
    pub fn reason(&self) -> &'static str {
        match self {
            DecodeError::TooLong { .. } => "too_long",
            DecodeError::Protobuf(_) => "not_protobuf",
            DecodeError::Field { .. } => "bad_field",
            DecodeError::Column { .. } => "bad_column",
            DecodeError::Service { .. } => "bad_service",
            DecodeError::Series { .. } => "bad_series",
            DecodeError::Route { .. } => "bad_route",
            DecodeError::RouteSeries { .. } => "bad_route_series",
            DecodeError::Endpoint { .. } => "bad_endpoint",
        }
    }
}
