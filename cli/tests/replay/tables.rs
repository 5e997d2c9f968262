//! `honeyguide replay --parquet`: the tables hold what `--all --json` prints.

use std::{fs::File, path::Path};

use polars::prelude::*;
use serde_json::Value;

use super::{EPOCH_SECS, STEP_SECS, lines, recorded, replay, stderr, time_of};

/// Windows are kept in steps of 0.05 %.
const TOLERANCE: f64 = 0.000_5;

fn read(folder: &Path, name: &str) -> DataFrame {
    let file = File::open(folder.join(format!("{name}.parquet"))).unwrap();
    ParquetReader::new(file).finish().unwrap()
}

fn text(frame: &DataFrame, column: &str, row: usize) -> String {
    let column = frame.column(column).unwrap().str().unwrap();
    column.get(row).unwrap().to_owned()
}

/// A number, or `None`; times in seconds.
fn number(frame: &DataFrame, column: &str, row: usize) -> Option<f64> {
    let column = frame.column(column).unwrap();
    if let DataType::Datetime(unit, zone) = column.dtype() {
        assert_eq!(
            (unit, zone),
            (&TimeUnit::Microseconds, &Some(TimeZone::UTC))
        );
        let micros = column.datetime().unwrap().phys.get(row);
        return micros.map(|micros| micros as f64 / 1e6);
    }
    let value = column.get(row).unwrap();
    (!value.is_null()).then(|| value.try_extract().unwrap())
}

fn is_key(frame: &DataFrame, row: usize, forecast: &Value) {
    assert_eq!(number(frame, "made_at", row), forecast["made_at"].as_f64());
    assert_eq!(text(frame, "service", row), forecast["key"]["service"]);
    assert_eq!(text(frame, "signal", row), forecast["key"]["signal"]);
}

/// Compares a row with an object: columns, and the fields they come from.
fn is(frame: &DataFrame, row: usize, object: &Value, columns: &[(&str, &str)]) {
    for (column, field) in columns {
        let value = number(frame, column, row);
        assert_eq!(value, object[field].as_f64(), "{column} of row {row}");
    }
}

fn target(printed: &Value) -> String {
    printed.as_str().unwrap().replace("p99.9", "p999")
}

#[test]
fn tables_hold_what_is_printed() {
    let directory = tempfile::tempdir().unwrap();
    let file = recorded(directory.path());
    let folder = directory.path().join("tables");
    let parquet = ["--parquet", folder.to_str().unwrap()];
    let output = replay(&[&[file.as_str(), "--all", "--json"], &parquet[..]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let (forecasts, alerts): (Vec<_>, Vec<_>) = lines(&output)
        .into_iter()
        .partition(|line| line["points"].is_array());
    assert_eq!(forecasts.len(), 2 * 70);

    let scores = read(&folder, "scores");
    assert_eq!(scores.height(), forecasts.len());
    let (points, risks) = (read(&folder, "forecasts"), read(&folder, "risks"));
    let reasons = read(&folder, "reasons");
    let (mut point, mut risk, mut because) = (0, 0, 0);
    for (row, forecast) in forecasts.iter().enumerate() {
        is_key(&scores, row, forecast);
        let fields = ["anomaly_score", "history_windows"];
        is(&scores, row, forecast, &fields.map(|name| (name, name)));
        for printed in forecast["points"].as_array().unwrap() {
            is_key(&points, point, forecast);
            assert_eq!(text(&points, "target", point), target(&printed["target"]));
            let fields = ["yhat_lower_80", "yhat_upper_80", "yhat_lower_95"];
            is(&points, point, printed, &fields.map(|name| (name, name)));
            let others = [("yhat", "yhat"), ("yhat_upper_95", "yhat_upper_95")];
            is(&points, point, printed, &others);
            is(&points, point, printed, &[("horizon_secs", "horizon")]);
            let due = forecast["made_at"].as_f64().unwrap() + printed["horizon"].as_f64().unwrap();
            assert_eq!(number(&points, "due_at", point), Some(due));
            point += 1;
        }
        for printed in forecast["breaches"].as_array().unwrap() {
            is_key(&risks, risk, forecast);
            is_risk(&risks, risk, printed);
            risk += 1;
        }
        for (rank, printed) in forecast["reasons"].as_array().unwrap().iter().enumerate() {
            is_key(&reasons, because, forecast);
            assert_eq!(number(&reasons, "rank", because), Some(rank as f64 + 1.0));
            let cause = text(&reasons, "cause_signal", because);
            assert_eq!(cause, printed["key"]["signal"]);
            let fields = ["contribution", "ratio_to_usual"];
            is(&reasons, because, printed, &fields.map(|name| (name, name)));
            is(&reasons, because, printed, &[("lead_secs", "lead")]);
            because += 1;
        }
    }
    assert_eq!(points.height(), point);
    assert_eq!(risks.height(), risk);
    assert_eq!(reasons.height(), because);
    assert!(
        point > 1000 && risk > 50 && because > 5,
        "{point} {risk} {because}"
    );

    let table = read(&folder, "alerts");
    assert_eq!(table.height(), alerts.len());
    assert!(!alerts.is_empty());
    for (row, alert) in alerts.iter().enumerate() {
        assert_eq!(text(&table, "id", row), alert["id"]);
        assert_eq!(text(&table, "service", row), alert["key"]["service"]);
        assert_eq!(text(&table, "summary", row), alert["summary"]);
        let fields = ["fired_at", "resolved_at"];
        is(&table, row, alert, &fields.map(|name| (name, name)));
        is_risk(&table, row, &alert["breach"]);
    }
    are_windows(&read(&folder, "windows"), &forecasts);
}

fn is_risk(frame: &DataFrame, row: usize, breach: &Value) {
    assert_eq!(text(frame, "objective", row), breach["objective"]);
    assert_eq!(text(frame, "target", row), target(&breach["target"]));
    let fields = [
        ("threshold", "threshold_secs"),
        ("horizon_secs", "horizon"),
        ("probability", "probability"),
        ("eta_secs", "eta"),
        ("eta_lower_80_secs", "eta_lower_80"),
        ("eta_upper_80_secs", "eta_upper_80"),
    ];
    is(frame, row, breach, &fields);
}

/// Every forecast with a latency saw a window that ended when it was made.
fn are_windows(windows: &DataFrame, forecasts: &[Value]) {
    let observed: Vec<_> = forecasts
        .iter()
        .filter(|forecast| forecast["latency"].is_object())
        .collect();
    assert_eq!(windows.height(), observed.len());
    for forecast in observed {
        let made_at = forecast["made_at"].as_f64();
        let row = (0..windows.height())
            .find(|row| {
                number(windows, "ended_at", *row) == made_at
                    && text(windows, "service", *row) == forecast["key"]["service"]
                    && text(windows, "signal", *row) == forecast["key"]["signal"]
            })
            .unwrap();
        let started_at = number(windows, "started_at", row).unwrap();
        assert_eq!(Some(started_at + STEP_SECS as f64), made_at);
        assert_eq!(number(windows, "samples", row), Some(1000.0));
        assert_eq!(
            number(windows, "completeness", row),
            forecast["completeness"].as_f64()
        );
        let latency = &forecast["latency"];
        for (column, expected) in [
            ("p50_secs", &latency["p50"]),
            ("p90_secs", &latency["p90"]),
            ("p99_secs", &latency["p99"]),
            ("p999_secs", &latency["p999"]),
            ("rate_per_sec", &forecast["rate_per_sec"]),
        ] {
            let ratio = number(windows, column, row).unwrap() / expected.as_f64().unwrap();
            assert!((ratio - 1.0).abs() < TOLERANCE, "{column}: {ratio}");
        }
    }
}

#[test]
fn tables_of_a_range_hold_that_range_and_replace_earlier_ones() {
    let directory = tempfile::tempdir().unwrap();
    let file = recorded(directory.path());
    let folder = directory.path().join("tables");
    let folder_name = folder.to_str().unwrap();
    let all = replay(&[&file, "--parquet", folder_name]);
    assert!(all.status.success(), "{}", stderr(&all));
    assert_eq!(read(&folder, "windows").height(), 2 * 70);
    let [from, to] = [time_of(20), time_of(50)];
    let of_range = ["--from", &from, "--to", &to, "--parquet", folder_name];
    let part = replay(&[&[file.as_str()], &of_range[..]].concat());
    assert!(part.status.success(), "{}", stderr(&part));
    for (name, time) in [("windows", "ended_at"), ("scores", "made_at")] {
        let frame = read(&folder, name);
        let times = (0..frame.height()).map(|row| number(&frame, time, row).unwrap());
        let secs = |step: u64| (EPOCH_SECS + step * STEP_SECS) as f64;
        assert!(times.clone().all(|at| at >= secs(20)), "{name}");
        // The last step may still collect when the range ends.
        assert!(times.clone().any(|at| at == secs(49)), "{name}");
        assert!(times.clone().all(|at| at <= secs(50)), "{name}");
    }
    let unfinished = std::fs::read_dir(&folder).unwrap().flatten();
    let names: Vec<_> = unfinished.map(|entry| entry.file_name()).collect();
    assert_eq!(names.len(), 6, "{names:?}");
}

#[test]
fn the_same_recording_gives_the_same_tables() {
    let directory = tempfile::tempdir().unwrap();
    let file = recorded(directory.path());
    let tables = ["a", "b"].map(|name| {
        let folder = directory.path().join(name);
        let output = replay(&[&file, "--parquet", folder.to_str().unwrap()]);
        assert!(output.status.success(), "{}", stderr(&output));
        let names = [
            "windows",
            "forecasts",
            "scores",
            "risks",
            "reasons",
            "alerts",
        ];
        names.map(|name| std::fs::read(folder.join(format!("{name}.parquet"))).unwrap())
    });
    assert!(tables[0] == tables[1], "the tables differ");
}
