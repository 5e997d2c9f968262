use proptest::prelude::*;

use super::*;
use crate::breach::{Objective, Paths, breach};
use crate::testing::{Noise, window_of};
use crate::{Params, SeriesInput, SeriesModel, Window};

const CALM: Option<f64> = Some(-3.0);
const BROKEN: Option<f64> = Some(3.0);

fn params() -> ValidParams {
    Params::default().validate().unwrap()
}

/// A threshold of 0 in model space, five minutes ahead.
fn objective() -> ValidObjective {
    let objective = Objective {
        target: Target::P99,
        threshold: 1.0,
        horizon_secs: 300,
        windows: 1,
        budget_events: None,
    };
    objective.validate().unwrap()
}

fn said(probability: f64) -> Breach {
    Breach {
        probability,
        eta: None,
        budget_exhausted_in_secs: None,
    }
}

/// Says probabilities, one per span of the horizon, of which `true_of` come.
fn taught(
    spans: u64,
    pool: &mut Pool,
    seed: u64,
    true_of: impl Fn(f64) -> f64,
) -> (Recalibration, f64) {
    let (params, objective) = (params(), objective());
    let mut noise = Noise::new(seed);
    let mut recalibration = Recalibration::default();
    let mut step = 0;
    let (mut error, mut counted) = (0.0, 0.0);
    for span in 0..spans {
        let probability = 0.02 + 0.9 * noise.uniform();
        let truth = true_of(probability);
        if span > spans / 2 {
            let means = recalibration.recalibrated(pool, said(probability));
            error += (means.probability - truth).abs();
            counted += 1.0;
        }
        let comes = noise.uniform() < truth;
        for i in 0..31 {
            let observed = if comes && i == 20 { BROKEN } else { CALM };
            recalibration.settle(&params, &objective, step, observed, pool);
            pool.learn();
            if i == 0 {
                // Whatever the rhythm: as if its turn had come.
                step = step.next_multiple_of(rhythm(&params, &objective).1);
                recalibration.follow(&params, &objective, step, &said(probability));
            }
            step += 1;
        }
    }
    (recalibration, error / counted)
}

#[test]
fn what_comes_as_often_as_said_is_left_as_it_is() {
    let (_, error) = taught(2000, &mut Pool::default(), 1, |p| p);
    assert!(error < 0.04, "{error}");
}

#[test]
fn what_is_said_too_often_is_lowered_and_too_rarely_left() {
    let (_, error) = taught(2000, &mut Pool::default(), 2, |p| p * p);
    assert!(error < 0.06, "{error}");
    let (recalibration, _) = taught(2000, &mut Pool::default(), 3, f64::sqrt);
    let means = recalibration.recalibrated(&Pool::default(), said(0.3));
    assert!((0.29..=0.3).contains(&means.probability), "{means:?}");
}

#[test]
fn a_new_series_profits_from_its_pool() {
    let mut pool = Pool::default();
    for seed in 0..6 {
        taught(400, &mut pool, seed, |p| p * p * p);
    }
    let means = Recalibration::default().recalibrated(&pool, said(0.5));
    assert!((0.05..0.25).contains(&means.probability), "{means:?}");
}

/// A series that never broke, at which 5 % was said for a week.
#[test]
fn an_alarm_that_rises_after_a_calm_week_is_not_flattened() {
    let (params, objective) = (params(), objective());
    let (mut recalibration, mut pool) = (Recalibration::default(), Pool::default());
    for step in 0..60_480 {
        recalibration.settle(&params, &objective, step, CALM, &mut pool);
        pool.learn();
        recalibration.follow(&params, &objective, step, &said(0.05));
    }
    let means = |p| recalibration.recalibrated(&pool, said(p)).probability;
    assert!(means(0.05) < 0.02, "{}", means(0.05));
    assert!(means(0.9) > 0.8, "{}", means(0.9));
    assert!(means(0.99) > 0.97, "{}", means(0.99));
}

#[test]
fn what_could_not_be_seen_teaches_nothing() {
    let (params, objective) = (params(), objective());
    let (mut blind, mut pool) = (Recalibration::default(), Pool::default());
    for step in 0..3000 {
        blind.settle(&params, &objective, step, None, &mut pool);
        blind.follow(&params, &objective, step, &said(0.5));
    }
    // A gap in which nobody asked.
    blind.settle(&params, &objective, 9000, CALM, &mut pool);
    pool.learn();
    assert_eq!(pool, Pool::default());
    assert_eq!(blind.recalibrated(&pool, said(0.5)).probability, 0.5);
}

#[test]
fn what_is_certain_stays_and_is_not_followed() {
    let (params, objective) = (params(), objective());
    let (mut recalibration, pool) = taught_low();
    let now = Breach {
        probability: 1.0,
        eta: Some(Eta::NOW),
        budget_exhausted_in_secs: None,
    };
    assert_eq!(recalibration.recalibrated(&pool, now), now);
    assert_eq!(recalibration.recalibrated(&pool, said(0.0)), said(0.0));
    let before = recalibration.clone();
    for step in 90_000..90_100 {
        recalibration.follow(&params, &objective, step, &now);
        recalibration.follow(&params, &objective, step, &said(0.0));
    }
    assert_eq!(recalibration, before);
}

#[test]
fn an_unlikely_breach_has_no_time() {
    let (recalibration, pool) = taught_low();
    let timed = Breach {
        eta: Some(Eta {
            secs: 60.0,
            lower_80_secs: 30.0,
            upper_80_secs: 90.0,
        }),
        ..said(0.1)
    };
    assert_eq!(recalibration.recalibrated(&pool, timed).eta, None);
}

fn taught_low() -> (Recalibration, Pool) {
    let mut pool = Pool::default();
    let (recalibration, _) = taught(300, &mut pool, 5, |_| 0.0);
    (recalibration, pool)
}

#[test]
fn state_is_small_and_goes_on_where_it_stopped() {
    let mut pool = Pool::default();
    let (recalibration, _) = taught(50, &mut pool, 6, |p| p);
    assert!(size_of::<Recalibration>() + recalibration.heap_bytes() <= 512);
    let stored = serde_json::to_string(&(&recalibration, &pool)).unwrap();
    let restored: (Recalibration, Pool) = serde_json::from_str(&stored).unwrap();
    assert_eq!(restored, (recalibration, pool));
}

/// Ramps that break after two days of noise in which nothing came of what was said:
/// recalibrated, the alarm comes later, and before the breach in most of them.
#[test]
fn a_real_rise_is_announced_before_it_breaks() {
    let mut before = 0;
    let params = params();
    let paths = Paths::new(&params);
    let objective = Objective {
        target: Target::P99,
        threshold: f64::from(window_of(1.5).y[2]).exp(),
        horizon_secs: 900,
        windows: 1,
        budget_events: None,
    };
    let objective = objective.validate().unwrap();
    for seed in 0..4 {
        let mut noise = Noise::new(seed);
        let mut level = 0.0;
        let (calm, ramp) = (6000, 360);
        let windows: Vec<Window> = (0..calm + ramp)
            .map(|i| {
                level += -level / 90.0 + 0.05 * noise.normal();
                let rise = 1.6 * (f64::from(i).max(f64::from(calm)) - f64::from(calm));
                window_of(level + 0.15 * noise.normal() + rise / f64::from(ramp))
            })
            .collect();
        let (mut model, mut pool) = (SeriesModel::new(), Pool::default());
        let mut recalibration = Recalibration::default();
        let mut alarms = [None; 2];
        for step in 0..windows.len() {
            let own = &windows[step.saturating_sub(2160)..=step];
            let input = SeriesInput {
                step: step as u64,
                own,
                drivers: &[],
            };
            let forecast = model.refresh(&params, input);
            if model.refit_due(&params) {
                model.refit(&params, input);
            }
            let raw = breach(&forecast, &objective, &paths, objective.above(own));
            let observed = observed(&windows[step], Target::P99, 20);
            recalibration.settle(&params, &objective, step as u64, observed, &mut pool);
            pool.learn();
            recalibration.follow(&params, &objective, step as u64, &raw);
            let means = recalibration.recalibrated(&pool, raw);
            for (alarm, said) in alarms.iter_mut().zip([raw, means]) {
                if step >= calm as usize && said.probability >= 0.8 {
                    alarm.get_or_insert(step);
                }
            }
        }
        let [without, with] = alarms.map(|alarm| alarm.unwrap());
        let broken = |window: &Window| f64::from(window.y[2]) > objective.log_threshold;
        let calm = calm as usize;
        let breach_at = calm + windows[calm..].iter().position(broken).unwrap();
        println!("seed {seed}: {with} {without}, breach {breach_at}");
        before += u32::from(with < breach_at);
    }
    assert!(before >= 3, "{before} of 4");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever comes: probabilities in order.
    #[test]
    fn what_is_said_higher_means_more(
        told in prop::collection::vec((0.0..=1.0f64, prop::option::of(-5.0..5.0f64), 1u64..40), 1..300),
    ) {
        let (params, objective) = (params(), objective());
        let (mut recalibration, mut pool) = (Recalibration::default(), Pool::default());
        let mut step = 0;
        for (probability, observed, passed) in told {
            step += passed;
            recalibration.settle(&params, &objective, step, observed, &mut pool);
            pool.learn();
            recalibration.follow(&params, &objective, step, &said(probability));
        }
        let means: Vec<f64> = (0..=100)
            .map(|i| recalibration.recalibrated(&pool, said(f64::from(i) / 100.0)).probability)
            .collect();
        prop_assert!(means.is_sorted(), "{:?}", means);
        prop_assert!(means.iter().all(|p| (0.0..=1.0).contains(p)));
    }
}
