//! Microsoft's cloud monitoring set (`microsoft/cloud-monitoring-dataset`,
//! MIT): operational series with labelled faults.

use std::path::Path;

use crate::{
    error::Error,
    table::{self, Series},
};

/// The series of one folder, which have one step.
#[derive(Clone, Debug)]
pub struct Set {
    /// Name of the folder.
    pub name: String,
    /// Length of a step in seconds.
    pub step_secs: u32,
    /// Its series.
    pub series: Vec<Series>,
}

/// Folders whose series are hourly; all others have a value a minute.
const HOURLY: [&str; 2] = ["consumer-purchase-rate", "ecommerce-api-incoming-rps"];

/// Reads all series below a folder.
///
/// # Errors
/// There is none, or one has not the columns `Value` and `Label`.
pub fn load(folder: &Path) -> Result<Vec<Set>, Error> {
    let mut sets: Vec<Set> = Vec::new();
    for path in table::files(folder, "csv")? {
        let part = |path: Option<&Path>| {
            let name = path.and_then(Path::file_name).unwrap_or_default();
            name.to_string_lossy().into_owned()
        };
        let name = part(path.parent());
        let [values, labels]: [Vec<f64>; 2] = table::columns(&path, &["Value", "Label"])?
            .try_into()
            .expect("two columns were asked for");
        let series = Series {
            name: part(Some(&path)),
            values,
            faults: labels.into_iter().map(|label| label > 0.0).collect(),
        };
        match sets.last_mut() {
            Some(set) if set.name == name => set.series.push(series),
            _ => sets.push(Set {
                step_secs: if HOURLY.contains(&name.as_str()) {
                    3600
                } else {
                    60
                },
                name,
                series: vec![series],
            }),
        }
    }
    Ok(sets)
}
