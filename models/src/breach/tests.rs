use super::budget::fraction_above;
use super::knots::SCORES;
use super::paths::normal_cdf;
use super::*;
use crate::forecast::Interval;
use crate::series::TARGETS;
use crate::testing::{Noise, window_of};
use crate::{Params, SeriesInput, SeriesModel, Window};

fn paths() -> Paths {
    Paths::new(&Params::default().validate().unwrap())
}

fn objective(log_threshold: f64, horizon_secs: u32) -> ValidObjective {
    let (target, threshold) = (Target::P99, log_threshold.exp());
    Objective {
        target,
        threshold,
        horizon_secs,
        windows: 1,
        budget_events: None,
    }
    .validate()
    .unwrap()
}

/// A forecast around p99 = 1 s whose sd at each horizon is given.
fn forecast(sd: impl Fn(f64) -> f64, noise_sd: f64) -> Forecast {
    let sds = HORIZON_SECS.map(|secs| sd(f64::from(secs) / 60.0));
    let points = sds.map(|sd| {
        let at = |z: f64| (z * sd).exp() as f32;
        let [z_80, z_95] = [SCORES[5], SCORES[7]];
        [Some(Interval {
            yhat: 1.0,
            lower_80: at(-z_80),
            upper_80: at(z_80),
            lower_95: at(-z_95),
            upper_95: at(z_95),
        }); TARGETS]
    });
    let quantiles = sds.map(|sd| [Some(SCORES.map(|z| (z * sd) as f32)); TARGETS]);
    Forecast {
        points,
        quantiles,
        y: [Some(1.0); TARGETS],
        anomaly_score: 0.0,
        change_point: None,
        history_windows: 1000,
        noise_sd: [noise_sd as f32; TARGETS],
    }
}

/// Reflection principle: P(max of a random walk over n steps > a) is close to
/// 2·(1 − Φ((a + 0.5826·σ)/(σ·√n))) (Siegmund's continuity correction).
#[test]
fn a_random_walk_breaches_as_the_reflection_principle_says() {
    let (paths, sigma) = (paths(), 0.1);
    let forecast = forecast(|minutes| sigma * minutes.sqrt(), 0.0);
    for horizon_secs in [300, 900, 1800, 3600] {
        for a in [0.2, 0.4, 0.8, 1.2] {
            let n = f64::from(horizon_secs) / 60.0;
            let z = (a + 0.5826 * sigma) / (sigma * n.sqrt());
            let expected = 2.0 * (1.0 - normal_cdf(z));
            let found = breach(&forecast, &objective(a, horizon_secs), &paths, 0).probability;
            assert!(
                (found - expected).abs() < 0.035,
                "{horizon_secs} s, {a}: {found} {expected}"
            );
        }
    }
}

/// Independent windows: 1 − Φ(z)^windows.
#[test]
fn white_noise_breaches_as_independent_windows_do() {
    let paths = paths();
    let forecast = forecast(|_| 0.303, 0.3);
    for (a, horizon_secs) in [(0.9, 900), (0.8, 300), (1.0, 3600)] {
        let windows = f64::from(horizon_secs) / 10.0;
        let expected = 1.0 - normal_cdf(a / 0.303).powf(windows);
        let found = breach(&forecast, &objective(a, horizon_secs), &paths, 0).probability;
        assert!((found - expected).abs() < 0.06, "{a}: {found} {expected}");
    }
}

#[test]
fn risk_grows_with_the_horizon_and_falls_with_the_threshold() {
    let paths = paths();
    let forecast = forecast(|minutes| 0.2 + 0.05 * minutes.sqrt(), 0.1);
    let risk = |a, secs| breach(&forecast, &objective(a, secs), &paths, 0).probability;
    let by_horizon: Vec<f64> = [60, 300, 900, 1800, 3600]
        .map(|secs| risk(0.8, secs))
        .to_vec();
    assert!(by_horizon.is_sorted(), "{by_horizon:?}");
    let by_threshold: Vec<f64> = [1.5, 1.0, 0.5, 0.2].map(|a| risk(a, 900)).to_vec();
    assert!(
        by_threshold.is_sorted() && by_threshold[3] > 0.6,
        "{by_threshold:?}"
    );
    assert_eq!(risk(20.0, 3600), 0.0);
}

#[test]
fn a_rising_forecast_says_when() {
    let mut rising = forecast(|_| 0.05, 0.02);
    // Straight up in √time: exceeds e^0.5 when √minutes is half of √60.
    for (h, secs) in HORIZON_SECS.iter().enumerate() {
        let up = (f64::from(*secs) / 3600.0).sqrt() as f32;
        for quantile in rising.quantiles[h].iter_mut().flatten().flatten() {
            *quantile += up;
        }
    }
    let breach = breach(&rising, &objective(0.5, 3600), &paths(), 0);
    assert!(breach.probability > 0.99, "{breach:?}");
    let eta = breach.eta.unwrap();
    assert!((600.0..1020.0).contains(&eta.secs), "{eta:?}");
    assert!(
        eta.lower_80_secs < eta.secs && eta.secs < eta.upper_80_secs,
        "{eta:?}"
    );
}

#[test]
fn what_is_breached_is_breached_now() {
    let mut now = forecast(|_| 0.1, 0.1);
    now.y[Target::P99.index()] = Some(9.0);
    let breach = breach(&now, &objective(1.0, 900), &paths(), 1);
    assert_eq!((breach.probability, breach.eta), (1.0, Some(Eta::NOW)));
}

#[test]
fn what_was_never_observed_has_no_risk() {
    let mut unknown = forecast(|_| 0.1, 0.1);
    unknown.points = [[None; TARGETS]; HORIZONS];
    unknown.quantiles = [[None; TARGETS]; HORIZONS];
    unknown.y = [None; TARGETS];
    let breach = breach(&unknown, &objective(0.0, 900), &paths(), 0);
    assert_eq!((breach.probability, breach.eta), (0.0, None));
}

/// Probabilities that the model gives for random walks come true as often.
#[test]
fn probabilities_of_simulated_walks_are_calibrated() {
    let params = Params::default().validate().unwrap();
    let paths = Paths::new(&params);
    let objective = objective(window_of(0.0).y[2] as f64 + 0.8, 900);
    // By tenth of probability: forecasts, sum of probabilities, breaches.
    let mut bins = [(0u32, 0.0, 0u32); 10];
    for seed in 0..40 {
        let mut noise = Noise::new(seed);
        let mut level = 0.0;
        let windows: Vec<Window> = (0..1500)
            .map(|_| {
                // Reverts over an hour; noise of a tenth.
                level += -level / 360.0 + 0.04 * noise.normal();
                window_of(level + 0.1 * noise.normal())
            })
            .collect();
        let mut model = SeriesModel::new();
        for i in 0..1400 {
            let input = SeriesInput {
                step: i as u64,
                own: &windows[..=i],
                drivers: &[],
            };
            let forecast = model.refresh(&params, input);
            if model.refit_due(&params) {
                model.refit(&params, input);
            }
            let exceeds = |w: &Window| f64::from(w.y[2]) > objective.log_threshold;
            if i < 400 || i % 10 != 0 || exceeds(&windows[i]) {
                continue;
            }
            let probability = breach(&forecast, &objective, &paths, 0).probability;
            let bin = &mut bins[((probability * 10.0) as usize).min(9)];
            bin.0 += 1;
            bin.1 += probability;
            bin.2 += u32::from(windows[i + 1..=i + 90].iter().any(exceeds));
        }
    }
    let total: u32 = bins.iter().map(|bin| bin.0).sum();
    // Expected calibration error.
    let ece: f64 = bins
        .iter()
        .map(|(_, sum, breaches)| (sum - f64::from(*breaches)).abs())
        .sum::<f64>()
        / f64::from(total);
    // As it is said: recalibration takes the rest, see `recalibration`.
    assert!(ece < 0.1, "{ece} {bins:?}");
    assert!(bins[0].0 > 0 && bins[9].0 > 0, "{bins:?}");
}

#[test]
fn shares_above_follow_the_quantiles() {
    let quantiles = [1.0, 2.0, 3.0, 4.0];
    let cases = [
        (1.0, 0.5),
        (2.0, 0.1),
        (3.0, 0.01),
        (4.0, 0.001),
        (5.0, 0.0001),
        (-9.0, 1.0),
    ];
    for (latency, share) in cases {
        let found = fraction_above(&quantiles, latency);
        assert!(
            (found - share).abs() < 1e-6 + 1e-4 * share,
            "{latency}: {found}"
        );
    }
    assert!((fraction_above(&[1.0; 4], 0.9) - 1.0).abs() < 1e-6);
    assert!(fraction_above(&[1.0; 4], 1.1) < 1e-6);
}

#[test]
fn a_budget_runs_out_at_the_forecast_pace() {
    let mut steady = forecast(|_| 0.1, 0.1);
    for row in &mut steady.points {
        for (k, secs) in [0.1, 0.2, 0.4, 0.8, 100.0].into_iter().enumerate() {
            row[k].as_mut().unwrap().yhat = secs;
        }
    }
    let exhausted = |threshold, budget_events| {
        let objective = Objective {
            target: Target::P99,
            threshold,
            horizon_secs: 900,
            windows: 1,
            budget_events: Some(budget_events),
        };
        breach(&steady, &objective.validate().unwrap(), &paths(), 0).budget_exhausted_in_secs
    };
    // One event per second is slower than 0.4 s.
    assert!((exhausted(0.4, 1200.0).unwrap() - 1200.0).abs() < 2.0);
    assert!((exhausted(0.4, 36_000.0).unwrap() - 36_000.0).abs() < 40.0);
    assert_eq!(exhausted(0.4, 0.0), Some(0.0));
    assert_eq!(exhausted(100.0, 1e9), None);
}

#[test]
fn objectives_out_of_range_are_refused() {
    let good = Objective {
        target: Target::P99,
        threshold: 0.3,
        horizon_secs: 900,
        windows: 1,
        budget_events: None,
    };
    assert!(good.validate().is_ok());
    for threshold in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(Objective { threshold, ..good }.validate().is_err());
    }
    for horizon_secs in [0, 59, 3601] {
        let error = Objective {
            horizon_secs,
            ..good
        }
        .validate();
        assert_eq!(error, Err(ObjectiveError::HorizonSecs(horizon_secs)));
    }
    for events in [-1.0, f64::NAN, f64::INFINITY] {
        assert!(
            Objective {
                windows: 1,
                budget_events: Some(events),
                ..good
            }
            .validate()
            .is_err()
        );
    }
}

/// Waiting for a CPU leads p99 by two minutes. When it rises, the risk does, while
/// latency is where it was.
#[test]
fn a_rising_saturation_raises_the_risk_before_latency_moves() {
    use crate::{Driver, DriverId, Role};
    let params = Params::default().validate().unwrap();
    let paths = Paths::new(&params);
    let (n, lag, risen) = (2400, 12, 8);
    let mut raised = 0;
    for seed in 0..6 {
        let mut noise = Noise::new(seed);
        let mut state = 0.0;
        let causes: Vec<f64> = (0..n + lag)
            .map(|_| {
                // Bursts that last some minutes.
                let burst = if noise.uniform() < 0.01 { 1.5 } else { 0.0 };
                state = 0.97 * state + burst;
                state + 0.1 * noise.normal()
            })
            .collect();
        let own: Vec<Window> = (0..n)
            .map(|i| {
                let lately = if i + lag >= n { 0.0 } else { causes[i] };
                window_of(lately + 0.1 * noise.normal())
            })
            .collect();
        let risk = |rise: f64| {
            let driver: Vec<Window> = (0..n)
                .map(|i| {
                    let quiet = i + 2 * lag >= n;
                    let value = if quiet {
                        0.1 * noise_of(i)
                    } else {
                        causes[i + lag]
                    };
                    window_of(value + if i + risen >= n { rise } else { 0.0 })
                })
                .collect();
            let mut model = SeriesModel::new();
            let mut forecast = None;
            for i in 0..n {
                let drivers = [Driver {
                    id: DriverId(4),
                    role: Role::Saturation,
                    history: &driver[..=i],
                }];
                let input = SeriesInput {
                    step: i as u64,
                    own: &own[..=i],
                    drivers: &drivers,
                };
                forecast = Some(model.refresh(&params, input));
                if model.refit_due(&params) && i + lag < n {
                    model.refit(&params, input);
                }
            }
            let threshold = f64::from(window_of(1.2).y[2]);
            breach(&forecast.unwrap(), &objective(threshold, 300), &paths, 0).probability
        };
        let [calm, rising] = [0.0, 2.5].map(risk);
        println!("seed {seed}: {calm} {rising}");
        raised += u32::from(rising > calm + 0.2);
    }
    assert!(raised >= 4, "{raised} of 6");
}

fn noise_of(i: usize) -> f64 {
    ((i * 7919) % 100) as f64 / 50.0 - 1.0
}
