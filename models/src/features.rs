//! What the regression sees of a series at one origin.
//!
//! The same code writes the rows it is fitted on and the row it predicts from.
//! Every feature is a difference in model space, 0 where something is unknown,
//! so a series in a new unit, or twice as slow, has the same features.

use serde::{Deserialize, Serialize};

use crate::level::{FAST, LONG, Levels, MEDIUM, SLOW, SPANS, SeriesLevels};
use crate::saturation::Saturation;
use crate::season::{fourier, seasonal_values};
use crate::series::{DriverId, HORIZONS, History, SeriesInput, TARGETS, Target, Window};

/// Drivers that a series' regression uses at most.
pub(crate) const DRIVERS: usize = 3;
const OWN_FEATURES: usize = 7;
const DRIVER_FEATURES: usize = 3;
const SEASON_FEATURES: usize = 5;
/// Length of a row.
pub(crate) const FEATURES: usize = OWN_FEATURES + DRIVERS * DRIVER_FEATURES + SEASON_FEATURES;

/// Windows that a driver's value at a lag is the mean of.
const LAG_SMOOTH: usize = 3;

/// A driver that was found to go with the series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChosenDriver {
    pub(crate) id: DriverId,
    /// Windows by which it leads.
    pub(crate) lead: usize,
}

/// What was found in the history at the last refit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Structure {
    /// Season in windows.
    pub(crate) season: Option<usize>,
    pub(crate) drivers: [Option<ChosenDriver>; DRIVERS],
    /// What load does to latency.
    pub(crate) saturation: Option<Saturation>,
}

impl Structure {
    /// The histories of the chosen drivers; `None` where one is not in the input.
    pub(crate) fn drivers_in<'a, H: ?Sized>(
        &self,
        input: &SeriesInput<'a, H>,
    ) -> [Option<&'a H>; DRIVERS] {
        self.drivers.map(|chosen| {
            let id = chosen?.id;
            let driver = input.drivers.iter().find(|driver| driver.id == id)?;
            Some(driver.history)
        })
    }
}

/// The levels that follow a series and its drivers from window to window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tracks {
    pub(crate) own: SeriesLevels,
    /// Of each driver's p99.
    pub(crate) drivers: [Levels; DRIVERS],
}

impl Tracks {
    /// Takes the newest windows.
    pub(crate) fn update(
        &mut self,
        decays: &[f64; SPANS],
        own: &Window,
        drivers: &[Window; DRIVERS],
    ) {
        self.own.update(decays, own);
        for (levels, window) in self.drivers.iter_mut().zip(drivers) {
            let weight = window.weight(Target::P99);
            levels.update(decays, window.value(Target::P99).unwrap_or(0.0), weight);
        }
    }

    /// The part of a row that does not depend on history beyond the levels.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let levels = self.own.levels.map(|levels| levels.means());
        Snapshot {
            last: std::array::from_fn(|k| self.own.last[k].unwrap_or(levels[k][FAST])),
            levels,
            drivers: self.drivers.map(|levels| levels.means()),
        }
    }
}

/// Levels at one origin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Snapshot {
    pub(crate) last: [f64; TARGETS],
    pub(crate) levels: [[f64; SPANS]; TARGETS],
    drivers: [[f64; SPANS]; DRIVERS],
}

/// What lies ahead of one origin, by horizon, as far as the past tells it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ahead {
    /// Seasonal naive forecasts, NaN where there are none.
    pub(crate) seasonal: [[f64; TARGETS]; HORIZONS],
    /// The same for the origin itself.
    pub(crate) seasonal_now: [f64; TARGETS],
    fourier: [[f64; 4]; HORIZONS],
    /// Change of each driver that is still to reach the series.
    driver_change: [[f64; DRIVERS]; HORIZONS],
}

impl Ahead {
    /// Reads the histories, whose newest window is the origin at `step`.
    pub(crate) fn read<H: History + ?Sized, D: History + ?Sized>(
        structure: &Structure,
        horizons: &[usize; HORIZONS],
        step: u64,
        own: &H,
        drivers: &[Option<&D>; DRIVERS],
    ) -> Ahead {
        let mut ahead = Ahead {
            seasonal: [[f64::NAN; TARGETS]; HORIZONS],
            seasonal_now: [f64::NAN; TARGETS],
            fourier: [[0.0; 4]; HORIZONS],
            driver_change: [[0.0; DRIVERS]; HORIZONS],
        };
        if let Some(season) = structure.season {
            ahead.read_season(season, horizons, step, own);
        }
        for (d, chosen) in structure.drivers.iter().enumerate() {
            if let (Some(chosen), Some(history)) = (chosen, drivers[d])
                && chosen.lead > 0
            {
                let before = lagged_p99(history, chosen.lead);
                for (h, lead) in horizons.iter().enumerate() {
                    let after = lagged_p99(history, chosen.lead.saturating_sub(*lead));
                    ahead.driver_change[h][d] = finite_or_zero(after - before);
                }
            }
        }
        ahead
    }

    fn read_season<H: History + ?Sized>(
        &mut self,
        season: usize,
        horizons: &[usize; HORIZONS],
        step: u64,
        own: &H,
    ) {
        self.seasonal_now = seasonal_values(own, season, 0);
        let now = fourier(step, season);
        for (h, lead) in horizons.iter().enumerate() {
            self.seasonal[h] = seasonal_values(own, season, *lead);
            let then = fourier(step.wrapping_add(*lead as u64), season);
            self.fourier[h] = std::array::from_fn(|i| then[i] - now[i]);
        }
    }
}

/// Mean p99 over a few windows from `ago` backwards; NaN if none was observed.
fn lagged_p99<H: History + ?Sized>(history: &H, ago: usize) -> f64 {
    let (mut sum, mut weights) = (0.0, 0.0);
    for ago in ago..ago + LAG_SMOOTH {
        let window = history.window(ago);
        let weight = window.weight(Target::P99);
        if weight > 0.0 {
            sum += weight * f64::from(window.y[Target::P99.index()]);
            weights += weight;
        }
    }
    sum / weights
}

fn finite_or_zero(x: f64) -> f64 {
    if x.is_finite() { x } else { 0.0 }
}

/// The row of one target at one horizon.
pub(crate) fn row(
    snapshot: &Snapshot,
    ahead: &Ahead,
    target: Target,
    horizon: usize,
) -> [f64; FEATURES] {
    let k = target.index();
    let own = &snapshot.levels[k];
    let tail = &snapshot.levels[Target::P99.index()];
    let middle = &snapshot.levels[Target::P50.index()];
    // What a target does not see of itself: latency sees load, load sees latency.
    let other = match target {
        Target::Rate => &snapshot.levels[Target::P90.index()],
        _ => &snapshot.levels[Target::Rate.index()],
    };
    let mut row = [0.0; FEATURES];
    row[0] = snapshot.last[k] - own[FAST];
    row[1] = own[FAST] - own[MEDIUM];
    row[2] = own[MEDIUM] - own[SLOW];
    row[3] = own[SLOW] - own[LONG];
    row[4] = (tail[FAST] - middle[FAST]) - (tail[LONG] - middle[LONG]);
    row[5] = other[FAST] - other[MEDIUM];
    row[6] = other[MEDIUM] - other[LONG];
    for (d, driver) in snapshot.drivers.iter().enumerate() {
        let at = OWN_FEATURES + d * DRIVER_FEATURES;
        row[at] = driver[FAST] - driver[MEDIUM];
        row[at + 1] = driver[MEDIUM] - driver[LONG];
        row[at + 2] = ahead.driver_change[horizon][d];
    }
    let at = OWN_FEATURES + DRIVERS * DRIVER_FEATURES;
    row[at] = finite_or_zero(ahead.seasonal[horizon][k] - ahead.seasonal_now[k]);
    row[at + 1..].copy_from_slice(&ahead.fourier[horizon]);
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Noise, window_of};
    use crate::{Driver, Params, Role};

    fn rows_of(shift: f64) -> Vec<[f64; FEATURES]> {
        let params = Params::default().validate().unwrap();
        let mut noise = Noise::new(11);
        let own: Vec<Window> = (0..800)
            .map(|i| window_of(shift + (i as f64 / 60.0).sin() + 0.1 * noise.normal()))
            .collect();
        let driver: Vec<Window> = own
            .iter()
            .map(|w| window_of(f64::from(w.y[0]) * 2.0))
            .collect();
        let drivers = [Driver {
            id: DriverId(1),
            role: Role::Saturation,
            history: &driver[..],
        }];
        let input = SeriesInput {
            step: 1_000_000,
            own: &own[..],
            drivers: &drivers,
        };
        let structure = Structure {
            season: Some(360),
            drivers: [
                Some(ChosenDriver {
                    id: DriverId(1),
                    lead: 12,
                }),
                None,
                None,
            ],
            saturation: None,
        };
        let histories = structure.drivers_in(&input);
        let mut tracks = Tracks::default();
        for (window, driver) in own.iter().zip(&driver) {
            let drivers = [*driver, Window::MISSING, Window::MISSING];
            tracks.update(params.decays(), window, &drivers);
        }
        let horizons = params.horizon_windows();
        let ahead = Ahead::read(&structure, horizons, input.step, input.own, &histories);
        let snapshot = tracks.snapshot();
        Target::ALL
            .iter()
            .map(|target| row(&snapshot, &ahead, *target, 1))
            .collect()
    }

    #[test]
    fn a_series_in_another_unit_has_the_same_features() {
        for (a, b) in rows_of(0.0)
            .iter()
            .flatten()
            .zip(rows_of(1.5).iter().flatten())
        {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
        assert!(rows_of(0.0)[2].iter().filter(|x| **x != 0.0).count() >= 15);
    }

    #[test]
    fn nothing_known_is_a_row_of_zeros() {
        let structure = Structure {
            season: Some(30),
            ..Structure::default()
        };
        let none: [Option<&[Window]>; DRIVERS] = [None; DRIVERS];
        let horizons = *Params::default().validate().unwrap().horizon_windows();
        let ahead = Ahead::read(&structure, &horizons, 7, &[][..], &none);
        let row = row(&Tracks::default().snapshot(), &ahead, Target::P99, 0);
        let at = FEATURES - 4;
        assert!(row[..at].iter().all(|x| *x == 0.0), "{row:?}");
    }
}
