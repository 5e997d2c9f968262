use super::*;
use crate::breach::{Objective, Paths, breach};
use crate::testing::Noise;
use crate::{Params, SeriesInput, SeriesModel};

const CAPACITY: f64 = 1000.0;

/// A window of a queue at a load: p50 = 1 ms/(1 − ρ), p99 1.4 above in the log.
fn busy(rate: f64, noise: &mut Noise) -> Window {
    let base = 1e-3f64.ln() + queue(rate / CAPACITY) + 0.06 * noise.normal();
    let rate = rate * (1.0 + 0.03 * noise.normal());
    Window {
        y: [base, base + 0.7, base + 1.4, base + 2.1, rate.ln_1p()].map(|y| y as f32),
        samples: (rate * 10.0) as f32,
        completeness: 1.0,
    }
}

/// Load between 250 and 550 by the hour, then growing to 980 within two hours.
fn growing(calm: usize, seed: u64) -> Vec<Window> {
    let mut noise = Noise::new(seed);
    let mut load = 400.0;
    (0..calm + 720)
        .map(|i| {
            if i < calm {
                let hour = (i as f64 / 360.0 * std::f64::consts::TAU).sin();
                load = 400.0 + 150.0 * hour + 10.0 * noise.normal();
                busy(load, &mut noise)
            } else {
                let grown = 400.0 + 580.0 * (i - calm) as f64 / 720.0;
                busy(grown, &mut noise)
            }
        })
        .collect()
}

#[test]
fn the_curve_of_a_queue_is_read_off_its_history() {
    for seed in 0..5 {
        let curve = Saturation::fit(&growing(2160, seed)).unwrap();
        let k = Target::P99.index();
        let rise = curve.rise(k, 950.0) - curve.rise(k, 700.0);
        let expected = queue(0.95) - queue(0.7);
        assert!(
            (rise / expected - 1.0).abs() < 0.3,
            "{curve:?}: {rise} {expected}"
        );
    }
}

/// From loads up to 55 % alone, capacity is known to within a factor.
#[test]
fn a_curve_says_something_of_loads_never_seen() {
    let curve = Saturation::fit(&growing(2160, 1)[..2160]).unwrap();
    let k = Target::P99.index();
    let rise = curve.rise(k, 800.0) - curve.rise(k, 500.0);
    let expected = queue(0.8) - queue(0.5);
    assert!(
        (0.4..2.5).contains(&(rise / expected)),
        "{curve:?}: {rise} {expected}"
    );
}

#[test]
fn where_load_says_nothing_there_is_no_curve() {
    let mut noise = Noise::new(3);
    let window = |rate: f64, latency: f64| Window {
        y: [
            latency,
            latency + 0.7,
            latency + 1.4,
            latency + 2.1,
            rate.ln_1p(),
        ]
        .map(|y| y as f32),
        samples: 1000.0,
        completeness: 1.0,
    };
    let constant: Vec<Window> = (0..2000).map(|_| window(500.0, -7.0)).collect();
    let unrelated: Vec<Window> = (0..2000)
        .map(|_| window(500.0 + 400.0 * noise.uniform(), -7.0 + 0.3 * noise.normal()))
        .collect();
    let falling: Vec<Window> = (0..2000)
        .map(|i| {
            let hour = (f64::from(i) / 360.0).sin();
            window(500.0 + 300.0 * hour, -7.0 - 0.5 * hour)
        })
        .collect();
    // Load changed once, and latency another time.
    let steps: Vec<Window> = (0..2000)
        .map(|i| {
            let of = |from: i32| f64::from(u8::from(i > from));
            window(
                300.0 + 300.0 * of(1000),
                -7.0 + 0.1 * noise.normal() + 0.5 * of(1500),
            )
        })
        .collect();
    for own in [
        &constant,
        &unrelated,
        &falling,
        &vec![Window::MISSING; 2000],
    ] {
        assert_eq!(Saturation::fit(own), None);
    }
    assert!(Saturation::fit(&steps).is_none_or(|curve| curve.sharpness[2] < 1.0));
    assert_eq!(Saturation::fit(&[]), None);
}

#[test]
fn a_forecast_is_lifted_to_the_curve_and_never_lowered() {
    let curve = Saturation {
        capacity: CAPACITY as f32,
        sharpness: [1.0; LATENCIES],
    };
    let at = |rate: f64, latency: f64| [latency, latency, latency, latency, rate.ln_1p()];
    let levels = at(500.0, -7.0).map(|y| [y; SPANS]);
    let lifted = |rate: f64, latency: f64| {
        let mut medians = at(rate, latency);
        curve.lift(&mut medians, &levels);
        medians[2]
    };
    let rise = queue(0.9) - queue(0.5);
    assert!((lifted(900.0, -7.0) - (-7.0 + rise)).abs() < 1e-9);
    // Its own rise counts, its own fall is kept.
    assert!((lifted(900.0, -6.5) - (-7.0 + rise)).abs() < 1e-9);
    assert!((lifted(900.0, -7.2) - (-7.2 + rise)).abs() < 1e-9);
    assert_eq!(lifted(900.0, -3.0), -3.0);
    assert_eq!(lifted(300.0, -7.0), -7.0);
    assert!(lifted(1e9, -7.0).is_finite());
    assert!(lifted(f64::NAN, -7.0) == -7.0);
}

/// At which window a breach of p99 is announced, with the curve and
/// without, and when it came.
fn announced(seed: u64, horizon_secs: u32) -> ([Option<usize>; 2], usize) {
    let params = Params::default().validate().unwrap();
    let paths = Paths::new(&params);
    let calm = 2160;
    let windows = growing(calm, seed);
    // Five times what the service takes when it is idle, at 80 % of its capacity.
    let log_threshold = 1e-3f64.ln() + 1.4 + 5f64.ln();
    let objective = Objective {
        target: Target::P99,
        threshold: log_threshold.exp(),
        horizon_secs,
        windows: 1,
        budget_events: None,
    };
    let objective = objective.validate().unwrap();
    let broken = |window: &Window| f64::from(window.y[2]) > log_threshold;
    let breach_at = calm + windows[calm..].iter().position(broken).unwrap();
    let alarms = [true, false].map(|with_curve| {
        let mut model = SeriesModel::new();
        (0..breach_at).find(|step| {
            let input = SeriesInput {
                step: *step as u64,
                own: &windows[..=*step],
                drivers: &[],
            };
            let forecast = model.refresh(&params, input);
            if model.refit_due(&params) {
                model.refit(&params, input);
                if !with_curve {
                    model.forget_saturation();
                }
            }
            *step >= calm && breach(&forecast, &objective, &paths, 0).probability >= 0.5
        })
    });
    (alarms, breach_at)
}

#[test]
fn with_the_curve_a_breach_by_growing_load_is_announced_earlier() {
    let mut leads = [Vec::new(), Vec::new()];
    for seed in 0..3 {
        let (alarms, breach_at) = announced(seed, 1800);
        for (leads, alarm) in leads.iter_mut().zip(alarms) {
            leads.push(alarm.map_or(0, |alarm| breach_at - alarm));
        }
    }
    println!("windows before the breach, with and without: {leads:?}");
    let [with, without] = leads;
    // The trend of latency itself tells most of it.
    assert!(
        with.iter()
            .zip(&without)
            .all(|(with, without)| with >= without)
    );
    let sum = |leads: &[usize]| leads.iter().sum::<usize>();
    assert!(sum(&with) >= sum(&without) + 30, "{with:?} {without:?}");
}
