//! What can be wrong with settings. Data is never an error: what cannot be
//! used counts as missing.

use thiserror::Error;

/// A parameter out of range.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum ParamsError {
    /// Window length.
    #[error("step_secs is {0}, use 1 to 300")]
    StepSecs(u32),
    /// Declared false-alarm rate of the anomaly score.
    #[error("false_alarm_rate is {0}, use 0.000001 to 0.1")]
    FalseAlarmRate(f64),
    /// Windows between refits.
    #[error("refit_windows is {0}, use 6 to 8640")]
    RefitWindows(u32),
    /// Ridge penalty.
    #[error("ridge is {0}, use more than 0 and at most 1000000")]
    Ridge(f64),
}

/// An objective out of range.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum ObjectiveError {
    /// Latency threshold.
    #[error("threshold is {0}, use a positive number")]
    Threshold(f64),
    /// How far to look ahead.
    #[error("horizon_secs is {0}, use 60 to 3600")]
    HorizonSecs(u32),
    /// Error budget left.
    #[error("budget_events is {0}, use 0 or more")]
    BudgetEvents(f64),
}
