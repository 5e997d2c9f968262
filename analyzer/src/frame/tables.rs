//! What a replay finds out, as Parquet tables for notebooks: natural units,
//! which column names tell, and times in UTC.
//!
//! Rows come in the order in which they are found out: the steps of a
//! partition one after another. They are written in groups, so that a table
//! may be larger than the memory. The same rows give the same bytes.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
};

use honeyguide_proto::v1;
use polars::{io::parquet::write::BatchedWriter, prelude::*};

use super::{
    HistoryError,
    columns::{alerts, points, reasons, risks, scores, windows},
    io_error,
};
use crate::pipeline::HistoryRow;

/// Points of forecasts that are gathered before they are written: some 60 MB.
const POINTS_GATHERED: usize = 1 << 18;
/// Windows likewise.
const WINDOWS_GATHERED: usize = 1 << 18;

/// The tables of one replay, in one folder.
///
/// | file | a row for each |
/// |---|---|
/// | `windows.parquet` | step of a series that had events |
/// | `forecasts.parquet` | forecast, horizon and target |
/// | `scores.parquet` | forecast |
/// | `risks.parquet` | forecast and objective |
/// | `reasons.parquet` | forecast and reason |
/// | `alerts.parquet` | alert that fired or resolved |
///
/// `notebooks/README.md` documents the columns.
pub struct Tables {
    step_ns: u64,
    windows: Gathered<HistoryRow>,
    forecasts: Vec<v1::Forecast>,
    points: usize,
    of_forecasts: [Table<v1::Forecast>; 4],
    alerts: Gathered<v1::Alert>,
}

impl Tables {
    /// Makes the folder, and begins tables in it. Those of an earlier replay
    /// stay until [`finish`](Self::finish) replaces them.
    ///
    /// # Errors
    /// [`HistoryError`] if they cannot be made.
    pub fn create(folder: &Path, step_ns: u64) -> Result<Self, HistoryError> {
        fs::create_dir_all(folder).map_err(io_error(folder))?;
        let windows = Table::create(folder, "windows", move |rows: &[HistoryRow]| {
            windows(rows, step_ns)
        })?;
        Ok(Self {
            step_ns,
            windows: Gathered::new(windows),
            forecasts: Vec::new(),
            points: 0,
            of_forecasts: [
                Table::create(folder, "forecasts", points)?,
                Table::create(folder, "scores", scores)?,
                Table::create(folder, "risks", risks)?,
                Table::create(folder, "reasons", reasons)?,
            ],
            alerts: Gathered::new(Table::create(folder, "alerts", alerts)?),
        })
    }

    /// Adds windows that ended at `from_ns` or later.
    ///
    /// # Errors
    /// [`HistoryError`] if they cannot be written.
    pub fn windows(&mut self, rows: Vec<HistoryRow>, from_ns: u64) -> Result<(), HistoryError> {
        let step_ns = self.step_ns;
        let rows = rows
            .into_iter()
            .filter(|row| (row.step + 1) * step_ns >= from_ns);
        self.windows.rows.extend(rows);
        if self.windows.rows.len() >= WINDOWS_GATHERED {
            self.windows.write()?;
        }
        Ok(())
    }

    /// Adds forecasts.
    ///
    /// # Errors
    /// [`HistoryError`] if they cannot be written.
    pub fn forecasts(&mut self, forecasts: &[v1::Forecast]) -> Result<(), HistoryError> {
        // A forecast without points takes memory too.
        self.points += forecasts.iter().map(|one| one.points.len()).sum::<usize>();
        self.points += forecasts.len();
        self.forecasts.extend_from_slice(forecasts);
        if self.points >= POINTS_GATHERED {
            self.write_forecasts()?;
        }
        Ok(())
    }

    /// Adds an alert that fired or resolved.
    pub fn alert(&mut self, alert: v1::Alert) {
        self.alerts.rows.push(alert);
    }

    /// Writes what is gathered, and puts the tables in place.
    ///
    /// # Errors
    /// [`HistoryError`] if a table cannot be written.
    pub fn finish(mut self) -> Result<(), HistoryError> {
        self.write_forecasts()?;
        self.windows.finish()?;
        for table in self.of_forecasts {
            table.finish()?;
        }
        self.alerts.finish()
    }

    fn write_forecasts(&mut self) -> Result<(), HistoryError> {
        for table in &mut self.of_forecasts {
            table.write(&self.forecasts)?;
        }
        self.forecasts.clear();
        self.points = 0;
        Ok(())
    }
}

type ToFrame<R> = Box<dyn Fn(&[R]) -> PolarsResult<DataFrame>>;

/// A file that is written under another name until it is whole.
struct Table<R> {
    path: PathBuf,
    unfinished: PathBuf,
    file: Arc<File>,
    writer: BatchedWriter<Arc<File>>,
    to_frame: ToFrame<R>,
}

impl<R> Table<R> {
    fn create(
        folder: &Path,
        name: &str,
        to_frame: impl Fn(&[R]) -> PolarsResult<DataFrame> + 'static,
    ) -> Result<Self, HistoryError> {
        let path = folder.join(format!("{name}.parquet"));
        let unfinished = path.with_extension("unfinished");
        let file = File::create(&unfinished).map_err(io_error(&unfinished))?;
        let file = Arc::new(file);
        let begin = || {
            let empty = to_frame(&[])?;
            ParquetWriter::new(Arc::clone(&file))
                .with_compression(ParquetCompression::Snappy)
                .batched(empty.schema())
        };
        let writer = begin().map_err(frame_error(&unfinished))?;
        Ok(Self {
            path,
            unfinished,
            file,
            writer,
            to_frame: Box::new(to_frame),
        })
    }

    fn write(&mut self, rows: &[R]) -> Result<(), HistoryError> {
        let frame = (self.to_frame)(rows);
        frame
            .and_then(|frame| match frame.height() {
                0 => Ok(()),
                _ => self.writer.write_batch(&frame),
            })
            .map_err(frame_error(&self.unfinished))
    }

    fn finish(self) -> Result<(), HistoryError> {
        self.writer
            .finish()
            .map_err(frame_error(&self.unfinished))?;
        self.file.sync_all().map_err(io_error(&self.unfinished))?;
        fs::rename(&self.unfinished, &self.path).map_err(io_error(&self.path))
    }
}

/// A table, and rows that it will get.
struct Gathered<R> {
    rows: Vec<R>,
    table: Table<R>,
}

impl<R> Gathered<R> {
    fn new(table: Table<R>) -> Self {
        Self {
            rows: Vec::new(),
            table,
        }
    }

    fn write(&mut self) -> Result<(), HistoryError> {
        self.table.write(&self.rows)?;
        self.rows.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<(), HistoryError> {
        self.write()?;
        self.table.finish()
    }
}

pub(super) fn frame_error(path: &Path) -> impl Fn(PolarsError) -> HistoryError {
    let path = path.to_owned();
    move |source| HistoryError::Frame {
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use honeyguide_proto::v1::Target;

    use super::{super::read_frame, *};

    #[test]
    fn tables_without_rows_have_their_columns() {
        let directory = tempfile::tempdir().unwrap();
        let tables = Tables::create(directory.path(), 1).unwrap();
        tables.finish().unwrap();
        let read = read_frame(&directory.path().join("alerts.parquet")).unwrap();
        assert_eq!(read.schema(), alerts(&[]).unwrap().schema());
    }

    #[test]
    fn tables_that_are_not_finished_replace_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("windows.parquet");
        fs::write(&path, b"earlier").unwrap();
        drop(Tables::create(directory.path(), 1).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"earlier");
    }

    #[test]
    fn more_rows_than_are_gathered_are_all_written() {
        let directory = tempfile::tempdir().unwrap();
        let mut tables = Tables::create(directory.path(), 1).unwrap();
        let point = v1::ForecastPoint {
            target: Target::P99.into(),
            ..Default::default()
        };
        let forecast = v1::Forecast {
            points: vec![point; POINTS_GATHERED / 2],
            ..Default::default()
        };
        for _ in 0..5 {
            tables.forecasts(std::slice::from_ref(&forecast)).unwrap();
        }
        assert!(tables.forecasts.len() < 5);
        tables.finish().unwrap();
        let height = |name: &str| {
            let path = directory.path().join(format!("{name}.parquet"));
            read_frame(&path).unwrap().height()
        };
        assert_eq!(height("forecasts"), 5 * (POINTS_GATHERED / 2));
        assert_eq!(height("scores"), 5);
    }
}
