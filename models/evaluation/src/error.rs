//! What goes wrong with data from outside.

use std::path::{Path, PathBuf};

use crate::own::{Place, Wrong};

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
    /// A file is no JSON of the kind expected.
    #[error("failed to read {path} as JSON")]
    Json {
        /// Which.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A file can be read, and means nothing.
    #[error("{path} has {reason}")]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A table lacks a column.
    #[error("{path} has no column {column:?}")]
    NoColumn {
        /// Which table.
        path: PathBuf,
        /// Its name.
        column: String,
    },
    /// A table lacks a column, and has others.
    #[error("{path} has no column {column:?} but {names}; {option} names another")]
    NoColumnOf {
        /// Which table.
        path: PathBuf,
        /// Its name.
        column: String,
        /// Names of the columns that it has.
        names: String,
        /// The option that names one.
        option: &'static str,
    },
    /// A row of a table means nothing.
    #[error("{path}, {place} {line}: {wrong}")]
    At {
        /// Which table.
        path: PathBuf,
        /// What the number of the row counts.
        place: Place,
        /// The row.
        line: u64,
        /// What is wrong.
        wrong: Wrong,
    },
    /// A table has no rows.
    #[error("{path} has no rows below the names of its columns")]
    NoRows {
        /// Which table.
        path: PathBuf,
    },
    /// All rows of a table have one time.
    #[error("{path} has rows of one time only, and no step can be told; --step gives one")]
    OneTime {
        /// Which table.
        path: PathBuf,
    },
    /// A table is larger than can be held.
    #[error("{path} has more than {max} rows; split it")]
    TooManyRows {
        /// Which table.
        path: PathBuf,
        /// How many there may be.
        max: usize,
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

impl Error {
    /// Names the path of an I/O error.
    pub(crate) fn read(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Error::Read {
            path: path.to_owned(),
            source,
        }
    }

    /// Names the path of a CSV error.
    pub(crate) fn csv(path: &Path) -> impl Fn(csv::Error) -> Self + '_ {
        move |source| Error::Csv {
            path: path.to_owned(),
            source,
        }
    }

    /// Names the path of a JSON error.
    pub(crate) fn json(path: &Path) -> impl FnOnce(serde_json::Error) -> Self + '_ {
        move |source| Error::Json {
            path: path.to_owned(),
            source,
        }
    }

    /// A file that means nothing.
    pub(crate) fn content(path: &Path, reason: &'static str) -> Self {
        Error::Content {
            path: path.to_owned(),
            reason,
        }
    }
}
