//! What is learned from the whole history, now and then: the season, the
//! drivers, and a regression per horizon and target.
//!
//! A regression is fitted on the older three quarters of its examples and
//! *shrunk by what it is worth on the newest quarter*, so one that does not
//! generalise costs nothing: its forecast falls back to the level.

use crate::correlation::lagged;
use crate::features::{Ahead, ChosenDriver, DRIVERS, Snapshot, Structure, Tracks, row};
use crate::level::{FAST, Levels};
use crate::params::ValidParams;
use crate::regression::{Coefficients, Example, fit};
use crate::saturation::Saturation;
use crate::season;
use crate::series::{Driver, HORIZONS, History, Role, SeriesInput, TARGETS, Target, Window};

/// Windows that a refit reads: two days at 10 s, so that a day can be a season.
const HISTORY_WINDOWS_MAX: usize = 17_280 + 360;
/// Origins that a refit learns from, about; more cost time and, being
/// neighbours, tell little.
const ORIGINS: usize = 320;
/// Windows before the first origin, for the levels to settle.
const BURN_IN: usize = 12;
/// Origins needed to fit, and to judge the fit.
const TRAIN_MIN: usize = 48;
const VALIDATION_MIN: usize = 8;
/// Share of the origins that is fitted on.
const TRAIN_SHARE: f64 = 0.75;
/// Independent validation spans at which a fit is half trusted.
const SPANS_TO_TRUST: f64 = 1.0;
/// A fit worth less than this share of its own forecast is dropped.
const WORTH_MIN: f64 = 0.05;
/// Changes beyond this quantile of their size are clipped (Huber) …
const CLIP_QUANTILE: f64 = 0.98;
/// … at this multiple of it, which also bounds every forecast change.
const CLIP_MARGIN: f64 = 1.25;

/// Drivers looked at: what waits for something before what works, which has less to
/// tell in advance, and each in the order of their ids.
const DRIVERS_CONSIDERED: usize = 16;
/// Leads in windows at which a driver is compared.
pub(crate) const LEADS: [usize; 10] = [0, 1, 2, 3, 6, 9, 12, 18, 24, 30];
/// A longer lead must correlate this much better than a shorter one.
pub(crate) const LEAD_MARGIN: f64 = 0.02;
/// Weaker drivers are left out.
const DRIVER_CORRELATION_MIN: f64 = 0.2;
const DRIVER_PAIRS_MIN: usize = 48;

/// All that a refit found.
pub(crate) struct Fitted {
    pub(crate) structure: Structure,
    pub(crate) regressions: Regressions,
    /// Levels of the chosen drivers at the newest window.
    pub(crate) drivers: [Levels; DRIVERS],
}

/// The regression per horizon and target, where one is worth having.
pub(crate) type Regressions = [[Option<Coefficients>; TARGETS]; HORIZONS];

/// A window from which forecasts could have been made.
struct Origin {
    index: usize,
    snapshot: Snapshot,
    ahead: Ahead,
}

/// Learns from the history of a series and its drivers.
pub(crate) fn refit<H: History + ?Sized>(
    params: &ValidParams,
    input: SeriesInput<'_, H>,
) -> Fitted {
    let own = decode(input.own, input.own.len());
    let structure = Structure {
        season: season::detect(&own, params.get().step_secs),
        drivers: choose_drivers(&own, &input),
        saturation: Saturation::fit(&own),
    };
    let drivers = structure.drivers_in(&input).map(|history| match history {
        Some(history) => decode(history, own.len()),
        None => vec![Window::MISSING; own.len()],
    });
    let (origins, drivers) = walk(params, &structure, input.step, &own, &drivers);
    let regressions = std::array::from_fn(|h| {
        let lead = params.horizon_windows()[h];
        Target::ALL.map(|target| regression(params, &origins, &own, target, (h, lead)))
    });
    Fitted {
        structure,
        regressions,
        drivers,
    }
}

/// The newest windows, oldest first, so many as the modelled series has.
fn decode<H: History + ?Sized>(history: &H, windows: usize) -> Vec<Window> {
    (0..windows.min(HISTORY_WINDOWS_MAX))
        .rev()
        .map(|ago| history.window(ago))
        .collect()
}

pub(crate) fn values(windows: &[Window], target: Target) -> Vec<f64> {
    windows
        .iter()
        .map(|window| window.value(target).unwrap_or(f64::NAN))
        .collect()
}

fn choose_drivers<H: History + ?Sized>(
    own: &[Window],
    input: &SeriesInput<'_, H>,
) -> [Option<ChosenDriver>; DRIVERS] {
    let effect = values(own, Target::P99);
    let mut candidates = input.drivers.to_vec();
    candidates.sort_by_key(|driver| (driver.role == Role::Work, driver.id));
    let mut found: Vec<(f64, ChosenDriver)> = Vec::new();
    for Driver { id, history, .. } in candidates.into_iter().take(DRIVERS_CONSIDERED) {
        let cause = values(&decode(history, own.len()), Target::P99);
        if let Some((strength, lead)) = best_lead(&cause, &effect) {
            found.push((strength, ChosenDriver { id, lead }));
        }
    }
    // Of equally strong drivers the one with the lower id.
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.id.cmp(&b.1.id)));
    std::array::from_fn(|i| found.get(i).map(|(_, chosen)| *chosen))
}

/// |r| and lead in windows at which a cause goes best with its effect.
fn best_lead(cause: &[f64], effect: &[f64]) -> Option<(f64, usize)> {
    let mut best: Option<(f64, usize)> = None;
    for lead in LEADS {
        let sums = lagged(cause, effect, lead);
        let strength = sums.correlation().abs();
        let needed = best.map_or(DRIVER_CORRELATION_MIN, |(r, _)| r + LEAD_MARGIN);
        if sums.pairs() >= DRIVER_PAIRS_MIN && strength >= needed {
            best = Some((strength, lead));
        }
    }
    best
}

/// Whether a step is an origin: a hash draws a share of them, because evenly
/// spaced ones would see only some phases of a season.
fn is_origin(step: u64, share: f64) -> bool {
    let hash = step.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let hash = (hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((hash >> 11) as f64) < share * (1u64 << 53) as f64
}

/// Follows the levels through the history, stopping at the origins.
fn walk(
    params: &ValidParams,
    structure: &Structure,
    step: u64,
    own: &[Window],
    drivers: &[Vec<Window>; DRIVERS],
) -> (Vec<Origin>, [Levels; DRIVERS]) {
    let share = ORIGINS as f64 / own.len().max(1) as f64;
    let mut tracks = Tracks::default();
    let mut origins = Vec::with_capacity(ORIGINS + ORIGINS / 4);
    for index in 0..own.len() {
        let at = [0, 1, 2].map(|d| drivers[d][index]);
        tracks.update(params.decays(), &own[index], &at);
        let then = step.wrapping_sub((own.len() - 1 - index) as u64);
        if index >= BURN_IN && is_origin(then, share) {
            let past = [0, 1, 2].map(|d| structure.drivers[d].map(|_| &drivers[d][..=index]));
            let horizons = params.horizon_windows();
            origins.push(Origin {
                index,
                snapshot: tracks.snapshot(),
                ahead: Ahead::read(structure, horizons, then, &own[..=index], &past),
            });
        }
    }
    (origins, tracks.drivers)
}

/// Fits one regression and shrinks it to its worth; `horizon` is its position
/// and its length in windows.
fn regression(
    params: &ValidParams,
    origins: &[Origin],
    own: &[Window],
    target: Target,
    (horizon, lead): (usize, usize),
) -> Option<Coefficients> {
    let first = origins.first()?.index;
    let last = own.len().checked_sub(1 + lead)?;
    let cut = first + (TRAIN_SHARE * last.checked_sub(first)? as f64) as usize;
    let (mut train, mut validation) = (Vec::new(), Vec::new());
    for origin in origins.iter().take_while(|origin| origin.index <= last) {
        let future = &own[origin.index + lead];
        let Some(value) = future.value(target).filter(|_| future.weight(target) > 0.0) else {
            continue;
        };
        let example = Example {
            row: row(&origin.snapshot, &origin.ahead, target, horizon),
            change: value - origin.snapshot.levels[target.index()][FAST],
            weight: future.weight(target),
        };
        // What is trained on has come true before the first validation origin.
        if origin.index + lead <= cut {
            train.push(example);
        } else if origin.index > cut {
            validation.push(example);
        }
    }
    if train.len() < TRAIN_MIN || validation.len() < VALIDATION_MIN {
        return None;
    }
    let limit = clip(&mut train);
    clip(&mut validation);
    let fitted = fit(&train, params.get().ridge, limit)?;
    let spans = (last - cut) as f64 / lead as f64;
    let worth = worth(&fitted, &validation) * spans / (spans + SPANS_TO_TRUST);
    (worth >= WORTH_MIN).then(|| fitted.shrunk(worth))
}

/// Clips the changes at a robust limit and returns it.
fn clip(examples: &mut [Example]) -> f64 {
    let mut sizes: Vec<f64> = examples.iter().map(|e| e.change.abs()).collect();
    let at = (CLIP_QUANTILE * (sizes.len() - 1) as f64) as usize;
    let (_, size, _) = sizes.select_nth_unstable_by(at, f64::total_cmp);
    let limit = CLIP_MARGIN * *size;
    for example in examples {
        example.change = example.change.clamp(-limit, limit);
    }
    limit
}

/// The factor in 0..=1 by which forecast changes fit the observed ones best.
fn worth(fitted: &Coefficients, examples: &[Example]) -> f64 {
    let (mut agree, mut square) = (0.0, 0.0);
    for example in examples {
        let forecast = fitted.predict(&example.row);
        agree += example.weight * forecast * example.change;
        square += example.weight * forecast * forecast;
    }
    if square > 0.0 {
        (agree / square).clamp(0.0, 1.0)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Noise, window_of};
    use crate::{DriverId, Params};

    /// A driver, and a series that follows it after `lag` windows.
    fn led(n: usize, lag: usize) -> (Vec<Window>, Vec<Window>) {
        let mut noise = Noise::new(21);
        let (mut state, mut cause) = (0.0, Vec::new());
        for _ in 0..n + lag {
            state = 0.95 * state + 0.3 * noise.normal();
            cause.push(state);
        }
        let own = (0..n)
            .map(|i| window_of(cause[i] + 0.1 * noise.normal()))
            .collect();
        (own, (0..n).map(|i| window_of(cause[i + lag])).collect())
    }

    fn refit_led(n: usize, lag: usize) -> Fitted {
        let params = Params::default().validate().unwrap();
        let (own, cause) = led(n, lag);
        let noise: Vec<Window> = led(n, 0).0.into_iter().rev().collect();
        let drivers = [(9, &noise), (4, &cause)].map(|(id, history)| Driver {
            id: DriverId(id),
            role: Role::Saturation,
            history: &history[..],
        });
        let input = SeriesInput {
            step: 50_000,
            own: &own[..],
            drivers: &drivers,
        };
        refit(&params, input)
    }

    #[test]
    fn the_driver_that_leads_is_found_with_its_lead() {
        for lag in [0, 3, 12, 30] {
            let drivers = refit_led(1200, lag).structure.drivers;
            assert_eq!(
                drivers[0],
                Some(ChosenDriver {
                    id: DriverId(4),
                    lead: lag
                }),
                "{drivers:?}"
            );
        }
    }

    /// A service has more signals than are looked at.
    #[test]
    fn what_waits_is_looked_at_before_much_that_works() {
        let params = Params::default().validate().unwrap();
        let (own, cause) = led(1200, 12);
        let noise: Vec<Window> = led(1200, 0).0.into_iter().rev().collect();
        let works = (0..27).map(|id| Driver {
            id: DriverId(id),
            role: Role::Work,
            history: &noise[..],
        });
        let waits = Driver {
            id: DriverId(27),
            role: Role::Saturation,
            history: &cause[..],
        };
        let drivers: Vec<_> = works.chain([waits]).collect();
        let input = SeriesInput {
            step: 50_000,
            own: &own[..],
            drivers: &drivers,
        };
        let chosen = refit(&params, input).structure.drivers[0];
        assert_eq!(chosen.map(|driver| driver.id), Some(DriverId(27)));
    }

    #[test]
    fn a_leading_driver_makes_a_regression_worth_having() {
        let fitted = refit_led(2000, 12);
        assert!(fitted.regressions[0][Target::P99.index()].is_some());
    }

    #[test]
    fn too_little_history_fits_nothing() {
        for n in [0, 1, 2, 40] {
            let fitted = refit_led(n, 3);
            assert!(
                fitted.regressions.iter().flatten().all(Option::is_none),
                "{n}"
            );
        }
    }

    #[test]
    fn constants_and_gaps_fit_nothing_and_do_not_fail() {
        let params = Params::default().validate().unwrap();
        for window in [Window::MISSING, window_of(2.0)] {
            let own = vec![window; 900];
            let input = SeriesInput {
                step: 1,
                own: &own[..],
                drivers: &[],
            };
            let fitted = refit(&params, input);
            assert_eq!(fitted.structure, Structure::default());
            assert!(fitted.regressions.iter().flatten().all(Option::is_none));
        }
    }
}
