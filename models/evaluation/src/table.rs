//! Series from CSV tables.

use std::path::{Path, PathBuf};

use crate::error::Error;

/// One regularly spaced series, oldest value first; NaN where there is none.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What it is called in reports.
    pub name: String,
    /// Its values, in the unit of the file.
    pub values: Vec<f64>,
    /// Whether a value is labelled as part of a fault; empty where the set has
    /// no labels.
    pub faults: Vec<bool>,
}

impl Series {
    /// A series without labels.
    pub fn new(name: impl Into<String>, values: Vec<f64>) -> Self {
        Series {
            name: name.into(),
            values,
            faults: Vec::new(),
        }
    }

    /// The means of every `size` values, as pandas' `resample().mean()` makes
    /// them; an incomplete last group counts. NaN values are left out of a mean.
    pub fn averaged(&self, size: usize) -> Self {
        let mean = |group: &[f64]| {
            let known = || group.iter().filter(|value| !value.is_nan());
            known().sum::<f64>() / known().count() as f64
        };
        Series {
            name: self.name.clone(),
            values: self.values.chunks(size.max(1)).map(mean).collect(),
            faults: self
                .faults
                .chunks(size.max(1))
                .map(|group| group.contains(&true))
                .collect(),
        }
    }
}

/// Reads columns of a CSV table; what is no number is NaN.
///
/// # Errors
/// The file cannot be read, or a column is not in its header.
pub fn columns(path: &Path, names: &[&str]) -> Result<Vec<Vec<f64>>, Error> {
    let csv = |source| Error::Csv {
        path: path.to_owned(),
        source,
    };
    let mut reader = csv::Reader::from_path(path).map_err(csv)?;
    let header = reader.headers().map_err(csv)?.clone();
    let mut places = Vec::new();
    for name in names {
        let place = header.iter().position(|column| column == *name);
        places.push(place.ok_or_else(|| Error::NoColumn {
            path: path.to_owned(),
            column: (*name).to_owned(),
        })?);
    }
    let mut values = vec![Vec::new(); names.len()];
    for record in reader.records() {
        let record = record.map_err(csv)?;
        for (column, place) in values.iter_mut().zip(&places) {
            let text = record.get(*place).unwrap_or("");
            column.push(text.trim().parse().unwrap_or(f64::NAN));
        }
    }
    Ok(values)
}

/// Files with this extension below a folder, sorted by path.
///
/// # Errors
/// A folder cannot be read, or there is no such file.
pub fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let read = |source| Error::Read {
            path: folder.clone(),
            source,
        };
        for entry in std::fs::read_dir(&folder).map_err(read)? {
            let path = entry.map_err(read)?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    if found.is_empty() {
        return Err(Error::NoSeries {
            path: folder.to_owned(),
        });
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_averaged_without_what_is_missing() {
        let mut series = Series::new("x", vec![1.0, 3.0, f64::NAN, 5.0, 7.0]);
        series.faults = vec![false, false, true, false, false];
        let averaged = series.averaged(2);
        assert_eq!(averaged.values, [2.0, 5.0, 7.0]);
        assert_eq!(averaged.faults, [false, true, false]);
    }
}
