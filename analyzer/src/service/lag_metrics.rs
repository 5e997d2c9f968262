//! How far an analyzer on Kafka is behind, read when it is scraped.

use std::{collections::BTreeMap, fmt};

use honeyguide_bus::PartitionId;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
};

/// `bus_lag_records`: how far an analyzer on Kafka is behind.
pub struct LagCollector<F>(pub F);

impl<F> fmt::Debug for LagCollector<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LagCollector")
    }
}

impl<F> Collector for LagCollector<F>
where
    F: Fn() -> BTreeMap<PartitionId, u64> + Send + Sync + 'static,
{
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(
            "bus_lag_records",
            "Records of histograms that this analyzer has not read yet, by partition",
            None,
            MetricType::Gauge,
        )?;
        for (partition, lag) in (self.0)() {
            let labels = [("partition", partition)];
            ConstGauge::new(lag as i64).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
