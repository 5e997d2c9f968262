//! What is about to make a service slow, before it is.
//!
//! The latency of a service is made of what it waits for. Where that is much slower
//! than usual for a while, or where more is asked of it than it was ever asked for,
//! nobody knows how much slower the service will get, only that it happens: queues
//! grow without bound near a capacity that has not been seen yet. Paths
//! ([`crate::breach`]) go on as the series did, and cannot know. So there is a second
//! way to a breach, with a chance of its own: trouble comes with a probability that
//! grows with the pressure, and raises latency by a factor that is as often twice as
//! twice as large (Pareto): ten times as far is not out of reach.

use crate::breach::ValidObjective;
use crate::series::{History, Target};

/// Windows of which the newest mean is taken.
const NEWEST: usize = 15;
/// Windows before them that say what is usual of waiting, at most and at least.
const USUAL: usize = 240;
const USUAL_MIN: usize = 45;
/// Waiting counts from so many usual deviations on, and in full from so many.
const WAITS: [f64; 2] = [2.4, 4.2];
/// A deviation below this, in logs, is none.
const DEVIATION_MIN: f64 = 0.1;
/// Windows of which load may have grown, and those before that were seen.
const GROWTH: usize = 45;
const SEEN: usize = 2160;
const SEEN_MIN: usize = 45;
/// Load counts from so much more, in logs, than was ever seen, and in full from …
const LOADS: [f64; 2] = [0.15, 0.45];
/// Pressure in full means trouble with this probability.
const TROUBLE: f64 = 0.7;
/// Exponent of the factor by which trouble slows.
const TAIL: f64 = 0.2;

/// The probability that pressure leads to a breach: `waits` are histories of what
/// the service waits for. 0 where there is too little history to say what is usual.
pub fn pressure<H: History + ?Sized>(
    own: &H,
    waits: &[&H],
    objective: &ValidObjective,
) -> f64 {
    let waiting = waits.iter().map(|wait| waiting(*wait));
    let waiting = waiting.fold(0.0, f64::max);
    let trouble = 1.0 - (1.0 - share(waiting, WAITS)) * (1.0 - share(load(own), LOADS));
    if trouble <= 0.0 {
        return 0.0;
    }
    let target = objective.get().target;
    let level = mean(own, target, 0);
    let distance = (objective.log_threshold - level).max(0.0);
    if distance.is_nan() {
        return 0.0;
    }
    trouble * (-TAIL * distance).exp()
}

fn share(value: f64, [from, full]: [f64; 2]) -> f64 {
    TROUBLE * ((value - from) / (full - from)).clamp(0.0, 1.0)
}

/// Mean of [`NEWEST`] windows up to `ago`; NaN of none.
fn mean<H: History + ?Sized>(history: &H, target: Target, ago: usize) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    for ago in ago..ago + NEWEST {
        if let Some(value) = history.value(ago, target) {
            sum += value;
            count += 1.0;
        }
    }
    sum / count
}

/// How far the newest p99 is above the usual, in usual deviations.
fn waiting<H: History + ?Sized>(history: &H) -> f64 {
    let until = history.len().min(USUAL + NEWEST);
    if until < NEWEST + USUAL_MIN {
        return 0.0;
    }
    let mut usual: Vec<f64> = means(history, Target::P99, NEWEST, until).collect();
    let Some(middle) = median(&mut usual) else {
        return 0.0;
    };
    let mut deviations: Vec<f64> = usual.iter().map(|mean| (mean - middle).abs()).collect();
    let deviation = 1.5 * median(&mut deviations).unwrap_or(0.0) + DEVIATION_MIN;
    let above = (mean(history, Target::P99, 0) - middle) / deviation;
    if above.is_nan() { 0.0 } else { above }
}

/// By how much, in logs, the newest load is above all that was seen before it grew.
fn load<H: History + ?Sized>(own: &H) -> f64 {
    let until = own.len().min(SEEN);
    if until < GROWTH + SEEN_MIN {
        return 0.0;
    }
    let seen = means(own, Target::Rate, GROWTH, until).fold(f64::NEG_INFINITY, f64::max);
    let above = mean(own, Target::Rate, 0) - seen;
    if above.is_finite() { above } else { 0.0 }
}

/// Means of [`NEWEST`] windows that end `from` windows ago and earlier, none of
/// which began more than `until` windows ago.
fn means<H: History + ?Sized>(
    history: &H,
    target: Target,
    from: usize,
    until: usize,
) -> impl Iterator<Item = f64> {
    let (mut sum, mut count) = (0.0, 0.0);
    let mut add = move |value: Option<f64>, sign: f64| {
        if let Some(value) = value {
            sum += sign * value;
            count += sign;
        }
        sum / count
    };
    for ago in from..from + NEWEST - 1 {
        add(history.value(ago, target), 1.0);
    }
    (from..until.saturating_sub(NEWEST - 1)).filter_map(move |ago| {
        let mean = add(history.value(ago + NEWEST - 1, target), 1.0);
        add(history.value(ago, target), -1.0);
        mean.is_finite().then_some(mean)
    })
}

fn median(values: &mut [f64]) -> Option<f64> {
    let middle = values.len() / 2;
    (!values.is_empty()).then(|| *values.select_nth_unstable_by(middle, f64::total_cmp).1)
}
