//! What goes wrong with data from outside.

use std::path::PathBuf;

/// Why an evaluation cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("failed to read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is no CSV table.
    #[error("failed to read {path} as CSV")]
    Csv {
        /// Which.
        path: PathBuf,
        /// Why.
        source: csv::Error,
    },
    /// A table lacks a column.
    #[error("{path} has no column {column:?}")]
    NoColumn {
        /// Which table.
        path: PathBuf,
        /// Its name.
        column: String,
    },
    /// A series is too short for what is asked of it.
    #[error("series {series} has {values} values, {needed} are needed")]
    TooShort {
        /// Name of the series.
        series: String,
        /// Values it has.
        values: usize,
        /// Values needed.
        needed: usize,
    },
    /// A folder holds nothing to evaluate.
    #[error("{path} holds no series")]
    NoSeries {
        /// Which folder.
        path: PathBuf,
    },
}
