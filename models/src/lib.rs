//! Forecasting, anomaly, breach and change-point models over latency series.
//!
//! A series is a run of windows of one signal of one service: four latency
//! quantiles, a rate, and how well they were observed. For each series a
//! [`SeriesModel`] forecasts all five at 1, 5, 15, 30 and 60 minutes with 80 %
//! and 95 % intervals, scores how unusual the newest window is, and finds
//! lasting changes. From its [`Forecast`], [`breach::breach`] estimates whether
//! and when an objective will be broken, and [`attribution::attribute`] says why.
//!
//! ```text
//!             every window                            now and then
//!  History ──▶ SeriesModel::refresh ─▶ Forecast       SeriesModel::refit
//!  (ring)      settle · levels ·        │  │            season, drivers,
//!              experts · intervals ·    │  │            ridge regressions (linfa)
//!              anomaly · change point   │  └▶ breach   (probability, ETA, budget)
//!                                       └───▶ attribute (ranked reasons)
//! ```
//!
//! The forecast is a combination of simple experts — last value, levels over
//! 30 s to 15 min, seasons of 5 minutes to a week, and a regression on levels,
//! season, load and the service's other signals — weighted by their recent
//! errors (`ensemble.rs`). Its intervals are conformal: quantiles of its own past
//! residuals, with a prior that makes the very first forecast wide and honest, or that
//! of series of the same kind ([`similar`]).
//!
//! How unusual a window is has two sides: how far it is from usual (`anomaly.rs`, and
//! of the whole distribution [`wasserstein`]), and whether anything like it was ever
//! seen ([`detector`], which serves any stream of values). Which service an incident comes from is told by
//! [`attribution::services`], where calls between services are known.
//!
//! What this crate deliberately is not: it has no I/O, no clock, no threads of
//! its own, no async and no data frames. Arrays go in, values come out; the same input
//! gives the same output, bit for bit, on one machine, on any number of threads (linfa's
//! k-means takes those of rayon). Storage of histories is the
//! caller's ([`History`]); so is deciding when to refit and when to alert. Data
//! is never an error: what cannot be used counts as missing, and what was never
//! observed has no forecast.
//!
//! Read `series.rs` (what goes in) and `forecast.rs` (what comes out) first, then
//! `model.rs`, which ties the rest together: `level.rs` → `features.rs` →
//! `regression.rs` / `refit.rs` → `combination.rs` → `conformal.rs` → `ensemble.rs` →
//! `outlook.rs`.
#![forbid(unsafe_code)]

mod anomaly;
pub mod attribution;
pub mod breach;
pub mod change_point;
mod combination;
mod conformal;
mod correlation;
pub mod detector;
mod ensemble;
mod error;
pub mod evaluation;
mod features;
mod forecast;
pub mod forecaster;
mod level;
mod model;
mod outlook;
mod params;
pub mod pressure;
pub mod recalibration;
mod refit;
mod regression;
mod sampling;
mod saturation;
mod season;
mod series;
pub mod similar;
#[cfg(test)]
mod testing;
pub mod wasserstein;

pub use ensemble::season_steps;
pub use error::{ObjectiveError, ParamsError};
pub use forecast::{Forecast, Interval, QUANTILE_LEVELS};
pub use model::{Context, RefitReport, SeriesModel};
pub use params::{Params, ValidParams};
pub use series::{
    Driver, DriverId, HORIZON_SECS, HORIZONS, History, Role, SeriesInput, TARGETS, Target, Window,
};
