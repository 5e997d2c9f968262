//! Forecasting, anomaly, breach and change-point models over latency series.
#![forbid(unsafe_code)]

mod anomaly;
pub mod attribution;
pub mod breach;
pub mod change_point;
mod combination;
mod conformal;
mod correlation;
mod error;
pub mod evaluation;
mod features;
mod forecast;
mod level;
mod model;
mod outlook;
mod params;
mod refit;
mod regression;
mod sampling;
mod season;
mod series;
#[cfg(test)]
mod testing;

pub use error::{ObjectiveError, ParamsError};
pub use forecast::{Forecast, Interval};
pub use model::{RefitReport, SeriesModel};
pub use params::{Params, ValidParams};
pub use series::{
    Driver, DriverId, HORIZON_SECS, HORIZONS, History, Role, SeriesInput, TARGETS, Target, Window,
};
