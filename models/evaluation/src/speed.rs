//! `eval speed`: time and memory per series.

use std::{path::Path, time::Instant};

use honeyguide_models::{
    Driver, DriverId, Params, Role, SeriesInput, SeriesModel, Target, ValidParams, Window,
    forecaster::Forecaster,
};

use crate::{
    Error,
    bootstrap::SplitMix64,
    report::{Outcome, row},
};

/// Four weeks of minutes.
const HISTORY: usize = 40_320;
/// Steps that a refresh forecasts.
pub const STEPS: usize = 60;
/// Refreshes timed.
const REFRESHES: usize = 500;
/// Services, each with a series of every signal that is on by default, which are
/// refreshed in turn, so that none stays in a cache.
const SERVICES: usize = 12;
const SIGNALS: usize = 17;
/// Windows of their history: six hours.
const WINDOWS: usize = 2160;
/// Windows of which a model learns one by one.
const LEARNED: usize = 720;
/// Rounds timed over all of them.
const ROUNDS: usize = 20;
/// A sweep is of so many series every so many seconds.
const SWEEP_SERIES: f64 = 10_000.0;
const SWEEP_SECS: f64 = 10.0;

type Input<'a> = SeriesInput<'a, [Window]>;

/// Measures; needs no data.
///
/// # Errors
/// None today; the signature is that of all evaluations.
pub fn evaluate(_data: &Path, mut progress: impl FnMut(&str)) -> Result<Outcome, Error> {
    let mut outcome = Outcome::default();
    progress("one series of 40,320 minutes");
    let (refresh_ms, bytes) = refresh();
    progress("series of an analyzer");
    let (sweep, [state_bytes, seasons_bytes]) = sweep();
    progress("detector");
    let detect_us = crate::detect::us_per_point();
    let distribution_us = crate::detect::us_per_histogram();
    let sweep = sweep + distribution_us * 1e-6 * SWEEP_SERIES / SWEEP_SECS;
    outcome.metric("detect_us_per_point", detect_us);
    outcome.metric("distribution_us_per_window", distribution_us);
    outcome.metric("refresh_60_ms", refresh_ms);
    outcome.metric("forecaster_bytes", bytes as f64);
    outcome.metric("sweep_10k_cores", sweep);
    outcome.metric("state_bytes_per_series", state_bytes as f64);
    outcome.line("## Speed, one core\n");
    outcome.line("| what | figure |");
    outcome.line("|---|---|");
    outcome.line(row([
        "anomaly score of one value".into(),
        format!("{detect_us:.2} µs"),
    ]));
    outcome.line(row([
        "distance of one histogram from the usual".into(),
        format!("{distribution_us:.2} µs"),
    ]));
    outcome.line(row([
        "one value and 60 steps ahead with nine quantiles, 40,320 minutes of history".into(),
        format!("{refresh_ms:.3} ms"),
    ]));
    outcome.line(row(["the same: memory".into(), format!("{bytes} B")]));
    outcome.line(row([
        "refresh of 10,000 series of an analyzer every 10 s (5 targets, 5 horizons; six hours of history, 16 other series of each service), distances and refits included"
            .into(),
        format!("{sweep:.3} cores"),
    ]));
    outcome.line(row([
        "state of such a series".into(),
        format!("{state_bytes} B"),
    ]));
    outcome.line(row([
        "what it keeps of past days and weeks beside it".into(),
        format!("{seasons_bytes} B"),
    ]));
    Ok(outcome)
}

/// The series that a refresh is timed on: so many minutes of a daily wave with
/// noise, the same each time.
fn minutes(count: usize) -> Vec<f64> {
    let mut random = SplitMix64(1);
    let value = |i: usize| {
        let day = (i as f64 / 1440.0 * std::f64::consts::TAU).sin();
        100.0 + 30.0 * day + 10.0 * random.uniform()
    };
    (0..count).map(value).collect()
}

/// The history that a refresh is timed after: what peers are to be given.
pub fn history() -> Vec<f64> {
    minutes(HISTORY)
}

/// Milliseconds per value and path, and bytes.
fn refresh() -> (f64, usize) {
    let values = minutes(HISTORY + REFRESHES);
    let (history, new) = values.split_at(HISTORY);
    let mut forecaster = Forecaster::new(&[60, 1440, 10_080], STEPS);
    history.iter().for_each(|value| forecaster.observe(*value));
    let levels = crate::baseline::LEVELS;
    let begin = Instant::now();
    let mut sum = 0.0;
    for value in new {
        forecaster.observe(*value);
        sum += forecaster.path(STEPS, levels)[STEPS - 1][4];
    }
    let ms = begin.elapsed().as_secs_f64() * 1e3 / REFRESHES as f64;
    // Keeps the work from being left out.
    assert!(sum.is_finite());
    (ms, forecaster.bytes())
}

/// Cores that a sweep takes, and bytes per series: its state, and what it
/// keeps of past seasons.
fn sweep() -> (f64, [usize; 2]) {
    let params = Params::default().validate().expect("defaults are valid");
    let mut random = SplitMix64(2);
    let mut window = |i: usize| {
        let base = (-6.9 + 0.4 * (i as f64 / 360.0).sin() + 0.3 * random.uniform()) as f32;
        Window {
            y: [base, base + 0.7, base + 1.4, base + 2.1, 5.0],
            samples: 3000.0,
            completeness: 1.0,
        }
    };
    let series = SERVICES * SIGNALS;
    let histories: Vec<Vec<Window>> = (0..series)
        .map(|series| (0..WINDOWS + ROUNDS).map(|i| window(series + i)).collect())
        .collect();
    let mut models: Vec<SeriesModel> = vec![SeriesModel::new(); series];
    // The others of a service are what a series may follow.
    let mut each = |at: usize, run: fn(&mut SeriesModel, &ValidParams, Input<'_>)| {
        let services = models.chunks_mut(SIGNALS).zip(histories.chunks(SIGNALS));
        for (models, histories) in services {
            for (number, model) in models.iter_mut().enumerate() {
                let others = (0u32..).zip(histories);
                let others = others.filter(|(other, _)| *other as usize != number);
                let drivers: Vec<_> = others
                    .map(|(id, history)| Driver {
                        id: DriverId(id),
                        role: Role::Saturation,
                        history: &history[..at],
                    })
                    .collect();
                let input = SeriesInput {
                    step: 1_000_000 + at as u64,
                    own: &histories[number][..at],
                    drivers: &drivers,
                };
                run(model, &params, input);
            }
        }
    };
    let refresh = |model: &mut SeriesModel, params: &ValidParams, input: Input<'_>| {
        let forecast = model.refresh(params, input);
        assert!(forecast.point(0, Target::P99).is_some());
    };
    (WINDOWS - LEARNED..WINDOWS).for_each(|at| each(at, refresh));
    let begin = Instant::now();
    each(WINDOWS - 1, |model, params, input| {
        model.refit(params, input);
    });
    let refit_secs = begin.elapsed().as_secs_f64() / series as f64;
    let begin = Instant::now();
    (WINDOWS..WINDOWS + ROUNDS).for_each(|at| each(at, refresh));
    let refresh_secs = begin.elapsed().as_secs_f64() / (ROUNDS * series) as f64;
    let per_series = refresh_secs + refit_secs / f64::from(params.get().refit_windows);
    let bytes = [models[0].bytes(), models[0].history_bytes()];
    (per_series * SWEEP_SERIES / SWEEP_SECS, bytes)
}
