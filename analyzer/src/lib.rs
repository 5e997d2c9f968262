//! The analyzer: histograms from the bus to forecasts, alerts and interfaces.
//!
//! In reading order: [`pipeline`] is the logic, pure; [`ingest`] takes each
//! batch once; [`series`] and [`ring`] keep the history that models read;
//! [`routes`] are requests by route, which have no models; [`judge`] turns risks into alerts; [`hints`] says how closely sensors look; [`frame`] keeps history on disk and is the
//! only module that knows polars; [`state`] is what another analyzer needs to go
//! on; [`service`] is what `honeyguide-analyzer` runs; [`analyzer`] is the shell with the clock, the bus and the interfaces.
//!
//! Deliberately absent: kernel programs. Sensors are told how closely to look,
//! and decide themselves what they do.
#![forbid(unsafe_code)]

pub mod analyzer;
mod api;
mod board;
pub mod config;
mod exposition;
pub mod frame;
mod graph;
pub mod hints;
mod http;
pub mod ingest;
pub mod judge;
mod outbox;
pub mod pipeline;
pub mod ring;
pub mod routes;
pub mod series;
pub mod service;
pub mod state;
mod stores;
mod worker;

pub use analyzer::{Analyzer, Outlet, StartError};
pub use board::Snapshot;
pub use config::{Config, ConfigError, ValidConfig};
pub use state::StateTopic;
