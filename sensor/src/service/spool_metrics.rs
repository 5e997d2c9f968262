//! Metrics of the spool, read when they are scraped.

use std::fmt;

use honeyguide_bus::spool;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

/// `spool_…`: what Kafka has not acknowledged.
pub struct SpoolCollector<F>(pub F);

impl<F> fmt::Debug for SpoolCollector<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SpoolCollector")
    }
}

impl<F> Collector for SpoolCollector<F>
where
    F: Fn() -> spool::Status + Send + Sync + 'static,
{
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let status = (self.0)();
        for (name, help, unit, value) in [
            (
                "spool_segments",
                "Segments on disk",
                None,
                status.segments as u64,
            ),
            (
                "spool_size",
                "Segments on disk",
                Some(&Unit::Bytes),
                status.bytes,
            ),
        ] {
            let gauge = ConstGauge::new(value as i64);
            gauge.encode(encoder.encode_descriptor(name, help, unit, gauge.metric_type())?)?;
        }
        let past = ConstCounter::new(status.past);
        past.encode(encoder.encode_descriptor(
            "spool_passed_records",
            "Records published past the spool because its disk took none",
            None,
            past.metric_type(),
        )?)?;
        let mut lost = encoder.encode_descriptor(
            "spool_lost_records",
            "Records that will not be published, by reason",
            None,
            MetricType::Counter,
        )?;
        for (reason, count) in [
            ("full", status.lost.full),
            ("old", status.lost.old),
            ("damaged", status.lost.damaged),
            ("refused", status.lost.refused),
        ] {
            ConstCounter::new(count).encode(lost.encode_family(&[("reason", reason)])?)?;
        }
        Ok(())
    }
}
