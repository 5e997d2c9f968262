//! The model of one series: what it has learned, and what it expects.
//!
//! [`SeriesModel::refresh`] runs at every window: it settles the forecasts that
//! have come due, follows the levels, and forecasts anew, at constant cost.
//! [`SeriesModel::refit`] runs now and then over the whole history.

use serde::{Deserialize, Serialize};

use crate::anomaly::Detector;
use crate::change_point::{ChangePoint, Runs, Usual, WATCHED};
use crate::conformal::SD_PER_MEAN_ABS;
use crate::features::{Ahead, DRIVERS, Structure, Tracks};
use crate::forecast::{Forecast, Interval};
use crate::level::{FAST, LONG, Level, MEDIUM, SLOW, SPAN_SECS};
use crate::outlook::{Outlook, Point};
use crate::params::ValidParams;
use crate::refit::{Regressions, refit};
use crate::sampling::window_variance;
use crate::series::{HORIZONS, History, SeriesInput, TARGETS, Target, Window};
use crate::similar::Group;

/// Missed windows that are caught up with; a longer gap is a new start for
/// forecasts in flight, while levels keep.
const CATCH_UP_WINDOWS_MAX: u64 = 360;
/// Windows with data before the first refit.
const FIRST_REFIT_WINDOWS: u32 = 60;
/// Belief about the mean absolute one-step residual, and its weight in windows.
const NOISE_BELIEF: (f64, f64) = (0.2, 6.0);
/// A residual teaches the noise as at most so many of it.
const NOISE_CLIP: f64 = 6.0;
/// Interval ends beyond e^`LOG_MAX` would not be finite in 32 bits.
const LOG_MAX: f64 = 80.0;
/// Share of the squared change from window to window that is noise at least.
const NOISE_SHARE_MIN: f64 = 0.02;
/// Distances from the slow level below this are within a histogram bucket.
const DRIFT_MIN: f64 = 0.03;
/// Seconds for which a change point is that of one event, whatever else changes.
const CHANGE_QUIET_SECS: u32 = 900;
/// Seconds for which the size of a change is measured.
const CHANGE_MEASURE_SECS: u32 = 180;
/// Seconds for which a change point is reported.
const CHANGE_KEEP_SECS: u32 = 7200;

/// How noisy a target is from window to window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct NoiseTrack {
    /// Sampling variance over 3 minutes and over an hour.
    pub(crate) sampling_recent: Level,
    pub(crate) sampling_usual: Level,
    /// Mean absolute distance from the slow level.
    drift: Level,
    /// Mean absolute change from one observed window to the next, and over two.
    jitter: Level,
    jitter_two: Level,
    /// The observed value before the last.
    last_but_one: Option<f32>,
}

impl Default for NoiseTrack {
    fn default() -> Self {
        let belief = Level::believed(NOISE_BELIEF.0, NOISE_BELIEF.1);
        NoiseTrack {
            sampling_recent: Level::default(),
            sampling_usual: Level::default(),
            drift: belief,
            jitter: belief,
            jitter_two: belief,
            last_but_one: None,
        }
    }
}

/// An incident that is open for more windows is how it is now.
const INCIDENT_WINDOWS_MAX: u16 = 360;

/// What a refit found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefitReport {
    /// The season in windows, if there is one.
    pub season_windows: Option<usize>,
    /// Drivers in use.
    pub drivers: usize,
    /// Regressions worth having, of `HORIZONS · TARGETS`.
    pub regressions: usize,
}

/// What is known of a series beside its histories.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context<'a> {
    /// What similar series have learned, for as long as this one has not.
    pub similar: Option<&'a Group>,
    /// Whether an incident of it is open: what it does then is not what it usually does,
    /// unless it goes on for an hour of windows.
    pub incident: bool,
    /// How unusual the newest window is as a whole, where its histogram is known
    /// ([`crate::wasserstein`]); else 0.
    pub distribution_score: f64,
}

/// The model of one series. At most 16 KB, and 8 KB for what it keeps of past
/// days and weeks; serialisable, deterministic.
///
/// ```
/// use honeyguide_models::{Params, SeriesInput, SeriesModel, Target, Window};
///
/// let params = Params::default().validate()?;
/// // p50 1 ms … p99.9 8 ms at 100 events/s, in model space.
/// let y = [1e-3f32.ln(), 2e-3f32.ln(), 4e-3f32.ln(), 8e-3f32.ln(), 100f32.ln_1p()];
/// let history = vec![Window { y, samples: 1000.0, completeness: 1.0 }; 60];
///
/// let mut model = SeriesModel::new();
/// let mut forecast = None;
/// for (i, _) in history.iter().enumerate() {
///     let own = &history[..=i];
///     let input = SeriesInput { step: 1000 + i as u64, own, drivers: &[] };
///     forecast = Some(model.refresh(&params, input));
/// }
/// let forecast = forecast.unwrap();
/// let p99 = forecast.point(2, Target::P99).unwrap(); // in 15 minutes
/// assert!((p99.yhat - 4e-3).abs() < 1e-4);
/// assert!(p99.lower_95 < p99.yhat && p99.yhat < p99.upper_95);
/// assert!(forecast.anomaly_score < 1.0);
/// # Ok::<(), honeyguide_models::ParamsError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SeriesModel {
    /// The newest window that was learned from.
    step: Option<u64>,
    learned_windows: u32,
    windows_since_refit: u32,
    /// Windows that an incident has been open for; 0 for none.
    incident_windows: u16,
    refitted: bool,
    tracks: Tracks,
    noise: [NoiseTrack; TARGETS],
    structure: Structure,
    regressions: Regressions,
    outlook: Outlook,
    detector: Detector,
    anomaly_score: f64,
    runs: [Runs; WATCHED.len()],
    change_point: Option<ChangePoint>,
}

/// A model must fit beside the history of its series.
const _: () = assert!(size_of::<SeriesModel>() <= 16 * 1024);

impl SeriesModel {
    /// A model that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the newest window (and those missed since the last refresh, up to
    /// an hour's worth) and forecasts.
    ///
    /// The same step again forecasts again and learns nothing; so does an older
    /// step. Nothing is allocated after the first. O(1) per window; seasonal and lagged values
    /// are read from the histories.
    pub fn refresh<H: History + ?Sized>(
        &mut self,
        params: &ValidParams,
        input: SeriesInput<'_, H>,
    ) -> Forecast {
        self.refresh_in(params, input, Context::default())
    }

    /// [`Self::refresh`] with what is known beside the histories.
    pub fn refresh_in<H: History + ?Sized>(
        &mut self,
        params: &ValidParams,
        input: SeriesInput<'_, H>,
        context: Context<'_>,
    ) -> Forecast {
        let drivers = self.structure.drivers_in(&input);
        let missed = self.missed(&input);
        for ago in (1..missed).rev() {
            let past = Past {
                history: input.own,
                ago: ago as usize,
            };
            let drivers = drivers.map(|driver| {
                driver.map(|history| Past {
                    history,
                    ago: ago as usize,
                })
            });
            let drivers = drivers.each_ref().map(Option::as_ref);
            let step = input.step - ago;
            self.learn(params, step, (&past, &drivers), context);
            if self.outlook.follows(params, step) {
                self.forecast(params, step, (&past, &drivers), context);
            }
        }
        if missed > 0 {
            self.learn(params, input.step, (input.own, &drivers), context);
        }
        let points = self.forecast(params, input.step, (input.own, &drivers), context);
        self.answer(&input.own.window(0), &points, context.distribution_score)
    }

    /// Whether enough was seen since the last refit for another one, and no incident is
    /// open that it would take for usual.
    pub fn refit_due(&self, params: &ValidParams) -> bool {
        if self.is_frozen() {
            return false;
        }
        let needed = if self.refitted {
            params.get().refit_windows
        } else {
            FIRST_REFIT_WINDOWS
        };
        self.learned_windows >= FIRST_REFIT_WINDOWS && self.windows_since_refit >= needed
    }

    /// Learns season, drivers and regressions from the whole history. Call it
    /// after [`Self::refresh`] of the same step.
    ///
    /// O(n) in the windows of history (at most two days at 10 s are read) plus
    /// 25 least-squares fits of at most 240 rows × 21 columns.
    pub fn refit<H: History + ?Sized>(
        &mut self,
        params: &ValidParams,
        input: SeriesInput<'_, H>,
    ) -> RefitReport {
        let fitted = refit(params, input);
        self.structure = fitted.structure;
        self.regressions = fitted.regressions;
        self.tracks.drivers = fitted.drivers;
        self.windows_since_refit = 0;
        self.refitted = true;
        RefitReport {
            season_windows: self.structure.season,
            drivers: self.structure.drivers.iter().flatten().count(),
            regressions: self.regressions.iter().flatten().flatten().count(),
        }
    }

    /// Windows with data that it has learned from.
    pub(crate) fn history_windows(&self) -> u32 {
        self.learned_windows
    }

    /// The level of a target over an hour.
    pub(crate) fn level(&self, target: Target) -> Option<f64> {
        self.tracks.own.levels[target.index()].get(LONG)
    }

    pub(crate) fn outlook(&self) -> &Outlook {
        &self.outlook
    }

    /// As if load said nothing of latency, until the next refit.
    #[cfg(test)]
    pub(crate) fn forget_saturation(&mut self) {
        self.structure.saturation = None;
    }

    /// The rate that is usual at the busiest time of the day or the week, in model space,
    /// once a whole one was seen.
    pub fn busiest(&self, params: &ValidParams) -> Option<f64> {
        self.outlook.highest(params, self.step?, Target::Rate)
    }

    /// Memory of the model in bytes, without what it keeps of past seasons.
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
    }

    /// Memory in bytes of what it keeps of past seasons, beside its own.
    pub fn history_bytes(&self) -> usize {
        self.outlook.history_bytes()
    }

    /// Windows to learn from, the newest included.
    fn missed<H: History + ?Sized>(&self, input: &SeriesInput<'_, H>) -> u64 {
        let available = (input.own.len() as u64).min(CATCH_UP_WINDOWS_MAX);
        match self.step {
            Some(step) => input.step.saturating_sub(step).min(available),
            None => available.min(input.step.saturating_add(1)),
        }
    }

    /// Learns from the newest window of the histories.
    fn learn<H: History + ?Sized, D: History + ?Sized>(
        &mut self,
        params: &ValidParams,
        step: u64,
        (own, drivers): (&H, &[Option<&D>; DRIVERS]),
        context: Context<'_>,
    ) {
        let window = own.window(0);
        let drivers = drivers.map(|driver| driver.map_or(Window::MISSING, |h| h.window(0)));
        let before = self.tracks.own;
        let context = self.attend(context);
        self.outlook.learn(params, step, &window, context);
        self.tracks.update(params.decays(), &window, &drivers);
        let extra: [f64; TARGETS] = Target::ALL
            .map(|target| self.noise[target.index()].learn(params, target, &window, &before));
        let levels = (&before, &self.tracks.own);
        self.anomaly_score = self.detector.update(params, &window, levels, &extra);
        self.find_change(params, &window, &before);
        self.step = Some(step);
        self.learned_windows = self
            .learned_windows
            .saturating_add(u32::from(window.completeness > 0.0));
        self.windows_since_refit = self.windows_since_refit.saturating_add(1);
    }

    /// Counts how long an incident has been open; one that is too long is none.
    fn attend<'a>(&mut self, context: Context<'a>) -> Context<'a> {
        self.incident_windows = match context.incident {
            true => self.incident_windows.saturating_add(1),
            false => 0,
        };
        Context {
            incident: self.is_frozen(),
            ..context
        }
    }

    fn is_frozen(&self) -> bool {
        (1..=INCIDENT_WINDOWS_MAX).contains(&self.incident_windows)
    }

    fn find_change(
        &mut self,
        params: &ValidParams,
        window: &Window,
        before: &crate::level::SeriesLevels,
    ) {
        self.age_change(params);
        for target in Target::ALL {
            let k = target.index();
            let levels = &before.levels[k];
            let (Some(value), Some(slow)) = (window.value(target), levels.get(SLOW)) else {
                continue;
            };
            let usual = Usual {
                level: levels.get(LONG).unwrap_or(slow),
                sd: self.noise[k].drift_sd(),
            };
            self.noise[k].learn_drift(params, value - slow);
            let Some(watched) = WATCHED.iter().position(|watched| *watched == target) else {
                continue;
            };
            let Some(windows_ago) = self.runs[watched].update(value, usual) else {
                continue;
            };
            let quiet_windows = params.windows_in(CHANGE_QUIET_SECS) as u32;
            let found = self.change(params, target, windows_ago);
            // One event changes several targets: the largest change names it.
            let larger = self.change_point.is_none_or(|known| {
                known.windows_ago > quiet_windows || known.log_change.abs() < found.log_change.abs()
            });
            if larger {
                self.change_point = Some(found);
            }
        }
    }

    /// A young change is measured again, as its new level becomes clear.
    fn age_change(&mut self, params: &ValidParams) {
        let Some(known) = self.change_point else {
            return;
        };
        let windows_ago = known.windows_ago.saturating_add(1);
        self.change_point = match windows_ago as usize {
            young if young <= params.windows_in(CHANGE_MEASURE_SECS) => {
                Some(self.change(params, known.target, windows_ago))
            }
            old if old > params.windows_in(CHANGE_KEEP_SECS) => None,
            _ => Some(ChangePoint {
                windows_ago,
                ..known
            }),
        };
    }

    fn change(&self, params: &ValidParams, target: Target, windows_ago: u32) -> ChangePoint {
        let levels = self.tracks.own.levels[target.index()].means();
        // Both levels have taken part of the change by now. When the slow one has most
        // of it, what is left between them is noise.
        let windows = (windows_ago as usize).min(params.windows_in(SPAN_SECS[SLOW] as u32));
        let kept = |span: usize| params.decays()[span].powi(windows as i32 + 1);
        ChangePoint {
            target,
            windows_ago,
            log_change: ((levels[FAST] - levels[SLOW]) / (kept(SLOW) - kept(FAST))) as f32,
        }
    }

    /// Forecasts all points from the newest window of the histories, and
    /// remembers those whose outcome it will learn from.
    fn forecast<H: History + ?Sized, D: History + ?Sized>(
        &mut self,
        params: &ValidParams,
        step: u64,
        (own, drivers): (&H, &[Option<&D>; DRIVERS]),
        context: Context<'_>,
    ) -> [[Option<Point>; TARGETS]; HORIZONS] {
        let horizons = params.horizon_windows();
        let ahead = Ahead::read(&self.structure, horizons, step, own, drivers);
        self.outlook.forecast(
            params,
            step,
            &crate::outlook::Evidence {
                similar: context.similar,
                tracks: &self.tracks,
                noise: &self.noise,
                regressions: &self.regressions,
                ahead: &ahead,
                saturation: self.structure.saturation.as_ref(),
            },
        )
    }

    fn answer(
        &self,
        window: &Window,
        points: &[[Option<Point>; TARGETS]; HORIZONS],
        distribution_score: f64,
    ) -> Forecast {
        Forecast {
            points: points.map(|row| {
                Target::ALL.map(|target| row[target.index()].map(|point| interval(target, &point)))
            }),
            quantiles: points.map(|row| row.map(|point| point.map(|point| point.quantiles))),
            y: Target::ALL.map(|target| window.value(target).map(|y| target.to_natural(y) as f32)),
            anomaly_score: self.anomaly_score.max(distribution_score) as f32,
            change_point: self.change_point,
            history_windows: self.learned_windows,
            noise_sd: self.noise.map(|noise| noise.jitter_sd() as f32),
        }
    }
}

impl NoiseTrack {
    /// Learns from a window; returns by how much its sampling variance exceeds
    /// the usual.
    fn learn(
        &mut self,
        params: &ValidParams,
        target: Target,
        window: &Window,
        before: &crate::level::SeriesLevels,
    ) -> f64 {
        let Some(value) = window.value(target).filter(|_| window.weight(target) > 0.0) else {
            return 0.0;
        };
        let (medium, long) = (params.decays()[MEDIUM], params.decays()[LONG]);
        let sampling = window_variance(target, window);
        let extra = (sampling - self.sampling_usual.or(sampling)).max(0.0);
        self.sampling_recent.update(medium, sampling, 1.0);
        self.sampling_usual.update(long, sampling, 1.0);
        if let Some(last) = before.last[target.index()] {
            let usual = self.jitter.or(NOISE_BELIEF.0).max(1e-3);
            let change = (value - last).abs().min(NOISE_CLIP * usual);
            self.jitter.update(long, change, 1.0);
            if let Some(earlier) = self.last_but_one.map(f64::from) {
                let usual = self.jitter_two.or(NOISE_BELIEF.0).max(1e-3);
                let change = (value - earlier).abs().min(NOISE_CLIP * usual);
                self.jitter_two.update(long, change, 1.0);
            }
            self.last_but_one = Some(last as f32);
        }
        extra
    }

    /// Standard deviation of what is gone after one window. Changes of what
    /// lasts add up, V₁ = 2ν + q over one window and V₂ = 2ν + 2q over two, so
    /// the noise is ν = V₁ − V₂/2: all of it for independent windows, none for
    /// a random walk.
    fn jitter_sd(&self) -> f64 {
        let [one, two] = [self.jitter, self.jitter_two].map(|jitter| {
            let change = jitter.or(NOISE_BELIEF.0);
            change * change
        });
        SD_PER_MEAN_ABS * (one - 0.5 * two).max(NOISE_SHARE_MIN * one).sqrt()
    }

    /// Usual distance from the slow level, as an sd.
    pub(crate) fn drift_sd(&self) -> f64 {
        SD_PER_MEAN_ABS * self.drift.or(NOISE_BELIEF.0).max(DRIFT_MIN)
    }

    /// Learns a distance from the slow level, three times the usual at most.
    fn learn_drift(&mut self, params: &ValidParams, distance: f64) {
        let most = 3.0 * self.drift.or(NOISE_BELIEF.0).max(DRIFT_MIN);
        self.drift
            .update(params.decays()[LONG], distance.abs().min(most), 1.0);
    }
}

/// In natural units; nested whatever rounding does.
fn interval(target: Target, point: &Point) -> Interval {
    let natural = |value: f64| target.to_natural(value.clamp(-LOG_MAX, LOG_MAX)) as f32;
    let yhat = natural(point.median);
    let lower_80 = natural(point.lower_80).min(yhat);
    let upper_80 = natural(point.upper_80).max(yhat);
    Interval {
        yhat,
        lower_80,
        upper_80,
        lower_95: natural(point.lower_95).min(lower_80),
        upper_95: natural(point.upper_95).max(upper_80),
    }
}

/// A history as it was `ago` windows earlier.
struct Past<'a, H: ?Sized> {
    history: &'a H,
    ago: usize,
}

impl<H: History + ?Sized> History for Past<'_, H> {
    fn len(&self) -> usize {
        self.history.len().saturating_sub(self.ago)
    }

    fn window(&self, ago: usize) -> Window {
        self.history.window(ago.saturating_add(self.ago))
    }

    fn value(&self, ago: usize, target: Target) -> Option<f64> {
        self.history.value(ago.saturating_add(self.ago), target)
    }
}

#[cfg(test)]
mod tests;
