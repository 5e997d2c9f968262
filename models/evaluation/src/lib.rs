//! How good forecasts, detectors and reasons are on data with known answers:
//! loaders of public sets, scorers, rolling origins, baselines, reports.
//!
//! A model only ever receives the past here, and it is the model that the
//! analyzer runs.
#![forbid(unsafe_code)]

pub mod baseline;
pub mod bizitobs;
mod error;
pub mod nab;
pub mod score;
pub mod table;

pub use error::Error;
