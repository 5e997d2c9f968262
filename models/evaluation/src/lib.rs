//! How good forecasts, detectors and reasons are on data with known answers:
//! loaders of public sets, scorers, rolling origins, baselines, reports.
//!
//! A model only ever receives the past here, and it is the model that the
//! analyzer runs.
#![forbid(unsafe_code)]

pub mod baseline;
pub mod bizitobs;
mod bootstrap;
pub mod breach;
pub mod coverage;
mod error;
pub mod forecast;
pub mod monitoring;
pub mod report;
pub mod score;
pub mod speed;
pub mod table;

pub use bootstrap::Interval;
pub use error::Error;
