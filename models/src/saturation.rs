//! What load does to latency: a curve that is known before latency moves.
//!
//! A service that works on a queue takes s/(1 − λ/μ) at load λ (M/M/1; and its
//! quantiles likewise; Kleinrock, *Queueing Systems* I, 3.2). With several workers, or
//! work that does not wait, latency rises later or less: ln y = a − g·ln(1 − λ/μ), with
//! the capacity μ of the series and a sharpness g of each quantile. Both are read off
//! the series' own history: windows are put in bins by load, the medians of the bins
//! made monotone ([`isotonic`]; linfa's regression turns to falling curves where the
//! correlation is negative), and the curve fitted to them for each capacity of a grid. It is shrunk by what it is worth in
//! blocks of time that it was not fitted on, and dropped if that is little.
//!
//! A forecast of load then lifts the forecast of latency, see [`Saturation::lift`].

use serde::{Deserialize, Serialize};

use crate::combination::isotonic;
use crate::level::{FAST, SPANS};
use crate::series::{TARGETS, Target, Window};

/// Quantiles of latency, in the order of [`Target::ALL`].
const LATENCIES: usize = TARGETS - 1;
const RATE: usize = Target::Rate.index();
/// Windows read, about, and needed.
const WINDOWS_MAX: usize = 2880;
const WINDOWS_MIN: usize = 120;
/// Bins of load with equally many windows.
const BINS: usize = 16;
/// Blocks of time: every other one is fitted on, and the others judge.
const BLOCKS: usize = 8;
/// The load must have varied so much, in logs, from the first to the last bin …
const LOAD_RANGE_MIN: f64 = 0.2;
/// … and latency so much by it.
const RISE_MIN: f64 = 0.1;
/// Share of the bins' variance that the curve must explain.
const EXPLAINED_MIN: f64 = 0.6;
/// Capacities tried, as multiples of the largest load of a bin.
const CAPACITIES: [f64; 10] = [1.02, 1.05, 1.1, 1.18, 1.3, 1.5, 1.8, 2.3, 3.5, 6.0];
/// Sharper than an M/M/1 queue by more than this is something else.
const SHARPNESS_MAX: f64 = 2.0;
/// A curve worth less is dropped.
const WORTH_MIN: f64 = 0.3;
/// Nearer to capacity than this, queues are no longer in equilibrium.
const BUSY_MAX: f64 = 0.97;

/// The curve of one series.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Saturation {
    /// Load in events/s at which latency has no bound.
    capacity: f32,
    /// By quantile.
    sharpness: [f32; LATENCIES],
}

/// A window as the curve sees it.
#[derive(Clone, Copy)]
struct Point {
    block: usize,
    rate: f64,
    latencies: [f64; LATENCIES],
}

/// Bins by load: their mean load, and monotone medians by quantile.
struct Bins {
    rates: [f64; BINS],
    latencies: [[f64; BINS]; LATENCIES],
}

impl Saturation {
    /// Reads the curve off a history, oldest first; `None` where load hardly varied,
    /// or explains nothing. O(n log n) in at most `WINDOWS_MAX` windows.
    pub(crate) fn fit(own: &[Window]) -> Option<Saturation> {
        let points = points(own);
        if points.len() < WINDOWS_MIN {
            return None;
        }
        let (taught, judging): (Vec<Point>, Vec<Point>) =
            points.iter().partition(|point| point.block % 2 == 0);
        let (part, levels) = Self::fit_bins(&Bins::new(&taught)?)?;
        let worth = part.worth(levels, &judging);
        if worth < WORTH_MIN {
            return None;
        }
        let (whole, _) = Self::fit_bins(&Bins::new(&points)?)?;
        Some(Saturation {
            sharpness: whole.sharpness.map(|sharpness| sharpness * worth as f32),
            ..whole
        })
    }

    /// The best capacity, with the level of each quantile at no load.
    fn fit_bins(bins: &Bins) -> Option<(Saturation, [f64; LATENCIES])> {
        let largest = bins.rates[BINS - 1];
        let mut best: Option<(f64, Saturation, [f64; LATENCIES])> = None;
        for multiple in CAPACITIES {
            let capacity = multiple * largest;
            let queues = bins.rates.map(|rate| queue(rate / capacity));
            let lines = std::array::from_fn::<_, LATENCIES, _>(|k| {
                Line::through(&queues, &bins.latencies[k])
            });
            let p99 = &lines[Target::P99.index()];
            let range = queues[BINS - 1] - queues[0];
            let clear = p99.slope * range >= RISE_MIN && p99.explained >= EXPLAINED_MIN;
            let explained = lines[Target::P50.index()].explained + p99.explained;
            if clear && best.as_ref().is_none_or(|(most, ..)| explained > *most) {
                let curve = Saturation {
                    capacity: capacity as f32,
                    sharpness: std::array::from_fn(|k| lines[k].slope as f32),
                };
                best = Some((explained, curve, std::array::from_fn(|k| lines[k].level)));
            }
        }
        best.map(|(_, curve, levels)| (curve, levels))
    }

    /// The factor in 0..=1 by which the curve's rises fit p99 best.
    fn worth(&self, levels: [f64; LATENCIES], judging: &[Point]) -> f64 {
        let k = Target::P99.index();
        let rise = |point: &Point| self.rise(k, point.rate);
        let n = judging.len().max(1) as f64;
        let mean_rise = judging.iter().map(rise).sum::<f64>() / n;
        let mean_change = judging
            .iter()
            .map(|point| point.latencies[k] - levels[k])
            .sum::<f64>()
            / n;
        let (mut agree, mut square) = (0.0, 0.0);
        for point in judging {
            let from_mean = rise(point) - mean_rise;
            agree += from_mean * (point.latencies[k] - levels[k] - mean_change);
            square += from_mean * from_mean;
        }
        if square > 0.0 {
            (agree / square).clamp(0.0, 1.0)
        } else {
            0.0
        }
    }

    /// By how much a load raises a quantile above that at no load, in the log.
    fn rise(&self, k: usize, rate: f64) -> f64 {
        f64::from(self.sharpness[k]) * queue(rate / f64::from(self.capacity))
    }

    /// Lifts forecasts of latency to where the curve is at the forecast load, seen
    /// from the present: `medians` by target and `levels` by target and span, all in
    /// model space. What the forecasts rise by on their own counts; a load that falls
    /// lowers nothing.
    pub(crate) fn lift(&self, medians: &mut [f64; TARGETS], levels: &[[f64; SPANS]; TARGETS]) {
        let [now, then] = [levels[RATE][FAST], medians[RATE]].map(|y| Target::Rate.to_natural(y));
        if then.is_nan() || then <= now {
            return;
        }
        for k in 0..LATENCIES {
            let rise = self.rise(k, then) - self.rise(k, now);
            let expected = (medians[k] - levels[k][FAST]).max(0.0);
            if rise > expected {
                medians[k] += rise - expected;
            }
        }
    }
}

/// −ln(1 − ρ), as if the load were never more than nearly the capacity.
fn queue(busy: f64) -> f64 {
    -(-busy.clamp(0.0, BUSY_MAX)).ln_1p()
}

/// What can be used of a history.
fn points(own: &[Window]) -> Vec<Point> {
    let stride = own.len().div_ceil(WINDOWS_MAX).max(1);
    let usable = |(at, window): (usize, &Window)| {
        let rate = Target::Rate.to_natural(window.value(Target::Rate)?);
        let mut latencies = [0.0; LATENCIES];
        for (latency, target) in latencies.iter_mut().zip(Target::ALL) {
            *latency = window.value(target)?;
        }
        Some(Point {
            block: at * BLOCKS / own.len(),
            rate,
            latencies,
        })
    };
    own.iter()
        .enumerate()
        .step_by(stride)
        .filter_map(usable)
        .collect()
}

impl Bins {
    fn new(points: &[Point]) -> Option<Bins> {
        if points.len() < 2 * BINS {
            return None;
        }
        let mut sorted = points.to_vec();
        sorted.sort_by(|a, b| a.rate.total_cmp(&b.rate));
        let bins: [&[Point]; BINS] = std::array::from_fn(|i| {
            &sorted[i * sorted.len() / BINS..(i + 1) * sorted.len() / BINS]
        });
        let mean_rate =
            |bin: &[Point]| bin.iter().map(|point| point.rate).sum::<f64>() / bin.len() as f64;
        let rates = bins.map(mean_rate);
        let (first, last) = (rates[0], rates[BINS - 1]);
        (first > 0.0 && (last / first).ln() >= LOAD_RANGE_MIN).then(|| Bins {
            rates,
            latencies: std::array::from_fn(|k| isotonic(bins.map(|bin| median(bin, k)))),
        })
    }
}

fn median(bin: &[Point], k: usize) -> f64 {
    let mut values: Vec<f64> = bin.iter().map(|point| point.latencies[k]).collect();
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

/// A least-squares line that does not fall.
struct Line {
    level: f64,
    slope: f64,
    /// Share of the variance that it explains.
    explained: f64,
}

impl Line {
    fn through(xs: &[f64; BINS], ys: &[f64; BINS]) -> Line {
        let mut sums = crate::correlation::Sums::default();
        xs.iter().zip(ys).for_each(|(x, y)| sums.add(*x, *y));
        let [x, y] = [xs, ys].map(|values| values.iter().sum::<f64>() / BINS as f64);
        let slope = sums.slope().clamp(0.0, SHARPNESS_MAX);
        let correlation = sums.correlation();
        Line {
            level: y - slope * x,
            slope,
            explained: if slope > 0.0 {
                correlation * correlation
            } else {
                0.0
            },
        }
    }
}

#[cfg(test)]
mod tests;
