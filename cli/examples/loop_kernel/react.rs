//! From a forecast that shows a risk to a sensor that looks closely, with the
//! default windows.

use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use honeyguide_analyzer::{Snapshot, config::ObjectiveConfig};
use honeyguide_models::Target;
use honeyguide_proto::{batch::Batch, v1::SeriesKey};
use honeyguide_sensor::program::probe::Probe;
use sensor_common::Signal;

use crate::{
    loads::{PacedSwitches, VICTIM, hogs, victim},
    looped::Looped,
};

/// The slowest counts.
const ROUNDS: usize = 3;
const ROUND_TRIPS: u32 = 30_000;
/// A round takes so long at most.
const TIMEOUT: Duration = Duration::from_secs(180);

pub async fn react_s() -> Result<f64> {
    let _load = PacedSwitches::begin(ROUND_TRIPS);
    let mut slowest = 0.0f64;
    for _ in 0..ROUNDS {
        let react_s = tokio::time::timeout(TIMEOUT, round()).await??;
        println!("react_s: {react_s:.2}");
        slowest = slowest.max(react_s);
    }
    Ok(slowest)
}

async fn round() -> Result<f64> {
    let directory = tempfile::tempdir()?;
    let _victim = victim(directory.path());
    let sensor = honeyguide_sensor::Config {
        probes: vec![Probe::Runq],
        ..honeyguide_sensor::Config::default()
    };
    let mut analyzer = honeyguide_analyzer::Config {
        objectives: vec![ObjectiveConfig {
            name: "run-queue".to_owned(),
            service: VICTIM.to_owned(),
            signal: Signal::RunQueue.name().to_owned(),
            target: Target::P99,
            threshold: Some(Duration::from_millis(12)),
            times_usual: None,
            floor: None,
            horizon: Duration::from_secs(300),
            fire_probability: 0.8,
            fire_after: 2,
            resolve_after: 3,
        }],
        ..honeyguide_analyzer::Config::default()
    };
    // So little that the node is told to sample its run queues.
    analyzer.hints.budget = 0.0001;
    let mut looped = Looped::start(sensor, analyzer).await?;
    while sampling_ratio(&looped.batch().await?).is_none_or(|ratio| ratio > 0.1) {}
    let mut snapshots = looped.analyzer.snapshot();
    let _hogs = hogs(directory.path());
    let risen = loop {
        snapshots.changed().await?;
        if risk(&snapshots.borrow_and_update()) >= 0.2 {
            break since_epoch();
        }
    };
    // Written to the kernel's maps right after the drain that begins a window;
    // what happened in between is still sampled.
    let applied = loop {
        let batch = looped.batch().await?;
        if sampling_ratio(&batch) > Some(0.2) {
            break Duration::from_nanos(batch.header.window_start_ns);
        }
    };
    looped.stop().await;
    ensure!(applied > risen, "the victim was never sampled");
    Ok((applied - risen).as_secs_f64())
}

/// Of the victim's run queue.
fn sampling_ratio(batch: &Batch) -> Option<f64> {
    let of_victim = |service: u32| batch.services[service as usize].key() == VICTIM;
    let mut series = batch.series.iter();
    let series =
        series.find(|series| series.signal == Signal::RunQueue && of_victim(series.service))?;
    Some(series.totals.samples as f64 / series.count as f64)
}

fn risk(snapshot: &Snapshot) -> f64 {
    let key = SeriesKey {
        service: VICTIM.to_owned(),
        signal: Signal::RunQueue.name().to_owned(),
    };
    let forecast = snapshot.forecast(&key);
    let breaches = forecast.map_or(&[][..], |forecast| &forecast.breaches);
    let risks = breaches.iter().map(|breach| breach.probability);
    risks.fold(0.0, f64::max)
}

fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}
