//! How good forecasts, detectors and reasons are on data with known answers:
//! loaders of public sets, scorers, rolling origins, baselines, reports.
//!
//! A model only ever receives the past here, and it is the model that the
//! analyzer runs.
#![forbid(unsafe_code)]

mod error;
pub mod nab;

pub use error::EvaluationError;
