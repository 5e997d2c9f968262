//! Forecasts in model space, and what is learned when they come true.

use serde::{Deserialize, Serialize};

use crate::combination::isotonic;
use crate::ensemble::{
    Ahead, Belief, EXPERTS, Fixed, Lead, Observed, Outcome, Quantity, Says, Seasons, Trend,
    season_steps, share_of_drift, typical,
};
use crate::features::{self, Snapshot, Tracks, row};
use crate::forecast::QUANTILE_LEVELS;
use crate::level::FAST;
use crate::model::{Context, NoiseTrack};
use crate::params::ValidParams;
use crate::refit::Regressions;
use crate::saturation::Saturation;
use crate::series::{HORIZONS, TARGETS, Target, Window};
use crate::similar::Group;

/// What is believed of every target before it was seen: windows differ by a fifth,
/// or as much as those of similar series, …
const CHANGE_BELIEF: f64 = 0.2;
/// … and a difference below 1 % is within a histogram bucket.
const CHANGE_LEAST: f64 = 0.01;
/// Longest season in windows that is followed: a week of the shortest windows.
const SEASON_WINDOWS_MAX: usize = 604_800;
const DAY_SECS: u32 = 86_400;
/// Horizons that a stale series' uncertainty may grow to.
const STALE_MAX: f64 = 60.0;
/// Quantiles of a [`Point`].
const LEVELS: [f64; 5] = [0.025, 0.1, 0.5, 0.9, 0.975];

/// Targets that may be on their way. What the tail does is seen in p99; p99.9 of a
/// window is little more than its longest event.
const CARRIED: [Target; 2] = [Target::P99, Target::Rate];

/// The forecast of one target at one horizon in model space.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    pub(crate) median: f64,
    pub(crate) lower_80: f64,
    pub(crate) upper_80: f64,
    pub(crate) lower_95: f64,
    pub(crate) upper_95: f64,
    /// At [`QUANTILE_LEVELS`].
    pub(crate) quantiles: [f32; QUANTILE_LEVELS.len()],
}

impl Point {
    fn moved(self, by: f64) -> Point {
        Point {
            median: self.median + by,
            lower_80: self.lower_80 + by,
            upper_80: self.upper_80 + by,
            lower_95: self.lower_95 + by,
            upper_95: self.upper_95 + by,
            quantiles: self.quantiles.map(|quantile| quantile + by as f32),
        }
    }
}

/// What a forecast is made from, beside what is learned here.
pub(crate) struct Evidence<'a> {
    pub(crate) similar: Option<&'a Group>,
    pub(crate) tracks: &'a Tracks,
    pub(crate) noise: &'a [NoiseTrack; TARGETS],
    pub(crate) regressions: &'a Regressions,
    pub(crate) ahead: &'a features::Ahead,
    pub(crate) saturation: Option<&'a Saturation>,
}

/// All targets at all horizons.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outlook {
    quantities: [Quantity; TARGETS],
    trends: [Trend; CARRIED.len()],
    leads: [[Lead; HORIZONS]; TARGETS],
    seasons: Seasons<Fixed, TARGETS>,
}

/// What the forecasts of one target from one step have in common.
struct Origin {
    last: f64,
    unit: f64,
    typical: [f64; HORIZONS],
    credibility: [f64; EXPERTS],
}

impl Outlook {
    /// Heap bytes: the shapes of the seasons, a history of weeks.
    pub(crate) fn history_bytes(&self) -> usize {
        self.seasons.bytes()
    }

    /// Whether any forecast of this step would be followed.
    pub(crate) fn follows(&self, params: &ValidParams, step: u64) -> bool {
        params.ahead().iter().any(|ahead| ahead.follows(step))
    }

    /// The usual change of a target from window to window, once nothing believed is in
    /// it any more.
    pub(crate) fn known_change(&self, target: Target) -> Option<f64> {
        let quantity = &self.quantities[target.index()];
        quantity
            .is_known()
            .then(|| quantity.unit(&belief(target.index(), None)))
    }

    /// The highest value that a day or a week of a target has.
    pub(crate) fn highest(&self, params: &ValidParams, now: u64, target: Target) -> Option<f64> {
        let day = params.windows_in(DAY_SECS);
        self.seasons.highest(target.index(), now, day)
    }

    /// What was learned of a target at a horizon.
    pub(crate) fn lead(&self, k: usize, h: usize) -> &Lead {
        &self.leads[k][h]
    }

    /// Learns from the forecasts of a window, and then from the window.
    pub(crate) fn learn(
        &mut self,
        params: &ValidParams,
        step: u64,
        window: &Window,
        context: Context<'_>,
    ) {
        if self.seasons.is_empty() {
            self.seasons = Seasons::new(season_steps(params.get().step_secs), SEASON_WINDOWS_MAX);
        }
        let shapes = self.seasons.shapes(step);
        let mut observed = [Observed::default(); TARGETS];
        for target in Target::ALL {
            let (k, weight) = (target.index(), window.weight(target));
            if let Some(value) = window.value(target).filter(|_| weight > 0.0) {
                let seen = (value, f64::from(window.completeness));
                self.settle(params, k, step, seen, context.similar);
                let size = self.seasons.size(k, step, step);
                observed[k] = Observed {
                    value,
                    weight,
                    trust: self.quantities[k].learn(
                        value,
                        weight,
                        (&shapes[k], size),
                        context.incident,
                    ),
                };
            }
        }
        self.seasons.learn(step, &observed);
        for (trend, target) in self.trends.iter_mut().zip(CARRIED) {
            let observed = &observed[target.index()];
            if observed.weight > 0.0 {
                trend.learn(observed.value);
            } else {
                trend.pass();
            }
        }
    }

    fn settle(
        &mut self,
        params: &ValidParams,
        k: usize,
        step: u64,
        (value, weight): (f64, f64),
        similar: Option<&Group>,
    ) {
        let weight = weight.clamp(0.0, 1.0);
        let outcome = Outcome {
            step,
            value,
            weight,
            unit: self.quantities[k].unit(&belief(k, similar)),
            memory: self.seasons.memory(step),
            stands_still: self.quantities[k].stands_still(value),
        };
        for (h, (ahead, lead)) in params.ahead().iter().zip(&mut self.leads[k]).enumerate() {
            let similar = similar.map(|group| group.lead(k, h));
            if let Some(size) = lead.settle(*ahead, &outcome, similar) {
                let share = weight / HORIZONS as f64;
                self.seasons.learn_size(k, step, size, share);
            }
        }
    }

    /// Forecasts every point, and remembers those that are followed.
    pub(crate) fn forecast(
        &mut self,
        params: &ValidParams,
        step: u64,
        evidence: &Evidence<'_>,
    ) -> [[Option<Point>; TARGETS]; HORIZONS] {
        let snapshot = evidence.tracks.snapshot();
        let origins: [Option<Origin>; TARGETS] =
            std::array::from_fn(|k| self.origin(params, k, evidence.similar));
        let mut points = [[None; TARGETS]; HORIZONS];
        for (h, (ahead, points)) in params.ahead().iter().zip(&mut points).enumerate() {
            let shapes = self.seasons.shapes(step + ahead.steps as u64);
            // By how much p99 is carried.
            let mut tail = 0.0;
            for (k, point) in points.iter_mut().enumerate() {
                if let Some(origin) = &origins[k] {
                    let regression = regression(evidence, &snapshot, k, h);
                    let says = self.quantities[k].says(&shapes[k], regression);
                    *point = Some(self.point(
                        (step, *ahead),
                        (k, h),
                        (origin, &mut tail),
                        &says,
                        evidence,
                    ));
                }
            }
            if let Some(saturation) = evidence.saturation {
                lift(points, saturation, &snapshot);
            }
            ascend(points);
        }
        points
    }

    fn point(
        &mut self,
        (step, ahead): (u64, Ahead),
        (k, h): (usize, usize),
        (origin, tail): (&Origin, &mut f64),
        says: &Says,
        evidence: &Evidence<'_>,
    ) -> Point {
        let size = self.seasons.size(k, step, step + ahead.steps as u64);
        let known = self.quantities[k].is_known();
        let lead = &mut self.leads[k][h];
        let opinion = lead.opinion(
            (says, &origin.credibility),
            origin.last,
            origin.typical[h],
            origin.unit,
            size,
        );
        // What is learned is what experts are worth: a trend is no habit.
        if ahead.follows(step) {
            lead.follow((step, ahead), says, &opinion, known);
        }
        let drift = match Target::ALL[k] {
            Target::P99 => {
                *tail = opinion.drift(&self.trends[0], ahead.steps);
                *tail
            }
            Target::P999 => *tail,
            Target::Rate => opinion.drift(&self.trends[1], ahead.steps),
            Target::P50 | Target::P90 => 0.0,
        };
        let scale = observed_scale(opinion.scale, ahead, k, evidence);
        let at = |level, offset| opinion.median + scale * offset + share_of_drift(drift, level);
        let similar = evidence.similar.map(|group| group.lead(k, h));
        let offsets = lead.offsets(ahead, QUANTILE_LEVELS, similar);
        let quantiles = std::array::from_fn(|i| at(QUANTILE_LEVELS[i], offsets[i]) as f32);
        let offsets = lead.offsets(ahead, LEVELS, similar);
        let at: [f64; LEVELS.len()] = std::array::from_fn(|i| at(LEVELS[i], offsets[i]));
        Point {
            lower_95: at[0],
            lower_80: at[1],
            median: at[2],
            upper_80: at[3],
            upper_95: at[4],
            quantiles,
        }
    }

    fn origin(&self, params: &ValidParams, k: usize, similar: Option<&Group>) -> Option<Origin> {
        let quantity = &self.quantities[k];
        let belief = belief(k, similar);
        let unit = quantity.unit(&belief);
        let leads = params.ahead().iter().zip(&self.leads[k]).enumerate();
        let leads = leads.map(|(h, (ahead, lead))| {
            let similar = similar.map(|group| group.lead(k, h));
            (*ahead, lead, similar)
        });
        let mut typical = typical(leads, unit);
        Some(Origin {
            last: quantity.last()?,
            unit,
            typical: std::array::from_fn(|_| typical.next().unwrap_or(unit)),
            credibility: quantity.credibility(&belief),
        })
    }
}

/// What is believed of a target before it was seen.
fn belief(k: usize, similar: Option<&Group>) -> Belief {
    let change = similar.and_then(|group| group.change(k));
    Belief {
        change: change.unwrap_or(CHANGE_BELIEF),
        least: CHANGE_LEAST,
    }
}

/// The scale of a forecast that starts from windows seen worse than usual.
fn observed_scale(scale: f64, ahead: Ahead, k: usize, evidence: &Evidence<'_>) -> f64 {
    let (own, noise) = (&evidence.tracks.own, &evidence.noise[k]);
    let usual = noise.sampling_usual.or(0.0);
    let coarser = (noise.sampling_recent.or(0.0) - usual).max(0.0);
    let lead = ahead.steps as f64;
    let stale = ((lead + f64::from(own.stale_windows[k])) / lead).min(STALE_MAX);
    let incomplete = 2.0 - own.completeness.or(0.0).clamp(0.0, 1.0);
    ((scale * scale * stale + coarser) * incomplete).sqrt()
}

/// What the regression expects; NaN if there is none.
fn regression(evidence: &Evidence<'_>, snapshot: &Snapshot, k: usize, h: usize) -> f64 {
    match &evidence.regressions[h][k] {
        Some(regression) => {
            let row = row(snapshot, evidence.ahead, Target::ALL[k], h);
            snapshot.levels[k][FAST] + regression.predict(&row)
        }
        None => f64::NAN,
    }
}

/// Latencies at the load that is forecast, where that is known to matter.
fn lift(points: &mut [Option<Point>; TARGETS], saturation: &Saturation, snapshot: &Snapshot) {
    let median = |point: &Option<Point>| point.map_or(f64::NAN, |point| point.median);
    let mut medians = points.each_ref().map(median);
    saturation.lift(&mut medians, &snapshot.levels);
    for (point, median) in points.iter_mut().zip(medians) {
        *point = point.map(|point| point.moved(median - point.median));
    }
}

/// Makes the medians of quantiles ascend, and takes their intervals along.
fn ascend(points: &mut [Option<Point>; TARGETS]) {
    let [Some(p50), Some(p90), Some(p99), Some(p999), _] = points else {
        return;
    };
    let quantiles = [p50, p90, p99, p999];
    let medians = isotonic(quantiles.each_ref().map(|point| point.median));
    for (point, median) in quantiles.into_iter().zip(medians) {
        *point = point.moved(median - point.median);
    }
}
