//! Through a series once, with a forecast at the origin of each window.

use super::{MODELS, forecaster, path};
use crate::{
    baseline::{Quantiles, seasonal_naive},
    own::held,
    score::Score,
    table::Series,
};

/// Windows of a series that are kept to be drawn.
const DRAWN: usize = 3;
/// Values before a window that are drawn with it, in shares of its length.
const BEFORE: f64 = 1.0;

/// What is forecast of a series.
pub(super) struct Plan {
    pub(super) step_secs: u32,
    /// Season of the seasonal naive forecast and of MASE, in steps.
    pub(super) season: usize,
    pub(super) asked: Vec<Asked>,
}

/// Windows of one length.
pub(super) struct Asked {
    pub(super) horizon: usize,
    pub(super) origins: Vec<usize>,
    drawn: Vec<usize>,
}

/// A window with what was expected of it.
#[derive(Clone, Debug)]
pub(super) struct Fan {
    /// Values before, NaN where there were none.
    pub(super) before: Vec<f64>,
    pub(super) truth: Vec<f64>,
    pub(super) forecast: Vec<Quantiles>,
}

/// All windows of one length of a series.
#[derive(Clone, Debug, Default)]
pub(super) struct Walked {
    /// By window, in the order of [`MODELS`].
    pub(super) windows: Vec<[Score; MODELS.len()]>,
    /// By step ahead.
    pub(super) leads: Vec<[Score; MODELS.len()]>,
    pub(super) fans: Vec<Fan>,
}

impl Asked {
    /// `draw`: whether the first, middle and last window are kept to be drawn.
    pub(super) fn new(horizon: usize, origins: Vec<usize>, draw: bool) -> Self {
        let mut drawn = Vec::new();
        if let (true, Some(last)) = (draw, origins.len().checked_sub(1)) {
            drawn = (0..DRAWN)
                .map(|k| origins[k * last / (DRAWN - 1)])
                .collect();
            drawn.dedup();
        }
        Asked {
            horizon,
            origins,
            drawn,
        }
    }
}

impl Plan {
    /// What came of it, for each of `asked`.
    pub(super) fn walk(&self, series: &Series) -> Vec<Walked> {
        let mut walked = vec![Walked::default(); self.asked.len()];
        let longest = self.asked.iter().map(|asked| asked.horizon).max();
        let mut forecaster = forecaster(self.step_secs, longest.unwrap_or(1));
        // What has no model knows no missing values.
        let held = held(&series.values);
        for (at, value) in series.values.iter().enumerate() {
            forecaster.observe(*value);
            let (history, future) = series.values.split_at(at + 1);
            for (asked, walked) in self.asked.iter().zip(&mut walked) {
                if !asked.origins.contains(&history.len()) {
                    continue;
                }
                let actual = &future[..asked.horizon];
                let forecasts = [
                    path(&forecaster, asked.horizon),
                    seasonal_naive(&held[..=at], self.season, asked.horizon),
                    seasonal_naive(&held[..=at], 1, asked.horizon),
                ];
                walked.add(&held[..=at], self.season, &forecasts, actual);
                if asked.drawn.contains(&history.len()) {
                    let before = (BEFORE * asked.horizon as f64) as usize;
                    walked.fans.push(Fan {
                        before: history[history.len().saturating_sub(before)..].to_vec(),
                        truth: actual.to_vec(),
                        forecast: forecasts[0].clone(),
                    });
                }
            }
        }
        walked
    }
}

impl Walked {
    fn add(
        &mut self,
        history: &[f64],
        season: usize,
        forecasts: &[Vec<Quantiles>; MODELS.len()],
        actual: &[f64],
    ) {
        let score = |model: usize| Score::of(history, season, &forecasts[model], actual);
        self.windows.push(std::array::from_fn(score));
        self.leads
            .resize_with(actual.len(), || std::array::from_fn(|_| Score::default()));
        for (lead, y) in actual.iter().enumerate().filter(|(_, y)| !y.is_nan()) {
            for (score, forecast) in self.leads[lead].iter_mut().zip(forecasts) {
                if let Some(quantiles) = forecast.get(lead) {
                    score.step(quantiles, *y);
                }
            }
        }
    }

    /// Of all windows of a model.
    pub(super) fn total(&self, model: usize) -> Score {
        Score::total(self.windows.iter().map(|window| &window[model]))
    }
}
