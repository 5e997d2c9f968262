//! What can go wrong when a set is read.

use std::path::{Path, PathBuf};

/// A set that cannot be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// A file or folder cannot be read.
    #[error("read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A CSV file is malformed.
    #[error("parse {path}: {source}")]
    Csv {
        /// Which.
        path: PathBuf,
        /// Why.
        source: csv::Error,
    },
    /// A JSON file is malformed.
    #[error("parse {path}: {source}")]
    Json {
        /// Which.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A file parses, and means nothing.
    #[error("{path}: {reason}")]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl EvaluationError {
    /// Names the path of an I/O error.
    pub(crate) fn read(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| EvaluationError::Read {
            path: path.to_owned(),
            source,
        }
    }

    /// Names the path of a CSV error.
    pub(crate) fn csv(path: &Path) -> impl FnOnce(csv::Error) -> Self + '_ {
        move |source| EvaluationError::Csv {
            path: path.to_owned(),
            source,
        }
    }

    /// Names the path of a JSON error.
    pub(crate) fn json(path: &Path) -> impl FnOnce(serde_json::Error) -> Self + '_ {
        move |source| EvaluationError::Json {
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn content(path: &Path, reason: &'static str) -> Self {
        EvaluationError::Content {
            path: path.to_owned(),
            reason,
        }
    }
}
