//! History as Parquet segments. Only this file and its folder know polars:
//! `tables` writes what a replay finds out for notebooks, `foreign` reads files of
//! others that are only evaluated.
//!
//! A segment holds the rows of some steps of one partition, sorted by (step,
//! service, signal); its name is `history-<last step>-<partition>-<step>.parquet`, with
//! the length of a step in seconds. It is written beside and renamed, so that a crash
//! leaves whole segments only. After a change of the length of a step, history of
//! shorter steps is read as that of longer ones (`resample`).

mod columns;
mod foreign;
mod resample;
mod tables;

use std::{
    collections::BTreeSet,
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
    /// Steps that do not fit into those of now.
    #[error(
        "history of steps of {stored_secs} s says nothing of steps of {step_secs} s; it is kept \
         until it is too old, and read again with that step or a multiple of it"
    )]
    Step {
        /// Length of the stored steps.
        stored_secs: u64,
        /// Length of a step now.
        step_secs: u64,
    },
}

/// A file of history.
struct Segment {
    last_step: u64,
    /// Length of its steps.
    step_secs: u64,
    path: PathBuf,
}

impl Segment {
    /// End of its last step in seconds since the Unix epoch.
    fn end_secs(&self) -> u64 {
        (self.last_step + 1).saturating_mul(self.step_secs)
    }
}

/// The history of one analyzer on disk.
#[derive(Clone, Debug)]
pub struct HistoryStore {
    directory: PathBuf,
    /// Length of a step.
    step_secs: u64,
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
        step_secs: u64,
        retention_steps: u64,
        bytes_max: u64,
    ) -> Result<Self, HistoryError> {
        fs::create_dir_all(directory).map_err(io_error(directory))?;
        Ok(Self {
            directory: directory.to_owned(),
            step_secs: step_secs.max(1),
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
        let step_secs = self.step_secs;
        let name = format!("{PREFIX}{last_step:020}-{partition}-{step_secs}{SUFFIX}");
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
    /// left out and returned as errors, and so are steps that do not fit.
    pub fn read(&self, first_step: u64) -> (Vec<HistoryRow>, Vec<HistoryError>) {
        let mut rows = Vec::new();
        let mut errors = Vec::new();
        let mut unfit = BTreeSet::new();
        let mut segments = self.segments();
        // Of two rows of a step the first stays: that of the length of now.
        segments.sort_by_key(|segment| segment.step_secs != self.step_secs);
        for segment in segments {
            if segment.end_secs() <= first_step.saturating_mul(self.step_secs) {
                continue;
            }
            if !self.step_secs.is_multiple_of(segment.step_secs) {
                unfit.insert(segment.step_secs);
                continue;
            }
            let ratio = self.step_secs / segment.step_secs;
            match read_segment(&segment.path, ratio, first_step) {
                Ok(mut segment) => rows.append(&mut segment),
                Err(source) => errors.push(HistoryError::Frame {
                    path: segment.path,
                    source,
                }),
            }
        }
        errors.extend(unfit.into_iter().map(|stored_secs| HistoryError::Step {
            stored_secs,
            step_secs: self.step_secs,
        }));
        // Segments do not overlap, unless a failed commit made one come again.
        rows.sort_by(|a, b| (a.step, &a.service, a.signal).cmp(&(b.step, &b.service, b.signal)));
        rows.dedup_by(|a, b| (a.step, &a.service, a.signal) == (b.step, &b.service, b.signal));
        (rows, errors)
    }

    /// All segments, oldest first.
    fn segments(&self) -> Vec<Segment> {
        let entries = fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten();
        let mut segments: Vec<Segment> = entries
            .filter_map(|entry| {
                let name = entry.file_name();
                let name = name.to_str()?.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
                let mut parts = name.split('-');
                let last_step = parts.next()?.parse().ok()?;
                // Segments of earlier versions name no partition, or no length.
                let step_secs = match parts.nth(1) {
                    Some(secs) => secs.parse().ok().filter(|secs| *secs > 0)?,
                    None => self.step_secs,
                };
                Some(Segment {
                    last_step,
                    step_secs,
                    path: entry.path(),
                })
            })
            .collect();
        segments.sort_by(|a, b| (a.end_secs(), &a.path).cmp(&(b.end_secs(), &b.path)));
        segments
    }

    fn remove_old(&self, last_step: u64) -> Result<(), HistoryError> {
        let oldest = last_step.saturating_sub(self.retention_steps);
        let oldest_secs = oldest.saturating_mul(self.step_secs);
        let mut bytes = 0;
        for segment in self.segments().into_iter().rev() {
            let path = &segment.path;
            bytes += fs::metadata(path).map_err(io_error(path))?.len();
            if segment.end_secs() <= oldest_secs || bytes > self.bytes_max {
                fs::remove_file(path).map_err(io_error(path))?;
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

/// Rows of steps that are `ratio` times as long as the stored ones.
fn read_segment(path: &Path, ratio: u64, first_step: u64) -> PolarsResult<Vec<HistoryRow>> {
    let mut frame = read_frame(path)?;
    if ratio > 1 {
        frame = resample::resample(frame, ratio)?;
    }
    rows_of(&frame, first_step)
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
        HistoryStore::open(directory.path(), 10, 100, 1 << 20).unwrap()
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
        let damaged = store.segments().remove(0).path;
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
        let small = HistoryStore::open(directory.path(), 10, 100, 1).unwrap();
        small.write(0, 201, &[row(201, "a")]).unwrap();
        assert!(small.segments().len() <= 1);
    }

    #[test]
    fn history_of_shorter_steps_is_read_as_that_of_longer_ones() {
        let directory = tempfile::tempdir().unwrap();
        let mut fast = row(11, "a");
        fast.window.y[0] = -6.0;
        fast.window.y[1] = f32::NAN;
        let rows = [row(10, "a"), fast, row(12, "a"), row(13, "b")];
        store(&directory).write(0, 13, &rows).unwrap();
        let slow = HistoryStore::open(directory.path(), 20, 100, 1 << 20).unwrap();
        let (rows, errors) = slow.read(0);
        assert!(errors.is_empty(), "{errors:?}");
        let keys: Vec<_> = rows.iter().map(|row| (row.step, &*row.service)).collect();
        assert_eq!(keys, [(5, "a"), (6, "a"), (6, "b")]);
        assert_eq!(rows[0].window.y, [-5.5, -4.0, -3.0, -2.0, 1.0]);
        assert_eq!(
            (rows[0].window.samples, rows[1].window.samples),
            (20.0, 10.0)
        );
        assert_eq!(slow.read(6).0, rows[1..]);
        // A row of the length of now is the one that counts.
        slow.write(0, 6, &[row(6, "a"), row(7, "a")]).unwrap();
        let (rows, _) = slow.read(6);
        let services: Vec<_> = rows.iter().map(|row| (row.step, &*row.service)).collect();
        assert_eq!(services, [(6, "a"), (6, "b"), (7, "a")]);
    }

    #[test]
    fn steps_that_do_not_fit_are_told_and_kept_until_they_are_old() {
        let directory = tempfile::tempdir().unwrap();
        store(&directory).write(0, 13, &[row(13, "a")]).unwrap();
        let other = HistoryStore::open(directory.path(), 15, 100, 1 << 20).unwrap();
        let (rows, errors) = other.read(0);
        assert!(rows.is_empty() && errors.len() == 1, "{errors:?}");
        assert!(
            errors[0].to_string().contains("steps of 10 s"),
            "{}",
            errors[0]
        );
        // 140 s; a retention of 100 steps of 15 s later.
        other.write(0, 105, &[row(105, "a")]).unwrap();
        assert_eq!(other.segments().len(), 2);
        other.write(0, 110, &[row(110, "a")]).unwrap();
        assert_eq!(store(&directory).read(0).0, []);
        assert_eq!(other.read(0).0.len(), 2);
    }
}
