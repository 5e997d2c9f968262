//! One series of one service: what it was, is, and will be.

use serde_json::Value;

use super::{
    overview::quantile,
    panel::{Panel, Query, choice, dashboard as new, label},
};

const SERIES: &str = r#"{service="$service",signal="$signal"}"#;
const POINT: &str =
    r#"{service="$service",signal="$signal",quantile="$quantile",horizon="$horizon"}"#;
const RISK: &str = r#"{service="$service",signal="$signal",objective="$objective"}"#;

pub fn dashboard() -> Value {
    let variables = vec![
        label("service", "honeyguide_anomaly_score", "service"),
        label(
            "signal",
            r#"honeyguide_anomaly_score{service="$service"}"#,
            "signal",
        ),
        label(
            "objective",
            r#"honeyguide_breach_probability{service="$service",signal="$signal"}"#,
            "objective",
        ),
        choice("quantile", &["0.5", "0.9", "0.99", "0.999"], "0.99"),
        choice("horizon", &["1m", "5m", "15m", "30m", "60m"], "5m"),
    ];
    let mut panels = Vec::new();
    panels.extend(risk());
    panels.extend(forecasts());
    panels.extend(distribution());
    new(
        "honeyguide-service",
        "Honeyguide / Service",
        variables,
        panels,
    )
}

fn risk() -> [Panel; 4] {
    [
        Panel::number(
            "Breach probability",
            "P(the objective is broken within its horizon); 100 % when it is broken now.",
            Query::instant(format!("max(honeyguide_breach_probability{RISK})")),
        )
        .unit("percentunit")
        .thresholds(0.5, 0.8)
        .size(6, 4),
        Panel::number(
            "Expected in",
            "Time until the objective is broken; nothing when that is unlikely, 0 when it is.",
            Query::instant(format!("max(honeyguide_breach_eta_seconds{RISK})")),
        )
        .unit("s")
        .size(6, 4),
        Panel::number(
            "Anomaly score",
            "How unusual the newest window is; 1 is the line.",
            Query::instant(format!("max(honeyguide_anomaly_score{SERIES})")),
        )
        .thresholds(1.0, 2.0)
        .size(6, 4),
        Panel::number(
            "Events",
            "Events of this series.",
            Query::instant(format!(
                "sum(histogram_count(rate(honeyguide_latency_seconds{SERIES}[$__rate_interval]))) \
                 or sum(rate(honeyguide_latency_seconds_count{SERIES}[$__rate_interval]))"
            )),
        )
        .unit("ops")
        .size(6, 4),
    ]
}

fn forecasts() -> [Panel; 4] {
    [
        Panel::lines(
            "Forecast and actual",
            "What was measured, and what had been forecast for that time, $horizon before it, with \
             its 80 % interval.",
            &[
                Query::range(
                    format!("max(honeyguide_forecast_yhat_lower_seconds{POINT} offset $horizon)"),
                    "lower",
                ),
                Query::range(
                    format!("max(honeyguide_forecast_yhat_upper_seconds{POINT} offset $horizon)"),
                    "upper",
                ),
                Query::range(
                    format!("max(honeyguide_forecast_yhat_seconds{POINT} offset $horizon)"),
                    "forecast",
                ),
                Query::range(
                    r#"max(honeyguide_forecast_y_seconds{service="$service",signal="$signal",quantile="$quantile"})"#,
                    "actual",
                ),
            ],
        )
        .band("lower", "upper")
        .unit("s")
        .logarithmic()
        .size(24, 10),
        Panel::lines(
            "What is to come",
            "The newest forecasts, by how far they look ahead.",
            &[Query::range(
                format!("max by (horizon) (honeyguide_forecast_yhat_seconds{}", {
                    r#"{service="$service",signal="$signal",quantile="$quantile"})"#
                }),
                "{{horizon}}",
            )],
        )
        .unit("s")
        .logarithmic(),
        Panel::lines(
            "Breach probability",
            "P(the objective is broken within its horizon); 0.8 is where the alert begins.",
            &[Query::range(
                format!("max by (objective) (honeyguide_breach_probability{SERIES})"),
                "{{objective}}",
            )],
        )
        .unit("percentunit")
        .axis(0.0, Some(1.0))
        .thresholds(0.8, 1.0),
        Panel::lines(
            "Time until the objective is broken",
            "Nothing while that is unlikely, 0 while it is.",
            &[Query::range(
                format!("max by (objective) (honeyguide_breach_eta_seconds{SERIES})"),
                "{{objective}}",
            )],
        )
        .unit("s")
        .axis(0.0, None),
    ]
}

fn distribution() -> [Panel; 3] {
    [
        Panel::lines(
            "Anomaly score",
            "How unusual the windows were; 1 is the line.",
            &[Query::range(
                format!("max(honeyguide_anomaly_score{SERIES})"),
                "score",
            )],
        )
        .axis(0.0, None)
        .thresholds(1.0, 2.0),
        Panel::lines(
            "Quantiles",
            "Of all events, as measured.",
            &["0.5", "0.9", "0.99", "0.999"].map(|target| {
                Query::range(
                    quantile(target, "honeyguide_latency_seconds", SERIES, ""),
                    target,
                )
            }),
        )
        .unit("s")
        .logarithmic(),
        Panel::heatmap(
            "Distribution",
            "Of all events, as measured; in the kernel's own buckets where Prometheus takes native \
             histograms.",
            Query::heatmap(format!(
                "sum(rate(honeyguide_latency_seconds{SERIES}[$__rate_interval])) or sum by (le) \
                 (rate(honeyguide_latency_seconds_bucket{SERIES}[$__rate_interval]))"
            )),
        )
        .size(12, 8),
    ]
}
