//! Files of one's own: CSV, Parquet, recordings.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use honeyguide_analyzer::frame::{Foreign, ForeignColumn};
use honeyguide_evaluation::{
    Error,
    own::{Cell, Own, Place, ROWS_MAX, Selection, Table, TimeUnit},
};

use super::recorded;

/// Series that are evaluated in one run at most: each has its models and plots.
const SERIES_MAX: usize = 10_000;

/// Which files, and what of them is meant.
#[derive(Debug, clap::Args)]
pub struct SeriesArgs {
    /// Your own series: CSV or Parquet of times and values, or recordings (.hgr), of
    /// which the p99 and the rate of each service and signal are taken. Public sets
    /// are then evaluated only with --data.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    series: Vec<PathBuf>,
    /// Column of times: RFC 3339, or s, ms, µs or ns since 1970 [default: timestamp,
    /// time, ts, datetime, date or ended_at].
    #[arg(long, value_name = "NAME", requires = "series")]
    time_column: Option<String>,
    /// Column of values; may be repeated [default: value, or the only other column].
    #[arg(long, value_name = "NAME", requires = "series")]
    value_column: Vec<String>,
    /// Column that tells several series of one file apart, such as a service; may be
    /// repeated.
    #[arg(long, value_name = "NAME", requires = "series")]
    by: Vec<String>,
    /// What times that are numbers count: s, ms, us or ns [default: told by their size].
    #[arg(long, value_name = "UNIT", requires = "series")]
    time_unit: Option<TimeUnit>,
    /// Keep only series whose name contains this, of a recording with many.
    #[arg(long, value_name = "TEXT", requires = "series")]
    only: Option<String>,
    /// Length of a step [default: the median gap; of recordings 10s].
    #[arg(long, value_name = "TIME", requires = "series", value_parser = humantime::parse_duration)]
    step: Option<Duration>,
}

impl SeriesArgs {
    /// Whether no file is named.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// Reads all files.
    pub fn load(&self, label: Option<&str>, tell: impl Fn(&str)) -> anyhow::Result<Vec<Own>> {
        let selection = Selection {
            time: self.time_column.clone(),
            values: self.value_column.clone(),
            by: self.by.clone(),
            label: label.map(str::to_owned),
            unit: self.time_unit,
            step_secs: self.step.map(whole_secs).transpose()?,
        };
        let mut all: Vec<Own> = Vec::new();
        for path in &self.series {
            tell(&path.display().to_string());
            let extension = path.extension().unwrap_or_default().to_string_lossy();
            let more = match extension.to_lowercase().as_str() {
                "hgr" => recorded::series(path, selection.step_secs)?,
                "parquet" | "pq" => read_parquet(path, &selection)?.series(&selection)?,
                "csv" | "txt" => Table::read_csv(path, &selection)?.series(&selection)?,
                _ => bail!(
                    "{} ends with neither .csv nor .parquet nor .hgr, so it is not known how to read it",
                    path.display()
                ),
            };
            all.extend(more);
            ensure!(
                all.len() <= SERIES_MAX,
                "more than {SERIES_MAX} series; name fewer files"
            );
        }
        name_apart(&mut all);
        if let Some(text) = &self.only {
            let names = all.len();
            all.retain(|own| own.series.name.contains(text.as_str()));
            ensure!(
                !all.is_empty(),
                "none of {names} series has {text:?} in its name (--only)"
            );
        }
        Ok(all)
    }
}

/// Gives series of the same name a number.
fn name_apart(all: &mut [Own]) {
    for at in 1..all.len() {
        let (before, rest) = all.split_at_mut(at);
        let name = rest[0].series.name.clone();
        let taken = |name: &str| before.iter().any(|own| own.series.name == name);
        let mut number = 1;
        while taken(&rest[0].series.name) {
            number += 1;
            rest[0].series.name = format!("{name} ({number})");
        }
    }
}

fn whole_secs(step: Duration) -> anyhow::Result<u32> {
    const WEEK: u64 = 604_800;
    ensure!(
        step.subsec_nanos() == 0 && (1..=WEEK).contains(&step.as_secs()),
        "--step must be whole seconds, from 1s to 7days"
    );
    Ok(u32::try_from(step.as_secs())?)
}

/// The columns of a Parquet file that are meant.
fn read_parquet(path: &Path, selection: &Selection) -> anyhow::Result<Table> {
    let mut foreign = Foreign::open(path).context("failed to read Parquet")?;
    let rows = foreign.rows().context("failed to read Parquet")?;
    if rows > ROWS_MAX {
        return Err(Error::TooManyRows {
            path: path.to_owned(),
            max: ROWS_MAX,
        }
        .into());
    }
    let names = foreign.names()?;
    let refs: Vec<&str> = names.iter().map(String::as_str).collect();
    let used = selection.find(path, &refs)?.used();
    let columns = foreign
        .read(used.clone())
        .context("failed to read Parquet")?;
    let mut cells = Vec::new();
    for (at, column) in used.into_iter().zip(columns) {
        let name = names[at].clone();
        if let ForeignColumn::Other(kind) = &column {
            bail!(
                "{}: column {name:?} is of type {kind}; numbers, texts, dates and times can be read",
                path.display()
            );
        }
        cells.push((name, to_cells(column)));
    }
    Ok(Table {
        path: path.to_owned(),
        place: Place::Row,
        lines: (1..=rows as u64).collect(),
        columns: cells,
    })
}

fn to_cells(column: ForeignColumn) -> Vec<Cell> {
    fn all<T>(entries: Vec<Option<T>>, cell: impl Fn(T) -> Cell) -> Vec<Cell> {
        let cells = entries.into_iter();
        cells
            .map(|entry| entry.map_or(Cell::Empty, &cell))
            .collect()
    }
    match column {
        ForeignColumn::Integers(entries) => all(entries, Cell::Integer),
        ForeignColumn::Floats(entries) => all(entries, Cell::Float),
        ForeignColumn::Texts(entries) => all(entries, |text| Cell::of_text(&text)),
        ForeignColumn::Times { ns, zoned } => all(ns, |ns| Cell::Time { ns, zoned }),
        ForeignColumn::Other(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_whole_seconds() {
        assert_eq!(whole_secs(Duration::from_secs(60)).unwrap(), 60);
        for wrong in [0, 1500, 700_000_000] {
            assert!(whole_secs(Duration::from_millis(wrong)).is_err(), "{wrong}");
        }
    }
}
