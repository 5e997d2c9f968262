//! The scorers reproduce what is published of the naive baselines, and fixed
//! figures of a small synthetic set.

use std::path::PathBuf;

use honeyguide_evaluation::{
    baseline::{Quantiles, seasonal_naive},
    bizitobs::Configuration,
    forecast::path,
    score::Score,
};
use honeyguide_models::forecaster::Forecaster;

/// MASE of seasonal naive and of naive by configuration, as GIFT-Eval's table
/// gives them.
const MASE: [[f64; 2]; 9] = [
    [2.24, 3.76],
    [2.69, 6.52],
    [3.21, 7.21],
    [0.986, 0.283],
    [1.24, 0.826],
    [1.45, 1.25],
    [1.21, 1.09],
    [1.51, 1.49],
    [1.43, 1.43],
];
/// CRPS of seasonal naive, from the same table, for L2C.
const CRPS: [f64; 6] = [
    0.262_068_386,
    0.520_391_775,
    0.648_492_127,
    0.521_167_577,
    0.904_205_135,
    0.941_065_124,
];

/// The folder `bizitobs` of the data in `HONEYGUIDE_EVAL_DATA`, or beside the
/// repository.
fn data() -> Option<PathBuf> {
    let named = std::env::var_os("HONEYGUIDE_EVAL_DATA").map(PathBuf::from);
    let folder = named?.join("bizitobs");
    folder.is_dir().then_some(folder)
}

#[test]
fn naive_baselines_score_as_published() {
    let Some(folder) = data() else {
        println!("left out: HONEYGUIDE_EVAL_DATA names no folder with bizitobs/");
        return;
    };
    for (i, configuration) in Configuration::all().enumerate() {
        let season = configuration.dataset.season();
        let horizon = configuration.horizon();
        let mut scores = [Score::default(), Score::default()];
        for series in configuration.dataset.load(&folder).unwrap() {
            for origin in configuration.origins(series.values.len()) {
                let (history, future) = series.values.split_at(origin);
                for (score, repeated) in scores.iter_mut().zip([season, 1]) {
                    let forecast = seasonal_naive(history, repeated, horizon);
                    score.add(&Score::of(history, season, &forecast, &future[..horizon]));
                }
            }
        }
        for (score, published) in scores.iter().zip(MASE[i]) {
            let unit = if published < 1.0 { 0.0005 } else { 0.005 };
            let name = configuration.name();
            assert!(
                (score.mase() - published).abs() <= unit,
                "{name}: {}",
                score.mase()
            );
        }
        if i >= 3 {
            assert!((scores[0].crps() - CRPS[i - 3]).abs() < 1e-6);
        }
    }
}

/// A season of 24 with a rising level and a deterministic disturbance.
fn synthetic(i: usize) -> f64 {
    let season = (i as f64 / 24.0 * std::f64::consts::TAU).sin();
    let disturbance = ((i * 7919) % 101) as f64 / 101.0 - 0.5;
    50.0 + 0.02 * i as f64 + 10.0 * season + 4.0 * disturbance
}

#[test]
fn synthetic_figures_stay_what_they_are() {
    let values: Vec<f64> = (0..1000).map(synthetic).collect();
    let mut forecaster = Forecaster::new(&[24], 48);
    let mut scores = [Score::default(), Score::default()];
    for (at, value) in values[..952].iter().enumerate() {
        forecaster.observe(*value);
        let origin = at + 1;
        if origin >= 760 && (origin - 760) % 48 == 0 {
            let (history, future) = values.split_at(origin);
            let forecasts: [Vec<Quantiles>; 2] =
                [path(&forecaster, 48), seasonal_naive(history, 24, 48)];
            for (score, forecast) in scores.iter_mut().zip(forecasts) {
                score.add(&Score::of(history, 24, &forecast, &future[..48]));
            }
        }
    }
    let figures = scores.map(|score| [score.mase(), score.crps(), score.coverage_80()]);
    println!("{figures:?}");
    let expected = [[0.9165, 0.0131, 0.8583], [1.2847, 0.0188, 0.8667]];
    for (found, expected) in figures.iter().flatten().zip(expected.iter().flatten()) {
        assert!((found - expected).abs() < 5e-4, "{figures:?}");
    }
}
