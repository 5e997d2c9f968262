//! `/metrics`: the series as histograms and forecasts, and the analyzer's own
//! counters, as OpenMetrics text or as protobuf with native histograms.
//!
//! In protobuf the buckets are the sensor's, unchanged (schema 3). Text has no
//! native histograms; it gets the same counts at one bucket per doubling.

mod own;
mod routes;
mod steering;

use honeyguide_proto::{native_histogram, v1};
use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeMetric as _, MetricEncoder, NativeHistogram,
        NativeHistogramBuckets, NoLabelSet,
    },
    metrics::{MetricType, gauge::ConstGauge},
    registry::Unit,
};
use sensor_common::{Histogram, Signal, histogram::lower_bound_ns};

use crate::pipeline::{Counters, RouteTotal};

/// Everything that one scrape shows.
#[derive(Debug, Default)]
pub struct Exposition {
    /// All events ever, by service and signal.
    pub series: Vec<(String, Signal, Histogram)>,
    /// All requests ever by route, in the order of (service, signal, route).
    pub routes: Vec<RouteTotal>,
    /// Routes known, shown or not.
    pub route_count: usize,
    /// The newest forecasts.
    pub forecasts: Vec<v1::Forecast>,
    /// Alerts that fire.
    pub firing: Vec<v1::Alert>,
    /// Counts since the start.
    pub counters: Counters,
    /// Sensors seen twice at once.
    pub sensor_conflicts: u64,
    /// Series known, shown or not.
    pub series_count: usize,
    /// Partitions assigned.
    pub partitions: usize,
    /// Times that partitions came or went.
    pub rebalances: u64,
    /// Forecasts, alerts and hints that could not be published.
    pub not_published: u64,
    /// Hints in force, and what nodes cost.
    pub hints: v1::ListHintsResponse,
    /// Nodes and series for which there was no room in the policy of hints.
    pub hints_left_out: u64,
    /// From the end of a step to its forecasts.
    pub forecast_delay: Histogram,
    /// Of restoring or storing partitions that came or went.
    pub rebalance_duration: Histogram,
    /// How old the newest record is of the partition that is furthest behind.
    pub behind_secs: f64,
}

type Encoded = Result<(), std::fmt::Error>;

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Encoded {
        self.latencies(&mut encoder)?;
        self.requests(&mut encoder)?;
        self.observed(&mut encoder)?;
        self.forecasts(&mut encoder)?;
        self.steering(&mut encoder)?;
        self.own(&mut encoder)
    }
}

impl Exposition {
    /// Adds what another thread has.
    pub fn add(&mut self, other: Exposition) {
        self.series.extend(other.series);
        self.routes.extend(other.routes);
        self.route_count += other.route_count;
        self.counters.add(&other.counters);
        self.sensor_conflicts += other.sensor_conflicts;
        self.series_count += other.series_count;
        self.hints_left_out += other.hints_left_out;
        self.partitions += other.partitions;
        self.forecast_delay.merge(&other.forecast_delay);
        self.rebalance_duration.merge(&other.rebalance_duration);
    }

    fn latencies(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let mut metric = encoder.encode_descriptor(
            "honeyguide_latency",
            "Latency by service and signal, all events since the analyzer started",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for (service, signal, histogram) in &self.series {
            let labels = [("service", service.as_str()), ("signal", signal.name())];
            encode_histogram(metric.encode_family(&labels)?, histogram)?;
        }
        Ok(())
    }

    fn observed(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let mut metric = encoder.encode_descriptor(
            "honeyguide_forecast_y",
            "Latency of the newest window, what was forecast before as yhat",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?;
        for (service, signal, forecast) in self.named() {
            let now = forecast.now.as_ref().and_then(|now| now.latency.as_ref());
            let Some(now) = now else { continue };
            for (quantile, value) in [
                ("0.5", now.p50),
                ("0.9", now.p90),
                ("0.99", now.p99),
                ("0.999", now.p999),
            ] {
                let labels = [
                    ("service", service),
                    ("signal", signal),
                    ("quantile", quantile),
                ];
                ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn forecasts(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        type Value = fn(&v1::ForecastPoint) -> f64;
        let metrics: [(&str, &str, Value); 3] = [
            ("honeyguide_forecast_yhat", "Forecast latency", |point| {
                point.yhat
            }),
            (
                "honeyguide_forecast_yhat_lower",
                "Lower end of the 80 % interval",
                |point| point.yhat_lower_80,
            ),
            (
                "honeyguide_forecast_yhat_upper",
                "Upper end of the 80 % interval",
                |point| point.yhat_upper_80,
            ),
        ];
        for (name, help, value) in metrics {
            let mut metric =
                encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
            for (service, signal, forecast) in self.named() {
                for point in &forecast.points {
                    let Some(quantile) = quantile(point.target()) else {
                        continue;
                    };
                    let minutes = point
                        .horizon
                        .as_ref()
                        .map_or(0, |horizon| horizon.seconds / 60);
                    let horizon = format!("{minutes}m");
                    let labels = [
                        ("service", service),
                        ("signal", signal),
                        ("quantile", quantile),
                        ("horizon", horizon.as_str()),
                    ];
                    ConstGauge::new(value(point)).encode(metric.encode_family(&labels)?)?;
                }
            }
        }
        self.scores(encoder)
    }

    fn scores(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let mut metric = encoder.encode_descriptor(
            "honeyguide_anomaly_score",
            "How unusual the newest window is; 1 is the line",
            None,
            MetricType::Gauge,
        )?;
        for (service, signal, forecast) in self.named() {
            let labels = [("service", service), ("signal", signal)];
            ConstGauge::new(forecast.anomaly_score).encode(metric.encode_family(&labels)?)?;
        }
        type Value = fn(&v1::BreachForecast) -> Option<f64>;
        let metrics: [(&str, &str, Option<&Unit>, Value); 2] = [
            (
                "honeyguide_breach_probability",
                "P(the objective is broken within its horizon)",
                None,
                |breach| Some(breach.probability),
            ),
            (
                "honeyguide_breach_eta",
                "Expected time until the objective is broken",
                Some(&Unit::Seconds),
                |breach| breach.eta.as_ref().map(|eta| eta.seconds as f64),
            ),
        ];
        for (name, help, unit, value) in metrics {
            let mut metric = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
            for (service, signal, forecast) in self.named() {
                for breach in &forecast.breaches {
                    if let Some(value) = value(breach) {
                        let labels = [
                            ("service", service),
                            ("signal", signal),
                            ("objective", breach.objective.as_str()),
                        ];
                        ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn named(&self) -> impl Iterator<Item = (&str, &str, &v1::Forecast)> {
        self.forecasts.iter().filter_map(|forecast| {
            let key = forecast.key.as_ref()?;
            Some((key.service.as_str(), key.signal.as_str(), forecast))
        })
    }
}

fn quantile(target: v1::Target) -> Option<&'static str> {
    match target {
        v1::Target::P50 => Some("0.5"),
        v1::Target::P90 => Some("0.9"),
        v1::Target::P99 => Some("0.99"),
        v1::Target::P999 => Some("0.999"),
        v1::Target::Rate | v1::Target::Unspecified => None,
    }
}

fn encode_histogram(mut metric: MetricEncoder<'_>, histogram: &Histogram) -> Encoded {
    let native = native_histogram::NativeHistogram::from(histogram);
    let none = NativeHistogramBuckets {
        spans: &[],
        deltas: &[],
    };
    metric.encode_histogram_with_native::<NoLabelSet>(
        native.sum,
        native.count,
        &doublings(histogram),
        None,
        NativeHistogram {
            schema: native.schema,
            zero_threshold: 2f64.powi(-128),
            zero_count: 0,
            negative: none,
            positive: NativeHistogramBuckets {
                spans: &native.spans,
                deltas: &native.deltas,
            },
            created: None,
        },
    )
}

/// Counts of each doubling with its upper bound in seconds, the last open.
fn doublings(histogram: &Histogram) -> Vec<(f64, u64)> {
    let doublings = histogram.buckets().chunks_exact(8).enumerate();
    let mut buckets: Vec<(f64, u64)> = doublings
        .map(|(number, counts)| (lower_bound_ns((number + 1) * 8) / 1e9, counts.iter().sum()))
        .collect();
    // Beyond the last bound only the maximum is known to lie.
    if let Some(last) = buckets.last_mut() {
        last.0 = f64::MAX;
    }
    buckets
}
