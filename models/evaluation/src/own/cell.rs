//! Cells of a table, and what can be wrong with one.

use std::fmt;

use super::Table;
use crate::Error;

/// What a file holds at one place, as far as its format tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Nothing.
    Empty,
    /// A whole number.
    Integer(i64),
    /// Any number.
    Float(f64),
    /// Anything else.
    Text(String),
    /// A moment in nanoseconds since 1970, of UTC if it has a zone.
    Time {
        /// When.
        ns: i64,
        /// Whether it is known of which zone.
        zoned: bool,
    },
}

/// What the number of a row counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Lines of a text file, from 1.
    Line,
    /// Rows of a table, from 1.
    Row,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Place::Line => "line",
            Place::Row => "row",
        })
    }
}

/// What is wrong with a row.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Wrong {
    /// Its time is not there.
    #[error("no time; leave out rows without one")]
    NoTime,
    /// Its time cannot be read.
    #[error(
        "time {text:?} is neither RFC 3339 (2026-07-01T10:00:00Z) nor seconds, ms, µs or ns \
         since 1970; --time-column names another column"
    )]
    NotATime {
        /// What is there.
        text: String,
    },
    /// Its time is of another kind than the first one.
    #[error(
        "time {text:?} is {is}, but the times before are {before}; a column must have one kind"
    )]
    OtherKind {
        /// What is there.
        text: String,
        /// What it is.
        is: &'static str,
        /// What others are.
        before: &'static str,
    },
    /// Its time is not one of 1678 to 2262.
    #[error("time {text:?} is out of range; --time-unit says what its numbers count")]
    OutOfRange {
        /// What is there.
        text: String,
    },
    /// Its value is no number.
    #[error(
        "{column} {text:?} is no number; leave a field empty where nothing was measured, or \
         name another column with --value-column"
    )]
    NotANumber {
        /// Its column.
        column: String,
        /// What is there.
        text: String,
    },
    /// Its label is no number.
    #[error("{column} {text:?} is no label: 0 is right, and what is above 0, or true, wrong")]
    NotALabel {
        /// Its column.
        column: String,
        /// What is there.
        text: String,
    },
    /// Most rows share their time with others.
    #[error(
        "the time of another row, as have {rows} of {all} rows; if these are several series, \
         name what tells them apart with --by"
    )]
    Several {
        /// How many beyond the first of each time.
        rows: usize,
        /// Of how many.
        all: usize,
    },
    /// It is too far from the row before.
    #[error(
        "{steps} steps of {step_secs} s from the first time on, {max} are the most; split the \
         file at its gaps, or choose a longer --step"
    )]
    TooFar {
        /// Steps from the first.
        steps: u64,
        /// Their length.
        step_secs: u32,
        /// How many there may be.
        max: usize,
    },
}

/// Numbers of a column; NaN where there is none.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Numbers {
    pub(super) values: Vec<f64>,
    /// Rows without a number, and those of an infinite one: the first and how many.
    empty: Option<(u64, usize)>,
    infinite: Option<(u64, usize)>,
}

impl Numbers {
    pub(super) fn notes(&self, place: Place) -> Vec<String> {
        let note = |rows: Option<(u64, usize)>, what: &str| {
            rows.map(|(line, count)| {
                let more = match count {
                    1 => String::new(),
                    _ => format!(", and {} more", count - 1),
                };
                format!("{place} {line}{more}: {what}, taken as missing")
            })
        };
        let empty = note(self.empty, "no value (empty or NaN)");
        empty
            .into_iter()
            .chain(note(self.infinite, "an infinite value"))
            .collect()
    }
}

impl Table {
    /// The numbers of a column.
    pub(super) fn numbers(&self, column: usize) -> Result<Numbers, Error> {
        let (name, cells) = &self.columns[column];
        let mut numbers = Numbers::default();
        for (row, cell) in cells.iter().enumerate() {
            let value = match cell {
                Cell::Empty => f64::NAN,
                Cell::Integer(value) => *value as f64,
                Cell::Float(value) => *value,
                Cell::Text(_) | Cell::Time { .. } => {
                    let (column, text) = (name.clone(), cell.to_string());
                    return Err(self.wrong(row, Wrong::NotANumber { column, text }));
                }
            };
            let count = |rows: &mut Option<(u64, usize)>| {
                rows.get_or_insert((self.lines[row], 0)).1 += 1;
            };
            if value.is_nan() {
                count(&mut numbers.empty);
            } else if value.is_infinite() {
                count(&mut numbers.infinite);
            }
            numbers
                .values
                .push(if value.is_finite() { value } else { f64::NAN });
        }
        Ok(numbers)
    }

    /// Whether something is labelled as wrong.
    pub(super) fn labels(&self, column: usize) -> Result<Vec<bool>, Error> {
        let (name, cells) = &self.columns[column];
        let mut labels = Vec::with_capacity(cells.len());
        for (row, cell) in cells.iter().enumerate() {
            labels.push(match cell {
                Cell::Empty => false,
                Cell::Integer(value) => *value > 0,
                Cell::Float(value) => *value > 0.0,
                Cell::Text(text) if text.eq_ignore_ascii_case("true") => true,
                Cell::Text(text) if text.eq_ignore_ascii_case("false") => false,
                Cell::Text(_) | Cell::Time { .. } => {
                    let (column, text) = (name.clone(), cell.to_string());
                    return Err(self.wrong(row, Wrong::NotALabel { column, text }));
                }
            });
        }
        Ok(labels)
    }
}

impl Cell {
    /// What a field of a text file is.
    pub fn of_text(text: &str) -> Self {
        const NOTHING: [&str; 6] = ["", "nan", "null", "none", "na", "n/a"];
        let text = text.trim();
        if NOTHING
            .iter()
            .any(|nothing| text.eq_ignore_ascii_case(nothing))
        {
            Cell::Empty
        } else if let Ok(value) = text.parse() {
            Cell::Integer(value)
        } else if let Ok(value) = text.parse() {
            Cell::Float(value)
        } else {
            Cell::Text(text.to_owned())
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cell::Empty => Ok(()),
            Cell::Integer(value) => write!(f, "{value}"),
            Cell::Float(value) => write!(f, "{value}"),
            Cell::Text(text) => {
                // Of a long text its beginning says which it is.
                const SHOWN: usize = 60;
                f.write_str(&text.chars().take(SHOWN).collect::<String>())
            }
            Cell::Time { ns, .. } => f.write_str(&super::time::text(ns.div_euclid(1_000_000_000))),
        }
    }
}
