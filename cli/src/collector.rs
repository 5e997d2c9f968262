//! Metrics of the process and its bus, read when they are scraped.

use std::fmt;

use honeyguide_bus::{Topic, memory::MemoryBus};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
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

fn resident_memory_bytes() -> Option<u64> {
    let memory = procfs::process::Process::myself().ok()?.statm().ok()?;
    Some(memory.resident * procfs::page_size())
}
