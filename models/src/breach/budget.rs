//! How long an error budget lasts at the forecast pace.

use std::f64::consts::{LN_2, LN_10};

use crate::forecast::Forecast;
use crate::series::{HORIZON_SECS, TARGETS, Target};

/// A budget that lasts longer than 30 days lasts.
const BUDGET_SECS_MAX: f64 = 30.0 * 86_400.0;

/// Seconds until `budget` events have exceeded the threshold, at the pace that
/// the forecast of quantiles and rate implies; the last pace goes on.
pub(super) fn budget_secs(forecast: &Forecast, log_threshold: f64, budget: f64) -> Option<f64> {
    let mut at = 0.0;
    let mut left = budget;
    let mut pace = bad_events_per_sec(forecast, 0, log_threshold)?;
    for (h, secs) in HORIZON_SECS.iter().enumerate() {
        let secs = f64::from(*secs);
        let next = bad_events_per_sec(forecast, h, log_threshold)?;
        let mean = 0.5 * (pace + next);
        if mean * (secs - at) >= left {
            return Some(if mean > 0.0 { at + left / mean } else { at });
        }
        left -= mean * (secs - at);
        (at, pace) = (secs, next);
    }
    let total = at + left / pace;
    (total <= BUDGET_SECS_MAX).then_some(total)
}

fn bad_events_per_sec(forecast: &Forecast, horizon: usize, log_threshold: f64) -> Option<f64> {
    let mut yhat = [0.0; TARGETS];
    for target in Target::ALL {
        yhat[target.index()] = f64::from(forecast.point(horizon, target)?.yhat);
    }
    let logs = [yhat[0], yhat[1], yhat[2], yhat[3]].map(|secs| secs.max(f64::MIN_POSITIVE).ln());
    Some(yhat[Target::Rate.index()] * fraction_above(&logs, log_threshold))
}

/// Share of events above a log latency, given log p50, p90, p99 and p99.9: the
/// log of the share is linear between them, and on beyond p99.9; below p50 the
/// first segment is mirrored.
pub(super) fn fraction_above(log_quantiles: &[f64; 4], log_latency: f64) -> f64 {
    const LOG_SHARES: [f64; 4] = [-LN_2, -LN_10, -2.0 * LN_10, -3.0 * LN_10];
    let slope = |i: usize| {
        let width = (log_quantiles[i + 1] - log_quantiles[i]).max(1e-6);
        (LOG_SHARES[i + 1] - LOG_SHARES[i]) / width
    };
    if log_latency < log_quantiles[0] {
        let mirrored = 2.0 * log_quantiles[0] - log_latency;
        return 1.0 - (LOG_SHARES[0] + slope(0) * (mirrored - log_quantiles[0])).exp();
    }
    let segment = (0..3)
        .rev()
        .find(|i| log_latency >= log_quantiles[*i])
        .unwrap_or(0);
    (LOG_SHARES[segment] + slope(segment) * (log_latency - log_quantiles[segment])).exp()
}
