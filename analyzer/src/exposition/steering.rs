//! What sensors are told, and what it follows from.

use honeyguide_proto::v1;
use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, gauge::ConstGauge},
};

use super::{Encoded, Exposition};

impl Exposition {
    pub(super) fn steering(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let mut metric = encoder.encode_descriptor(
            "honeyguide_hint_sampling_ratio",
            "Share of events that sensors are told to sample; without a hint: all, or as configured",
            None,
            MetricType::Gauge,
        )?;
        for hint in &self.hints.hints {
            if let Some(shift) = hint.sampling_shift {
                let labels = [
                    ("sensor", hint.sensor_id.as_str()),
                    ("service", hint.service.as_str()),
                    ("signal", hint.signal.as_str()),
                ];
                let ratio = 0.5f64.powi(shift.min(u32::from(u8::MAX)).cast_signed());
                ConstGauge::new(ratio).encode(metric.encode_family(&labels)?)?;
            }
        }
        type Value = fn(&v1::NodeCost) -> f64;
        let metrics: [(&str, &str, Value); 3] = [
            (
                "honeyguide_node_cost_ratio",
                "Measured cost of the sensor as a share of the node's CPUs",
                |node| node.cost_ratio,
            ),
            (
                "honeyguide_node_full_cost_ratio",
                "The same, estimated, if every event were sampled",
                |node| node.full_cost_ratio,
            ),
            (
                "honeyguide_node_budget_ratio",
                "What calm series may cost, as a share of the node's CPUs",
                |node| node.budget_ratio,
            ),
        ];
        for (name, help, value) in metrics {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for node in &self.hints.nodes {
                let labels = [("sensor", node.sensor_id.as_str())];
                ConstGauge::new(value(node)).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
