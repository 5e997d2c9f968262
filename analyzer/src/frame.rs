//! History as Parquet segments. Only this file and its folder know polars:
//! `tables` writes what a replay finds out for notebooks, `foreign` reads files of
//! others that are only evaluated.
//!
//! A segment holds the rows of some steps of one partition, sorted by (step,
//! service, signal); its name is `history-<last step>-<partition>.parquet`. It
//! is written beside and renamed, so that a crash leaves whole segments only.

mod columns;
mod foreign;
mod tables;

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use honeyguide_bus::PartitionId;
use honeyguide_models::{TARGETS, Target, Window};
use polars::prelude::*;
use sensor_common::Signal;

pub use self::{
    foreign::{Foreign, ForeignColumn},
    tables::Tables,
};
use crate::pipeline::HistoryRow;

const PREFIX: &str = "history-";
const SUFFIX: &str = ".parquet";

/// Why history could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The directory or a file.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// polars, mostly a damaged file.
    #[error("{path}: {source}")]
    Frame {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: PolarsError,
    },
}

/// The history of one analyzer on disk.
#[derive(Clone, Debug)]
pub struct HistoryStore {
    directory: PathBuf,
    /// Steps kept.
    retention_steps: u64,
    /// Bytes kept.
    bytes_max: u64,
}

impl HistoryStore {
    /// Opens (and makes) the directory.
    ///
    /// # Errors
    /// [`HistoryError::Io`] if it cannot be made.
    pub fn open(
        directory: &Path,
        retention_steps: u64,
        bytes_max: u64,
    ) -> Result<Self, HistoryError> {
        fs::create_dir_all(directory).map_err(io_error(directory))?;
        Ok(Self {
            directory: directory.to_owned(),
            retention_steps,
            bytes_max,
        })
    }

    /// Writes a segment and removes what is past the bounds.
    ///
    /// # Errors
    /// [`HistoryError`]; no partial segment is left.
    pub fn write(
        &self,
        partition: PartitionId,
        last_step: u64,
        rows: &[HistoryRow],
    ) -> Result<(), HistoryError> {
        if rows.is_empty() {
            return Ok(());
        }
        let name = format!("{PREFIX}{last_step:020}-{partition}{SUFFIX}");
        let path = self.directory.join(name);
        let unfinished = path.with_extension("unfinished");
        let written = self
            .write_file(&unfinished, rows)
            .and_then(|()| fs::rename(&unfinished, &path).map_err(io_error(&path)));
        if written.is_err() {
            // On a full disk the partial file would keep it full.
            let _ = fs::remove_file(&unfinished);
        }
        written?;
        self.remove_old(last_step)
    }

    fn write_file(&self, path: &Path, rows: &[HistoryRow]) -> Result<(), HistoryError> {
        let frame_error = |source| HistoryError::Frame {
            path: path.to_owned(),
            source,
        };
        let file = File::create(path).map_err(io_error(path))?;
        write_rows(&file, rows).map_err(frame_error)?;
        file.sync_all().map_err(io_error(path))
    }

    /// Reads every row from `first_step` on, in order. Damaged segments are
    /// left out and returned as errors.
    pub fn read(&self, first_step: u64) -> (Vec<HistoryRow>, Vec<HistoryError>) {
        let mut rows = Vec::new();
        let mut errors = Vec::new();
        for (last_step, path) in self.segments() {
            if last_step < first_step {
                continue;
            }
            match read_segment(&path, first_step) {
                Ok(mut segment) => rows.append(&mut segment),
                Err(source) => errors.push(HistoryError::Frame { path, source }),
            }
        }
        // Segments do not overlap, unless a failed commit made one come again.
        rows.sort_by(|a, b| (a.step, &a.service, a.signal).cmp(&(b.step, &b.service, b.signal)));
        rows.dedup_by(|a, b| (a.step, &a.service, a.signal) == (b.step, &b.service, b.signal));
        (rows, errors)
    }

    /// Means over `every` steps, for long views, by service, signal and first
    /// step: of each target in model space (so latencies are geometric means),
    /// and the sum of samples.
    ///
    /// # Errors
    /// [`PolarsError`] if a segment is damaged.
    pub fn resample(&self, every: u64) -> PolarsResult<DataFrame> {
        let paths = self.segments().into_iter().map(|(_, path)| path);
        let frames = paths.map(|path| read_frame(&path).map(IntoLazy::lazy));
        let frames = frames.collect::<PolarsResult<Vec<_>>>()?;
        let all = concat(frames, UnionArgs::default())?;
        let mut means: Vec<Expr> = Target::ALL
            .iter()
            .map(|target| col(target.name()).mean())
            .collect();
        means.push(col("samples").sum());
        all.with_column((col("step") - col("step") % lit(every)).alias("step"))
            .group_by_stable([col("service"), col("signal"), col("step")])
            .agg(means)
            .collect()
    }

    /// Segments by their last step, oldest first.
    fn segments(&self) -> Vec<(u64, PathBuf)> {
        let entries = fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten();
        let mut segments: Vec<(u64, PathBuf)> = entries
            .filter_map(|entry| {
                let name = entry.file_name();
                let name = name.to_str()?.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
                // Segments of earlier versions name no partition.
                let step = name.split('-').next()?;
                Some((step.parse().ok()?, entry.path()))
            })
            .collect();
        segments.sort();
        segments
    }

    fn remove_old(&self, last_step: u64) -> Result<(), HistoryError> {
        let oldest = last_step.saturating_sub(self.retention_steps);
        let mut bytes = 0;
        for (step, path) in self.segments().into_iter().rev() {
            bytes += fs::metadata(&path).map_err(io_error(&path))?.len();
            if step < oldest || bytes > self.bytes_max {
                fs::remove_file(&path).map_err(io_error(&path))?;
            }
        }
        Ok(())
    }
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> HistoryError {
    let path = path.to_owned();
    move |source| HistoryError::Io {
        path: path.clone(),
        source,
    }
}

fn to_frame(rows: &[HistoryRow]) -> PolarsResult<DataFrame> {
    let floats = |value: fn(&Window, usize) -> f32, index: usize| -> Vec<f32> {
        rows.iter().map(|row| value(&row.window, index)).collect()
    };
    let mut columns = vec![
        Column::new(
            "step".into(),
            rows.iter().map(|row| row.step).collect::<Vec<_>>(),
        ),
        Column::new(
            "service".into(),
            rows.iter()
                .map(|row| row.service.as_str())
                .collect::<Vec<_>>(),
        ),
        Column::new(
            "signal".into(),
            rows.iter().map(|row| row.signal.name()).collect::<Vec<_>>(),
        ),
        Column::new("samples".into(), floats(|window, _| window.samples, 0)),
        Column::new(
            "completeness".into(),
            floats(|window, _| window.completeness, 0),
        ),
    ];
    for target in Target::ALL {
        let values = floats(|window, index| window.y[index], target.index());
        columns.push(Column::new(target.name().into(), values));
    }
    DataFrame::new(rows.len(), columns)
}

fn write_rows<W: io::Write>(writer: W, rows: &[HistoryRow]) -> PolarsResult<()> {
    let mut frame = to_frame(rows)?;
    ParquetWriter::new(writer)
        .with_compression(ParquetCompression::Snappy)
        .finish(&mut frame)?;
    Ok(())
}

fn read_frame(path: &Path) -> PolarsResult<DataFrame> {
    ParquetReader::new(File::open(path)?).finish()
}

fn read_segment(path: &Path, first_step: u64) -> PolarsResult<Vec<HistoryRow>> {
    rows_of(&read_frame(path)?, first_step)
}

fn rows_of(frame: &DataFrame, first_step: u64) -> PolarsResult<Vec<HistoryRow>> {
    let steps = frame.column("step")?.u64()?;
    let services = frame.column("service")?.str()?;
    let signals = frame.column("signal")?.str()?;
    let samples = frame.column("samples")?.f32()?;
    let completeness = frame.column("completeness")?.f32()?;
    let targets =
        Target::ALL.map(|target| frame.column(target.name()).and_then(|column| column.f32()));
    let mut values = Vec::with_capacity(TARGETS);
    for target in targets {
        values.push(target?);
    }
    let mut rows = Vec::new();
    for index in 0..frame.height() {
        let (Some(step), Some(service), Some(signal)) = (
            steps.get(index),
            services.get(index),
            signals.get(index).and_then(Signal::from_name),
        ) else {
            continue;
        };
        if step < first_step {
            continue;
        }
        let mut window = Window::MISSING;
        for (y, column) in window.y.iter_mut().zip(&values) {
            *y = column.get(index).unwrap_or(f32::NAN);
        }
        window.samples = samples.get(index).unwrap_or(0.0);
        window.completeness = completeness.get(index).unwrap_or(0.0);
        rows.push(HistoryRow {
            step,
            service: service.to_owned(),
            signal,
            window,
        });
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(step: u64, service: &str) -> HistoryRow {
        HistoryRow {
            step,
            service: service.to_owned(),
            signal: Signal::RunQueue,
            window: Window {
                y: [-5.0, -4.0, -3.0, -2.0, 1.0],
                samples: 10.0,
                completeness: 1.0,
            },
        }
    }

    fn store(directory: &tempfile::TempDir) -> HistoryStore {
        HistoryStore::open(directory.path(), 100, 1 << 20).unwrap()
    }

    #[test]
    fn rows_come_back_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory);
        store
            .write(0, 2, &[row(1, "a"), row(2, "a"), row(2, "b")])
            .unwrap();
        store.write(0, 3, &[row(3, "a")]).unwrap();
        let (rows, errors) = store.read(2);
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(rows, [row(2, "a"), row(2, "b"), row(3, "a")]);
    }

    #[test]
    fn damaged_segment_is_left_out_and_told() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory);
        store.write(0, 1, &[row(1, "a")]).unwrap();
        store.write(0, 2, &[row(2, "a")]).unwrap();
        let (_, damaged) = store.segments().remove(0);
        fs::write(&damaged, b"PAR1 nothing PAR1").unwrap();
        let (rows, errors) = store.read(0);
        assert_eq!(rows, [row(2, "a")]);
        assert!(errors[0].to_string().contains("history-"), "{}", errors[0]);
    }

    #[test]
    fn old_and_too_many_segments_go() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory);
        store.write(0, 1, &[row(1, "a")]).unwrap();
        store.write(0, 200, &[row(200, "a")]).unwrap();
        assert_eq!(store.segments().len(), 1);
        let small = HistoryStore::open(directory.path(), 100, 1).unwrap();
        small.write(0, 201, &[row(201, "a")]).unwrap();
        assert!(small.segments().len() <= 1);
    }

    #[test]
    fn resampling_takes_means() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory);
        store
            .write(0, 13, &[row(10, "a"), row(11, "a"), row(12, "a")])
            .unwrap();
        let frame = store.resample(6).unwrap();
        assert_eq!(frame.height(), 2);
        let p50 = frame.column("p50").unwrap().f32().unwrap().get(0).unwrap();
        assert_eq!(p50, -5.0);
    }
}
