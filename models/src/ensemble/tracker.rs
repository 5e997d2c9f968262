//! Where the ends of intervals are put by how often they were missed.

use serde::{Deserialize, Serialize};

use super::lead::{TAIL, TAIL_80};

/// Step of the tracking of the 80 % interval, whose ends are missed more often.
const GAIN_80: f64 = 0.01;
/// Ends are moved outwards by so many scales at most.
const OUTWARDS_MAX: f64 = 40.0;

/// How far the ends of intervals are moved outwards, in scales, so that
/// in the long run each is missed as often as it should be, whatever residuals
/// do: quantile tracking, the proportional part of conformal PID (Angelopoulos,
/// Candès and Tibshirani 2023, equation 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Tracker {
    /// Of the 95 % and of the 80 % interval, below and above.
    outwards: [[f32; 2]; 2],
}

impl Tracker {
    /// Learns where a residual lay; `ends` are the law's.
    pub(super) fn learn(
        &mut self,
        normalised: f64,
        [low, lower, upper, high]: [f64; 4],
        gain: f64,
        weight: f64,
    ) {
        let intervals = [
            (gain, TAIL, [low, high]),
            (GAIN_80, TAIL_80, [lower, upper]),
        ];
        for (outwards, (gain, tail, [low, high])) in self.outwards.iter_mut().zip(intervals) {
            let [below, above] = outwards.map(f64::from);
            let missed = [normalised < low - below, normalised > high + above];
            let gain = gain * weight * (high - low).max(1.0);
            for (outwards, missed) in outwards.iter_mut().zip(missed) {
                let moved = f64::from(*outwards) + gain * (f64::from(u8::from(missed)) - tail);
                *outwards = moved.clamp(-0.5 * (high - low), OUTWARDS_MAX) as f32;
            }
        }
    }

    /// Of a quantile: as tracked at the two tails, fading out towards the median.
    pub(super) fn shift(&self, level: f64) -> f64 {
        let side = usize::from(level > 0.5);
        let [far, near] = self.outwards.map(|outwards| f64::from(outwards[side]));
        let tail = level.min(1.0 - level).max(0.0);
        let outwards = if tail < TAIL_80 {
            let share = ((TAIL_80 - tail) / (TAIL_80 - TAIL)).min(1.0);
            near + share * (far - near)
        } else {
            near * (0.5 - tail) / (0.5 - TAIL_80)
        };
        if side == 1 { outwards } else { -outwards }
    }
}
