use proptest::prelude::*;

use super::*;
use crate::testing::Noise;

/// A labelled series: its values, and its changes with their size in deviations.
struct Made {
    values: Vec<f64>,
    changes: Vec<(usize, f64)>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    White,
    Autoregressive,
    Heavy,
    Seasonal,
    Drifting,
}

const KINDS: [Kind; 5] = [
    Kind::White,
    Kind::Autoregressive,
    Kind::Heavy,
    Kind::Seasonal,
    Kind::Drifting,
];

/// 6,000 windows with a change of 2, 3, 5 or 10 deviations every 650, about, and
/// twenty spikes of one or two windows.
fn made(kind: Kind, seed: u64) -> Made {
    let mut noise = Noise::new(1000 * seed + kind as u64);
    let mut state = 0.0;
    let mut values: Vec<f64> = (0..6000)
        .map(|i| match kind {
            Kind::White => 0.1 * noise.normal(),
            Kind::Autoregressive => {
                state = 0.8 * state + 0.06 * noise.normal();
                state
            }
            Kind::Heavy => 0.07 * noise.normal() / noise.uniform().powf(0.4),
            Kind::Seasonal => {
                0.1 * noise.normal() + 0.3 * (f64::from(i) / 360.0 * std::f64::consts::TAU).sin()
            }
            Kind::Drifting => {
                state += -state / 180.0 + 0.02 * noise.normal();
                state + 0.05 * noise.normal()
            }
        })
        .collect();
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let sd = (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
    let sign = |noise: &mut Noise| if noise.uniform() < 0.5 { 1.0 } else { -1.0 };
    for _ in 0..20 {
        let at = (noise.uniform() * 5990.0) as usize;
        let size = sign(&mut noise) * (5.0 + 15.0 * noise.uniform()) * sd;
        let long = 1 + (noise.bits() % 2) as usize;
        values[at..at + long].iter_mut().for_each(|x| *x += size);
    }
    let mut changes = Vec::new();
    let mut at = 400;
    loop {
        at += 400 + (noise.uniform() * 500.0) as usize;
        if at > 5800 {
            return Made { values, changes };
        }
        let size = [2.0, 3.0, 5.0, 10.0][(noise.bits() % 4) as usize];
        let by = sign(&mut noise) * size * sd;
        values[at..].iter_mut().for_each(|x| *x += by);
        changes.push((at, size));
    }
}

/// Where changes were told, and when they came, with the levels as a model has them.
fn told(values: &[f64]) -> Vec<(usize, usize)> {
    use crate::level::Level;
    let (slow_keep, long_keep) = ((-10.0f64 / 900.0).exp(), (-10.0f64 / 3600.0).exp());
    let (mut slow, mut long) = (Level::default(), Level::default());
    let mut drift = Level::believed(0.2, 6.0);
    let mut runs = Runs::default();
    let mut found = Vec::new();
    for (at, value) in values.iter().enumerate() {
        let usual_drift = drift.or(0.2).max(0.03);
        let usual = Usual {
            level: long.or(*value),
            sd: 1.2533 * usual_drift,
        };
        if let Some(ago) = runs.update(*value, usual) {
            found.push((at, at - ago as usize));
        }
        let distance = (value - slow.or(*value)).abs().min(3.0 * usual_drift);
        drift.update(long_keep, distance, 1.0);
        slow.update(slow_keep, *value, 1.0);
        long.update(long_keep, *value, 1.0);
    }
    found
}

/// The figures of docs/accuracy.md.
#[test]
fn changes_of_labelled_series_are_found_soon_and_few_others() {
    let (mut false_changes, mut delays, mut well_dated) = (0, Vec::new(), 0);
    let mut by_size = [[0u32; 2]; 4];
    for kind in KINDS {
        let mut false_of_kind = 0;
        for seed in 0..12 {
            let Made { values, changes } = made(kind, seed);
            let mut found = told(&values);
            for (at, size) in changes {
                let place = [2.0, 3.0, 5.0, 10.0]
                    .iter()
                    .position(|s| *s == size)
                    .unwrap();
                by_size[place][1] += 1;
                let near = |(told, _): &(usize, usize)| (at..=at + 60).contains(told);
                if let Some(i) = found.iter().position(near) {
                    let (told, began) = found.remove(i);
                    by_size[place][0] += 1;
                    delays.push(told - at);
                    well_dated += usize::from(began.abs_diff(at) <= 2);
                }
            }
            false_of_kind += found.len();
        }
        println!(
            "{kind:?}: {:.1} false in 10,000",
            false_of_kind as f64 / 7.2
        );
        false_changes += false_of_kind;
    }
    delays.sort_unstable();
    let per_10_000 = false_changes as f64 / 36.0;
    println!(
        "found {by_size:?}, median delay {}",
        delays[delays.len() / 2]
    );
    println!(
        "{per_10_000:.1} false in 10,000, {well_dated} of {} well dated",
        delays.len()
    );
    let share = |place: usize| f64::from(by_size[place][0]) / f64::from(by_size[place][1]);
    assert!(share(0) > 0.7 && share(1) > 0.9 && share(2) > 0.98 && share(3) > 0.98);
    assert!(delays[delays.len() / 2] <= 4 && per_10_000 < 12.0);
    assert!(well_dated * 100 >= 90 * delays.len());
}

#[test]
fn missing_values_are_skipped() {
    let usual = Usual {
        level: 0.0,
        sd: 0.5,
    };
    let mut runs = Runs::default();
    (0..100).for_each(|i| _ = runs.update(f64::from(i % 2) * 0.1, usual));
    let before = runs;
    assert_eq!(runs.update(f64::NAN, usual), None);
    assert_eq!(runs.update(f64::INFINITY, usual), None);
    assert_eq!(runs, before);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever comes, masses are shares, and a shift of all values moves nothing.
    #[test]
    fn masses_are_shares_and_levels_do_not_matter(
        values in prop::collection::vec(-30.0..30.0f64, 1..200),
        sd in 0.04..2.0f64,
    ) {
        let told = |shift: f64| {
            let mut runs = Runs::default();
            let found: Vec<_> = values
                .iter()
                .map(|value| runs.update(value.round() + shift, Usual { level: shift, sd }))
                .collect();
            (runs, found)
        };
        let (runs, found) = told(0.0);
        let mass: f32 = runs.runs().iter().map(|run| run.mass).sum();
        prop_assert!((mass - 1.0).abs() < 1e-4);
        prop_assert!(runs.runs().iter().all(|run| run.mean.is_finite() && run.beta.is_finite()));
        prop_assert_eq!(told(8.0).1, found);
    }
}

/// The run that is left out may have had a share.
#[test]
fn shares_of_the_runs_that_are_kept_are_shares() {
    let usual = Usual {
        level: 0.0,
        sd: 1.9,
    };
    let mut runs = Runs::default();
    for value in [
        0.0, 0.0, 23.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -11.0, 0.0, -21.0, -20.0,
    ] {
        runs.update(value, usual);
        let mass: f32 = runs.runs().iter().map(|run| run.mass).sum();
        assert!((mass - 1.0).abs() < 1e-5, "{mass}");
    }
}
