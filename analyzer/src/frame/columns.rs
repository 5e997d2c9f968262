//! The columns of the tables that a replay writes; `notebooks/README.md`
//! documents them.

use honeyguide_models::Target;
use honeyguide_proto::v1;
use polars::prelude::*;

use crate::{judge::nanoseconds, pipeline::HistoryRow};

/// Windows of steps that are `step_ns` long.
pub(super) fn windows(rows: &[HistoryRow], step_ns: u64) -> PolarsResult<DataFrame> {
    let mut columns = vec![
        times("started_at", rows.iter().map(|row| row.step * step_ns)),
        times("ended_at", rows.iter().map(|row| (row.step + 1) * step_ns)),
        text("service", rows.iter().map(|row| row.service.as_str())),
        text("signal", rows.iter().map(|row| row.signal.name())),
        // Kept to 0.05 %: whole again up to a thousand.
        counts(
            "samples",
            rows.iter().map(|row| row.window.samples.round() as u64),
        ),
        floats(
            "completeness",
            rows.iter()
                .map(|row| Some(f64::from(row.window.completeness))),
        ),
    ];
    for target in Target::ALL {
        let natural = |row: &HistoryRow| row.window.value(target).map(|y| target.to_natural(y));
        columns.push(floats(unit_name(target), rows.iter().map(natural)));
    }
    DataFrame::new(rows.len(), columns)
}

/// The column of a target, with its unit.
const fn unit_name(target: Target) -> &'static str {
    match target {
        Target::P50 => "p50_secs",
        Target::P90 => "p90_secs",
        Target::P99 => "p99_secs",
        Target::P999 => "p999_secs",
        Target::Rate => "rate_per_sec",
    }
}

/// Forecasts by horizon and target.
pub(super) fn points(forecasts: &[v1::Forecast]) -> PolarsResult<DataFrame> {
    let rows = parts(forecasts, |forecast| &forecast.points);
    let mut columns = keys(rows.iter().map(|(forecast, _)| *forecast));
    let horizon_ns = |point: &v1::ForecastPoint| seconds(point.horizon).unwrap_or(0.0) * 1e9;
    let due_ns = rows
        .iter()
        .map(|(forecast, point)| made_at_ns(forecast) + horizon_ns(point) as u64);
    columns.push(times("due_at", due_ns));
    columns.push(floats(
        "horizon_secs",
        rows.iter().map(|(_, point)| seconds(point.horizon)),
    ));
    columns.push(text(
        "target",
        rows.iter().map(|(_, point)| target_name(point.target())),
    ));
    // Unit as the target's: they are of one column only in a long table.
    type Value = fn(&v1::ForecastPoint) -> f64;
    let values: [(&str, Value); 5] = [
        ("yhat", |point| point.yhat),
        ("yhat_lower_80", |point| point.yhat_lower_80),
        ("yhat_upper_80", |point| point.yhat_upper_80),
        ("yhat_lower_95", |point| point.yhat_lower_95),
        ("yhat_upper_95", |point| point.yhat_upper_95),
    ];
    for (name, value) in values {
        // Models answer in single precision, so nothing is lost.
        let values: Vec<f32> = rows.iter().map(|(_, point)| value(point) as f32).collect();
        columns.push(Column::new(name.into(), values));
    }
    DataFrame::new(rows.len(), columns)
}

/// What there is one of in each forecast.
pub(super) fn scores(forecasts: &[v1::Forecast]) -> PolarsResult<DataFrame> {
    let mut columns = keys(forecasts.iter());
    let score = |forecast: &v1::Forecast| Some(forecast.anomaly_score);
    columns.push(floats("anomaly_score", forecasts.iter().map(score)));
    let windows = |forecast: &v1::Forecast| u64::from(forecast.history_windows);
    columns.push(counts("history_windows", forecasts.iter().map(windows)));
    DataFrame::new(forecasts.len(), columns)
}

/// Probabilities of breaches by objective.
pub(super) fn risks(forecasts: &[v1::Forecast]) -> PolarsResult<DataFrame> {
    let rows = parts(forecasts, |forecast| &forecast.breaches);
    let mut columns = keys(rows.iter().map(|(forecast, _)| *forecast));
    let breaches: Vec<&v1::BreachForecast> = rows.iter().map(|(_, breach)| *breach).collect();
    columns.extend(of_breaches(&breaches));
    DataFrame::new(rows.len(), columns)
}

/// Reasons of forecasts, the strongest first.
pub(super) fn reasons(forecasts: &[v1::Forecast]) -> PolarsResult<DataFrame> {
    let rows = parts(forecasts, |forecast| &forecast.reasons);
    let ranks = forecasts
        .iter()
        .flat_map(|forecast| 1..=forecast.reasons.len() as u64);
    let mut columns = keys(rows.iter().map(|(forecast, _)| *forecast));
    columns.push(counts("rank", ranks));
    let causes = || rows.iter().map(|(_, reason)| reason.key.as_ref());
    columns.push(text(
        "cause_service",
        causes().map(|key| key.map_or("", |key| &key.service)),
    ));
    columns.push(text(
        "cause_signal",
        causes().map(|key| key.map_or("", |key| &key.signal)),
    ));
    columns.push(floats(
        "contribution",
        rows.iter().map(|(_, reason)| Some(reason.contribution)),
    ));
    columns.push(floats(
        "lead_secs",
        rows.iter().map(|(_, reason)| seconds(reason.lead)),
    ));
    columns.push(floats(
        "ratio_to_usual",
        rows.iter().map(|(_, reason)| Some(reason.ratio_to_usual)),
    ));
    DataFrame::new(rows.len(), columns)
}

/// Alerts as they fired and resolved.
pub(super) fn alerts(alerts: &[v1::Alert]) -> PolarsResult<DataFrame> {
    let fired = |alert: &v1::Alert| alert.fired_at.as_ref().map(nanoseconds);
    let resolved = |alert: &v1::Alert| alert.resolved_at.as_ref().map(nanoseconds);
    let mut columns = vec![
        text("id", alerts.iter().map(|alert| alert.id.as_str())),
        optional_times("fired_at", alerts.iter().map(fired)),
        optional_times("resolved_at", alerts.iter().map(resolved)),
        text("service", alerts.iter().map(|alert| service(&alert.key))),
        text("signal", alerts.iter().map(|alert| signal(&alert.key))),
    ];
    let unknown = v1::BreachForecast::default();
    let breaches = alerts
        .iter()
        .map(|alert| alert.breach.as_ref().unwrap_or(&unknown));
    columns.extend(of_breaches(&breaches.collect::<Vec<_>>()));
    columns.push(text(
        "summary",
        alerts.iter().map(|alert| alert.summary.as_str()),
    ));
    DataFrame::new(alerts.len(), columns)
}

/// Each forecast with each of its parts.
fn parts<T>(
    forecasts: &[v1::Forecast],
    of: impl Fn(&v1::Forecast) -> &Vec<T>,
) -> Vec<(&v1::Forecast, &T)> {
    let mut rows = Vec::new();
    for forecast in forecasts {
        rows.extend(of(forecast).iter().map(|part| (forecast, part)));
    }
    rows
}

/// What tells a forecast from others.
fn keys<'a>(forecasts: impl Iterator<Item = &'a v1::Forecast> + Clone) -> Vec<Column> {
    vec![
        times("made_at", forecasts.clone().map(made_at_ns)),
        text("service", forecasts.clone().map(|one| service(&one.key))),
        text("signal", forecasts.map(|one| signal(&one.key))),
    ]
}

fn of_breaches(breaches: &[&v1::BreachForecast]) -> Vec<Column> {
    let all = || breaches.iter();
    vec![
        text("objective", all().map(|breach| breach.objective.as_str())),
        text("target", all().map(|breach| target_name(breach.target()))),
        // Of a rate it is in events per second, as for `yhat`.
        floats("threshold", all().map(|breach| Some(breach.threshold_secs))),
        floats("horizon_secs", all().map(|breach| seconds(breach.horizon))),
        floats("probability", all().map(|breach| Some(breach.probability))),
        floats("eta_secs", all().map(|breach| seconds(breach.eta))),
        floats(
            "eta_lower_80_secs",
            all().map(|breach| seconds(breach.eta_lower_80)),
        ),
        floats(
            "eta_upper_80_secs",
            all().map(|breach| seconds(breach.eta_upper_80)),
        ),
    ]
}

fn made_at_ns(forecast: &v1::Forecast) -> u64 {
    forecast.made_at.as_ref().map_or(0, nanoseconds)
}

fn service(key: &Option<v1::SeriesKey>) -> &str {
    key.as_ref().map_or("", |key| &key.service)
}

fn signal(key: &Option<v1::SeriesKey>) -> &str {
    key.as_ref().map_or("", |key| &key.signal)
}

/// As [`Target::name`], which also begins the names of the windows' columns.
const fn target_name(target: v1::Target) -> &'static str {
    match target {
        v1::Target::P50 => Target::P50.name(),
        v1::Target::P90 => Target::P90.name(),
        v1::Target::P99 => Target::P99.name(),
        v1::Target::P999 => Target::P999.name(),
        v1::Target::Rate => Target::Rate.name(),
        v1::Target::Unspecified => "",
    }
}

fn seconds(duration: Option<prost_types::Duration>) -> Option<f64> {
    duration.map(|duration| duration.seconds as f64 + f64::from(duration.nanos) / 1e9)
}

fn times(name: &str, ns: impl Iterator<Item = u64>) -> Column {
    optional_times(name, ns.map(Some))
}

fn optional_times(name: &str, ns: impl Iterator<Item = Option<u64>>) -> Column {
    let micros: Int64Chunked = ns.map(|ns| ns.map(|ns| (ns / 1000) as i64)).collect();
    let times = micros.into_datetime(TimeUnit::Microseconds, Some(TimeZone::UTC));
    times.into_column().with_name(name.into())
}

fn text<'a>(name: &str, values: impl Iterator<Item = &'a str>) -> Column {
    Column::new(name.into(), values.collect::<Vec<_>>())
}

fn counts(name: &str, values: impl Iterator<Item = u64>) -> Column {
    Column::new(name.into(), values.collect::<Vec<_>>())
}

fn floats(name: &str, values: impl Iterator<Item = Option<f64>>) -> Column {
    Column::new(name.into(), values.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENTATION: &str = include_str!("../../../notebooks/README.md");

    /// What the documentation says about a table.
    fn section(name: &str) -> &'static str {
        let title = format!("**`{name}.parquet`**");
        let (_, section) = DOCUMENTATION.split_once(&title).unwrap();
        section.split("**`").next().unwrap()
    }

    #[test]
    fn every_column_is_documented_and_no_other() {
        let empty = [
            ("windows", windows(&[], 1)),
            ("forecasts", points(&[])),
            ("scores", scores(&[])),
            ("risks", risks(&[])),
            ("reasons", reasons(&[])),
            ("alerts", alerts(&[])),
        ];
        for (name, frame) in empty {
            let frame = frame.unwrap();
            let rows = section(name).lines().filter(|line| line.starts_with("| `"));
            let first_cells = rows.filter_map(|line| line.split('|').nth(1));
            let mut documented: Vec<&str> = first_cells
                .flat_map(|cell| cell.split('`').skip(1).step_by(2))
                .collect();
            let mut columns: Vec<&str> = frame
                .get_column_names()
                .into_iter()
                .map(|name| name.as_str())
                .collect();
            documented.sort_unstable();
            columns.sort_unstable();
            assert_eq!(columns, documented, "{name}");
        }
    }
}
