//! Times of all kinds that files have.

use std::str::FromStr;

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};

use super::{Cell, Table, Wrong};
use crate::Error;

/// What times that are numbers count since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
    /// Microseconds.
    Microseconds,
    /// Nanoseconds.
    Nanoseconds,
}

/// No unit of that name.
#[derive(Debug, thiserror::Error)]
#[error("a unit of time is s, ms, us or ns")]
pub struct NoUnit;

impl FromStr for TimeUnit {
    type Err = NoUnit;

    fn from_str(text: &str) -> Result<Self, NoUnit> {
        match text {
            "s" => Ok(TimeUnit::Seconds),
            "ms" => Ok(TimeUnit::Milliseconds),
            "us" | "µs" => Ok(TimeUnit::Microseconds),
            "ns" => Ok(TimeUnit::Nanoseconds),
            _ => Err(NoUnit),
        }
    }
}

impl TimeUnit {
    /// The one in which a number is a time between 1973 and 5138, where it is larger
    /// than any number of seconds until then.
    fn of(magnitude: f64) -> Self {
        match magnitude {
            below if below < 1e11 => TimeUnit::Seconds,
            below if below < 1e14 => TimeUnit::Milliseconds,
            below if below < 1e17 => TimeUnit::Microseconds,
            _ => TimeUnit::Nanoseconds,
        }
    }

    const fn ns(self) -> i64 {
        match self {
            TimeUnit::Seconds => 1_000_000_000,
            TimeUnit::Milliseconds => 1_000_000,
            TimeUnit::Microseconds => 1000,
            TimeUnit::Nanoseconds => 1,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            TimeUnit::Seconds => "seconds",
            TimeUnit::Milliseconds => "milliseconds",
            TimeUnit::Microseconds => "microseconds",
            TimeUnit::Nanoseconds => "nanoseconds",
        }
    }
}

/// Kinds that are not mixed in a column.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Number(TimeUnit),
    Zoned,
    /// A date, or a date and a time of day, of who knows which zone.
    Local,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Kind::Number(unit) => unit.name(),
            Kind::Zoned => "times with a zone",
            Kind::Local => "times without a zone",
        }
    }
}

/// Times of a column in nanoseconds since 1970, UTC.
#[derive(Debug)]
pub(super) struct Times {
    pub(super) ns: Vec<i64>,
    pub(super) notes: Vec<String>,
}

impl Table {
    /// The times of a column, all of one kind.
    pub(super) fn times(&self, column: usize, unit: Option<TimeUnit>) -> Result<Times, Error> {
        let mut first: Option<Kind> = None;
        let mut times = Vec::with_capacity(self.lines.len());
        for (row, cell) in self.columns[column].1.iter().enumerate() {
            let kind = kind(cell, unit).map_err(|wrong| self.wrong(row, wrong))?;
            let before = *first.get_or_insert(kind);
            if kind != before {
                let wrong = Wrong::OtherKind {
                    text: cell.to_string(),
                    is: kind.name(),
                    before: before.name(),
                };
                return Err(self.wrong(row, wrong));
            }
            let ns = nanoseconds(cell, kind).ok_or_else(|| {
                let text = cell.to_string();
                self.wrong(row, Wrong::OutOfRange { text })
            })?;
            times.push(ns);
        }
        let note = match first {
            Some(Kind::Number(counts)) if unit.is_none() => Some(format!(
                "times are numbers, taken for {} since 1970 (--time-unit says otherwise)",
                counts.name()
            )),
            Some(Kind::Local) => Some("times have no zone and are read as UTC".to_owned()),
            _ => None,
        };
        Ok(Times {
            ns: times,
            notes: note.into_iter().collect(),
        })
    }
}

fn kind(cell: &Cell, unit: Option<TimeUnit>) -> Result<Kind, Wrong> {
    let number = |magnitude| Ok(Kind::Number(unit.unwrap_or(TimeUnit::of(magnitude))));
    match cell {
        Cell::Empty => Err(Wrong::NoTime),
        Cell::Integer(value) => number(value.unsigned_abs() as f64),
        Cell::Float(value) if value.is_finite() => number(value.abs()),
        Cell::Time { zoned: true, .. } => Ok(Kind::Zoned),
        Cell::Time { zoned: false, .. } => Ok(Kind::Local),
        Cell::Text(text) if zoned(text).is_some() => Ok(Kind::Zoned),
        Cell::Text(text) if local(text).is_some() => Ok(Kind::Local),
        Cell::Float(_) | Cell::Text(_) => Err(Wrong::NotATime {
            text: cell.to_string(),
        }),
    }
}

/// `None` where it does not fit.
fn nanoseconds(cell: &Cell, kind: Kind) -> Option<i64> {
    match (cell, kind) {
        (Cell::Integer(value), Kind::Number(unit)) => value.checked_mul(unit.ns()),
        (Cell::Float(value), Kind::Number(unit)) => {
            // The whole apart from its part: together they have more digits than a
            // float.
            let whole = value.floor();
            let part = ((value - whole) * unit.ns() as f64).round() as i64;
            let whole = (whole.abs() < i64::MAX as f64).then_some(whole as i64)?;
            whole.checked_mul(unit.ns())?.checked_add(part)
        }
        (Cell::Time { ns, .. }, _) => Some(*ns),
        (Cell::Text(text), _) => zoned(text).or_else(|| local(text))?.timestamp_nanos_opt(),
        _ => None,
    }
}

/// RFC 3339, with a zone.
fn zoned(text: &str) -> Option<DateTime<Utc>> {
    const OTHERS: [&str; 2] = ["%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M:%S%.f%#z"];
    let others = || {
        let mut parsed = OTHERS
            .iter()
            .map(|format| DateTime::parse_from_str(text, format));
        parsed.find_map(Result::ok)
    };
    let time = DateTime::parse_from_rfc3339(text).ok().or_else(others)?;
    Some(time.to_utc())
}

/// The same without a zone, or a date.
fn local(text: &str) -> Option<DateTime<Utc>> {
    const FORMATS: [&str; 4] = [
        "%Y-%m-%d %H:%M:%S%.f",
        "%Y-%m-%dT%H:%M:%S%.f",
        "%Y-%m-%d %H:%M",
        "%Y-%m-%dT%H:%M",
    ];
    let mut parsed = FORMATS
        .iter()
        .map(|format| NaiveDateTime::parse_from_str(text, format));
    let date = || {
        let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
        Some(date.and_time(NaiveTime::MIN))
    };
    let time = parsed.find_map(Result::ok).or_else(date)?;
    Some(time.and_utc())
}

/// `2026-07-01 10:00:00`, UTC.
pub(super) fn text(secs: i64) -> String {
    match DateTime::from_timestamp(secs, 0) {
        Some(time) => time.naive_utc().to_string(),
        None => format!("{secs} s since 1970"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<i64> {
        let cell = Cell::of_text(text);
        nanoseconds(&cell, kind(&cell, None).ok()?)
    }

    #[test]
    fn one_moment_in_all_its_forms() {
        let ns = 1_782_900_000_000_000_000;
        for text in [
            "2026-07-01T10:00:00Z",
            "2026-07-01T12:00:00+02:00",
            "2026-07-01 12:00:00+02:00",
            "2026-07-01 12:00:00.000+0200",
            "2026-07-01 10:00:00",
            "2026-07-01T10:00:00.0",
            "2026-07-01 10:00",
            "1782900000",
            "1782900000.0",
            "1782900000000",
            "1782900000000000",
            "1782900000000000000",
            " 1.7829e9 ",
        ] {
            assert_eq!(read(text), Some(ns), "{text}");
        }
        assert_eq!(read("2026-07-01"), Some(ns - 36_000_000_000_000));
        assert_eq!(read("1782900000.25"), Some(ns + 250_000_000));
        assert_eq!(text(ns / 1_000_000_000), "2026-07-01 10:00:00");
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in ["", "yesterday", "inf", "01/07/2026", "2026-13-01T00:00:00Z"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
