//! What can be set, checked once.

use serde::{Deserialize, Serialize};

use crate::ensemble::Ahead;
use crate::error::ParamsError;
use crate::level::{SPAN_SECS, SPANS};
use crate::series::{HORIZON_SECS, HORIZONS};

/// Settings of all models of one analyzer. [`Params::validate`] makes the
/// checked form that every function takes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Params {
    /// Length of a window in seconds, 1..=300. Default 10.
    pub step_secs: u32,
    /// Share of windows of an undisturbed series whose anomaly score may
    /// exceed 1.0, in [1e-6, 0.1]. Default 1e-4: one in 28 h at 10 s windows
    /// ([`Params::for_step`] for others).
    pub false_alarm_rate: f64,
    /// Windows between two refits of a series, 6..=8640. Default 60.
    pub refit_windows: u32,
    /// Ridge penalty per standardised feature, in rows: a feature needs about
    /// this many rows of evidence to count by half. In (0, 1e6]. Default 10.
    pub ridge: f64,
    /// Seed of the simulated paths behind breach probabilities.
    pub seed: u64,
}

impl Default for Params {
    fn default() -> Self {
        Params {
            step_secs: 10,
            false_alarm_rate: 1e-4,
            refit_windows: 60,
            ridge: 10.0,
            seed: 0x686f_6e65_7967_7569,
        }
    }
}

/// Alarms a window of 10 s that are worth having, and windows of minutes.
const FALSE_ALARMS: std::ops::RangeInclusive<f64> = 1e-4..=1e-3;
const FALSE_ALARMS_STEP_SECS: f64 = 10.0;

impl Params {
    /// The defaults for windows of a length. Of longer windows there are fewer a day, so
    /// that more of them may be false alarms: one in 10,000 up to 10 s, in 1,000 from
    /// 100 s on, and one in 28 h between.
    pub fn for_step(step_secs: u32) -> Self {
        let (least, most) = FALSE_ALARMS.into_inner();
        let rate = least * f64::from(step_secs) / FALSE_ALARMS_STEP_SECS;
        Params {
            step_secs,
            false_alarm_rate: rate.clamp(least, most),
            ..Params::default()
        }
    }

    /// Checks every range.
    ///
    /// # Errors
    /// The first parameter that is out of range, with its value.
    pub fn validate(self) -> Result<ValidParams, ParamsError> {
        if !(1..=300).contains(&self.step_secs) {
            return Err(ParamsError::StepSecs(self.step_secs));
        }
        if !(1e-6..=0.1).contains(&self.false_alarm_rate) {
            return Err(ParamsError::FalseAlarmRate(self.false_alarm_rate));
        }
        if !(6..=8640).contains(&self.refit_windows) {
            return Err(ParamsError::RefitWindows(self.refit_windows));
        }
        if !(self.ridge > 0.0 && self.ridge <= 1e6) {
            return Err(ParamsError::Ridge(self.ridge));
        }
        let step_secs = f64::from(self.step_secs);
        Ok(ValidParams {
            params: self,
            decays: SPAN_SECS.map(|span| (-step_secs / span).exp()),
            horizon_windows: HORIZON_SECS.map(|secs| windows_in(secs, self.step_secs)),
            ahead: HORIZON_SECS.map(|secs| Ahead::new(windows_in(secs, self.step_secs))),
        })
    }
}

/// Windows in a span of time, rounded, at least 1.
fn windows_in(secs: u32, step_secs: u32) -> usize {
    (((secs + step_secs / 2) / step_secs) as usize).max(1)
}

/// [`Params`] in range, with what follows from them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValidParams {
    params: Params,
    decays: [f64; SPANS],
    horizon_windows: [usize; HORIZONS],
    ahead: [Ahead; HORIZONS],
}

impl ValidParams {
    /// The settings.
    pub fn get(&self) -> &Params {
        &self.params
    }

    /// Length of a window in seconds.
    pub fn step_secs(&self) -> f64 {
        f64::from(self.params.step_secs)
    }

    /// Windows until a horizon: its length divided by the step, at least 1.
    pub fn horizon_windows(&self) -> &[usize; HORIZONS] {
        &self.horizon_windows
    }

    /// Windows in a span of time, rounded, at least 1.
    pub(crate) fn windows_in(&self, secs: u32) -> usize {
        windows_in(secs, self.params.step_secs)
    }

    /// The same, with how often such forecasts are followed.
    pub(crate) fn ahead(&self) -> &[Ahead; HORIZONS] {
        &self.ahead
    }

    /// What a level of each span keeps from one window to the next.
    pub(crate) fn decays(&self) -> &[f64; SPANS] {
        &self.decays
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn defaults_are_valid() {
        let params = Params::default().validate().unwrap();
        assert_eq!(params.horizon_windows(), &[6, 30, 90, 180, 360]);
    }

    #[test]
    fn long_steps_still_look_one_window_ahead() {
        let params = Params {
            step_secs: 300,
            ..Params::default()
        };
        assert_eq!(
            params.validate().unwrap().horizon_windows(),
            &[1, 1, 3, 6, 12]
        );
    }

    #[test]
    fn longer_windows_may_be_false_alarms_more_often() {
        let rate = |step_secs| Params::for_step(step_secs).false_alarm_rate;
        assert_eq!(Params::for_step(10), Params::default());
        assert_eq!(rate(1), 1e-4);
        assert!((rate(60) - 6e-4).abs() < 1e-12);
        assert_eq!((rate(100), rate(300)), (1e-3, 1e-3));
        assert!((1..=300).all(|secs| Params::for_step(secs).validate().is_ok()));
    }

    proptest! {
        #[test]
        fn validation_accepts_exactly_what_is_in_range(
            step_secs in prop_oneof![0u32..400, any::<u32>()],
            false_alarm_rate in prop_oneof![-1.0..1.0f64, any::<f64>()],
            refit_windows in prop_oneof![0u32..10_000, any::<u32>()],
            ridge in prop_oneof![-1.0..2e6f64, any::<f64>()],
        ) {
            let params = Params { step_secs, false_alarm_rate, refit_windows, ridge, seed: 0 };
            let fine = (1..=300).contains(&step_secs)
                && (1e-6..=0.1).contains(&false_alarm_rate)
                && (6..=8640).contains(&refit_windows)
                && ridge > 0.0 && ridge <= 1e6;
            prop_assert_eq!(params.validate().is_ok(), fine);
        }
    }
}
