//! The analyzer: histograms from the bus to forecasts, alerts and interfaces.
//!
//! In reading order: [`pipeline`] is the logic, pure; [`ingest`] takes each
//! batch once; [`series`] and [`ring`] keep the history that models read;
//! [`judge`] turns risks into alerts; [`frame`] keeps history on disk and is the
//! only module that knows polars; [`state`] is what another analyzer needs to go
//! on; [`service`] is what `honeyguide-analyzer` runs; [`analyzer`] is the shell with the clock, the bus and the interfaces.
//!
//! Deliberately absent: kernel programs, and any say in how sensors measure.
#![forbid(unsafe_code)]

pub mod analyzer;
mod api;
mod board;
pub mod config;
mod exposition;
pub mod frame;
mod http;
pub mod ingest;
pub mod judge;
mod outbox;
pub mod pipeline;
pub mod ring;
pub mod series;
pub mod service;
pub mod state;
mod stores;
mod worker;

pub use analyzer::{Analyzer, StartError};
pub use board::Snapshot;
pub use config::{Config, ConfigError, ValidConfig};
pub use state::StateTopic;
