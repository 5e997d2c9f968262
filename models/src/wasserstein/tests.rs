use proptest::prelude::*;

use super::*;
use crate::testing::Noise;
use crate::{Params, ValidParams};

fn params() -> ValidParams {
    Params::default().validate().unwrap()
}

/// Log-normal latencies around a level in ln seconds.
fn window(noise: &mut Noise, events: usize, level: f64, sd: f64) -> Histogram {
    let mut window = Histogram::new();
    for _ in 0..events {
        window.record(((level + sd * noise.normal()).exp() * 1e9) as u64);
    }
    window
}

/// Scores of windows, one after the other.
fn scores(windows: impl IntoIterator<Item = Histogram>) -> Vec<f64> {
    let (params, mut usual) = (params(), Wasserstein::default());
    let score = |window| {
        usual.update(&params, &window);
        usual.score()
    };
    windows.into_iter().map(score).collect()
}

fn alarms(scores: &[f64]) -> usize {
    scores.iter().filter(|score| **score > 1.0).count()
}

#[test]
fn undisturbed_series_stay_below_the_line_at_the_declared_rate() {
    let n = 20_000;
    let mut noise = Noise::new(1);
    let steady: Vec<_> = (0..n).map(|_| window(&mut noise, 60, -6.0, 0.5)).collect();
    let few: Vec<_> = (0..n).map(|_| window(&mut noise, 4, -6.0, 0.5)).collect();
    // From 3 to 400 events a window, as many as in no other before.
    let uneven: Vec<_> = (0..n)
        .map(|_| {
            let events = (3.0 * (4.9 * noise.uniform()).exp()) as usize;
            window(&mut noise, events, -6.0, 0.5)
        })
        .collect();
    let mut level = 0.0;
    let drifting: Vec<_> = (0..n)
        .map(|_| {
            level = 0.9 * level + 0.1 * noise.normal();
            window(&mut noise, 60, -6.0 + level, 0.5)
        })
        .collect();
    let all = [
        ("steady", steady),
        ("few", few),
        ("uneven", uneven),
        ("drifting", drifting),
    ];
    for (name, windows) in all {
        // Declared: 2 in 20,000.
        let count = alarms(&scores(windows));
        assert!(count <= 6, "{name}: {count} alarms");
    }
}

#[test]
fn a_fifth_that_takes_four_times_as_long_is_seen() {
    let mut noise = Noise::new(2);
    let mut windows: Vec<_> = (0..400)
        .map(|_| window(&mut noise, 200, -6.0, 0.5))
        .collect();
    for _ in 0..20 {
        let mut slower = window(&mut noise, 160, -6.0, 0.5);
        slower.merge(&window(&mut noise, 40, -6.0 + 4f64.ln(), 0.5));
        windows.push(slower);
    }
    let scores = scores(windows);
    assert_eq!(alarms(&scores[..400]), 0);
    let seen = alarms(&scores[400..]);
    assert!(seen >= 5, "{seen} of 20: {:?}", &scores[400..]);
}

#[test]
fn slower_is_farther_than_faster() {
    let at = |nanoseconds: u64| {
        let mut window = Histogram::new();
        (0..50).for_each(|_| window.record(nanoseconds));
        window
    };
    let usual = std::iter::repeat_with(|| at(1_000_000)).take(100);
    let slower = scores(usual.clone().chain([at(8_000_000)]));
    let faster = scores(usual.chain([at(125_000)]));
    assert!(slower[100] > 3.0, "{}", slower[100]);
    // ln 8 and ln(1 + 7/8), where nothing ever changed.
    let ratio = 8f64.ln() / (1.0f64 + 7.0 / 8.0).ln();
    assert!(
        (slower[100] / faster[100] - ratio).abs() < 1e-3,
        "{faster:?}"
    );
}

#[test]
fn a_service_twice_as_slow_or_asked_twice_as_much_scores_the_same() {
    let of = |level: f64, events: usize| {
        let mut noise = Noise::new(3);
        let windows = (0..300).map(|i| {
            let slow = if i % 50 == 49 { 1.0 } else { 0.0 };
            let few = window(&mut noise, 100, level + slow, 0.5);
            let mut all = Histogram::new();
            (0..events).for_each(|_| all.merge(&few));
            all
        });
        scores(windows.collect::<Vec<_>>())
    };
    // Eight buckets are a doubling.
    let (usual, slow, busy) = (of(-6.0, 1), of(-6.0 + 2f64.ln(), 1), of(-6.0, 2));
    for (a, b) in usual.iter().zip(&slow).chain(usual.iter().zip(&busy)) {
        assert!((a - b).abs() < 0.02 + 0.05 * a, "{a} {b}");
    }
}

#[test]
fn a_window_without_events_scores_and_teaches_nothing() {
    let mut noise = Noise::new(4);
    let (params, mut usual) = (params(), Wasserstein::default());
    (0..100).for_each(|_| usual.update(&params, &window(&mut noise, 50, -6.0, 0.5)));
    usual.update(&params, &window(&mut noise, 50, -2.0, 0.5));
    assert!(usual.score() > 1.0);
    let mut before = usual.clone();
    usual.update(&params, &Histogram::new());
    assert_eq!(usual.score(), 0.0);
    before.pass();
    assert_eq!(usual, before);
}

#[test]
fn what_lasts_becomes_usual() {
    let mut noise = Noise::new(5);
    let slow = |i: usize| if i >= 300 { -5.0 } else { -6.0 };
    let scores = scores((0..4000).map(|i| window(&mut noise, 50, slow(i), 0.5)));
    assert!(alarms(&scores[300..330]) >= 15, "{:?}", &scores[300..330]);
    assert_eq!(alarms(&scores[3000..]), 0);
}

#[test]
fn going_back_to_usual_is_no_anomaly() {
    let mut noise = Noise::new(7);
    let slow = |i: usize| if (300..330).contains(&i) { -4.0 } else { -6.0 };
    let scores = scores((0..500).map(|i| window(&mut noise, 50, slow(i), 0.5)));
    assert!(alarms(&scores[300..330]) >= 25, "{:?}", &scores[300..330]);
    assert_eq!(alarms(&scores[330..]), 0, "{:?}", &scores[330..350]);
}

#[test]
fn its_state_comes_back_bit_for_bit() {
    let mut noise = Noise::new(6);
    let (params, mut usual) = (params(), Wasserstein::default());
    (0..50).for_each(|_| usual.update(&params, &window(&mut noise, 50, -6.0, 0.5)));
    let stored = serde_json::to_vec(&usual).unwrap();
    assert_eq!(
        serde_json::from_slice::<Wasserstein>(&stored).unwrap(),
        usual
    );
}

proptest! {
    #[test]
    fn whatever_comes_scores_are_finite_and_not_negative(
        windows in prop::collection::vec(
            prop::collection::vec((0..BUCKETS, prop_oneof![0u64..5, Just(u64::MAX / 1000)]), 0..4),
            0..30,
        ),
    ) {
        let histograms = windows.into_iter().map(|buckets| {
            let mut window = Histogram::new();
            buckets.into_iter().for_each(|(bucket, count)| window.add(bucket, count));
            window
        });
        for score in scores(histograms.collect::<Vec<_>>()) {
            prop_assert!(score.is_finite() && score >= 0.0, "{score}");
        }
    }
}
