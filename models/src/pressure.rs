//! What is about to make a service slow, before it is.
//!
//! A service is as slow as what it waits for. Where that has been slower than usual
//! for a while, or where more is asked of it than it was ever asked for, nobody knows
//! how much slower it will get, or what it can bear: queues grow without bound near a
//! capacity that has not been seen yet. Futures ([`crate::breach`]) go on as the
//! series did, and cannot know. So there is a second way to a breach: trouble comes
//! with a probability that grows with the pressure, and slows by a factor that is
//! Pareto distributed, so that a far threshold is a little less likely than a near
//! one. How often it really comes is learned afterwards ([`crate::recalibration`]).
//!
//! Read off the histories anew each time; nothing is kept.

use crate::breach::ValidObjective;
use crate::series::{History, Target};

/// Windows of which means are taken.
const MEAN: usize = 12;
/// Pressure counts for what it was at least in so many windows: a stall passes.
const LASTING: usize = 24;
/// Windows before them that say what is usual of waiting, at most and at least.
const USUAL: usize = 240;
const USUAL_MIN: usize = 36;
/// Waiting counts from so many usual deviations on, and in full from so many.
const WAITS: [f64; 2] = [0.2, 1.4];
/// A deviation below this, in logs, is none.
const DEVIATION_MIN: f64 = 0.1;
/// Windows of which load may have grown, and those before that were seen, at most and
/// at least.
const GROWTH: usize = 45;
const SEEN: usize = 2160;
const SEEN_MIN: usize = 55;
/// Load counts from so much more, in logs, than was ever seen, and in full from …
const LOADS: [f64; 2] = [0.1, 0.2];
/// Pressure in full means trouble with this probability: less than what an alert
/// asks for by default, so that pressure alone is a warning.
const TROUBLE: f64 = 0.78;
/// Exponent of the factor by which trouble slows: whatever is near is as good as there.
const TAIL: f64 = 0.02;

/// The probability that pressure leads to a breach: `waits` are histories of what
/// the service waits for. 0 where there is too little history to say what is usual.
pub fn pressure<H: History + ?Sized>(own: &H, waits: &[&H], objective: &ValidObjective) -> f64 {
    let target = objective.get().target;
    if target == Target::Rate {
        return 0.0;
    }
    let waiting = share(waiting(waits), WAITS);
    let loaded = share(load(own), LOADS);
    let trouble = waiting.max(loaded);
    if trouble <= 0.0 {
        return 0.0;
    }
    let level = mean(own, target, 0);
    let distance = (objective.log_threshold - level).max(0.0);
    let probability = TROUBLE * trouble * (-TAIL * distance).exp();
    if probability.is_nan() {
        0.0
    } else {
        probability
    }
}

/// How much of a pressure there is, 0..=1.
fn share(value: f64, [from, full]: [f64; 2]) -> f64 {
    ((value - from) / (full - from)).clamp(0.0, 1.0)
}

/// Mean of [`MEAN`] windows up to `ago`; NaN of none.
fn mean<H: History + ?Sized>(history: &H, target: Target, ago: usize) -> f64 {
    means(history, target, ago, ago + MEAN)
        .next()
        .unwrap_or(f64::NAN)
}

/// How far p99 is above the usual, in usual deviations, the mean of all histories, at
/// least so for [`LASTING`] windows.
fn waiting<H: History + ?Sized>(waits: &[&H]) -> f64 {
    let mut sums = [0.0; LASTING];
    let mut known = 0.0;
    for history in waits {
        if let Some(above) = above_usual(*history) {
            known += 1.0;
            sums.iter_mut()
                .zip(above)
                .for_each(|(sum, above)| *sum += above);
        }
    }
    let least = sums.into_iter().fold(f64::INFINITY, f64::min);
    if known > 0.0 { least / known } else { 0.0 }
}

/// How far the newest means of p99 are above the usual, in usual deviations.
fn above_usual<H: History + ?Sized>(history: &H) -> Option<[f64; LASTING]> {
    let until = history.len().min(USUAL + MEAN + LASTING);
    let mut usual: Vec<f64> = means(history, Target::P99, MEAN + LASTING, until).collect();
    if usual.len() < USUAL_MIN {
        return None;
    }
    let middle = median(&mut usual)?;
    let mut deviations: Vec<f64> = usual.iter().map(|mean| (mean - middle).abs()).collect();
    let deviation = 1.5 * median(&mut deviations)? + DEVIATION_MIN;
    let above = std::array::from_fn(|ago| (mean(history, Target::P99, ago) - middle) / deviation);
    above
        .iter()
        .all(|above: &f64| above.is_finite())
        .then_some(above)
}

/// By how much, in logs, the newest load is above all that was seen before it grew.
fn load<H: History + ?Sized>(own: &H) -> f64 {
    let until = own.len().min(SEEN);
    let (mut seen, mut count) = (f64::NEG_INFINITY, 0);
    for mean in means(own, Target::Rate, GROWTH, until) {
        seen = seen.max(mean);
        count += 1;
    }
    let above = mean(own, Target::Rate, 0) - seen;
    if count >= SEEN_MIN && above.is_finite() {
        above
    } else {
        0.0
    }
}

/// Means of [`MEAN`] windows in a row, the newest of which is `from` windows ago, then
/// of those one earlier, and so on, while all are less than `until` windows ago; none
/// where nothing was observed.
fn means<H: History + ?Sized>(
    history: &H,
    target: Target,
    from: usize,
    until: usize,
) -> impl Iterator<Item = f64> {
    let (mut sum, mut count) = (0.0, 0.0);
    let mut next = from;
    (from..until.saturating_sub(MEAN - 1)).filter_map(move |first| {
        while next < first + MEAN {
            if let Some(value) = history.value(next, target) {
                sum += value;
                count += 1.0;
            }
            next += 1;
        }
        let mean = sum / count;
        if let Some(value) = history.value(first, target) {
            sum -= value;
            count -= 1.0;
        }
        mean.is_finite().then_some(mean)
    })
}

/// The upper median, and the values in another order.
fn median(values: &mut [f64]) -> Option<f64> {
    let middle = values.len() / 2;
    (!values.is_empty()).then(|| *values.select_nth_unstable_by(middle, f64::total_cmp).1)
}
