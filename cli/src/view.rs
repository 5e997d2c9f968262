//! Forecasts, routes and alerts as text: one line, a report, or rows of the live table.
//!
//! Pure: protobuf values in, strings out.

pub mod json;
pub mod routes;
pub mod table;

use std::fmt::Write;

use honeyguide_proto::v1::{
    Alert, AlertState, BreachForecast, ChangePoint, Forecast, ForecastPoint, Reason, SeriesKey,
    Target,
};

/// The horizon the live table and the lines show, in seconds.
pub const HORIZON_SECS: i64 = 15 * 60;

/// A latency with the unit that suits it: `870 ns`, `12 µs`, `4.3 ms`, `1.2 s`.
pub fn latency(secs: f64) -> String {
    if !secs.is_finite() {
        return "–".to_owned();
    }
    let (value, unit) = match secs {
        s if s >= 1.0 => (s, "s"),
        s if s >= 1e-3 => (s * 1e3, "ms"),
        s if s >= 1e-6 => (s * 1e6, "µs"),
        s => (s * 1e9, "ns"),
    };
    format!("{} {unit}", three_digits(value))
}

/// Events per second.
pub fn rate(per_sec: f64) -> String {
    match per_sec {
        r if r >= 1e6 => format!("{} M/s", three_digits(r / 1e6)),
        r if r >= 1e3 => format!("{} k/s", three_digits(r / 1e3)),
        r => format!("{}/s", three_digits(r)),
    }
}

fn three_digits(value: f64) -> String {
    match value {
        v if v >= 99.95 => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// `9 min`, `40 s`, `now`.
pub fn time_to(duration: &prost_types::Duration) -> String {
    match duration.seconds {
        s if s <= 0 => "now".to_owned(),
        s if s < 120 => format!("{s} s"),
        s => format!("{} min", (s + 30) / 60),
    }
}

/// The forecast of `target` at [`HORIZON_SECS`].
pub fn point(forecast: &Forecast, target: Target) -> Option<&ForecastPoint> {
    point_of(&forecast.points, target)
}

/// Of `points` that of `target` at [`HORIZON_SECS`].
pub fn point_of(points: &[ForecastPoint], target: Target) -> Option<&ForecastPoint> {
    points.iter().find(|point| {
        point.target() == target
            && point
                .horizon
                .is_some_and(|horizon| horizon.seconds == HORIZON_SECS)
    })
}

/// The breach that is most likely.
pub fn worst_breach(forecast: &Forecast) -> Option<&BreachForecast> {
    forecast
        .breaches
        .iter()
        .max_by(|a, b| a.probability.total_cmp(&b.probability))
}

/// `runq` for a reason of the same service, `process/db runq` for another's.
pub fn reason(reason: &Reason, of: Option<&SeriesKey>) -> String {
    let Some(key) = &reason.key else {
        return String::new();
    };
    let mut text = String::new();
    if of.is_none_or(|of| of.service != key.service) {
        let _ = write!(text, "{} ", key.service);
    }
    let _ = write!(text, "{}", key.signal);
    if reason.ratio_to_usual.is_finite() && reason.ratio_to_usual > 0.0 {
        let _ = write!(text, " ×{}", three_digits(reason.ratio_to_usual));
    }
    match reason.lead {
        Some(lead) if lead.seconds > 0 => {
            let _ = write!(text, " (leads by {})", time_to(&lead));
        }
        _ => {}
    }
    text
}

/// One line for one series.
pub fn line(forecast: &Forecast) -> String {
    let mut text = String::new();
    if let Some(key) = &forecast.key {
        let _ = write!(text, "{} {}", key.service, key.signal);
    }
    if let Some(now) = &forecast.now {
        let _ = write!(text, "  {}", rate(now.rate_per_sec));
        if let Some(quantiles) = &now.latency {
            let _ = write!(
                text,
                "  p50 {}  p99 {}",
                latency(quantiles.p50),
                latency(quantiles.p99)
            );
        }
    }
    if let Some(p99) = point(forecast, Target::P99) {
        let _ = write!(
            text,
            "  p99 in 15 min {} [{}, {}]",
            latency(p99.yhat),
            latency(p99.yhat_lower_80),
            latency(p99.yhat_upper_80)
        );
    }
    if let Some(breach) = worst_breach(forecast) {
        let _ = write!(text, "  risk {:.0} %", breach.probability * 100.0);
        if let Some(eta) = &breach.eta {
            let _ = write!(text, " in {}", time_to(eta));
        }
    }
    let _ = write!(text, "  anomaly {:.2}", forecast.anomaly_score);
    if let Some(first) = forecast.reasons.first() {
        let _ = write!(text, "  because {}", reason(first, forecast.key.as_ref()));
    }
    text
}

/// Everything known of one series, over several lines.
pub fn report(forecast: &Forecast) -> String {
    let mut text = line(forecast);
    text.push_str("\n\n  horizon  target      yhat   80 % interval          95 % interval\n");
    for point in &forecast.points {
        let show = |value| match point.target() {
            Target::Rate => rate(value),
            _ => latency(value),
        };
        let horizon = point.horizon.as_ref().map(time_to).unwrap_or_default();
        let _ = writeln!(
            text,
            "  {horizon:>7}  {:<6} {:>9}   {:<22} {}",
            target_name(point.target()),
            show(point.yhat),
            format!(
                "[{}, {}]",
                show(point.yhat_lower_80),
                show(point.yhat_upper_80)
            ),
            format_args!(
                "[{}, {}]",
                show(point.yhat_lower_95),
                show(point.yhat_upper_95)
            ),
        );
    }
    if let Some(change) = &forecast.change_point {
        let _ = writeln!(text, "\n  {}", change_text(change, forecast));
    }
    for breach in &forecast.breaches {
        let _ = writeln!(
            text,
            "\n  objective {}: {}",
            breach.objective,
            breach_text(breach)
        );
    }
    if !forecast.reasons.is_empty() {
        text.push_str("\n  reasons\n");
    }
    for (rank, entry) in forecast.reasons.iter().enumerate() {
        let _ = writeln!(
            text,
            "  {}. {}  share {:+.0} %",
            rank + 1,
            reason(entry, forecast.key.as_ref()),
            entry.contribution * 100.0
        );
    }
    text
}

/// `lasting change: p99 ×1.80, 12 min ago`.
fn change_text(change: &ChangePoint, forecast: &Forecast) -> String {
    let mut text = format!(
        "lasting change: {} ×{}",
        target_name(change.target()),
        three_digits(change.ratio)
    );
    if let (Some(at), Some(made_at)) = (&change.at, &forecast.made_at) {
        let ago = prost_types::Duration {
            seconds: made_at.seconds - at.seconds,
            nanos: 0,
        };
        let _ = write!(text, ", {} ago", time_to(&ago));
    }
    text
}

/// `P(p99 > 5.00 ms within 15 min) = 0.83, ETA 9 min [6 min, 14 min]`.
pub fn breach_text(breach: &BreachForecast) -> String {
    let mut text = format!(
        "P({} > {} within {}) = {:.2}",
        target_name(breach.target()),
        latency(breach.threshold_secs),
        breach.horizon.as_ref().map(time_to).unwrap_or_default(),
        breach.probability
    );
    if let Some(eta) = &breach.eta {
        let _ = write!(text, ", ETA {}", time_to(eta));
        if let (Some(lower), Some(upper)) = (&breach.eta_lower_80, &breach.eta_upper_80) {
            let _ = write!(text, " [{}, {}]", time_to(lower), time_to(upper));
        }
    }
    if let Some(exhausted) = &breach.budget_exhausted_in {
        let _ = write!(text, ", error budget used up in {}", time_to(exhausted));
    }
    text
}

/// One line for one alert.
pub fn alert_line(alert: &Alert) -> String {
    let state = if is_firing(alert) {
        "FIRING  "
    } else {
        "resolved"
    };
    format!("{state}  {}", alert.summary)
}

pub fn is_firing(alert: &Alert) -> bool {
    alert.state() == AlertState::Firing
}

/// The name of a target as users know it.
pub fn target_name(target: Target) -> &'static str {
    match target {
        Target::P50 => "p50",
        Target::P90 => "p90",
        Target::P99 => "p99",
        Target::P999 => "p99.9",
        Target::Rate => "rate",
        Target::Unspecified => "?",
    }
}

#[cfg(test)]
pub mod tests {
    use honeyguide_proto::v1::{LatencyQuantiles, SeriesSummary};

    use super::*;

    fn seconds(seconds: i64) -> Option<prost_types::Duration> {
        Some(prost_types::Duration { seconds, nanos: 0 })
    }

    fn key(service: &str, signal: &str) -> Option<SeriesKey> {
        Some(SeriesKey {
            service: service.to_owned(),
            signal: signal.to_owned(),
        })
    }

    /// A forecast with every part that is shown.
    pub fn example() -> Forecast {
        Forecast {
            key: key("systemd/nginx.service", "server_request"),
            now: Some(SeriesSummary {
                latency: Some(LatencyQuantiles {
                    p50: 0.000_47,
                    p90: 0.002,
                    p99: 0.012,
                    p999: 0.05,
                    max: 0.06,
                }),
                rate_per_sec: 12_345.0,
                sampling_ratio: 1.0,
                completeness: 1.0,
                ..Default::default()
            }),
            points: vec![ForecastPoint {
                horizon: seconds(900),
                target: Target::P99.into(),
                yhat: 0.3,
                yhat_lower_80: 0.1,
                yhat_upper_80: 1.1,
                yhat_lower_95: 0.05,
                yhat_upper_95: 2.0,
            }],
            anomaly_score: 1.4,
            breaches: vec![BreachForecast {
                objective: "requests".to_owned(),
                target: Target::P99.into(),
                threshold_secs: 0.25,
                horizon: seconds(900),
                probability: 0.83,
                eta: seconds(540),
                eta_lower_80: seconds(360),
                eta_upper_80: seconds(840),
                budget_exhausted_in: None,
            }],
            reasons: vec![Reason {
                key: key("systemd/nginx.service", "runq"),
                contribution: 0.7,
                lead: seconds(240),
                ratio_to_usual: 31.0,
                peer: String::new(),
            }],
            made_at: Some(prost_types::Timestamp {
                seconds: 1_700_000_720,
                nanos: 0,
            }),
            change_point: Some(ChangePoint {
                target: Target::P99.into(),
                at: Some(prost_types::Timestamp {
                    seconds: 1_700_000_000,
                    nanos: 0,
                }),
                ratio: 1.8,
            }),
            ..Default::default()
        }
    }

    #[test]
    fn latencies_have_three_digits_and_a_unit() {
        for (secs, expected) in [
            (8.7e-7, "870 ns"),
            (1.24e-5, "12.4 µs"),
            (0.004_3, "4.30 ms"),
            (0.3, "300 ms"),
            (1.234, "1.23 s"),
            (f64::NAN, "–"),
        ] {
            assert_eq!(latency(secs), expected);
        }
    }

    #[test]
    fn line_tells_now_forecast_risk_and_reason() {
        assert_eq!(
            line(&example()),
            "systemd/nginx.service server_request  12.3 k/s  p50 470 µs  p99 12.0 ms  \
             p99 in 15 min 300 ms [100 ms, 1.10 s]  risk 83 % in 9 min  anomaly 1.40  \
             because runq ×31.0 (leads by 4 min)"
        );
    }

    #[test]
    fn report_tells_the_breach_with_its_interval() {
        let report = report(&example());
        assert!(
            report.contains("P(p99 > 250 ms within 15 min) = 0.83, ETA 9 min [6 min, 14 min]"),
            "{report}"
        );
        assert!(
            report.contains("1. runq ×31.0 (leads by 4 min)  share +70 %"),
            "{report}"
        );
        assert!(
            report.contains("lasting change: p99 ×1.80, 12 min ago"),
            "{report}"
        );
    }
}
