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
//! Read off the histories anew each time; nothing is kept. What was usual before they
//! begin, at the busiest time of a day or a week, the caller knows
//! ([`crate::SeriesModel::busiest`]): the load of every morning is no pressure.

use crate::breach::ValidObjective;
use crate::series::{History, Target};

/// Windows of which means are taken.
const MEAN: usize = 12;
/// Pressure counts for what it was at least in so many windows: a stall passes.
const LASTING: usize = 24;
/// Windows before them that say what is usual of waiting, at most and at least.
const USUAL: usize = 240;
const USUAL_MIN: usize = 36;
/// Probability under any pressure: less than what an alert asks for by default, so
/// that pressure alone raises the risk and no alert. Most services bear more than they
/// were ever asked for, and most delays of others.
const MOST: f64 = 0.78;
/// Waiting, in usual deviations.
const WAITS: Scale = Scale {
    from: 0.2,
    unit: 1.0,
};
/// A deviation below this, in logs, is none.
const DEVIATION_MIN: f64 = 0.1;
/// Windows of which load may have grown, and those before that were seen, at most and
/// at least.
const GROWTH: usize = 45;
const SEEN: usize = 2160;
const SEEN_MIN: usize = 55;
/// Load, in logs.
const LOADS: Scale = Scale {
    from: 0.1,
    unit: 0.06,
};
/// Exponent of the factor by which trouble slows: whatever is near is as good as there.
const TAIL: f64 = 0.02;

/// The probability that pressure leads to a breach: `waits` are histories of what
/// the service waits for, `busiest` is a rate in model space that is usual some time.
/// 0 where there is too little history to say what is usual.
pub fn pressure<H: History + ?Sized>(
    own: &H,
    waits: &[&H],
    objective: &ValidObjective,
    busiest: Option<f64>,
) -> f64 {
    let target = objective.get().target;
    if target == Target::Rate {
        return 0.0;
    }
    let waiting = WAITS.share(waiting(waits));
    let loaded = LOADS.share(load(own, busiest));
    let trouble = waiting.max(loaded);
    if trouble <= 0.0 {
        return 0.0;
    }
    let level = mean(own, target, 0);
    let distance = (objective.log_threshold - level).max(0.0);
    let probability = trouble * (-TAIL * distance).exp();
    if probability.is_nan() {
        0.0
    } else {
        probability
    }
}

/// How likely trouble is.
struct Scale {
    /// No pressure up to here.
    from: f64,
    /// Of each further unit 37 % of the doubt is left.
    unit: f64,
}

impl Scale {
    fn share(&self, pressure: f64) -> f64 {
        let units = ((pressure - self.from) / self.unit).max(0.0);
        MOST * (1.0 - (-units).exp())
    }
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
fn load<H: History + ?Sized>(own: &H, busiest: Option<f64>) -> f64 {
    let until = own.len().min(SEEN);
    let (mut seen, mut count) = (busiest.unwrap_or(f64::NEG_INFINITY), 0);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Window;
    use crate::breach::Objective;
    use crate::testing::{Noise, window_of};

    /// A p99 of e^2 times the usual.
    fn objective(target: Target) -> ValidObjective {
        let objective = Objective {
            target,
            threshold: f64::from(window_of(2.0).y[2]).exp(),
            horizon_secs: 900,
            windows: 2,
            budget_events: None,
        };
        objective.validate().unwrap()
    }

    /// Windows around a level, and a rate that has its own.
    fn series(seed: u64, level: impl Fn(usize) -> f64, load: impl Fn(usize) -> f64) -> Vec<Window> {
        let mut noise = Noise::new(seed);
        let window = |i| {
            let mut window = window_of(level(i) + 0.3 * noise.normal());
            window.y[4] = (4.0 + load(i) + 0.1 * noise.normal()) as f32;
            window
        };
        (0..300).map(window).collect()
    }

    fn pressed(own: &[Window], waits: &[&[Window]]) -> f64 {
        pressure(own, waits, &objective(Target::P99), None)
    }

    /// Nothing, up to 240; then rising by 1 in a minute of 60 windows.
    fn rising(i: usize) -> f64 {
        (i.max(240) - 240) as f64 / 60.0
    }

    fn calm(_: usize) -> f64 {
        0.0
    }

    #[test]
    fn what_waits_longer_is_under_pressure_before_it_is_slow() {
        for seed in 0..20 {
            let own = series(seed, calm, calm);
            let wait = series(100 + seed, rising, calm);
            let now = pressed(&own, &[&wait]);
            assert!(now > 0.5, "{seed}: {now}");
            let before = pressed(&own[..240], &[&wait[..240]]);
            assert!(before < 0.3, "{seed}: {before}");
        }
    }

    #[test]
    fn more_load_than_ever_is_pressure() {
        for seed in 0..20 {
            let grown = series(seed, calm, |i| 0.6 * rising(i));
            assert!(pressed(&grown, &[]) > 0.5, "{seed}");
            // As much as it was before.
            let swings = series(seed, calm, |i| 0.3 * (i as f64 / 20.0).sin());
            assert!(pressed(&swings, &[]) < 0.2, "{seed}");
        }
        let grown = series(1, calm, |i| 0.6 * rising(i));
        assert_eq!(
            pressure(&grown[..], &[], &objective(Target::Rate), None),
            0.0
        );
        // As much as every day.
        let daily = pressure(&grown[..], &[], &objective(Target::P99), Some(4.7));
        assert!(daily < 0.2, "{daily}");
    }

    #[test]
    fn a_stall_is_none() {
        for length in [1, 5, 10] {
            let own = series(1, calm, calm);
            let stall = |i: usize| {
                if (280..280 + length).contains(&i) {
                    4.0
                } else {
                    0.0
                }
            };
            let wait = series(2, stall, calm);
            for until in 280..300 {
                let now = pressed(&own[..until], &[&wait[..until]]);
                assert!(now < 0.3, "{length} windows, {until}: {now}");
            }
        }
    }

    #[test]
    fn a_far_threshold_is_less_likely() {
        let wait = series(2, rising, calm);
        let own = series(1, calm, calm);
        let slow = series(1, |_| 1.5, calm);
        assert!(pressed(&slow, &[&wait]) > pressed(&own, &[&wait]));
    }

    #[test]
    fn little_or_bad_history_is_no_pressure() {
        let wait = series(2, rising, calm);
        assert_eq!(pressed(&[], &[]), 0.0);
        assert_eq!(pressed(&wait[250..], &[&wait[250..]]), 0.0);
        let missing = vec![Window::MISSING; 300];
        assert_eq!(pressed(&missing, &[&missing]), 0.0);
        assert!((0.0..=1.0).contains(&pressed(&wait, &[&missing])));
    }
}
