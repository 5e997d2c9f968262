//! Reads a folder laid out as `data/<category>/<name>.csv` with
//! `combined_windows.json` beside `data`.

use std::{collections::BTreeMap, fs, path::Path};

use chrono::NaiveDateTime;

use super::Labelled;
use crate::{Error, table::files};

/// Windows by file, as first and last time.
type Windows = BTreeMap<String, Vec<(String, String)>>;

/// All series of a NAB folder whose file is there, by category and name.
///
/// # Errors
/// When a file is missing or malformed, or a window's ends are no points of its
/// series.
pub fn load(folder: &Path) -> Result<Vec<Labelled>, Error> {
    let labels = folder.join("combined_windows.json");
    let text = fs::read_to_string(&labels).map_err(Error::read(&labels))?;
    let windows: Windows = serde_json::from_str(&text).map_err(Error::json(&labels))?;
    let mut series = Vec::new();
    for path in files(&folder.join("data"), "csv")? {
        series.push(read_series(&path, &windows)?);
    }
    Ok(series)
}

/// The scores a detector gave to the points of `series`, from
/// `<folder>/<category>/<name>.csv`.
///
/// # Errors
/// When the file is missing or malformed, or has another number of rows.
pub fn load_scores(folder: &Path, series: &Labelled) -> Result<Vec<f64>, Error> {
    let path = folder
        .join(&series.category)
        .join(format!("{}.csv", series.name));
    let (_, scores) = read_points(&path)?;
    if scores.len() != series.values.len() {
        return Err(Error::content(&path, "not one score per point"));
    }
    Ok(scores)
}

fn read_series(path: &Path, windows: &Windows) -> Result<Labelled, Error> {
    let name_of = |path: Option<&std::ffi::OsStr>| {
        path.map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    };
    let category = name_of(path.parent().and_then(Path::file_name));
    let name = name_of(path.file_stem());
    let (times, values) = read_points(path)?;
    let of_file = windows.get(&format!("{category}/{name}.csv"));
    let mut found = Vec::new();
    for (first, last) in of_file.into_iter().flatten() {
        let index = |text: &str| {
            let time = seconds(text)?;
            times.iter().position(|other| *other == time)
        };
        match (index(first), index(last)) {
            (Some(first), Some(last)) if first <= last => found.push((first, last)),
            _ => {
                return Err(Error::content(
                    path,
                    "a window whose ends are no points of it",
                ));
            }
        }
    }
    found.sort_unstable();
    Ok(Labelled {
        category,
        name,
        times,
        values,
        windows: found,
    })
}

/// Two columns: a time and a number.
fn read_points(path: &Path) -> Result<(Vec<i64>, Vec<f64>), Error> {
    let mut reader = csv::Reader::from_path(path).map_err(Error::csv(path))?;
    let (mut times, mut values) = (Vec::new(), Vec::new());
    for row in reader.deserialize() {
        let (time, value): (String, f64) = row.map_err(Error::csv(path))?;
        let Some(time) = seconds(&time) else {
            return Err(Error::content(path, "a time that is none"));
        };
        times.push(time);
        values.push(value);
    }
    Ok((times, values))
}

fn seconds(text: &str) -> Option<i64> {
    let parsed = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f");
    parsed.ok().map(|time| time.and_utc().timestamp())
}
