//! The first intervals of a series hold what they say: 80 % intervals after two
//! to twelve values, of models that begin anew at forty places of each public
//! series. Needs `HONEYGUIDE_EVAL_DATA`.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;

use honeyguide_evaluation::{bizitobs::Dataset, forecast::forecaster, monitoring};
use honeyguide_models::{Params, SeriesInput, SeriesModel, Target, ValidParams, Window};

/// Values that a model has seen when it is judged.
const SEEN: std::ops::RangeInclusive<usize> = 2..=12;
/// How far ahead a forecaster is judged, and a series' model: at its shortest
/// two horizons.
const LEADS: [[usize; 2]; 2] = [[1, 6], [6, 30]];
/// Places of a series at which models begin.
const BEGINS: usize = 40;

/// How many of how many were within.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    within: f64,
    all: f64,
}

impl Share {
    fn add(&mut self, within: bool) {
        self.within += f64::from(u8::from(within));
        self.all += 1.0;
    }

    fn get(self) -> f64 {
        self.within / self.all
    }
}

/// All series with their step in seconds; none without data.
fn series() -> Vec<(u32, Vec<f64>)> {
    let Some(data) = std::env::var_os("HONEYGUIDE_EVAL_DATA") else {
        return Vec::new();
    };
    let data = Path::new(&data);
    let mut all = Vec::new();
    for dataset in [Dataset::Application, Dataset::FiveMinutes] {
        for series in dataset.load(&data.join("bizitobs")).unwrap() {
            all.push((dataset.step_secs(), series.values));
        }
    }
    for set in monitoring::load(&data.join("ms-cloud")).unwrap() {
        for series in set.series {
            all.push((set.step_secs, series.values));
        }
    }
    all
}

/// As the rate of a series of an analyzer.
fn window(value: f64) -> Window {
    let mut window = Window::MISSING;
    if value >= 0.0 {
        window.y[Target::Rate.index()] = (value as f32).ln_1p();
        window.samples = 1000.0;
        window.completeness = 1.0;
    }
    window
}

/// Judges a forecaster and a series' model that begin at the first value.
fn judge(params: &ValidParams, step_secs: u32, values: &[f64], shares: &mut [[Share; 2]; 2]) {
    let mut forecaster = forecaster(step_secs, 60);
    let mut model = SeriesModel::new();
    let windows: Vec<Window> = values.iter().map(|value| window(*value)).collect();
    for seen in 1..=*SEEN.end() {
        forecaster.observe(values[seen - 1]);
        let input = SeriesInput {
            step: 1000 + seen as u64,
            own: &windows[..seen],
            drivers: &[],
        };
        let forecast = model.refresh(params, input);
        if !SEEN.contains(&seen) {
            continue;
        }
        for i in 0..2 {
            let [value, later] = LEADS.map(|leads| values[seen - 1 + leads[i]]);
            if let Some([low, high]) = forecaster.at(LEADS[0][i], [0.1, 0.9])
                && !value.is_nan()
            {
                shares[0][i].add((low..=high).contains(&value));
            }
            if let Some(point) = forecast.point(i, Target::Rate)
                && !later.is_nan()
            {
                // Windows hold 32 bits.
                let (low, high) = (point.lower_80 * 0.9999, point.upper_80 * 1.0001);
                shares[1][i].add((low..=high).contains(&(later as f32)));
            }
        }
    }
}

#[test]
fn first_intervals_are_wide_enough() {
    let params = Params::default().validate().unwrap();
    let all = series();
    let mut shares = [[Share::default(); 2]; 2];
    for (step_secs, values) in &all {
        let needed = SEEN.end() + LEADS[1][1];
        let last = values.len().saturating_sub(needed);
        for begin in (0..last).step_by((values.len() / BEGINS).max(1)) {
            judge(&params, *step_secs, &values[begin..], &mut shares);
        }
    }
    println!("{shares:?}");
    if !all.is_empty() {
        for share in shares.iter().flatten() {
            assert!(share.all > 5000.0 && share.get() >= 0.75, "{shares:?}");
        }
    }
}
