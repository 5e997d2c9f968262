//! Everything at a glance: what is at risk, and whether Honeyguide is well.

use serde_json::Value;

use super::panel::{Panel, Query, dashboard as new};

/// Lines that a panel shows at most.
const TOP: usize = 10;
/// Every objective once, whichever analyzer has it.
const BY_OBJECTIVE: &str = "max by (service, signal, objective)";

pub fn dashboard() -> Value {
    let mut panels = vec![Panel::row("Now")];
    panels.extend(now());
    panels.push(Panel::row("At risk"));
    panels.extend(at_risk());
    panels.push(Panel::row("Sensors"));
    panels.extend(sensors());
    panels.push(Panel::row("How closely sensors look"));
    panels.extend(attention());
    panels.push(Panel::row("Analyzers"));
    panels.extend(analyzers());
    new(
        "honeyguide-overview",
        "Honeyguide / Overview",
        Vec::new(),
        panels,
    )
}

fn now() -> [Panel; 6] {
    [
        Panel::number(
            "Services",
            "Services with a forecast.",
            Query::instant("count(count by (service) (honeyguide_anomaly_score))"),
        ),
        Panel::number(
            "Highest breach probability",
            "Of any service and objective, within the objective's horizon.",
            Query::instant("max(honeyguide_breach_probability)"),
        )
        .unit("percentunit")
        .thresholds(0.5, 0.8),
        Panel::number(
            "Objectives broken",
            "Objectives whose newest window is above the threshold.",
            Query::instant(format!(
                "count({BY_OBJECTIVE} (honeyguide_breach_probability) == 1) or vector(0)"
            )),
        )
        .thresholds(1.0, 1.0),
        Panel::number(
            "Alerts firing",
            "Alerts of the analyzers, with their own hysteresis.",
            Query::instant("sum(analyzer_alerts_firing)"),
        )
        .thresholds(1.0, 5.0),
        Panel::number(
            "Sensors",
            "Sensors that are scraped.",
            Query::instant("count(sensor_windows_total)"),
        ),
        Panel::number(
            "Analyzers",
            "Analyzers that are scraped.",
            Query::instant("count(analyzer_steps_total)"),
        ),
    ]
}

fn at_risk() -> [Panel; 3] {
    [
        Panel::table(
            "Services at risk",
            "The twenty objectives most likely to be broken, and when.",
            &[
                Query::table(format!(
                    "topk(20, {BY_OBJECTIVE} (honeyguide_breach_probability))"
                )),
                Query::table(format!(
                    "{BY_OBJECTIVE} (honeyguide_breach_eta_seconds) and on (service, signal, \
                     objective) topk(20, {BY_OBJECTIVE} (honeyguide_breach_probability))"
                )),
            ],
        )
        .columns(&[
            ("Time", None),
            ("Value #A", Some(("Probability", "percentunit"))),
            ("Value #B", Some(("Expected in", "s"))),
        ])
        .size(24, 9),
        Panel::lines(
            "Breach probability",
            "P(the objective is broken within its horizon); 0.8 is where the alert begins.",
            &[Query::range(
                format!("topk({TOP}, {BY_OBJECTIVE} (honeyguide_breach_probability))"),
                "{{service}} {{signal}} {{objective}}",
            )],
        )
        .unit("percentunit")
        .axis(0.0, Some(1.0))
        .thresholds(0.8, 1.0),
        Panel::lines(
            "Anomaly score",
            "How unusual the newest windows are; 1 is the line.",
            &[Query::range(
                format!("topk({TOP}, max by (service, signal) (honeyguide_anomaly_score))"),
                "{{service}} {{signal}}",
            )],
        )
        .axis(0.0, None)
        .thresholds(1.0, 2.0),
    ]
}

fn sensors() -> [Panel; 6] {
    [
        Panel::lines(
            "Sensor cost",
            "CPUs that sensors take: in user space, and in each kernel program where that is measured.",
            &[
                Query::range(
                    "sum(rate(sensor_cpu_seconds_total[$__rate_interval]))",
                    "user space",
                ),
                Query::range(
                    "sum by (program) (rate(sensor_program_run_time_seconds_total[$__rate_interval]))",
                    "{{program}}",
                ),
            ],
        )
        .axis(0.0, None),
        Panel::lines(
            "Events",
            "Events counted by all sensors, estimated where they are sampled.",
            &[Query::range(
                "sum(rate(sensor_events_total[$__rate_interval]))",
                "all",
            )],
        )
        .unit("ops"),
        Panel::lines(
            "Events lost",
            "In the kernel and on the way to the bus, by reason; none is best.",
            &[Query::range(
                "sum by (reason) (rate(sensor_events_lost_total[$__rate_interval])) > 0 or vector(0)",
                "{{reason}}",
            )],
        )
        .unit("ops")
        .axis(0.0, None),
        Panel::lines(
            "Flush duration",
            "Time to drain, encode and queue a window.",
            &[
                Query::range(quantile("0.5", "sensor_flush_duration_seconds", "", ""), "p50"),
                Query::range(quantile("0.99", "sensor_flush_duration_seconds", "", ""), "p99"),
            ],
        )
        .unit("s")
        .axis(0.0, None),
        Panel::lines(
            "Spool",
            "What Kafka has not acknowledged, of the sensors with most.",
            &[Query::range(
                format!("topk({TOP}, spool_size_bytes)"),
                "{{instance}}",
            )],
        )
        .unit("bytes")
        .axis(0.0, None),
        Panel::lines(
            "Probes below their best level",
            "0 is off or refused, 1 a fallback, 2 the best level; the lowest over all sensors.",
            &[Query::range("min by (probe) (sensor_probe_level)", "{{probe}}")],
        )
        .axis(0.0, Some(2.0)),
    ]
}

fn attention() -> [Panel; 4] {
    [
        Panel::lines(
            "Cost of sensors",
            "Of the node where it is highest, as a share of its CPUs: what sensors cost, what they \
             would cost if every event were sampled, what calm series may cost, and the ceiling.",
            &[
                Query::range("max(honeyguide_node_cost_ratio)", "cost"),
                Query::range("max(honeyguide_node_full_cost_ratio)", "every event"),
                Query::range("max(honeyguide_node_budget_ratio)", "budget"),
                Query::range("max(sensor_cost_ceiling_ratio)", "ceiling"),
            ],
        )
        .unit("percentunit")
        .axis(0.0, None),
        Panel::lines(
            "Sampling by hints",
            "The smallest share of events that a hint asks for; 1 where there is none.",
            &[Query::range(
                "min by (signal) (honeyguide_hint_sampling_ratio) or vector(1)",
                "{{signal}}",
            )],
        )
        .unit("percentunit")
        .axis(0.0, Some(1.0)),
        Panel::lines(
            "Hints",
            "What became of hints at sensors; renewed ones are applied again.",
            &[Query::range(
                "sum by (outcome) (rate(sensor_hints_total[$__rate_interval]))",
                "{{outcome}}",
            )],
        )
        .unit("ops")
        .axis(0.0, None),
        Panel::lines(
            "Shedding",
            "Steps by which sensors look less closely than they were told to, to stay under their \
             ceiling; the highest of all sensors.",
            &[Query::range("max(sensor_shedding_level)", "highest")],
        )
        .axis(0.0, None),
    ]
}

fn analyzers() -> [Panel; 6] {
    [
        Panel::lines(
            "Forecast delay",
            "From the end of a step to its forecasts, the wait for late data included.",
            &[
                Query::range(
                    quantile("0.5", "analyzer_forecast_delay_seconds", "", ""),
                    "p50",
                ),
                Query::range(
                    quantile("0.99", "analyzer_forecast_delay_seconds", "", ""),
                    "p99",
                ),
            ],
        )
        .unit("s")
        .axis(0.0, None),
        Panel::lines(
            "Lag",
            "Records not read yet, by partition.",
            &[Query::range(
                "max by (partition) (bus_lag_records)",
                "{{partition}}",
            )],
        )
        .axis(0.0, None),
        Panel::lines(
            "Data dropped",
            "Data that analyzers did not use, by reason; none is best.",
            &[Query::range(
                "sum by (reason) (rate(analyzer_dropped_total[$__rate_interval])) > 0 or vector(0)",
                "{{reason}}",
            )],
        )
        .unit("ops")
        .axis(0.0, None),
        Panel::lines(
            "Batches that never came",
            "Gaps in the numbers of the sensors' batches.",
            &[Query::range(
                "sum(rate(analyzer_batches_missing_total[$__rate_interval]))",
                "all",
            )],
        )
        .unit("ops")
        .axis(0.0, None),
        Panel::lines(
            "Series",
            "Series known to each analyzer.",
            &[Query::range(
                "sum by (instance) (analyzer_series)",
                "{{instance}}",
            )],
        ),
        Panel::lines(
            "Steps and refits",
            "Steps closed, and models fitted anew.",
            &[
                Query::range("sum(rate(analyzer_steps_total[$__rate_interval]))", "steps"),
                Query::range(
                    "sum(rate(analyzer_refits_total[$__rate_interval]))",
                    "refits",
                ),
            ],
        )
        .unit("ops"),
    ]
}

/// A quantile of a histogram, native or with buckets, of `labels` and by the
/// labels `by`.
pub fn quantile(quantile: &str, metric: &str, labels: &str, by: &str) -> String {
    let by_le = if by.is_empty() {
        "le".to_owned()
    } else {
        format!("{by}, le")
    };
    format!(
        "histogram_quantile({quantile}, sum by ({by}) (rate({metric}{labels}[$__rate_interval]))) \
         or histogram_quantile({quantile}, sum by ({by_le}) \
         (rate({metric}_bucket{labels}[$__rate_interval])))"
    )
}
