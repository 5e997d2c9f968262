//! `honeyguide eval … --series` as a user runs it, on files of all kinds.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use polars::prelude::*;
use serde_json::Value;

fn eval(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_honeyguide"))
        .arg("eval")
        .args(args)
        .current_dir(folder)
        .env_remove("HONEYGUIDE_CONFIG")
        .output()
        .unwrap()
}

fn succeeds(folder: &Path, args: &[&str]) -> String {
    let output = eval(folder, args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn fails(folder: &Path, args: &[&str], expected: &[&str]) {
    let output = eval(folder, args);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{args:?}");
    for expected in expected {
        assert!(error.contains(expected), "{expected:?} is not in {error:?}");
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A folder with the fixture as `shop.csv`.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let fixture = root().join("models/evaluation/tests/fixtures/own/shop.csv");
    fs::copy(fixture, folder.path().join("shop.csv")).unwrap();
    folder
}

/// The same rows as Parquet, times in milliseconds of UTC; in this order.
fn to_parquet(csv: &Path, parquet: &Path, order: impl Fn(usize, usize) -> usize) {
    let text = fs::read_to_string(csv).unwrap();
    let rows: Vec<Vec<&str>> = text
        .lines()
        .skip(1)
        .map(|row| row.split(',').collect())
        .collect();
    let rows: Vec<&Vec<&str>> = (0..rows.len())
        .map(|i| &rows[order(i, rows.len())])
        .collect();
    let day = |date: &str| if date.starts_with("2026-07-01") { 0 } else { 1 };
    let times: Int64Chunked = rows
        .iter()
        .map(|row| {
            let number = |from: usize| row[0][from..from + 2].parse::<i64>().unwrap();
            let minutes = (day(row[0]) * 24 + number(11)) * 60 + number(14);
            // 1 July 2026, 0:00.
            Some((1_782_864_000 + minutes * 60) * 1000)
        })
        .collect();
    let times = times.into_datetime(TimeUnit::Milliseconds, Some(TimeZone::UTC));
    let floats =
        |at: usize| -> Vec<Option<f64>> { rows.iter().map(|row| row[at].parse().ok()).collect() };
    let labels: Vec<i64> = rows.iter().map(|row| row[3].parse().unwrap()).collect();
    let columns = vec![
        times.into_column().with_name("timestamp".into()),
        Column::new("p99".into(), floats(1)),
        Column::new("rate".into(), floats(2)),
        Column::new("wrong".into(), labels),
    ];
    let mut frame = DataFrame::new(rows.len(), columns).unwrap();
    let file = fs::File::create(parquet).unwrap();
    ParquetWriter::new(file).finish(&mut frame).unwrap();
}

/// A table without the list of what was not clean, in which lines are rows.
fn without_notes(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with("- shop"));
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn csv_and_parquet_of_the_same_values_give_the_same_tables() {
    let folder = folder();
    let folder = folder.path();
    fs::create_dir(folder.join("other")).unwrap();
    let csv = folder.join("shop.csv");
    to_parquet(&csv, &folder.join("shop.parquet"), |i, _| i);
    to_parquet(&csv, &folder.join("other/shop.parquet"), |i, n| n - 1 - i);
    for what in ["forecast", "detect", "breach"] {
        let tables = |file: &str| {
            let args = [
                what,
                "--value-column",
                "p99",
                "--value-column",
                "rate",
                "--series",
                file,
            ];
            succeeds(folder, &args)
        };
        let csv = tables("shop.csv");
        assert!(
            csv.contains("line 1002: a gap before it, 60 steps"),
            "{csv}"
        );
        let parquet = tables("shop.parquet");
        assert!(
            parquet.contains("row 1001: a gap before it, 60 steps"),
            "{parquet}"
        );
        assert_eq!(without_notes(&csv), without_notes(&parquet), "{what}");
        let backwards = tables("other/shop.parquet");
        assert!(backwards.contains("sorted by time"), "{backwards}");
        assert_eq!(without_notes(&csv), without_notes(&backwards), "{what}");
    }
}

#[test]
fn figures_tables_and_plots_are_kept() {
    let folder = folder();
    let folder = folder.path();
    let common = [
        "--series",
        "shop.csv",
        "--value-column",
        "p99",
        "--json",
        "--out",
        "reports",
    ];
    let figures = |what: &str, more: &[&str]| -> Value {
        let args: Vec<&str> = std::iter::once(what)
            .chain(common)
            .chain(more.iter().copied())
            .collect();
        serde_json::from_str(&succeeds(folder, &args)).unwrap()
    };
    let forecast = figures("forecast", &[]);
    assert!(forecast["metrics"]["own_crps_rel"].as_f64().unwrap() < 1.0);
    let rows = forecast["details"]["own_forecast"]["rows"]
        .as_array()
        .unwrap();
    assert_eq!(rows.len(), 9, "three horizons of three models: {rows:?}");
    let detect = figures("detect", &["--label-column", "wrong"]);
    assert!(detect["metrics"]["own_recall"].as_f64().unwrap() > 0.5);
    let breach = figures("breach", &["--above", "shop=0.3"]);
    assert!(breach["metrics"]["own_ece_15m"].as_f64().unwrap() < 0.2);
    for (name, elements) in [
        (
            "forecast-own-shop-short.svg",
            ["measured", "<polygon", "time from the origin"],
        ),
        (
            "forecast-own-crps-by-lead.svg",
            ["seasonal naive", "<polyline", "time ahead in"],
        ),
        (
            "detect-own-shop.svg",
            ["labelled", "<circle", "anomaly scores"],
        ),
        (
            "breach-own-reliability.svg",
            ["honeyguide", "<rect", "probability said"],
        ),
        ("forecast.md", ["honeyguide", "seasonal naive", "coverage"]),
        ("detect.md", ["windowed Gaussian", "random", "recall"]),
        (
            "breach.md",
            ["predict_linear", "static threshold", "--above"],
        ),
    ] {
        let text = fs::read_to_string(folder.join("reports").join(name)).unwrap();
        for element in elements {
            assert!(text.contains(element), "{element} is not in {name}");
        }
    }
}

#[test]
fn a_recording_gives_the_series_of_its_services() {
    let folder = tempfile::tempdir().unwrap();
    let recording: PathBuf = root().join("bench-data/incidents/slow-disk-1.hgr");
    let recording = recording.to_str().unwrap();
    let args = |what| {
        [
            what,
            "--series",
            recording,
            "--step",
            "1s",
            "--only",
            "process/shop",
        ]
    };
    let forecast = succeeds(folder.path(), &args("forecast"));
    let shop = "slow-disk-1: process/shop server_request p99/short | honeyguide |";
    assert!(
        forecast.contains(shop),
        "{}",
        &forecast[..forecast.len().min(3000)]
    );
    let detect = succeeds(folder.path(), &args("detect"));
    assert!(detect.contains("slow-disk-1: process/shop server_request p99 | p99 in s"));
    assert!(detect.contains("server_request rate | rate in events/s"));
    assert!(!detect.contains("process/docs"), "not asked for");
    let other = ["detect", "--series", recording, "--only", "nothing"];
    fails(folder.path(), &other, &["has \"nothing\" in its name"]);
    assert!(
        fs::read_dir(folder.path()).unwrap().next().is_none(),
        "nothing is written"
    );
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let folder = folder();
    let folder = folder.path();
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    fails(
        folder,
        &["forecast", "--series", "shop.csv"],
        &[
            "shop.csv has no column \"value\" but timestamp, p99, rate, wrong; --value-column names another",
        ],
    );
    write("bad.csv", "timestamp,value\n1,1\n2,much\n");
    fails(
        folder,
        &["detect", "--series", "bad.csv"],
        &["bad.csv, line 3: value \"much\" is no number"],
    );
    write("ragged.csv", "timestamp,value\n1,1\n2\n");
    fails(
        folder,
        &["detect", "--series", "ragged.csv"],
        &["ragged.csv", "line: 3"],
    );
    let rows = |i: u32| format!("{i},a,1\n{i},b,2\n{i},c,3\n");
    let rows: String = (0..200).map(rows).collect();
    write("several.csv", &format!("ts,service,value\n{rows}"));
    fails(
        folder,
        &["detect", "--series", "several.csv"],
        &["several.csv, line 3", "--by"],
    );
    let by = succeeds(
        folder,
        &["detect", "--series", "several.csv", "--by", "service"],
    );
    assert!(
        by.contains("| several: b | value | 200 | 0 | 1 s |"),
        "{by}"
    );
    write("bad.parquet", "no Parquet at all");
    fails(
        folder,
        &["detect", "--series", "bad.parquet"],
        &["bad.parquet"],
    );
    write("bad.hgr", "no recording at all");
    fails(
        folder,
        &["detect", "--series", "bad.hgr"],
        &["bad.hgr", "no honeyguide recording"],
    );
    fails(
        folder,
        &["detect", "--series", "absent.csv"],
        &["failed to read absent.csv"],
    );
    fails(
        folder,
        &["detect", "--series", "shop.xlsx"],
        &["neither .csv nor .parquet nor .hgr"],
    );
    let column = ["breach", "--series", "shop.csv", "--value-column", "p99"];
    let with = |more: [&'static str; 2]| -> Vec<&str> { column.into_iter().chain(more).collect() };
    fails(
        folder,
        &with(["--above", "store=1"]),
        &["--above names \"store\", and the series are shop"],
    );
    fails(
        folder,
        &with(["--above", "much"]),
        &["\"much\" is no number above 0"],
    );
    fails(
        folder,
        &with(["--step", "100ms"]),
        &["--step must be whole seconds"],
    );
    fails(
        folder,
        &with(["--time-unit", "h"]),
        &["a unit of time is s, ms, us or ns"],
    );
    fails(folder, &["detect", "--label-column", "x"], &["--series"]);
}
