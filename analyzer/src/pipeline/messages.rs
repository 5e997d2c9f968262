//! Forecasts, risks and reasons as messages and sentences.

use honeyguide_models::{
    DriverId, Forecast, HORIZON_SECS, History, Target,
    attribution::{Cause, Reason},
    breach::{Breach, ValidObjective},
};
use honeyguide_proto::v1;
use sensor_common::Signal;

use crate::{
    config::ValidObjectiveConfig,
    judge::{duration, timestamp},
    series::{Part, Series, ServiceReason},
};

/// A multiple of the usual value beyond this says no more (the usual may be
/// next to nothing).
const RATIO_MAX: f64 = 1000.0;
/// What is forecast, by horizon and target.
pub(super) fn points(forecast: &Forecast) -> Vec<v1::ForecastPoint> {
    let mut points = Vec::new();
    for (horizon, secs) in HORIZON_SECS.into_iter().enumerate() {
        for target in Target::ALL {
            if let Some(point) = forecast.point(horizon, target) {
                points.push(v1::ForecastPoint {
                    horizon: Some(duration(f64::from(secs))),
                    target: target_number(target),
                    yhat: point.yhat.into(),
                    yhat_lower_80: point.lower_80.into(),
                    yhat_upper_80: point.upper_80.into(),
                    yhat_lower_95: point.lower_95.into(),
                    yhat_upper_95: point.upper_95.into(),
                });
            }
        }
    }
    points
}

/// A forecast as it is published, of a step that ended at `at_ns`, still without risks
/// and reasons.
pub(super) fn message(
    key: &v1::SeriesKey,
    series: &Series,
    (at_ns, step_ns): (u64, u64),
    forecast: &Forecast,
) -> v1::Forecast {
    let change_point = forecast.change_point.map(|change| {
        let windows = u64::from(change.windows_ago) + 1;
        v1::ChangePoint {
            target: target_number(change.target),
            at: Some(timestamp(at_ns.saturating_sub(windows * step_ns))),
            ratio: f64::from(change.log_change).exp(),
        }
    });
    v1::Forecast {
        key: Some(key.clone()),
        made_at: Some(timestamp(at_ns)),
        now: Some(summary_of(key, series, at_ns)),
        points: points(forecast),
        anomaly_score: forecast.anomaly_score.into(),
        breaches: Vec::new(),
        reasons: Vec::new(),
        history_windows: series.ring.len() as u32,
        change_point,
    }
}

/// The newest window of a series.
fn summary_of(key: &v1::SeriesKey, series: &Series, at_ns: u64) -> v1::SeriesSummary {
    let last = &series.facts.last;
    let [p50, p90, p99, p999] = last.quantiles_secs;
    // Without events in the newest window there is no latency, and no rate.
    let observed = series.facts.idle_steps == 0;
    v1::SeriesSummary {
        key: Some(key.clone()),
        last_window_end: Some(timestamp(at_ns)),
        latency: observed.then_some(v1::LatencyQuantiles {
            p50,
            p90,
            p99,
            p999,
            max: last.max_secs,
        }),
        rate_per_sec: if observed { last.rate } else { 0.0 },
        sampling_ratio: last.sampling_ratio,
        completeness: last.completeness,
    }
}

fn target_number(target: Target) -> i32 {
    let target = match target {
        Target::P50 => v1::Target::P50,
        Target::P90 => v1::Target::P90,
        Target::P99 => v1::Target::P99,
        Target::P999 => v1::Target::P999,
        Target::Rate => v1::Target::Rate,
    };
    target.into()
}

/// The risk of an objective.
pub(super) fn breach_message(
    objective: &ValidObjectiveConfig,
    valid: &ValidObjective,
    risk: &Breach,
) -> v1::BreachForecast {
    v1::BreachForecast {
        objective: objective.config.name.clone(),
        target: target_number(objective.config.target),
        threshold_secs: valid.get().threshold,
        horizon: Some(duration(f64::from(valid.get().horizon_secs))),
        probability: risk.probability,
        eta: risk.eta.map(|eta| duration(eta.secs)),
        eta_lower_80: risk.eta.map(|eta| duration(eta.lower_80_secs)),
        eta_upper_80: risk.eta.map(|eta| duration(eta.upper_80_secs)),
        budget_exhausted_in: risk.budget_exhausted_in_secs.map(duration),
    }
}

/// A signal of the service as a reason.
pub(super) fn reason_message(own: &v1::SeriesKey, reason: &Reason) -> v1::Reason {
    let signal = match reason.cause {
        Cause::Own => own.signal.clone(),
        Cause::Load => format!("{} load", own.signal),
        Cause::Driver(DriverId(number)) => u8::try_from(number)
            .ok()
            .and_then(Signal::from_number)
            .map_or_else(|| "unknown".to_owned(), |signal| signal.name().to_owned()),
    };
    v1::Reason {
        key: Some(v1::SeriesKey {
            service: own.service.clone(),
            signal,
        }),
        contribution: reason.contribution,
        lead: Some(duration(reason.lead_secs)),
        ratio_to_usual: reason.ratio_to_usual.min(RATIO_MAX),
        peer: String::new(),
    }
}

/// A service, or what is between two, as a reason.
pub(super) fn service_reason(reason: &ServiceReason) -> v1::Reason {
    let (service, signal) = match &reason.part {
        Part::Service(service) => (service, Signal::ServerRequest),
        Part::Link(service) => (service, Signal::ClientRequest),
    };
    v1::Reason {
        key: Some(v1::SeriesKey {
            service: service.clone(),
            signal: signal.name().to_owned(),
        }),
        contribution: reason.contribution,
        lead: Some(duration(reason.lead_secs)),
        ratio_to_usual: reason.ratio_to_usual.clamp(0.0, RATIO_MAX),
        peer: reason.peer.clone(),
    }
}

/// A target as it is and as it usually is.
pub(super) struct Observed {
    pub now: Option<f64>,
    pub usual: Option<f64>,
}

/// One sentence with the numbers.
pub(super) fn summary(
    key: &v1::SeriesKey,
    breach: &v1::BreachForecast,
    observed: Observed,
    reasons: &[v1::Reason],
) -> String {
    let millis = |secs: f64| format!("{:.3} ms", secs * 1e3);
    let minutes = breach
        .horizon
        .as_ref()
        .map_or(0, |horizon| horizon.seconds / 60);
    let target = breach
        .target()
        .as_str_name()
        .trim_start_matches("TARGET_")
        .to_lowercase();
    let mut text = format!(
        "{} {}: P({target} > {} within {minutes} min) = {:.2}",
        key.service,
        key.signal,
        millis(breach.threshold_secs),
        breach.probability
    );
    if let Some(now) = observed.now {
        text += &format!(", now {}", millis(now));
    }
    if let Some(usual) = observed.usual {
        text += &format!(" (usually {})", millis(usual));
    }
    if let Some((reason, of)) = reasons
        .first()
        .and_then(|reason| Some((reason, reason.key.as_ref()?)))
    {
        let subject = if of.service == key.service {
            of.signal.clone()
        } else {
            format!("{} of {}", of.signal, of.service)
        };
        let place = if reason.peer.is_empty() {
            String::new()
        } else {
            format!(" ({})", reason.peer)
        };
        text += &format!(
            ", because of {subject}{place} at {:.1} times its usual",
            reason.ratio_to_usual
        );
    }
    text
}
