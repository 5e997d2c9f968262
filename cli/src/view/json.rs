//! Forecasts, routes, alerts and hints as JSON, for scripts: seconds, and the field names of
//! the protobuf messages.

use honeyguide_proto::v1::{
    Alert, BreachForecast, Forecast, ForecastPoint, Hint, LatencyQuantiles, NodeCost, Reason,
    RouteSummary, SeriesKey,
};
use serde_json::{Value, json};

use super::target_name;

pub fn forecast(forecast: &Forecast) -> Value {
    let now = forecast.now.as_ref();
    json!({
        "key": key(forecast.key.as_ref()),
        "made_at": forecast.made_at.as_ref().map(|at| at.seconds),
        "rate_per_sec": now.map(|now| now.rate_per_sec),
        "sampling_ratio": now.map(|now| now.sampling_ratio),
        "completeness": now.map(|now| now.completeness),
        "latency": latency(now.and_then(|now| now.latency.as_ref())),
        "points": points(&forecast.points),
        "anomaly_score": forecast.anomaly_score,
        "breaches": forecast.breaches.iter().map(breach).collect::<Vec<_>>(),
        "reasons": forecast.reasons.iter().map(reason).collect::<Vec<_>>(),
        "history_windows": forecast.history_windows,
        "change_point": forecast.change_point.as_ref().map(|change| json!({
            "target": target_name(change.target()),
            "at": change.at.as_ref().map(|at| at.seconds),
            "ratio": change.ratio,
        })),
    })
}

pub fn route(route: &RouteSummary) -> Value {
    json!({
        "service": route.service,
        "side": super::routes::side(route.side()),
        "protocol": super::routes::protocol(route.protocol()),
        "method": route.method,
        "template": route.template,
        "peer": route.peer,
        "peer_service": route.peer_service,
        "route": route.route,
        "window_end": route.window_end.as_ref().map(|at| at.seconds),
        "window": secs(route.window.as_ref()),
        "latency": latency(route.latency.as_ref()),
        "rate_per_sec": route.rate_per_sec,
        "errors_per_sec": route.errors_per_sec,
        "error_ratio": route.error_ratio,
        "sampling_ratio": route.sampling_ratio,
        "classes": route.classes.iter().map(|class| json!({
            "status_class": class.status_class,
            "rate_per_sec": class.rate_per_sec,
            "requests": class.requests,
        })).collect::<Vec<_>>(),
        "points": points(&route.points),
    })
}

pub fn alert(alert: &Alert) -> Value {
    json!({
        "id": alert.id,
        "firing": super::is_firing(alert),
        "key": key(alert.key.as_ref()),
        "breach": alert.breach.as_ref().map(breach),
        "fired_at": alert.fired_at.as_ref().map(|at| at.seconds),
        "resolved_at": alert.resolved_at.as_ref().map(|at| at.seconds),
        "reasons": alert.reasons.iter().map(reason).collect::<Vec<_>>(),
        "summary": alert.summary,
    })
}

pub fn hint(hint: &Hint) -> Value {
    json!({
        "sensor_id": hint.sensor_id,
        "service": hint.service,
        "signal": hint.signal,
        "sampling_shift": hint.sampling_shift,
        "flush_interval": secs(hint.flush_interval.as_ref()),
        "reason": hint.reason,
        "issued_at": hint.issued_at.as_ref().map(|at| at.seconds),
        "ttl": secs(hint.ttl.as_ref()),
        "epoch": hint.epoch,
        "dry_run": hint.dry_run,
    })
}

pub fn node(node: &NodeCost) -> Value {
    json!({
        "sensor_id": node.sensor_id,
        "cost_ratio": node.cost_ratio,
        "full_cost_ratio": node.full_cost_ratio,
        "budget_ratio": node.budget_ratio,
    })
}

fn points(points: &[ForecastPoint]) -> Value {
    let points = points.iter().map(|point| {
        json!({
            "horizon": secs(point.horizon.as_ref()),
            "target": target_name(point.target()),
            "yhat": point.yhat,
            "yhat_lower_80": point.yhat_lower_80,
            "yhat_upper_80": point.yhat_upper_80,
            "yhat_lower_95": point.yhat_lower_95,
            "yhat_upper_95": point.yhat_upper_95,
        })
    });
    points.collect()
}

fn latency(latency: Option<&LatencyQuantiles>) -> Value {
    json!(latency.map(|latency| json!({
        "p50": latency.p50,
        "p90": latency.p90,
        "p99": latency.p99,
        "p999": latency.p999,
        "max": latency.max,
    })))
}

fn key(key: Option<&SeriesKey>) -> Value {
    json!(key.map(|key| json!({ "service": key.service, "signal": key.signal })))
}

fn breach(breach: &BreachForecast) -> Value {
    json!({
        "objective": breach.objective,
        "target": target_name(breach.target()),
        "threshold_secs": breach.threshold_secs,
        "horizon": secs(breach.horizon.as_ref()),
        "probability": breach.probability,
        "eta": secs(breach.eta.as_ref()),
        "eta_lower_80": secs(breach.eta_lower_80.as_ref()),
        "eta_upper_80": secs(breach.eta_upper_80.as_ref()),
        "budget_exhausted_in": secs(breach.budget_exhausted_in.as_ref()),
    })
}

fn reason(reason: &Reason) -> Value {
    json!({
        "key": key(reason.key.as_ref()),
        "contribution": reason.contribution,
        "lead": secs(reason.lead.as_ref()),
        "ratio_to_usual": reason.ratio_to_usual,
        "peer": reason.peer,
    })
}

fn secs(duration: Option<&prost_types::Duration>) -> Option<f64> {
    duration.map(|duration| duration.seconds as f64 + f64::from(duration.nanos) / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::example;

    #[test]
    fn forecast_keeps_the_field_names_of_the_messages() {
        let value = forecast(&example());
        assert_eq!(value["key"]["signal"], "server_request");
        assert_eq!(value["points"][0]["yhat_upper_80"], 1.1);
        assert_eq!(value["breaches"][0]["eta"], 540.0);
        assert_eq!(value["breaches"][0]["budget_exhausted_in"], Value::Null);
    }

    #[test]
    fn route_keeps_the_field_names_of_the_messages() {
        let value = route(&crate::view::routes::tests::example());
        assert_eq!(value["side"], "server");
        assert_eq!(value["template"], "/users/{id}");
        assert_eq!(value["latency"]["p999"], 0.05);
        assert_eq!(value["classes"][1]["requests"], 15);
    }
}
