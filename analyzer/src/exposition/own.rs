//! What the analyzer does.

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

use super::{Encoded, Exposition, encode_histogram};
use crate::pipeline::Drop;

impl Exposition {
    pub(super) fn own(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let counters = &self.counters;
        for (name, help, value) in [
            ("analyzer_batches", "Batches taken", counters.batches),
            (
                "analyzer_series_windows",
                "Series-windows taken",
                counters.series_windows,
            ),
            (
                "analyzer_route_windows",
                "Windows of requests by route taken",
                counters.route_windows,
            ),
            (
                "analyzer_route_windows_as_other",
                "Of those, without a route of their own because there are too many",
                counters.route_windows_as_other,
            ),
            (
                "analyzer_batches_missing",
                "Batches that never came",
                counters.batches_missing,
            ),
            ("analyzer_steps", "Steps closed", counters.steps),
            ("analyzer_refits", "Models refitted", counters.refits),
            (
                "analyzer_store_failures",
                "Failed attempts to store history",
                counters.store_failures,
            ),
            (
                "analyzer_history_rows_given_up",
                "Rows of history that could not be stored for too long",
                counters.rows_given_up,
            ),
            (
                "analyzer_rebalances",
                "Times that partitions came or went",
                self.rebalances,
            ),
            (
                "analyzer_not_published",
                "Forecasts, alerts and hints that could not be published",
                self.not_published,
            ),
            (
                "analyzer_hints_left_out",
                "Nodes and series for which the policy of hints had no room",
                self.hints_left_out,
            ),
            (
                "analyzer_sensor_conflicts",
                "Batches of two sensors with one id",
                self.sensor_conflicts,
            ),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(metric)?;
        }
        let mut metric = encoder.encode_descriptor(
            "analyzer_dropped",
            "Data not used, by reason",
            None,
            MetricType::Counter,
        )?;
        let undecodable = counters
            .undecodable
            .iter()
            .map(|(reason, count)| (*reason, *count));
        let dropped = counters
            .dropped
            .iter()
            .map(|(reason, count)| (reason.name(), *count));
        let hidden = self.series_count.saturating_sub(self.series.len()) as u64;
        let routes_hidden = self.route_count.saturating_sub(self.routes.len());
        for (reason, count) in undecodable.chain(dropped) {
            ConstCounter::new(count).encode(metric.encode_family(&[("reason", reason)])?)?;
        }
        let mut metric = encoder.encode_descriptor(
            "analyzer_hints",
            "Hints decided, by what they did",
            None,
            MetricType::Counter,
        )?;
        for (kind, count) in &counters.hints {
            ConstCounter::new(*count).encode(metric.encode_family(&[("kind", *kind)])?)?;
        }
        for (name, help, histogram) in [
            (
                "analyzer_forecast_delay",
                "From the end of a step to its forecasts, the wait for late data included",
                &self.forecast_delay,
            ),
            (
                "analyzer_rebalance_duration",
                "Restoring or storing partitions that came or went",
                &self.rebalance_duration,
            ),
        ] {
            let metric = encoder.encode_descriptor(
                name,
                help,
                Some(&Unit::Seconds),
                MetricType::Histogram,
            )?;
            encode_histogram(metric, histogram)?;
        }
        let metric = encoder.encode_descriptor(
            "analyzer_behind",
            "Age of the newest record read of the partition that is furthest behind",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?;
        ConstGauge::new(self.behind_secs).encode(metric)?;
        for (name, help, value) in [
            ("analyzer_series", "Series known", self.series_count as i64),
            (
                "analyzer_partitions",
                "Partitions assigned",
                self.partitions as i64,
            ),
            (
                "analyzer_series_not_shown",
                "Series left out of this page",
                hidden as i64,
            ),
            ("analyzer_routes", "Routes known", self.route_count as i64),
            (
                "analyzer_routes_not_shown",
                "Routes left out of this page",
                routes_hidden as i64,
            ),
            (
                "analyzer_alerts_firing",
                "Alerts that fire",
                self.firing.len() as i64,
            ),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)?;
        }
        Ok(())
    }
}

impl Drop {
    /// The reason as a metric label.
    pub const fn name(self) -> &'static str {
        match self {
            Drop::Duplicate => "duplicate",
            Drop::Late => "late",
            Drop::ClockSkew => "clock_skew",
            Drop::SeriesFull => "series_full",
            Drop::UnknownSignal => "unknown_signal",
            Drop::UnknownRoute => "unknown_route",
            Drop::RoutesFull => "routes_full",
        }
    }
}
