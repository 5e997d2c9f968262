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
    Cause, HORIZON, REQUESTS_MIN, Replayed, Seen, ServiceTruth, Truth,
};
use honeyguide_proto::v1;
use sensor_common::Signal;

use crate::replay::pipelines::{Finding, Pipelines};

/// Windows after the breach whose reasons still count.
const REASONS_WITHIN: usize = 5;

/// All recordings of a folder that have a truth beside, in the order of names.
pub fn replay_all(folder: &Path, tell: impl Fn(&str)) -> anyhow::Result<Vec<Replayed>> {
    let entries = fs::read_dir(folder)
        .with_context(|| format!("failed to list {}", folder.display()))?;
    let mut paths = Vec::<PathBuf>::new();
    for entry in entries {
        paths.push(entry?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "hgr"));
    paths.sort();
    ensure!(!paths.is_empty(), "{} holds no recordings", folder.display());
    let mut runs = Vec::new();
    for path in &paths {
        tell(&path.file_stem().unwrap_or_default().to_string_lossy());
        runs.push(replay(path)?);
    }
    Ok(runs)
}

/// What an analyzer makes of a recording, with the objectives of the truth beside it.
pub fn replay(path: &Path) -> anyhow::Result<Replayed> {
    let truth = Truth::read(&path.with_extension("json"))?;
    let mut run = Replayed {
        services: vec![vec![Seen::default(); truth.windows()]; truth.services.len()],
        reasons: Vec::new(),
        truth,
    };
    let mut pipelines = Pipelines::new(config(&run.truth)?, 0);
    let records = recording::read_range(path, Topic::Histograms, &Range::default())
        .with_context(|| format!("failed to open {}", path.display()))?;
    for delivery in records {
        let delivery: Delivery = delivery.with_context(|| path.display().to_string())?;
        pipelines.take(&delivery, &mut |finding| note(&mut run, finding));
    }
    pipelines.end(None, &mut |finding| note(&mut run, finding));
    let seen = run.services[0].iter().any(|seen| seen.risk.is_some());
    ensure!(
        seen,
        "{} has no requests of {} in the time of the truth beside it",
        path.display(),
        run.truth.services[0].service
    );
    Ok(run)
}

/// An analyzer with the step of the recording and the objectives of its truth.
fn config(truth: &Truth) -> anyhow::Result<ValidConfig> {
    let step = Duration::from_secs(truth.window_secs.into());
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
            ..defaults
        }
    };
    let config = Config {
        step,
        lateness: step,
        objectives: truth.services.iter().map(objective).collect(),
        hints: HintsConfig {
            mode: HintsMode::Off,
            ..HintsConfig::default()
        },
        ..Config::default()
    };
    Ok(config.validate()?)
}

fn note(run: &mut Replayed, finding: Finding) {
    let Finding::Forecasts(_, forecasts) = finding else {
        return;
    };
    for forecast in &forecasts {
        note_forecast(run, forecast);
    }
}

fn note_forecast(run: &mut Replayed, forecast: &v1::Forecast) -> Option<()> {
    let key = forecast.key.as_ref()?;
    if key.signal != Signal::ServerRequest.name() {
        return None;
    }
    let mut services = run.truth.services.iter();
    let service = services.position(|of| of.service == key.service)?;
    let step_ns = u64::from(run.truth.window_secs) * 1_000_000_000;
    let end_ns = nanoseconds(forecast.made_at.as_ref()?);
    let at = end_ns.checked_sub(run.truth.first_window_ns)? / step_ns;
    // The end of a window is the begin of the next.
    let at = usize::try_from(at).ok()?.checked_sub(1)?;
    let seen = run.services[service].get_mut(at)?;
    let now = forecast.now.as_ref()?;
    let requests = now.rate_per_sec * f64::from(run.truth.window_secs);
    *seen = Seen {
        p99_secs: now.latency.as_ref().map(|latency| latency.p99),
        risk: forecast.breaches.first().map(|breach| breach.probability),
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
