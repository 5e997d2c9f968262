//! Recorded incidents through the pipeline of an analyzer.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use honeyguide_analyzer::{
    Config, ValidConfig,
    config::{HintsConfig, HintsMode, ObjectiveConfig},
    judge::nanoseconds,
};
use honeyguide_bus::{Delivery, Topic, range::Range, recording};
use honeyguide_evaluation::incidents::{
    BREACH_RUN, Cause, HORIZON, REQUESTS_MIN, Replayed, Seen, ServiceTruth, Truth,
};
use honeyguide_proto::v1;
use prost::Message;
use sensor_common::Signal;

use crate::replay::pipelines::{Finding, Pipelines};

/// How many times as long everything is in the second replay: windows of a second
/// are then of the default length.
const STRETCH: u32 = 10;
/// Windows after the breach whose reasons still count.
const REASONS_WITHIN: usize = 5;

/// All recordings of a folder that have a truth beside, in the order of names.
pub fn replay_all(folder: &Path, tell: impl Fn(&str)) -> anyhow::Result<Vec<Replayed>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("failed to list {}", folder.display()))?;
    let mut paths = Vec::<PathBuf>::new();
    for entry in entries {
        paths.push(entry?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "hgr"));
    paths.sort();
    ensure!(
        !paths.is_empty(),
        "{} holds no recordings",
        folder.display()
    );
    let mut runs = Vec::new();
    for path in &paths {
        tell(&path.file_stem().unwrap_or_default().to_string_lossy());
        runs.push(replay(path)?);
    }
    Ok(runs)
}

/// What an analyzer makes of a recording, with the objectives of the truth beside
/// it; once as it is, and once as if it had been ten times as long.
pub fn replay(path: &Path) -> anyhow::Result<Replayed> {
    let truth = Truth::read(&path.with_extension("json"))?;
    let mut replayed = analyze(path, &truth, 1)?;
    let slowly = analyze(path, &truth, STRETCH)?;
    for (seen, slowly) in replayed.services.iter_mut().zip(&slowly.services) {
        for (seen, slowly) in seen.iter_mut().zip(slowly) {
            seen.risk_at_default = slowly.risk;
            seen.anomaly_score_at_default = slowly.anomaly_score;
        }
    }
    Ok(replayed)
}

/// Replays with all times since the first window so many times as long.
fn analyze(path: &Path, truth: &Truth, stretch: u32) -> anyhow::Result<Replayed> {
    let mut run = Replayed {
        services: vec![vec![Seen::default(); truth.windows()]; truth.services.len()],
        reasons: Vec::new(),
        truth: truth.clone(),
    };
    let step = Duration::from_secs((truth.window_secs * stretch).into());
    let mut pipelines = Pipelines::new(config(truth, step)?, 0);
    let records = recording::read_range(path, Topic::Histograms, &Range::default())
        .with_context(|| format!("failed to open {}", path.display()))?;
    for delivery in records {
        let mut delivery: Delivery = delivery.with_context(|| path.display().to_string())?;
        if stretch > 1 {
            lengthen(&mut delivery, truth.first_window_ns, stretch)
                .with_context(|| path.display().to_string())?;
        }
        pipelines.take(&delivery, &mut |finding| note(&mut run, step, finding));
    }
    pipelines.end(None, &mut |finding| note(&mut run, step, finding));
    let seen = run.services[0].iter().any(|seen| seen.risk.is_some());
    ensure!(
        seen,
        "{} has no requests of {} in the time of the truth beside it",
        path.display(),
        run.truth.services[0].service
    );
    Ok(run)
}

/// Makes the window of a record, and the time since `from_ns`, longer.
fn lengthen(delivery: &mut Delivery, from_ns: u64, stretch: u32) -> anyhow::Result<()> {
    let later = |at_ns: u64| {
        let since = i128::from(at_ns) - i128::from(from_ns);
        u64::try_from(i128::from(from_ns) + since * i128::from(stretch))
    };
    let record = &mut delivery.record;
    record.timestamp_ns = later(record.timestamp_ns)?;
    let mut batch = v1::HistogramBatch::decode(record.payload.as_slice())?;
    batch.window_start_ns = later(batch.window_start_ns)?;
    batch.window_duration_ns *= u64::from(stretch);
    record.payload = batch.encode_to_vec();
    Ok(())
}

/// An analyzer with a step and the objectives of a truth.
fn config(truth: &Truth, step: Duration) -> anyhow::Result<ValidConfig> {
    let objective = |service: &ServiceTruth| {
        let defaults = Config::default().objectives.swap_remove(0);
        ObjectiveConfig {
            name: "truth".to_owned(),
            service: service.service.clone(),
            signal: Signal::ServerRequest.name().to_owned(),
            threshold: Some(Duration::from_secs_f64(service.objective_secs)),
            times_usual: None,
            floor: None,
            horizon: step * HORIZON as u32,
            fire_after: BREACH_RUN as u32,
            ..defaults
        }
    };
    let config = Config {
        step,
        lateness: Duration::from_secs(1),
        objectives: truth.services.iter().map(objective).collect(),
        hints: HintsConfig {
            mode: HintsMode::Off,
            ..HintsConfig::default()
        },
        ..Config::default()
    };
    Ok(config.validate()?)
}

fn note(run: &mut Replayed, step: Duration, finding: Finding) {
    let Finding::Forecasts(_, forecasts) = finding else {
        return;
    };
    for forecast in &forecasts {
        note_forecast(run, step, forecast);
    }
}

fn note_forecast(run: &mut Replayed, step: Duration, forecast: &v1::Forecast) -> Option<()> {
    let key = forecast.key.as_ref()?;
    if key.signal != Signal::ServerRequest.name() {
        return None;
    }
    let mut services = run.truth.services.iter();
    let service = services.position(|of| of.service == key.service)?;
    let end_ns = nanoseconds(forecast.made_at.as_ref()?);
    let at = end_ns.checked_sub(run.truth.first_window_ns)? / step.as_nanos() as u64;
    // The end of a window is the begin of the next.
    let at = usize::try_from(at).ok()?.checked_sub(1)?;
    let seen = run.services[service].get_mut(at)?;
    let now = forecast.now.as_ref()?;
    let requests = now.rate_per_sec * step.as_secs_f64();
    *seen = Seen {
        p99_secs: now.latency.as_ref().map(|latency| latency.p99),
        risk: forecast.breaches.first().map(|breach| breach.probability),
        risk_at_default: None,
        anomaly_score: Some(forecast.anomaly_score),
        anomaly_score_at_default: None,
        judged: requests >= REQUESTS_MIN,
    };
    let breach = run.truth.services[0].breach?;
    let at_breach = (breach..=breach + REASONS_WITHIN).contains(&at);
    if service == 0 && at_breach && run.reasons.is_empty() {
        let causes = forecast.reasons.iter().filter_map(|reason| {
            let key = reason.key.as_ref()?;
            Some(Cause {
                service: key.service.clone(),
                signal: key.signal.clone(),
            })
        });
        run.reasons = causes.collect();
    }
    Some(())
}
