//! Microsoft's cloud monitoring set (microsoft/cloud-monitoring-dataset): series
//! of operations with every point labelled by hand.

use std::path::Path;

use chrono::NaiveDateTime;

use crate::{Error, nab::Labelled, table::files};

/// All series below a folder (`TimeStamp,Value,Label`), by path. A window is a run
/// of labelled points; a row whose value is no number is left out.
///
/// # Errors
/// When a file is malformed, or there is none.
pub fn load(folder: &Path) -> Result<Vec<Labelled>, Error> {
    files(folder, "csv")?
        .iter()
        .map(|path| read(path))
        .collect()
}

fn read(path: &Path) -> Result<Labelled, Error> {
    let mut reader = csv::Reader::from_path(path).map_err(Error::csv(path))?;
    let (mut times, mut values, mut labels) = (Vec::new(), Vec::new(), Vec::new());
    for row in reader.deserialize() {
        let (time, value, label): (String, String, String) = row.map_err(Error::csv(path))?;
        let Ok(value) = value.parse::<f64>() else {
            continue;
        };
        let Ok(time) = NaiveDateTime::parse_from_str(&time, "%Y-%m-%dT%H:%M:%SZ") else {
            return Err(Error::content(path, "a time that is none"));
        };
        times.push(time.and_utc().timestamp());
        values.push(value);
        labels.push(label.trim() == "1");
    }
    let name_of = |path: Option<&std::ffi::OsStr>| {
        let name = path.map(|name| name.to_string_lossy().into_owned());
        name.unwrap_or_default()
    };
    Ok(Labelled {
        category: name_of(path.parent().and_then(Path::file_name)),
        name: name_of(path.file_stem()),
        times,
        values,
        windows: runs(&labels),
    })
}

/// First and last index of each run of `true`.
pub fn runs(labels: &[bool]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (i, _) in labels.iter().enumerate().filter(|(_, label)| **label) {
        match runs.last_mut() {
            Some(run) if run.1 + 1 == i => run.1 = i,
            _ => runs.push((i, i)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_have_both_ends() {
        let labels = [true, true, false, true, false, false, true];
        assert_eq!(runs(&labels), [(0, 1), (3, 3), (6, 6)]);
        assert_eq!(runs(&[false; 3]), []);
    }
}
