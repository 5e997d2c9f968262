//! How good forecasts, detectors and reasons are on data with known answers:
//! loaders of public sets, scorers, rolling origins, baselines, reports.
//!
//! A model only ever receives the past here, and it is the model that the
//! analyzer runs.
#![forbid(unsafe_code)]

pub mod baseline;
pub mod bizitobs;
pub mod detect;
mod error;
pub mod ms_cloud;
pub mod nab;
pub mod petshop;
pub mod rootcause;
pub mod score;
pub mod table;
pub mod vus;

pub use error::Error;
