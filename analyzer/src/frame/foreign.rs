//! Columns of Parquet files of others, for series that are only evaluated.

use std::{fs::File, path::Path};

use polars::prelude::*;

use super::{HistoryError, io_error, tables::frame_error};

/// One column, one entry per row.
#[derive(Clone, Debug, PartialEq)]
pub enum ForeignColumn {
    /// Whole numbers.
    Integers(Vec<Option<i64>>),
    /// Numbers.
    Floats(Vec<Option<f64>>),
    /// Texts.
    Texts(Vec<Option<String>>),
    /// Moments in nanoseconds since 1970; of UTC if they have a zone. `None` also
    /// where that does not fit.
    Times {
        /// When.
        ns: Vec<Option<i64>>,
        /// Whether the file says of which zone.
        zoned: bool,
    },
    /// What is none of these: the name of the type.
    Other(String),
}

/// A Parquet file that is open.
pub struct Foreign<'a> {
    path: &'a Path,
    reader: ParquetReader<File>,
}

impl<'a> Foreign<'a> {
    /// Opens it.
    ///
    /// # Errors
    /// [`HistoryError`] if it cannot be read.
    pub fn open(path: &'a Path) -> Result<Self, HistoryError> {
        let file = File::open(path).map_err(io_error(path))?;
        Ok(Self {
            path,
            reader: ParquetReader::new(file),
        })
    }

    /// How many rows it has.
    ///
    /// # Errors
    /// [`HistoryError`] if it is no Parquet file.
    pub fn rows(&mut self) -> Result<usize, HistoryError> {
        self.reader.num_rows().map_err(frame_error(self.path))
    }

    /// The names of its columns.
    ///
    /// # Errors
    /// [`HistoryError`] if it is no Parquet file.
    pub fn names(&mut self) -> Result<Vec<String>, HistoryError> {
        let schema = self.reader.schema().map_err(frame_error(self.path))?;
        Ok(schema.iter_names().map(ToString::to_string).collect())
    }

    /// Reads some of its columns, in the order of the file.
    ///
    /// # Errors
    /// [`HistoryError`] if it is damaged, or one of them has a type that is not known.
    pub fn read(self, places: Vec<usize>) -> Result<Vec<ForeignColumn>, HistoryError> {
        let frame = self
            .reader
            .with_projection(Some(places))
            .finish()
            .map_err(frame_error(self.path))?;
        let columns = frame.columns().iter();
        let columns: PolarsResult<Vec<ForeignColumn>> = columns.map(column).collect();
        columns.map_err(frame_error(self.path))
    }
}

fn column(column: &Column) -> PolarsResult<ForeignColumn> {
    let dtype = column.dtype();
    if dtype.is_integer() || dtype.is_bool() {
        let integers = column.strict_cast(&DataType::Int64)?;
        return Ok(ForeignColumn::Integers(integers.i64()?.iter().collect()));
    }
    if dtype.is_float() {
        let floats = column.strict_cast(&DataType::Float64)?;
        return Ok(ForeignColumn::Floats(floats.f64()?.iter().collect()));
    }
    Ok(match dtype {
        DataType::String => {
            let texts = column.str()?.iter();
            ForeignColumn::Texts(texts.map(|text| text.map(str::to_owned)).collect())
        }
        DataType::Datetime(unit, zone) => {
            let factor = match unit {
                TimeUnit::Nanoseconds => 1,
                TimeUnit::Microseconds => 1000,
                TimeUnit::Milliseconds => 1_000_000,
            };
            times(column, factor, zone.is_some())?
        }
        DataType::Date => times(column, 86_400 * 1_000_000_000, false)?,
        DataType::Null => ForeignColumn::Floats(vec![None; column.len()]),
        other => ForeignColumn::Other(other.to_string()),
    })
}

fn times(column: &Column, factor: i64, zoned: bool) -> PolarsResult<ForeignColumn> {
    let counts = column.to_physical_repr().strict_cast(&DataType::Int64)?;
    let ns = counts.i64()?.iter();
    let ns = ns.map(|count| count.and_then(|count| count.checked_mul(factor)));
    Ok(ForeignColumn::Times {
        ns: ns.collect(),
        zoned,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, columns: Vec<Column>) {
        let mut frame = DataFrame::new(columns[0].len(), columns).unwrap();
        let file = File::create(path).unwrap();
        ParquetWriter::new(file).finish(&mut frame).unwrap();
    }

    #[test]
    fn columns_come_back_as_what_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.parquet");
        let times: Int64Chunked = [Some(1_782_900_000_000), None].into_iter().collect();
        let times = times.into_datetime(TimeUnit::Milliseconds, Some(TimeZone::UTC));
        write(
            &path,
            vec![
                times.into_column().with_name("timestamp".into()),
                Column::new("count".into(), [3u32, 4]),
                Column::new("value".into(), [Some(0.5f32), None]),
                Column::new("name".into(), ["a", "b"]),
                Column::new("fine".into(), [true, false]),
            ],
        );
        let mut foreign = Foreign::open(&path).unwrap();
        assert_eq!(foreign.rows().unwrap(), 2);
        let names = foreign.names().unwrap();
        assert_eq!(names, ["timestamp", "count", "value", "name", "fine"]);
        assert_eq!(
            foreign.read(vec![0, 1, 2, 3, 4]).unwrap(),
            [
                ForeignColumn::Times {
                    ns: vec![Some(1_782_900_000_000_000_000), None],
                    zoned: true
                },
                ForeignColumn::Integers(vec![Some(3), Some(4)]),
                ForeignColumn::Floats(vec![Some(0.5), None]),
                ForeignColumn::Texts(vec![Some("a".to_owned()), Some("b".to_owned())]),
                ForeignColumn::Integers(vec![Some(1), Some(0)]),
            ]
        );
        let only = Foreign::open(&path).unwrap().read(vec![2]).unwrap();
        assert_eq!(only, [ForeignColumn::Floats(vec![Some(0.5), None])]);
    }

    #[test]
    fn what_is_no_parquet_is_told_with_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.parquet");
        std::fs::write(&path, b"timestamp,value\n").unwrap();
        let error = Foreign::open(&path).unwrap().rows().unwrap_err();
        assert!(error.to_string().contains("a.parquet"), "{error}");
    }
}
