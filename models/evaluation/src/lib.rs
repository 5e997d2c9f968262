//! How good forecasts, detectors and reasons are on data with known answers:
//! loaders of public sets, scorers, rolling origins, baselines, reports.
//!
//! A model only ever receives the past here. Detection is that of the analyzer;
//! forecasts of one quantity share with its model how experts are weighted and
//! intervals are made.
#![forbid(unsafe_code)]

pub mod baseline;
pub mod bizitobs;
mod bootstrap;
pub mod breach;
pub mod coverage;
pub mod detect;
mod error;
pub mod forecast;
pub mod incidents;
pub mod monitoring;
pub mod nab;
pub mod own;
pub mod petshop;
mod plot;
pub mod report;
pub mod rootcause;
pub mod score;
pub mod speed;
pub mod table;
pub mod vus;
pub mod young;

pub use bootstrap::Interval;
pub use error::Error;
