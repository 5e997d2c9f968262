use proptest::prelude::*;

use super::*;
use crate::testing::Noise;

const RATE: f64 = 1e-3;

fn scores(values: impl IntoIterator<Item = f64>) -> Vec<Novelty> {
    let mut stream: Stream = Stream::new(0.0);
    values
        .into_iter()
        .map(|value| stream.update(value, RATE))
        .collect()
}

fn alerts(scores: &[Novelty]) -> Vec<usize> {
    let alert = |(i, novelty): (usize, &Novelty)| novelty.alert.then_some(i);
    scores.iter().enumerate().filter_map(alert).collect()
}

fn noise(seed: u64, n: usize) -> Vec<f64> {
    let mut noise = Noise::new(seed);
    (0..n).map(|_| 100.0 + noise.normal()).collect()
}

#[test]
fn noise_raises_few_alerts() {
    let found = alerts(&scores(noise(1, 20_000)));
    assert!(found.len() <= 4, "{found:?}");
}

#[test]
fn a_spike_a_drop_and_a_step_are_found_at_once() {
    for change in [12.0, -12.0] {
        for lasting in [1, 400] {
            let mut values = noise(2, 3000);
            values[2000..2000 + lasting]
                .iter_mut()
                .for_each(|v| *v += change);
            let found = alerts(&scores(values));
            assert!(
                found.contains(&2000) || found.contains(&2001),
                "{change} {lasting} {found:?}"
            );
        }
    }
}

#[test]
fn what_comes_every_day_is_no_alert_in_the_end() {
    let values = noise(3, 288 * 20);
    let day = |(i, v): (usize, f64)| {
        v + if i % 288 >= 150 && i % 288 < 200 {
            40.0
        } else {
            0.0
        }
    };
    let found = alerts(&scores(values.into_iter().enumerate().map(day)));
    assert!(found.iter().all(|i| *i < 288 * 4), "{found:?}");
}

#[test]
fn alerts_keep_their_distance_and_the_beginning_is_quiet() {
    let mut noise = Noise::new(5);
    // Wilder and wilder.
    let values = (0..4000).map(|i| noise.normal() * f64::from(i).powi(3));
    let found = alerts(&scores(values));
    assert!(found.len() > 1 && found[0] >= REST as usize);
    assert!(
        found
            .windows(2)
            .all(|pair| pair[1] - pair[0] >= REST as usize)
    );
}

#[test]
fn a_constant_scores_nothing_until_it_moves() {
    let mut values = vec![7.0; 1000];
    values.push(7.5);
    let scores = scores(values);
    assert!(scores[..1000].iter().all(|novelty| novelty.score == 0.0));
    assert!(scores[1000].alert);
}

#[test]
fn less_than_the_resolution_is_nothing() {
    let mut stream: Stream = Stream::new(0.5);
    let mut values = vec![7.0; 1000];
    values.extend([7.1; 10]);
    let alert = values
        .into_iter()
        .any(|value| stream.update(value, RATE).alert);
    assert!(!alert);
}

#[test]
fn half_the_memory_gives_the_same_scores_in_model_space() {
    let mut noise = Noise::new(6);
    let (mut wide, mut narrow) = (Stream::<f32>::new(0.05), Stream::<Fixed>::new(0.05));
    assert!(
        size_of::<Stream<Fixed>>() <= 840,
        "{}",
        size_of::<Stream<Fixed>>()
    );
    let mut apart = 0;
    for i in 0..6000 {
        let step = if (4000..4100).contains(&i) { 1.5 } else { 0.0 };
        let value = -5.0 + 0.2 * noise.normal() + step;
        let (a, b) = (wide.update(value, RATE), narrow.update(value, RATE));
        apart += u32::from(a.alert != b.alert);
        assert!(i != 4000 || (a.alert && b.alert));
    }
    assert!(apart <= 2, "{apart}");
}

#[test]
fn state_survives_being_stored() {
    let mut stream: Stream<Fixed> = Stream::new(0.05);
    noise(7, 500).iter().for_each(|value| {
        stream.update(value / 20.0, RATE);
    });
    let text = serde_json::to_string(&stream).unwrap();
    let mut restored: Stream<Fixed> = serde_json::from_str(&text).unwrap();
    assert_eq!(restored, stream);
    assert_eq!(restored.update(9.0, RATE), stream.update(9.0, RATE));
}

/// Anything a broken exporter might send.
fn any_value() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => -1e3..1e3f64,
        1 => Just(0.0),
        1 => Just(1e9),
        1 => any::<f64>(),
        1 => prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY)],
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn scores_are_finite_whatever_comes(values in prop::collection::vec(any_value(), 0..600)) {
        for novelty in scores(values) {
            prop_assert!(novelty.score.is_finite() && novelty.score >= 0.0);
            prop_assert_eq!(novelty.rested() >= 1.0, novelty.alert);
        }
    }

    #[test]
    fn what_is_missing_changes_nothing(at in 1usize..400) {
        let values = noise(8, 400);
        let mut gapped = values.clone();
        gapped.splice(at..at, [f64::NAN, f64::INFINITY, 1e31]);
        let mut with_gap = scores(gapped);
        with_gap.drain(at..at + 3);
        prop_assert_eq!(with_gap, scores(values));
    }

    #[test]
    fn units_and_origin_do_not_matter(scale in -10i32..20, shift in -4i32..4) {
        // Powers of two and small integers: no rounding but the levels'.
        let values: Vec<f64> = noise(9, 800).iter().map(|v| (v * 64.0).round() / 64.0).collect();
        let scale = f64::from(scale).exp2();
        let moved = values.iter().map(|v| (v + f64::from(shift) * 32.0) * scale);
        for (a, b) in scores(moved).iter().zip(scores(values.clone())) {
            prop_assert!((a.score - b.score).abs() < 0.05 * (1.0 + b.score), "{} {}", a.score, b.score);
        }
    }

    #[test]
    fn a_score_knows_only_the_past(at in 300usize..700, value in -1e6..1e6f64) {
        let values = noise(10, 800);
        let mut changed = values.clone();
        changed[at..].iter_mut().for_each(|v| *v = value);
        prop_assert_eq!(&scores(values)[..at], &scores(changed)[..at]);
    }
}
