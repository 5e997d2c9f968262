use super::*;
use crate::Params;
use crate::testing::{Noise, window_of};

fn params() -> ValidParams {
    Params::default().validate().unwrap()
}

/// Refreshes (and refits when due) over a whole history; all forecasts.
fn run(windows: &[Window]) -> Vec<Forecast> {
    let (params, mut model) = (params(), SeriesModel::new());
    (0..windows.len())
        .map(|i| {
            let input = SeriesInput {
                step: 10_000 + i as u64,
                own: &windows[..=i],
                drivers: &[],
            };
            let forecast = model.refresh(&params, input);
            if model.refit_due(&params) {
                model.refit(&params, input);
            }
            forecast
        })
        .collect()
}

fn noisy(n: usize, seed: u64) -> Vec<Window> {
    let mut noise = Noise::new(seed);
    (0..n).map(|_| window_of(0.2 * noise.normal())).collect()
}

fn assert_sane(forecast: &Forecast) {
    assert!(forecast.anomaly_score >= 0.0 && forecast.anomaly_score.is_finite());
    for row in &forecast.points {
        for point in row.iter().flatten() {
            let ends = [
                point.lower_95,
                point.lower_80,
                point.yhat,
                point.upper_80,
                point.upper_95,
            ];
            assert!(ends.iter().all(|end| end.is_finite()), "{point:?}");
            assert!(ends.is_sorted(), "{point:?}");
        }
        let quantiles: Vec<f32> = row[..4].iter().flatten().map(|p| p.yhat).collect();
        assert!(quantiles.is_sorted(), "{quantiles:?}");
    }
}

#[test]
fn the_first_window_already_has_a_wide_forecast() {
    let forecast = &run(&noisy(1, 1))[0];
    assert_sane(forecast);
    let [minute, hour] = [0, 4].map(|h| forecast.point(h, Target::P99).unwrap());
    let width = |p: &Interval| (p.upper_95 / p.lower_95).ln();
    assert!(
        width(minute) > 1.0 && width(hour) > 3.0,
        "{minute:?} {hour:?}"
    );
    assert_eq!(forecast.anomaly_score, 0.0);
    assert_eq!(forecast.history_windows, 1);
}

#[test]
fn intervals_narrow_as_residuals_arrive() {
    let forecasts = run(&noisy(1500, 2));
    let width = |i: usize, h| {
        let point = forecasts[i].point(h, Target::P99).unwrap();
        (point.upper_95 / point.lower_95).ln()
    };
    assert!(
        width(1499, 0) < 0.7 * width(1, 0),
        "{} {}",
        width(1499, 0),
        width(1, 0)
    );
    // Around 0.2: 2 · 1.96 · 0.2 = 0.78.
    assert!((0.6..1.2).contains(&width(1499, 0)), "{}", width(1499, 0));
    assert!(width(1499, 4) < 0.5 * width(1, 4));
}

#[test]
fn degenerate_histories_give_sane_forecasts() {
    let odd = |f: fn(usize) -> f32| -> Vec<Window> {
        let of = |i: usize| Window {
            y: [f(i); TARGETS],
            samples: f(i),
            completeness: f(i),
        };
        (0..200).map(of).collect()
    };
    let mut cases: Vec<Vec<Window>> = vec![
        vec![],
        vec![Window::MISSING; 200],
        vec![window_of(0.0); 500],
        odd(|_| f32::NAN),
        odd(|_| f32::INFINITY),
        odd(|_| f32::MAX),
        odd(|_| f32::MIN_POSITIVE),
        odd(|i| if i % 2 == 0 { 30.0 } else { -30.0 }),
    ];
    cases.push(
        (0..300)
            .map(|i| {
                if i % 7 == 3 {
                    window_of(1.0)
                } else {
                    Window::MISSING
                }
            })
            .collect(),
    );
    let empty = Window {
        y: [f32::NAN, f32::NAN, f32::NAN, f32::NAN, 0.0],
        samples: 0.0,
        completeness: 1.0,
    };
    cases.push(vec![empty; 300]);
    for windows in &cases {
        run(windows).iter().for_each(assert_sane);
    }
    let silent = &run(&cases[1])[199];
    assert!(silent.points.iter().flatten().all(Option::is_none));
    let idle = &run(&cases[9])[299];
    assert!(idle.point(0, Target::P50).is_none());
    assert!(idle.point(0, Target::Rate).unwrap().yhat < 1e-6);
}

/// A service twice as slow has forecasts twice as high.
#[test]
fn forecasts_scale_with_the_unit() {
    let windows = noisy(700, 3);
    let mut slower = windows.clone();
    let factor = 4.0f32;
    for window in &mut slower {
        window.y[..4].iter_mut().for_each(|y| *y += factor.ln());
    }
    let (a, b) = (run(&windows).pop().unwrap(), run(&slower).pop().unwrap());
    for h in 0..HORIZONS {
        for target in &Target::ALL[..4] {
            let (a, b) = (a.point(h, *target).unwrap(), b.point(h, *target).unwrap());
            for (a, b) in [
                (a.yhat, b.yhat),
                (a.lower_95, b.lower_95),
                (a.upper_80, b.upper_80),
            ] {
                assert!(
                    (b / a / factor - 1.0).abs() < 0.02,
                    "{target:?} {h}: {a} {b}"
                );
            }
        }
    }
    assert!((a.anomaly_score - b.anomaly_score).abs() < 0.01);
}

#[test]
fn the_order_of_drivers_does_not_matter() {
    let (params, own) = (params(), noisy(400, 4));
    let others = [noisy(400, 4), noisy(400, 5), noisy(400, 6)];
    let forecast = |order: [usize; 3]| {
        let drivers = order.map(|i| crate::Driver {
            id: crate::DriverId(i as u32),
            role: crate::Role::Work,
            history: &others[i][..],
        });
        let input = SeriesInput {
            step: 99,
            own: &own[..],
            drivers: &drivers,
        };
        let mut model = SeriesModel::new();
        model.refresh(&params, input);
        model.refit(&params, input);
        model.refresh(&params, SeriesInput { step: 100, ..input })
    };
    assert_eq!(forecast([0, 1, 2]), forecast([2, 0, 1]));
}

#[test]
fn the_same_step_again_learns_nothing_twice() {
    let (params, windows) = (params(), noisy(100, 7));
    let input = SeriesInput {
        step: 5000,
        own: &windows[..],
        drivers: &[],
    };
    let mut model = SeriesModel::new();
    let first = model.refresh(&params, input);
    let learned = model.clone();
    assert_eq!(model.refresh(&params, input), first);
    assert_eq!(model, learned);
    model.refresh(
        &params,
        SeriesInput {
            step: 4000,
            ..input
        },
    );
    assert_eq!(model.step, Some(5000));
}

/// A refresh that comes late does what the missed ones would have done.
#[test]
fn missed_windows_are_caught_up_with() {
    let (params, windows) = (params(), noisy(300, 8));
    let refresh = |model: &mut SeriesModel, i: usize| {
        let input = SeriesInput {
            step: i as u64,
            own: &windows[..=i],
            drivers: &[],
        };
        model.refresh(&params, input)
    };
    let (mut steady, mut late) = (SeriesModel::new(), SeriesModel::new());
    for i in 0..300 {
        refresh(&mut steady, i);
    }
    for i in [0, 150, 151, 299] {
        refresh(&mut late, i);
    }
    assert_eq!(steady, late);
}

#[test]
fn gaps_widen_intervals() {
    let mut windows = noisy(600, 9);
    let whole = run(&windows).pop().unwrap();
    windows[570..].fill(Window::MISSING);
    let stale = run(&windows).pop().unwrap();
    for target in Target::ALL {
        let width = |f: &Forecast| {
            let point = f.point(0, target).unwrap();
            (point.upper_95 / point.lower_95).ln()
        };
        assert!(width(&stale) > 1.5 * width(&whole), "{target:?}");
    }
}

#[test]
fn after_an_hour_of_silence_it_goes_on() {
    let mut windows = noisy(1400, 12);
    let whole = run(&windows);
    windows[600..960].fill(Window::MISSING);
    let silent = run(&windows);
    silent.iter().for_each(assert_sane);
    let p99 = |f: &Forecast| f.point(0, Target::P99).copied().unwrap();
    let width = |f: &Forecast| (p99(f).upper_80 / p99(f).lower_80).ln();
    assert!(width(&silent[959]) > 1.5 * width(&whole[959]));
    // It comes back as it was: nothing to be told, and soon as sure as before.
    assert!(
        silent[960..]
            .iter()
            .all(|forecast| forecast.anomaly_score < 1.0)
    );
    let ratio = width(&silent[1399]) / width(&whole[1399]);
    assert!((0.7..1.5).contains(&ratio), "{ratio}");
    assert!(
        (p99(&silent[1399]).yhat / p99(&whole[1399]).yhat)
            .ln()
            .abs()
            < 0.3
    );
}

#[test]
fn a_step_of_a_billion_is_followed_and_left_again() {
    let mut windows = noisy(900, 13);
    let step = 1e9f64.ln() as f32;
    for window in &mut windows[500..620] {
        window.y[..4].iter_mut().for_each(|y| *y += step);
    }
    let forecasts = run(&windows);
    forecasts.iter().for_each(assert_sane);
    let off = |at: usize| {
        let p99 = forecasts[at].point(0, Target::P99).unwrap();
        (f64::from(p99.yhat).ln() - f64::from(windows[at].y[2])).abs()
    };
    assert!(forecasts[500].anomaly_score > 1.0);
    for at in [499, 560, 619, 700, 899] {
        assert!(off(at) < 1.0, "{at}: {}", off(at));
    }
}

#[test]
fn coarser_sampling_widens_intervals() {
    let mut windows = noisy(600, 10);
    let fine = run(&windows).pop().unwrap();
    windows[560..]
        .iter_mut()
        .for_each(|window| window.samples = 40.0);
    let coarse = run(&windows).pop().unwrap();
    let width = |f: &Forecast| {
        let point = f.point(0, Target::P99).unwrap();
        (point.upper_95 / point.lower_95).ln()
    };
    assert!(
        width(&coarse) > 1.3 * width(&fine),
        "{} {}",
        width(&coarse),
        width(&fine)
    );
}

#[test]
fn a_lasting_rise_is_reported_as_a_change_point() {
    let mut windows = noisy(500, 11);
    for window in &mut windows[460..] {
        window.y[..4].iter_mut().for_each(|y| *y += 5f32.ln());
    }
    let forecasts = run(&windows);
    assert!(forecasts[455].change_point.is_none());
    let change = forecasts[499].change_point.unwrap();
    assert!(change.windows_ago.abs_diff(39) <= 3, "{change:?}");
    assert!(
        (f64::from(change.log_change) - 5f64.ln()).abs() < 0.3,
        "{change:?}"
    );
}

/// Where windows are so long that the levels have long met, noise between them is no
/// huge change.
#[test]
fn a_change_long_ago_is_measured_with_care() {
    let params = Params {
        step_secs: 300,
        ..Params::default()
    };
    let params = params.validate().unwrap();
    let windows = noisy(300, 5);
    let mut model = SeriesModel::new();
    for n in 1..=windows.len() {
        let input = SeriesInput {
            step: n as u64,
            own: &windows[..n],
            drivers: &[],
        };
        model.refresh(&params, input);
    }
    for windows_ago in [1, 5, 20, 1000] {
        let change = model.change(&params, Target::P99, windows_ago);
        assert!(change.log_change.abs() < 2.0, "{windows_ago}: {change:?}");
    }
}

#[test]
fn a_stored_model_goes_on_as_if_it_had_never_stopped() {
    let (params, windows) = (params(), noisy(400, 12));
    let input = |i: usize| SeriesInput {
        step: i as u64,
        own: &windows[..=i],
        drivers: &[],
    };
    let mut model = SeriesModel::new();
    for i in 0..300 {
        model.refresh(&params, input(i));
    }
    model.refit(&params, input(299));
    let stored = serde_json::to_string(&model).unwrap();
    let mut restored: SeriesModel = serde_json::from_str(&stored).unwrap();
    assert_eq!(restored, model);
    for i in 300..400 {
        assert_eq!(
            restored.refresh(&params, input(i)),
            model.refresh(&params, input(i))
        );
    }
}

#[test]
fn a_model_takes_at_most_sixteen_kilobytes_and_stays_there() {
    let (params, windows) = (params(), noisy(900, 13));
    let input = |i: usize| SeriesInput {
        step: i as u64,
        own: &windows[..=i],
        drivers: &[],
    };
    let mut model = SeriesModel::new();
    model.refresh(&params, input(0));
    let bytes = model.bytes();
    for i in 1..900 {
        model.refresh(&params, input(i));
        assert_eq!(model.bytes(), bytes, "allocated at {i}");
    }
    model.refit(&params, input(899));
    println!(
        "{bytes} bytes per series, {} inline",
        size_of::<SeriesModel>()
    );
    assert_eq!(model.bytes(), bytes);
    assert!(bytes <= 16_384, "{bytes}");
}

fn any_number() -> impl proptest::strategy::Strategy<Value = f32> {
    use proptest::prelude::*;
    prop_oneof![
        6 => -12f32..12.0,
        1 => prop_oneof![
            Just(f32::NAN), Just(f32::INFINITY), Just(f32::NEG_INFINITY), Just(0.0f32),
            Just(1e9f32), Just(-1e9f32), Just(f32::MAX), Just(29.9f32), Just(-29.9f32),
        ],
    ]
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]

    /// Whatever is observed and whenever, the same step again, gaps and time
    /// that goes back included: no panic, and forecasts that are sane.
    #[test]
    fn any_windows_give_sane_forecasts(
        observed in proptest::collection::vec(
            (any_number(), any_number(), any_number(), -2i64..40), 1..160,
        ),
    ) {
        let (params, mut model) = (params(), SeriesModel::new());
        let (mut windows, mut step) = (Vec::new(), 1_000i64);
        for (i, (y, samples, completeness, passed)) in observed.into_iter().enumerate() {
            let jitter = [0.0, 0.4, 1.0, 1.5, 0.0];
            windows.push(Window { y: jitter.map(|j| y + j), samples, completeness });
            step += passed;
            let input = SeriesInput { step: step as u64, own: &windows[..], drivers: &[] };
            assert_sane(&model.refresh(&params, input));
            if i % 50 == 49 {
                model.refit(&params, input);
            }
        }
    }
}

/// Every day latency is three times as high for two hours. An analyzer's history
/// holds six hours of it; its model foresees the rise from the days before.
#[test]
fn a_day_is_a_season_though_the_history_holds_hours() {
    const DAY: usize = 1440;
    const RING: usize = 360;
    let params = Params {
        step_secs: 60,
        ..Params::default()
    };
    let (params, mut noise) = (params.validate().unwrap(), Noise::new(14));
    let busy = |i: usize| (720..840).contains(&(i % DAY));
    let windows: Vec<Window> = (0..5 * DAY)
        .map(|i| {
            let rise = if busy(i) { 3f64.ln() } else { 0.0 };
            window_of(rise + 0.1 * noise.normal())
        })
        .collect();
    let mut model = SeriesModel::new();
    let mut hour_ahead = Vec::new();
    for i in 0..windows.len() {
        let own = &windows[(i + 1).saturating_sub(RING)..=i];
        let input = SeriesInput {
            step: i as u64,
            own,
            drivers: &[],
        };
        let forecast = model.refresh(&params, input);
        hour_ahead.push(forecast.point(4, Target::P99).unwrap().yhat);
    }
    let on_day = |day: usize, minute: usize| f64::from(hour_ahead[day * DAY + minute]);
    let calm = on_day(4, 400);
    for minute in [680, 700, 719] {
        let foreseen = on_day(4, minute) / calm;
        assert!(foreseen > 2.0, "{minute}: {foreseen}");
        assert!(on_day(0, minute) / calm < 1.5);
    }
    let ends = on_day(4, 830) / calm;
    assert!(ends < 1.5, "{ends}");
    assert!(model.history_bytes() < 8192, "{}", model.history_bytes());
}

/// Hours with a shape; in the third, an incident of ten minutes makes everything ten
/// times as slow.
fn with_an_incident(begin: usize, length: usize, windows: usize) -> Vec<Window> {
    let mut noise = Noise::new(11);
    (0..windows)
        .map(|i| {
            let season = (i as f64 / 360.0 * std::f64::consts::TAU).sin();
            let incident = if (begin..begin + length).contains(&i) {
                2.3
            } else {
                0.0
            };
            window_of(0.4 * season + 0.05 * noise.normal() + incident)
        })
        .collect()
}

/// A model that has seen all of it, and whether it was to be refitted in each window.
fn attended(windows: &[Window], incident: std::ops::Range<usize>) -> (SeriesModel, Vec<bool>) {
    let (params, mut model) = (params(), SeriesModel::new());
    let due = (0..windows.len()).map(|i| {
        let input = SeriesInput {
            step: 360_000 + i as u64,
            own: &windows[..=i],
            drivers: &[],
        };
        let context = Context {
            incident: incident.contains(&i),
            ..Context::default()
        };
        model.refresh_in(&params, input, context);
        let due = model.refit_due(&params);
        if due {
            model.refit(&params, input);
        }
        due
    });
    let due = due.collect();
    (model, due)
}

#[test]
fn what_an_incident_does_is_no_season() {
    let (begin, length) = (800, 60);
    // Half an hour before the same place of the next hour.
    let windows = with_an_incident(begin, length, begin + 30 + 180);
    let error = |incident: std::ops::Range<usize>| {
        let (mut model, _) = attended(&windows[..windows.len() - 1], incident);
        let input = SeriesInput {
            step: 360_000 + windows.len() as u64 - 1,
            own: &windows[..],
            drivers: &[],
        };
        let forecast = model.refresh(&params(), input);
        let usual = with_an_incident(0, 0, begin + 60 + 360)[begin + 30 + 360];
        let point = forecast.point(3, Target::P99).unwrap();
        f64::from(point.yhat.ln() - usual.y[Target::P99.index()]).abs()
    };
    let (open, unknown) = (error(begin..begin + length), error(0..0));
    assert!(open < 0.5 * unknown, "{open} {unknown}");
    assert!(open < 0.25, "{open}");
}

#[test]
fn nothing_is_refitted_in_an_incident_unless_it_stays() {
    let windows = with_an_incident(700, 600, 1300);
    let (_, due) = attended(&windows, 700..1300);
    let in_incident = |range: std::ops::Range<usize>| due[range].iter().any(|due| *due);
    assert!(in_incident(600..700));
    assert!(!in_incident(700..1060));
    assert!(in_incident(1060..1130));
}

#[test]
fn the_busiest_time_is_that_of_the_day() {
    let params = params();
    let day = 8640;
    let mut windows = Vec::new();
    let mut model = SeriesModel::new();
    let rate = |step: usize| 4.0 + (step as f64 / day as f64 * std::f64::consts::TAU).sin();
    for step in 0..2 * day {
        let mut window = window_of(0.0);
        window.y[Target::Rate.index()] = rate(step) as f32;
        windows.push(window);
        let input = SeriesInput {
            step: step as u64,
            own: &windows[windows.len().saturating_sub(400)..],
            drivers: &[],
        };
        model.refresh(&params, input);
        let known = model.busiest(&params).is_some();
        assert_eq!(known, step + 1 >= day, "{step}");
    }
    // Though the night is all that is in the newest windows.
    assert!((model.busiest(&params).unwrap() - 5.0).abs() < 0.05);
    assert_eq!(SeriesModel::new().busiest(&params), None);
}
