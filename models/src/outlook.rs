//! Forecasts in model space, and what is learned when they come true.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::combination::{
    Combination, EXPERTS, KEEP, LEVELS, PERSISTENCE, REGRESSION, SEASONAL, SEASONAL_SHIFTED,
    isotonic,
};
use crate::conformal::{Calibration, SCALE_MIN};
use crate::features::{Ahead, Snapshot, Tracks, row};
use crate::forecast::QUANTILE_LEVELS;
use crate::level::{FAST, LONG, SLOW};
use crate::model::NoiseTrack;
use crate::params::{IN_FLIGHT, ValidParams};
use crate::refit::Regressions;
use crate::saturation::Saturation;
use crate::series::{HORIZONS, TARGETS, Target, Window};

/// Prior sd of the shortest horizon in model space: a window around its level,
/// and a minute of drift.
const PRIOR_SD: f64 = 0.5;
/// A horizon's prior sd is that of the next shorter one times this power of
/// their ratio: half-way between no growth (a stationary series) and √time (a
/// random walk). From nothing it is 1.4 at 60 minutes: a factor of 20 either way
/// at 95 %.
const PRIOR_GROWTH: f64 = 0.25;
/// The share of a series' distance from its hourly level by which it may
/// return, on top of its usual changes, by horizon: it widens the interval on
/// that side only.
const RETURN: [f64; HORIZONS] = [0.1, 0.2, 0.3, 0.35, 0.4];
/// An expert that is so many usual distances from the present is believed a
/// quarter.
const CREDIBLE_SDS: f64 = 2.5;
/// The shifted season agrees with the present by construction; others must not
/// lose their say to it for that.
const SHIFTED_CREDIBILITY: f64 = 0.3;
/// The residuals' recent over usual size may scale intervals this far.
const RESTLESS: (f64, f64) = (0.5, 4.0);
/// Horizons that a stale series' uncertainty may grow to.
const STALE_MAX: f64 = 60.0;

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

/// What a forecast is made from.
pub(crate) struct Evidence<'a> {
    pub(crate) tracks: &'a Tracks,
    pub(crate) noise: &'a [NoiseTrack; TARGETS],
    pub(crate) regressions: &'a Regressions,
    pub(crate) ahead: &'a Ahead,
    pub(crate) saturation: Option<&'a Saturation>,
}

/// A model-space number in 1/1024, or nothing: forecasts in flight need no
/// more than 0.1 %, and there are hundreds per series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Fixed(i16);

impl Fixed {
    const NONE: Fixed = Fixed(i16::MIN);

    fn new(value: f64) -> Fixed {
        if value.is_nan() {
            return Fixed::NONE;
        }
        Fixed((value * 1024.0).round().clamp(-32767.0, 32767.0) as i16)
    }

    /// NaN for nothing.
    fn get(self) -> f64 {
        if self == Fixed::NONE {
            f64::NAN
        } else {
            f64::from(self.0) / 1024.0
        }
    }
}

/// Announced sds of residuals below and above the forecast.
type Sides = [f64; 2];

/// One target of a forecast in flight.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Claim {
    median: Fixed,
    scales: [Fixed; 2],
    experts: [Fixed; EXPERTS],
}

/// A forecast whose outcome will be learned from at the step `due`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct InFlight {
    due: u64,
    claims: [Claim; TARGETS],
}

/// Calibration, combination and forecasts in flight of all points.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outlook {
    calibrations: [[Calibration; TARGETS]; HORIZONS],
    combinations: [[Combination; TARGETS]; HORIZONS],
    in_flight: [VecDeque<InFlight>; HORIZONS],
}

impl Default for Outlook {
    fn default() -> Self {
        Outlook {
            calibrations: std::array::from_fn(|_| std::array::from_fn(|_| Calibration::default())),
            combinations: Default::default(),
            // One more than are in flight, so that a tick never allocates.
            in_flight: std::array::from_fn(|_| VecDeque::with_capacity(IN_FLIGHT + 1)),
        }
    }
}

impl Outlook {
    /// Memory of the forecasts in flight.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.in_flight
            .iter()
            .map(|queue| queue.capacity() * size_of::<InFlight>())
            .sum()
    }

    /// Whether any forecast of this step would be followed.
    pub(crate) fn follows(&self, params: &ValidParams, step: u64) -> bool {
        params
            .followed_every()
            .iter()
            .any(|every| step.is_multiple_of(*every))
    }

    /// Learns from the forecasts that are due at `step`.
    pub(crate) fn settle(&mut self, step: u64, window: &Window) {
        for h in 0..HORIZONS {
            while let Some(forecast) = self.in_flight[h].pop_front_if(|f| f.due <= step) {
                if forecast.due == step {
                    self.settle_one(h, &forecast.claims, window);
                }
            }
        }
    }

    fn settle_one(&mut self, h: usize, claims: &[Claim; TARGETS], window: &Window) {
        let weight = f64::from(window.completeness).clamp(0.0, 1.0);
        for target in Target::ALL {
            let k = target.index();
            let claim = &claims[k];
            if let Some(value) = window.value(target)
                && claim.median != Fixed::NONE
            {
                let residual = value - claim.median.get();
                let scale = claim.scales[usize::from(residual > 0.0)].get();
                self.calibrations[h][k].settle(residual, scale, weight);
                let experts = claim.experts.map(Fixed::get);
                self.combinations[h][k].settle(&experts, value, weight, KEEP);
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
        let scales: [[Sides; HORIZONS]; TARGETS] =
            std::array::from_fn(|k| self.scales(params, evidence, k));
        let credibility = Target::ALL.map(|target| credibility(evidence, &snapshot, target));
        let mut points = [[None; TARGETS]; HORIZONS];
        for (h, lead) in params.horizon_windows().iter().enumerate() {
            let experts = Target::ALL.map(|target| experts(evidence, &snapshot, target, h));
            let mut medians = self.medians(h, &experts, &credibility);
            if let Some(saturation) = evidence.saturation {
                saturation.lift(&mut medians, &snapshot.levels);
            }
            let scales: [Sides; TARGETS] = std::array::from_fn(|k| scales[k][h]);
            points[h] = std::array::from_fn(|k| {
                let median = medians[k].is_finite().then_some(medians[k])?;
                Some(point(median, scales[k], &self.calibrations[h][k]))
            });
            if step.is_multiple_of(params.followed_every()[h]) {
                self.follow(h, step.saturating_add(*lead as u64), |k| Claim {
                    median: Fixed::new(medians[k]),
                    scales: scales[k].map(|scale| Fixed::new(scale.max(SCALE_MIN))),
                    experts: experts[k].map(Fixed::new),
                });
            }
        }
        points
    }

    /// The same step twice is followed once.
    fn follow(&mut self, h: usize, due: u64, claim: impl FnMut(usize) -> Claim) {
        let in_flight = &mut self.in_flight[h];
        if in_flight.back().is_some_and(|newest| newest.due >= due) {
            return;
        }
        if in_flight.len() > IN_FLIGHT {
            in_flight.pop_front();
        }
        in_flight.push_back(InFlight {
            due,
            claims: std::array::from_fn(claim),
        });
    }

    /// Combined forecasts by target; NaN where there is none. Quantiles ascend.
    fn medians(
        &self,
        h: usize,
        experts: &[[f64; EXPERTS]; TARGETS],
        credibility: &[[f64; EXPERTS]; TARGETS],
    ) -> [f64; TARGETS] {
        let mut medians: [f64; TARGETS] = std::array::from_fn(|k| {
            let combination = &self.combinations[h][k];
            combination
                .combine(&experts[k], &credibility[k])
                .unwrap_or(f64::NAN)
        });
        let latencies = [medians[0], medians[1], medians[2], medians[3]];
        if latencies.iter().all(|median| median.is_finite()) {
            medians[..4].copy_from_slice(&isotonic(latencies));
        }
        medians
    }

    /// The sds that a target's forecasts announce, by horizon and side.
    fn scales(&self, params: &ValidParams, evidence: &Evidence<'_>, k: usize) -> [Sides; HORIZONS] {
        let (own, noise) = (&evidence.tracks.own, &evidence.noise[k]);
        let usual_sampling = noise.sampling_usual.or(0.0);
        let coarser = (noise.sampling_recent.or(0.0) - usual_sampling).max(0.0);
        let restless = noise.recent.or(1.0) / noise.usual.or(1.0).max(1e-6);
        let restless = restless.sqrt().clamp(RESTLESS.0, RESTLESS.1);
        let away = match (own.levels[k].get(FAST), own.levels[k].get(LONG)) {
            (Some(fast), Some(long)) => fast - long,
            _ => 0.0,
        };
        let incomplete = 2.0 - own.completeness.or(0.0).clamp(0.0, 1.0);
        let mut prior = (PRIOR_SD * PRIOR_SD + usual_sampling).sqrt();
        let mut scales = [[0.0; 2]; HORIZONS];
        for (h, lead) in params.horizon_windows().iter().enumerate() {
            let lead = *lead as f64;
            let base = self.calibrations[h][k].scale(prior);
            let stale = ((lead + f64::from(own.stale_windows[k])) / lead).min(STALE_MAX);
            let variance = base * base * restless * restless * stale + coarser;
            scales[h] = [away.max(0.0), away.min(0.0)].map(|away| {
                let back = RETURN[h] * away;
                ((variance + back * back) * incomplete).sqrt()
            });
            if let Some(next) = params.horizon_windows().get(h + 1) {
                prior = base * (*next as f64 / lead).powf(PRIOR_GROWTH);
            }
        }
        scales
    }
}

/// What each expert expects; NaN where it expects nothing.
fn experts(
    evidence: &Evidence<'_>,
    snapshot: &Snapshot,
    target: Target,
    h: usize,
) -> [f64; EXPERTS] {
    let k = target.index();
    let mut forecasts = [f64::NAN; EXPERTS];
    if evidence.tracks.own.levels[k].get(FAST).is_none() {
        return forecasts;
    }
    let levels = &snapshot.levels[k];
    forecasts[PERSISTENCE] = snapshot.last[k];
    for (expert, span) in LEVELS {
        forecasts[expert] = levels[span];
    }
    forecasts[SEASONAL] = evidence.ahead.seasonal[h][k];
    forecasts[SEASONAL_SHIFTED] =
        levels[FAST] + evidence.ahead.seasonal[h][k] - evidence.ahead.seasonal_now[k];
    if let Some(regression) = &evidence.regressions[h][k] {
        let row = row(snapshot, evidence.ahead, target, h);
        forecasts[REGRESSION] = levels[FAST] + regression.predict(&row);
    }
    forecasts
}

/// How credible each expert is, 0..=1, by what it says of the present: far from
/// the 30-second level it has missed a change. Its past errors do not know yet,
/// and would keep an hour of calm in the forecast of an incident.
///
/// A regression says nothing of the present; it is believed within the
/// differences of levels that it was fitted on, so as much as the slow level.
fn credibility(evidence: &Evidence<'_>, snapshot: &Snapshot, target: Target) -> [f64; EXPERTS] {
    let k = target.index();
    let levels = &snapshot.levels[k];
    let reach = CREDIBLE_SDS * evidence.noise[k].drift_sd();
    let belief = |says: f64| {
        let distance = (says - levels[FAST]) / reach;
        (1.0 + distance * distance).powi(-2)
    };
    let mut credibility = [1.0; EXPERTS];
    credibility[PERSISTENCE] = belief(snapshot.last[k]);
    for (expert, span) in LEVELS {
        credibility[expert] = belief(levels[span]);
    }
    credibility[REGRESSION] = belief(levels[SLOW]);
    credibility[SEASONAL_SHIFTED] = SHIFTED_CREDIBILITY;
    let seasonal = evidence.ahead.seasonal_now[k];
    if seasonal.is_finite() {
        credibility[SEASONAL] = belief(seasonal);
    }
    credibility
}

fn point(median: f64, [below, above]: Sides, calibration: &Calibration) -> Point {
    let offsets = calibration.offsets();
    let at = |offset: f32| median + f64::from(offset) * if offset > 0.0 { above } else { below };
    Point {
        median,
        lower_80: at(offsets.lower_80),
        upper_80: at(offsets.upper_80),
        lower_95: at(offsets.lower_95),
        upper_95: at(offsets.upper_95),
        quantiles: calibration
            .quantiles(QUANTILE_LEVELS)
            .map(|offset| at(offset as f32) as f32),
    }
}
