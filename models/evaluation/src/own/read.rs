//! CSV.

use std::path::Path;

use super::{Cell, Place, ROWS_MAX, Selection, Table};
use crate::Error;

impl Table {
    /// Reads those columns of a CSV file that are meant. Its first line names the
    /// columns.
    ///
    /// # Errors
    /// [`Error`]: it cannot be read, is no CSV, lacks a column, or has no rows or
    /// more than [`ROWS_MAX`].
    pub fn read_csv(path: &Path, selection: &Selection) -> Result<Table, Error> {
        let file = std::fs::File::open(path).map_err(Error::read(path))?;
        let mut reader = csv::Reader::from_reader(file);
        let header = reader.headers().map_err(Error::csv(path))?.clone();
        let names: Vec<&str> = header.iter().map(clean).collect();
        let used = selection.find(path, &names)?.used();
        let mut lines = Vec::new();
        let mut cells: Vec<Vec<Cell>> = vec![Vec::new(); used.len()];
        let mut record = csv::StringRecord::new();
        while reader.read_record(&mut record).map_err(Error::csv(path))? {
            if lines.len() == ROWS_MAX {
                return Err(Error::TooManyRows {
                    path: path.to_owned(),
                    max: ROWS_MAX,
                });
            }
            // A record that was read has a place.
            lines.push(record.position().map_or(0, csv::Position::line));
            for (cells, at) in cells.iter_mut().zip(&used) {
                cells.push(Cell::of_text(record.get(*at).unwrap_or("")));
            }
        }
        let names = used.iter().map(|at| names[*at].to_owned());
        Ok(Table {
            path: path.to_owned(),
            place: Place::Line,
            lines,
            columns: names.zip(cells).collect(),
        })
    }
}

/// Without the mark that spreadsheets begin a file with.
fn clean(name: &str) -> &str {
    name.trim_start_matches('\u{feff}').trim()
}
