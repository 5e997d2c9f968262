//! Requests that one service answers, by route.

use serde_json::Value;

use super::panel::{Panel, Query, choice, dashboard as new, label};

/// What servers are asked, of whichever protocol; begins of metric names.
const SERVED: &str = "(http_server_request|rpc_server_call|honeyguide_server_operation)";
/// What a route is called, by protocol; the labels that others have are empty.
const ROUTE: &str = "http_request_method, http_route, rpc_method, operation_name";
const LEGEND: &str = "{{http_request_method}} {{http_route}}{{rpc_method}}{{operation_name}}";
const ERRORS: &str = r#",error_type!="""#;

pub fn dashboard() -> Value {
    let variables = vec![
        label(
            "service",
            &format!("{{__name__=~\"{SERVED}_duration_seconds(_count)?\"}}"),
            "service",
        ),
        choice("quantile", &["0.5", "0.9", "0.99", "0.999"], "0.99"),
    ];
    let panels = [summary(), by_route()].concat();
    new(
        "honeyguide-requests",
        "Honeyguide / Requests",
        variables,
        panels,
    )
}

/// Requests a second, native or with buckets; `more` are further labels.
fn rate(more: &str, by: &str) -> String {
    let of = |suffix: &str| {
        format!(
            "rate({{__name__=~\"{SERVED}_duration_seconds{suffix}\",service=\"$service\"{more}}}\
             [$__rate_interval])"
        )
    };
    format!(
        "(sum by ({by}) (histogram_count({})) or sum by ({by}) ({}))",
        of(""),
        of("_count")
    )
}

fn error_ratio(by: &str) -> String {
    format!("{} / {}", rate(ERRORS, by), rate("", by))
}

fn latency(by: &str) -> String {
    let of = |suffix: &str| {
        format!(
            "rate({{__name__=~\"{SERVED}_duration_seconds{suffix}\",service=\"$service\"}}\
             [$__rate_interval])"
        )
    };
    let by_le = if by.is_empty() {
        "le"
    } else {
        &format!("{by}, le")
    };
    format!(
        "histogram_quantile($quantile, sum by ({by}) ({})) \
         or histogram_quantile($quantile, sum by ({by_le}) ({}))",
        of(""),
        of("_bucket")
    )
}

fn summary() -> Vec<Panel> {
    vec![
        Panel::number(
            "Requests",
            "Requests that this service answers, of all protocols whose requests are told apart.",
            Query::instant(rate("", "")),
        )
        .unit("reqps")
        .size(8, 4),
        Panel::number(
            "Errors",
            "Share of requests that the service failed: class 5. What clients did wrong is not among \
             them. Nothing while there were none.",
            Query::instant(error_ratio("")),
        )
        .unit("percentunit")
        .thresholds(0.01, 0.05)
        .size(8, 4),
        Panel::number(
            "Latency",
            "The chosen quantile of all requests, to the first byte of the response.",
            Query::instant(latency("")),
        )
        .unit("s")
        .size(8, 4),
    ]
}

fn by_route() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Requests by route",
            "A line without a name: requests that have no route of their own.",
            &[Query::range(rate("", ROUTE), LEGEND)],
        )
        .unit("reqps")
        .axis(0.0, None)
        .size(24, 9),
        Panel::lines(
            "Errors by route",
            "Share of a route's requests that the service failed. Routes that never failed have no line.",
            &[Query::range(error_ratio(ROUTE), LEGEND)],
        )
        .unit("percentunit")
        .axis(0.0, Some(1.0))
        .thresholds(0.05, 0.5),
        Panel::lines(
            "Latency by route",
            "The chosen quantile, to the first byte of the response, whatever the response was.",
            &[Query::range(latency(ROUTE), LEGEND)],
        )
        .unit("s")
        .logarithmic(),
        Panel::lines(
            "Requests by status",
            "Of HTTP the class of the status, of other protocols the outcome.",
            &[Query::range(
                rate("", "http_response_status_class, outcome"),
                "{{http_response_status_class}}{{outcome}}",
            )],
        )
        .unit("reqps")
        .axis(0.0, None),
    ]
}
