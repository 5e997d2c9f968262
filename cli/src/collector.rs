//! Metrics of the process and its bus, read when they are scraped.

use std::{collections::BTreeMap, fmt};

use honeyguide_bus::{PartitionId, Topic, memory::MemoryBus, spool};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

/// `process_…` and `bus_…`.
#[derive(Debug)]
pub struct ProcessCollector {
    bus: MemoryBus,
}

impl ProcessCollector {
    pub fn new(bus: MemoryBus) -> Self {
        Self { bus }
    }
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(bytes) = resident_memory_bytes() {
            let gauge = ConstGauge::new(bytes as i64);
            gauge.encode(encoder.encode_descriptor(
                "process_resident_memory",
                "Resident memory of this process",
                Some(&Unit::Bytes),
                gauge.metric_type(),
            )?)?;
        }
        for (name, help, count) in [
            (
                "bus_publish_waits",
                "Times a publisher waited for a full partition",
                self.bus.publish_waits(),
            ),
            (
                "bus_publish_refusals",
                "Times a publisher waited too long and offered its record again",
                self.bus.publish_refusals(),
            ),
        ] {
            let counter = ConstCounter::new(count);
            counter.encode(encoder.encode_descriptor(
                name,
                help,
                None,
                counter.metric_type(),
            )?)?;
        }
        let retained = ConstGauge::new(self.bus.retained(Topic::Histograms) as i64);
        retained.encode(encoder.encode_descriptor(
            "bus_retained_records",
            "Records of histograms that the analyzer has not committed yet",
            None,
            retained.metric_type(),
        )?)
    }
}

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

fn resident_memory_bytes() -> Option<u64> {
    let memory = procfs::process::Process::myself().ok()?.statm().ok()?;
    Some(memory.resident * procfs::page_size())
}
