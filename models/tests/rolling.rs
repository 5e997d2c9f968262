//! Rolling forecasts over a day of series whose law is known: intervals cover,
//! and the forecasts beat persistence and the seasonal naive forecast.
//! `--nocapture` prints the table.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use honeyguide_models::{
    Driver, DriverId, HORIZONS, Params, Role, SeriesInput, SeriesModel, Target, ValidParams,
};

#[path = "rolling/synthetic.rs"]
mod synthetic;

use synthetic::{HOUR, Kind, LEAD, Pair, WINDOWS, generate};

/// Forecasts are judged after three hours.
const START: usize = 3 * HOUR;
/// What an analyzer keeps.
const RING: usize = 6 * HOUR;
/// Judged targets: the middle, the tail and the load.
const TARGETS: [Target; 3] = [Target::P50, Target::P99, Target::Rate];

/// Sums over judged forecasts of one horizon.
#[derive(Clone, Copy, Debug, Default)]
struct Score {
    forecasts: f64,
    within_80: f64,
    within_95: f64,
    /// Absolute errors in model space.
    error: f64,
    persistence: f64,
    seasonal: f64,
}

impl Score {
    fn add(&mut self, other: &Score) {
        self.forecasts += other.forecasts;
        self.within_80 += other.within_80;
        self.within_95 += other.within_95;
        self.error += other.error;
        self.persistence += other.persistence;
        self.seasonal += other.seasonal;
    }

    fn coverage_80(&self) -> f64 {
        self.within_80 / self.forecasts
    }

    fn coverage_95(&self) -> f64 {
        self.within_95 / self.forecasts
    }

    /// Error relative to the better baseline.
    fn relative_error(&self) -> f64 {
        self.error / self.persistence.min(self.seasonal)
    }
}

fn params() -> ValidParams {
    Params::default().validate().unwrap()
}

/// Forecasts at every window, with or without the driver and refits.
fn roll(kind: Kind, with_driver: bool, with_refits: bool) -> [Score; HORIZONS] {
    let (params, pair) = (params(), generate(kind, 1));
    let mut model = SeriesModel::new();
    let mut scores = [Score::default(); HORIZONS];
    for i in 0..WINDOWS {
        let from = (i + 1).saturating_sub(RING);
        let driver = Driver {
            id: DriverId(1),
            role: Role::Saturation,
            history: &pair.driver[from..=i],
        };
        let input = SeriesInput {
            step: 7777 + i as u64,
            own: &pair.own[from..=i],
            drivers: if with_driver { &[driver] } else { &[] },
        };
        let forecast = model.refresh(&params, input);
        if with_refits && model.refit_due(&params) {
            model.refit(&params, input);
        }
        if i >= START {
            for (h, score) in scores.iter_mut().enumerate() {
                for target in TARGETS {
                    let point = forecast.point(h, target).unwrap();
                    if let Some(judged) = judge(&params, kind, &pair, (i, h), target, point) {
                        score.add(&judged);
                    }
                }
            }
        }
    }
    scores
}

/// Scores one forecast made at window `i`; `None` if its time does not come.
fn judge(
    params: &ValidParams,
    kind: Kind,
    pair: &Pair,
    (i, h): (usize, usize),
    target: Target,
    point: &honeyguide_models::Interval,
) -> Option<Score> {
    let lead = params.horizon_windows()[h];
    let value = |at: usize| pair.own[at].value(target).unwrap();
    pair.own.get(i + lead)?;
    let y = value(i + lead);
    let season = kind.season().unwrap_or(HOUR);
    let back = season * lead.div_ceil(season);
    let model = |natural: f32| target.to_model(f64::from(natural));
    let within =
        |lower: f32, upper: f32| f64::from(u8::from(model(lower) <= y && y <= model(upper)));
    Some(Score {
        forecasts: 1.0,
        within_80: within(point.lower_80, point.upper_80),
        within_95: within(point.lower_95, point.upper_95),
        error: (y - model(point.yhat)).abs(),
        persistence: (y - value(i)).abs(),
        seasonal: (y - value(i + lead - back)).abs(),
    })
}

#[test]
fn intervals_cover_and_forecasts_beat_the_baselines() {
    let mut all = [Score::default(); HORIZONS];
    for kind in Kind::ALL {
        for (h, score) in roll(kind, true, true).iter().enumerate() {
            let (c80, c95) = (score.coverage_80(), score.coverage_95());
            println!(
                "{kind:>11?} horizon {h}: 80 % {c80:.3}  95 % {c95:.3}  error/persistence {:.2}  \
                 error/seasonal {:.2}",
                score.error / score.persistence,
                score.error / score.seasonal,
            );
            all[h].add(score);
            // Any law: an hour ahead a day holds few independent outcomes.
            let (low, high) = if h == 4 { (0.86, 0.99) } else { (0.92, 0.98) };
            assert!((low..=high).contains(&c95), "{kind:?} {h}: {c95}");
            assert!((0.69..=0.88).contains(&c80), "{kind:?} {h}: {c80}");
            assert!(
                score.relative_error() < 0.99,
                "{kind:?} {h}: {}",
                score.relative_error()
            );
        }
    }
    for (h, score) in all.iter().enumerate() {
        let (c80, c95) = (score.coverage_80(), score.coverage_95());
        println!("all, horizon {h}: 80 % {c80:.3}  95 % {c95:.3}");
        let (low, high) = if h == 4 { (0.92, 0.97) } else { (0.935, 0.965) };
        assert!((low..=high).contains(&c95), "{h}: {c95}");
        assert!((0.76..=0.84).contains(&c80), "{h}: {c80}");
        assert!(score.error < 0.85 * score.persistence, "{h}");
        assert!(score.error < 0.90 * score.seasonal, "{h}");
    }
}

/// A driver that leads by two minutes halves the error one minute ahead; only
/// the regression can know.
#[test]
fn the_regression_turns_a_leading_driver_into_skill() {
    assert_eq!(LEAD as f64 * params().step_secs(), 120.0);
    let error =
        |with_driver, with_refits| roll(Kind::Led, with_driver, with_refits)[0].relative_error();
    let (led, alone, unfitted) = (error(true, true), error(false, true), error(true, false));
    assert!(led < 0.6 * alone, "{led} {alone}");
    assert!(led < 0.6 * unfitted, "{led} {unfitted}");
}
