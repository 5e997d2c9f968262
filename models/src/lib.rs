//! Forecasting, anomaly, breach and change-point models over latency series.
#![forbid(unsafe_code)]

pub mod change_point;
mod error;
mod forecast;
mod params;
mod series;
#[cfg(test)]
mod testing;

pub use error::{ObjectiveError, ParamsError};
pub use forecast::{Forecast, Interval};
pub use params::{Params, ValidParams};
pub use series::{
    Driver, DriverId, HORIZON_SECS, HORIZONS, History, Role, SeriesInput, TARGETS, Target, Window,
};
