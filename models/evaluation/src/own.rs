//! Series of one's own: any table of times and values.
//!
//! A table ([`Table`]) has a column of times and one or more of values; CSV is read
//! [here](Table::read_csv), others (Parquet) by whoever can. It becomes regular
//! series ([`Own`]): rows are sorted by time, rows of one step are averaged, a step
//! without a row is missing, and so is a value that is empty or not finite. The step
//! is the median of the gaps unless it is given. Whatever was not as in a clean
//! table is told in [`Own::notes`], with the first line that it concerns; what
//! cannot be understood is an error with its line.

mod cell;
mod read;
mod regular;
mod time;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

pub use self::{
    cell::{Cell, Place, Wrong},
    regular::STEPS_MAX,
    time::TimeUnit,
};
use crate::{Error, table::Series};

/// Rows of a table at most: eight weeks of seconds, some 300 MB of memory.
pub const ROWS_MAX: usize = 5_000_000;
/// Columns for times that need no name given, in whatever case.
const TIME_COLUMNS: [&str; 6] = ["timestamp", "time", "ts", "datetime", "date", "ended_at"];
/// The column of values that needs no name given.
const VALUE_COLUMN: &str = "value";

/// A table as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Where from.
    pub path: PathBuf,
    /// What a row's number counts.
    pub place: Place,
    /// Of each row its number.
    pub lines: Vec<u64>,
    /// Names and cells of columns, one per row.
    pub columns: Vec<(String, Vec<Cell>)>,
}

/// What of a table is meant, and how.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selection {
    /// Column of times; else the first of `timestamp`, `time`, `ts`, `datetime`,
    /// `date`, `ended_at`.
    pub time: Option<String>,
    /// Columns of values; else `value`, or the only other column.
    pub values: Vec<String>,
    /// Columns whose values tell several series of one table apart.
    pub by: Vec<String>,
    /// Column that is above 0 where something is known to be wrong.
    pub label: Option<String>,
    /// What times that are numbers count; else it is guessed by their size.
    pub unit: Option<TimeUnit>,
    /// Length of a step in seconds; else the median gap.
    pub step_secs: Option<u32>,
}

/// One regular series of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Own {
    /// Its values; [`Series::faults`] is empty without labels.
    pub series: Series,
    /// What its values are: the name of the column.
    pub quantity: String,
    /// Length of a step.
    pub step_secs: u32,
    /// Time of the first step in seconds since 1970, UTC.
    pub first_secs: i64,
    /// What was not as in a clean table.
    pub notes: Vec<String>,
}

/// Places of columns in a table.
#[derive(Debug, PartialEq)]
pub struct Columns {
    time: usize,
    values: Vec<usize>,
    label: Option<usize>,
    by: Vec<usize>,
}

impl Selection {
    /// Finds the columns that are meant among `names`.
    ///
    /// # Errors
    /// [`Error::NoColumnOf`] with the names that there are.
    pub fn find(&self, path: &Path, names: &[&str]) -> Result<Columns, Error> {
        let place = |name: &str, option: &'static str| {
            let found = names.iter().position(|other| *other == name);
            found.ok_or_else(|| Error::NoColumnOf {
                path: path.to_owned(),
                column: name.to_owned(),
                names: names.join(", "),
                option,
            })
        };
        let time = match &self.time {
            Some(name) => place(name, "--time-column")?,
            None => {
                let known = TIME_COLUMNS.iter().find_map(|known| {
                    names
                        .iter()
                        .position(|name| name.eq_ignore_ascii_case(known))
                });
                known.map_or_else(|| place(TIME_COLUMNS[0], "--time-column"), Ok)?
            }
        };
        let label = self.label.as_deref();
        let label = label
            .map(|name| place(name, "--label-column"))
            .transpose()?;
        let mut by = Vec::new();
        for name in &self.by {
            by.push(place(name, "--by")?);
        }
        let mut values = Vec::new();
        for name in &self.values {
            values.push(place(name, "--value-column")?);
        }
        if values.is_empty() {
            let is_value = |name: &&str| name.eq_ignore_ascii_case(VALUE_COLUMN);
            let is_other = |at: &usize| *at != time && Some(*at) != label && !by.contains(at);
            let others: Vec<usize> = (0..names.len()).filter(is_other).collect();
            values = match (names.iter().position(is_value), &others[..]) {
                (Some(at), _) => vec![at],
                (None, [only]) => vec![*only],
                (None, _) => vec![place(VALUE_COLUMN, "--value-column")?],
            };
        }
        Ok(Columns {
            time,
            values,
            label,
            by,
        })
    }
}

impl Columns {
    /// Those that are read at all, each once.
    pub fn used(&self) -> Vec<usize> {
        let mut used = vec![self.time];
        used.extend(self.values.iter().chain(&self.label).chain(&self.by));
        used.sort_unstable();
        used.dedup();
        used
    }
}

impl Table {
    /// The regular series of the columns that are meant, called after the file, what
    /// tells them apart, and the column where there are several.
    ///
    /// # Errors
    /// [`Error`] with file and line where a cell is not what its column should hold,
    /// and where nothing regular can be made of it.
    pub fn series(&self, selection: &Selection) -> Result<Vec<Own>, Error> {
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| name.as_str()).collect();
        let columns = selection.find(&self.path, &names)?;
        let file = self.path.file_stem().unwrap_or_default().to_string_lossy();
        if columns.by.is_empty() {
            return self.one(&file, &columns, selection);
        }
        let mut groups: BTreeMap<Vec<String>, Vec<usize>> = BTreeMap::new();
        for row in 0..self.lines.len() {
            let key = columns
                .by
                .iter()
                .map(|at| self.columns[*at].1[row].to_string());
            groups.entry(key.collect()).or_default().push(row);
        }
        // One step for all, so that a series of one row has one, too.
        let times = self.times(columns.time, selection.unit)?;
        let selection = Selection {
            step_secs: selection.step_secs.or(regular::usual_step(&times.ns)),
            ..selection.clone()
        };
        let mut all = Vec::new();
        for (key, rows) in groups {
            let name = format!("{file}: {}", key.join(" "));
            all.extend(self.rows(&rows).one(&name, &columns, &selection)?);
        }
        Ok(all)
    }

    /// Some of its rows.
    fn rows(&self, rows: &[usize]) -> Table {
        let cells = |cells: &[Cell]| rows.iter().map(|row| cells[*row].clone()).collect();
        let columns = self.columns.iter();
        Table {
            path: self.path.clone(),
            place: self.place,
            lines: rows.iter().map(|row| self.lines[*row]).collect(),
            columns: columns
                .map(|(name, all)| (name.clone(), cells(all)))
                .collect(),
        }
    }

    /// The series of columns, of rows that belong together.
    fn one(&self, name: &str, columns: &Columns, selection: &Selection) -> Result<Vec<Own>, Error> {
        let times = self.times(columns.time, selection.unit)?;
        let faults = match columns.label {
            Some(label) => self.labels(label)?,
            None => Vec::new(),
        };
        let mut all = Vec::new();
        for at in &columns.values {
            let quantity = self.columns[*at].0.clone();
            let name = match columns.values.len() {
                1 => name.to_owned(),
                _ => format!("{name}/{quantity}"),
            };
            let values = self.numbers(*at)?;
            let rows = regular::Rows {
                table: self,
                times: &times,
                values: &values,
                faults: &faults,
            };
            let mut own = rows.regular(name, quantity, selection.step_secs)?;
            own.notes.splice(0..0, values.notes(self.place));
            own.notes.splice(0..0, times.notes.iter().cloned());
            all.push(own);
        }
        Ok(all)
    }

    /// An error at a row.
    fn wrong(&self, row: usize, wrong: Wrong) -> Error {
        Error::At {
            path: self.path.clone(),
            place: self.place,
            line: self.lines[row],
            wrong,
        }
    }
}

impl Own {
    /// Seconds from the first to the end of the last step.
    pub fn secs(&self) -> f64 {
        self.series.values.len() as f64 * f64::from(self.step_secs)
    }

    /// Time of a step, as text, UTC.
    pub fn time(&self, at: usize) -> String {
        time::text(self.first_secs + at as i64 * i64::from(self.step_secs))
    }

    /// Values with the last one known where one is missing; the first one known
    /// before it.
    pub fn held(&self) -> Vec<f64> {
        held(&self.series.values)
    }

    /// A line of a table of series.
    pub(crate) fn row(&self) -> String {
        let missing = self.series.values.iter().filter(|value| value.is_nan());
        crate::report::row([
            self.series.name.clone(),
            self.quantity.clone(),
            self.series.values.len().to_string(),
            missing.count().to_string(),
            format!("{} s", self.step_secs),
            self.time(0),
            self.time(self.series.values.len().saturating_sub(1)),
        ])
    }
}

/// Values with the last one known where one is missing; the first one known before
/// it. All NaN if none is known.
pub(crate) fn held(values: &[f64]) -> Vec<f64> {
    let known = values.iter().find(|value| !value.is_nan());
    let mut last = known.copied().unwrap_or(f64::NAN);
    let hold = |value: &f64| {
        last = if value.is_nan() { last } else { *value };
        last
    };
    values.iter().map(hold).collect()
}

/// What was read, as a table and a list of what was not as in a clean one.
pub(crate) fn tell(outcome: &mut crate::report::Outcome, all: &[Own]) {
    outcome.line("| series | values are | steps | missing | step | first | last, UTC |");
    outcome.line("|---|---|---|---|---|---|---|");
    for own in all {
        outcome.line(own.row());
    }
    outcome.line("");
    for own in all {
        for note in &own.notes {
            outcome.line(format!("- {}: {note}", own.series.name));
        }
    }
    if all.iter().any(|own| !own.notes.is_empty()) {
        outcome.line("");
    }
}
