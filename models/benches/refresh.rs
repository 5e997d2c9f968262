//! Cost per series: the refresh of every tick, the rare refit, and what is
//! asked on demand. Six hours of 10 s windows, three drivers, a season.

use criterion::{BatchSize, BenchmarkId, Criterion};
use honeyguide_models::attribution::{Subject, attribute};
use honeyguide_models::breach::{Objective, Paths, breach};
use honeyguide_models::{
    Driver, DriverId, Params, Role, SeriesInput, SeriesModel, Target, ValidParams, Window,
};

/// Windows of a noisy series with an hourly season; `phase` tells series apart.
fn series(windows: usize, phase: u64) -> Vec<Window> {
    let mut state = phase.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..windows)
        .map(|i| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let noise = (state >> 40) as f32 / (1 << 24) as f32 - 0.5;
            let season = (i as f32 / 360.0 * std::f32::consts::TAU).sin();
            let base = -6.9 + 0.4 * season + 0.5 * noise;
            Window {
                y: [base, base + 0.7, base + 1.4, base + 2.1, 5.0 + season],
                samples: 3000.0,
                completeness: 1.0,
            }
        })
        .collect()
}

fn params() -> ValidParams {
    Params::default().validate().expect("defaults are valid")
}

/// A model that has followed its series to the end and was refitted.
fn settled(input: SeriesInput<'_, [Window]>, own: &[Window]) -> SeriesModel {
    let (params, mut model) = (params(), SeriesModel::new());
    for i in 0..own.len() {
        let own = &own[..=i];
        model.refresh(
            &params,
            SeriesInput {
                step: i as u64,
                own,
                drivers: &[],
            },
        );
    }
    model.refit(&params, input);
    model
}

fn refresh(c: &mut Criterion) {
    let params = params();
    let paths = Paths::new(&params);
    for windows in [60, 720, 2160] {
        let own = series(windows + 1, 1);
        let others = [2, 3, 4].map(|phase| series(windows + 1, phase));
        let drivers = [0, 1, 2].map(|i| Driver {
            id: DriverId(i as u32),
            role: Role::Saturation,
            history: &others[i][..],
        });
        let last = SeriesInput {
            step: windows as u64,
            own: &own[..],
            drivers: &drivers,
        };
        let earlier = drivers.map(|d| Driver {
            history: &d.history[..windows],
            ..d
        });
        let before = SeriesInput {
            step: windows as u64 - 1,
            own: &own[..windows],
            drivers: &earlier,
        };
        let model = settled(before, &own[..windows]);

        let mut group = c.benchmark_group("series");
        group.bench_function(BenchmarkId::new("refresh", windows), |b| {
            b.iter_batched_ref(
                || model.clone(),
                |model| model.refresh(&params, last),
                BatchSize::SmallInput,
            );
        });
        group.bench_function(BenchmarkId::new("refit", windows), |b| {
            b.iter_batched_ref(
                || model.clone(),
                |model| model.refit(&params, before),
                BatchSize::SmallInput,
            );
        });
        let subject = Subject {
            role: Role::Work,
            target: Target::P99,
        };
        group.bench_function(BenchmarkId::new("attribute", windows), |b| {
            b.iter(|| attribute(&params, subject, last));
        });
        let forecast = model.clone().refresh(&params, last);
        let p99 = forecast
            .point(2, Target::P99)
            .expect("the series was observed");
        let objective = Objective {
            target: Target::P99,
            threshold: f64::from(p99.upper_80),
            horizon_secs: 900,
            windows: 1,
            budget_events: None,
        };
        let objective = objective.validate().expect("a positive threshold");
        group.bench_function(BenchmarkId::new("breach", windows), |b| {
            b.iter(|| breach(&forecast, &objective, &paths, 0));
        });
        group.finish();
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    refresh(&mut criterion);
    criterion.final_summary();
}
