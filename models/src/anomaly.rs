//! How unusual the newest window is: `anomaly_score`, with 1.0 as the line.
//!
//! Two things are unusual: what is far from usual, and what was never seen. The
//! score is the larger of both.
//!
//! Two kinds of views look at how far each window is: the distance of each target (a)
//! from its 3-minute level or its usual level, whichever is nearer, for spikes;
//! (b) of its 30-second level from its usual level, for shifts that last. The usual
//! level is an hourly mean to which a window adds only a few standard deviations
//! (Huber), so an incident hardly moves it, and going back to it is no anomaly. Each
//! distance is divided by its own usual size; the largest is the window's deviation.
//! Its score is the deviation over the threshold that an undisturbed series exceeds
//! at the declared rate (`anomaly/tail.rs`).
//!
//! Who keeps histograms has a third view of the same kind, of all of the distribution
//! at once, with a threshold of its own ([`crate::wasserstein`]).
//!
//! How new a window is, p99 and rate are asked each ([`crate::detector`]).
//! That finds what is not far off but never was, and does not find again what
//! recurs; it speaks once and rests, while the deviation lasts as the incident does.

pub(crate) mod tail;

use serde::{Deserialize, Serialize};

use self::tail::{Belief, Tail};
use crate::conformal::SD_PER_MEAN_ABS;
use crate::detector::{Fixed, Stream};
use crate::level::{FAST, LONG, Level, MEDIUM, SeriesLevels};
use crate::params::ValidParams;
use crate::series::{TARGETS, Target, Window};

/// A deviation teaches the usual size as at most so many of it.
const CLIP: f64 = 2.5;
/// A window moves the usual level by as much as one so many sds away.
const USUAL_CLIP_SDS: f64 = 3.0;
/// Belief about the usual size (mean absolute, in model space) and its weight
/// in windows: a shift is slow to show its usual size, so its belief is strong.
const SPIKE_BELIEF: (f64, f64) = (0.2, 20.0);
const SHIFT_BELIEF: (f64, f64) = (0.15, 90.0);
/// Belief about the tail: the largest of ten deviations is often a large one.
const TAIL_BELIEF: Belief = Belief {
    quantile: 2.8,
    excess: (0.5, 10.0),
};
/// Deviations of a constant series are measured against this, about half a
/// histogram bucket.
const SIZE_MIN: f64 = 0.04;
/// Targets asked how new they are: as many as memory allows. The other quantiles
/// move with p99.
const NOVEL: [Target; 2] = [Target::P99, Target::Rate];
/// What is observed worse tells little about what is new: with less than about
/// 33 samples for p99.
const NOVEL_WEIGHT_MIN: f64 = 0.25;

/// The anomaly detector of one series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Detector {
    usual: [Level; TARGETS],
    spike: [Level; TARGETS],
    shift: [Level; TARGETS],
    tail: Tail,
    novelty: [Stream<Fixed>; NOVEL.len()],
}

impl Default for Detector {
    fn default() -> Self {
        let believe = |(mean, weight)| Level::believed(mean, weight);
        Detector {
            usual: [Level::default(); TARGETS],
            spike: [believe(SPIKE_BELIEF); TARGETS],
            shift: [believe(SHIFT_BELIEF); TARGETS],
            tail: Tail::believed(TAIL_BELIEF),
            novelty: std::array::from_fn(|_| Stream::new(SIZE_MIN as f32)),
        }
    }
}

impl Detector {
    /// Scores the newest window and learns from it. `before` and `after` are
    /// the levels around it; `extra_variance` is by how much its sampling
    /// variance exceeds the usual.
    pub(crate) fn update(
        &mut self,
        params: &ValidParams,
        window: &Window,
        (before, after): (&SeriesLevels, &SeriesLevels),
        extra_variance: &[f64; TARGETS],
    ) -> f64 {
        let keep = params.decays()[LONG];
        let (mut deviation, mut is_observed) = (0.0f64, false);
        for target in Target::ALL {
            let k = target.index();
            let Some(value) = window.value(target).filter(|_| window.weight(target) > 0.0) else {
                continue;
            };
            is_observed = true;
            let usual = self.usual[k].or(value);
            let recent = before.levels[k].get(MEDIUM);
            let spike = (value - usual)
                .abs()
                .min((value - recent.unwrap_or(usual)).abs());
            let shift = (after.levels[k].get(FAST).unwrap_or(value) - usual).abs();
            let extra = extra_variance[k];
            let reach = USUAL_CLIP_SDS * sd(&self.spike[k]);
            self.usual[k].update(keep, usual + (value - usual).clamp(-reach, reach), 1.0);
            deviation = deviation.max(unusual(&mut self.spike[k], keep, spike, extra));
            deviation = deviation.max(unusual(&mut self.shift[k], keep, shift, extra));
        }
        // What was not seen does not deviate, and says nothing of how far is usual.
        if !is_observed {
            return 0.0;
        }
        let rate = params.get().false_alarm_rate;
        let novelty = self.novelty(window, extra_variance, rate);
        self.tail.score(deviation, rate).max(novelty)
    }

    /// How new the window is; noisier than usual, it is less so.
    fn novelty(&mut self, window: &Window, extra_variance: &[f64; TARGETS], rate: f64) -> f64 {
        let mut newest: f64 = 0.0;
        for (stream, target) in self.novelty.iter_mut().zip(NOVEL) {
            let observed = window.weight(target) >= NOVEL_WEIGHT_MIN;
            if let Some(value) = window.value(target).filter(|_| observed) {
                let k = target.index();
                let usual = sd(&self.spike[k]);
                let noise = (1.0 + extra_variance[k] / (usual * usual)).sqrt();
                newest = newest.max(stream.update(value, rate).rested() / noise);
            }
        }
        newest
    }
}

/// `size` over its usual size, which learns from it.
pub(crate) fn unusual(usual: &mut Level, keep: f64, size: f64, extra_variance: f64) -> f64 {
    let (mean, sd) = (usual.or(SIZE_MIN).max(SIZE_MIN), sd(usual));
    usual.update(keep, size.min(CLIP * mean), 1.0);
    size / (sd * sd + extra_variance).sqrt()
}

/// The standard deviation that goes with a usual size.
fn sd(usual: &Level) -> f64 {
    SD_PER_MEAN_ABS * usual.or(SIZE_MIN).max(SIZE_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Params;
    use crate::testing::{Noise, window_of};

    /// Scores of a series of log levels.
    fn scores(levels: impl IntoIterator<Item = f64>) -> Vec<f64> {
        let params = Params::default().validate().unwrap();
        let (mut detector, mut after) = (Detector::default(), SeriesLevels::default());
        levels
            .into_iter()
            .map(|level| {
                let (window, before) = (window_of(level), after);
                after.update(params.decays(), &window);
                detector.update(&params, &window, (&before, &after), &[0.0; TARGETS])
            })
            .collect()
    }

    fn alarms(scores: &[f64]) -> usize {
        scores.iter().filter(|score| **score > 1.0).count()
    }

    #[test]
    fn undisturbed_series_stay_below_the_line_at_the_declared_rate() {
        let n = 40_000;
        let mut noise = Noise::new(31);
        let mut state = 0.0;
        let autoregressive: Vec<f64> = (0..n)
            .map(|_| {
                state = 0.8 * state + 0.2 * noise.normal();
                state
            })
            .collect();
        let gaussian: Vec<f64> = (0..n).map(|_| 0.3 * noise.normal()).collect();
        let heavy: Vec<f64> = (0..n)
            .map(|_| {
                let chi: f64 = (0..7).map(|_| noise.normal().powi(2)).sum::<f64>() / 7.0;
                0.2 * noise.normal() / chi.sqrt()
            })
            .collect();
        for (name, levels) in [("ar", autoregressive), ("gauss", gaussian), ("t7", heavy)] {
            // Declared: 4 in 40,000.
            let count = alarms(&scores(levels));
            assert!(count <= 12, "{name}: {count} alarms");
        }
    }

    /// A declared rate is of windows that were seen.
    #[test]
    fn windows_that_are_missing_teach_nothing() {
        let params = Params::default().validate().unwrap();
        let (mut detector, mut after) = (Detector::default(), SeriesLevels::default());
        let mut noise = Noise::new(33);
        for _ in 0..500 {
            let (window, before) = (window_of(0.3 * noise.normal()), after);
            after.update(params.decays(), &window);
            detector.update(&params, &window, (&before, &after), &[0.0; TARGETS]);
        }
        let known = format!("{detector:?}");
        for _ in 0..360 {
            let before = after;
            after.update(params.decays(), &Window::MISSING);
            let around = (&before, &after);
            let score = detector.update(&params, &Window::MISSING, around, &[0.0; TARGETS]);
            assert_eq!(score, 0.0);
        }
        assert_eq!(format!("{detector:?}"), known);
    }

    #[test]
    fn a_tenfold_rise_is_an_anomaly_at_once_and_while_it_lasts() {
        let mut noise = Noise::new(32);
        let n = 400;
        let levels: Vec<f64> = (0..n)
            .map(|i| 0.15 * noise.normal() + if i >= 360 { 10f64.ln() } else { 0.0 })
            .collect();
        let scores = scores(levels);
        assert_eq!(alarms(&scores[..360]), 0);
        assert!(scores[360] > 1.0, "{}", scores[360]);
        assert!(alarms(&scores[360..]) >= 30, "{}", alarms(&scores[360..]));
    }

    #[test]
    fn going_back_to_usual_is_no_anomaly() {
        let mut noise = Noise::new(33);
        let high = |i: usize| if (300..360).contains(&i) { 2.0 } else { 0.0 };
        let scores = scores((0..500).map(|i| 0.15 * noise.normal() + high(i)));
        assert!(alarms(&scores[300..360]) >= 50);
        assert_eq!(alarms(&scores[370..]), 0);
    }

    #[test]
    fn the_first_windows_are_quiet() {
        assert!(
            scores([0.0, 3.0, -3.0, 5.0, 0.0, 9.0])
                .iter()
                .all(|score| *score == 0.0)
        );
    }

    #[test]
    fn a_constant_series_scores_nothing() {
        assert!(scores(vec![1.0; 500]).iter().all(|score| *score < 1e-3));
    }
}
