//! Sensor and analyzer of one process, with what is between them to read.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Result;
use honeyguide_analyzer::{Analyzer, Outlet};
use honeyguide_bus::{
    Consumer, ConsumerEvent, Topic,
    memory::{self, MemoryBus, MemoryConsumer},
    tail::MemoryTail,
};
use honeyguide_proto::batch::Batch;
use honeyguide_sensor::{AttachedSensor, Metrics, Sensor};
use prometheus_client::registry::Registry;

pub struct Looped {
    bus: MemoryBus,
    batches: MemoryConsumer,
    sensor: Sensor,
    pub analyzer: Analyzer,
}

impl Looped {
    pub async fn start(
        sensor: honeyguide_sensor::Config,
        analyzer: honeyguide_analyzer::Config,
    ) -> Result<Self> {
        let bus = MemoryBus::new(memory::Config {
            partitions: 1,
            ..memory::Config::default()
        });
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let analyzer = honeyguide_analyzer::Config {
            grpc_listen: any_port,
            http_listen: any_port,
            ..analyzer
        };
        let batches = bus.consumer("bench", Topic::Histograms);
        let consumer = bus.consumer("analyzer", Topic::Histograms);
        let hints = MemoryTail::new(&bus, "sensor", Topic::Hints);
        let outlet = Outlet::Hints(bus.clone());
        let analyzer =
            Analyzer::start(analyzer.validate()?, consumer, outlet, Arc::default()).await?;
        let attached = AttachedSensor::attach(sensor.validate()?)?;
        let metrics = Metrics::register(&mut Registry::default());
        let mut sensor = attached.start(Arc::new(bus.clone()), metrics)?;
        sensor.follow_hints(hints);
        Ok(Self {
            bus,
            batches,
            sensor,
            analyzer,
        })
    }

    /// The next batch that the sensor publishes.
    pub async fn batch(&mut self) -> Result<Batch> {
        loop {
            if let ConsumerEvent::Delivery(delivery) = self.batches.next().await? {
                return Ok(Batch::decode(&delivery.record.payload)?);
            }
        }
    }

    pub async fn stop(self) {
        self.sensor.stop().await;
        self.analyzer.stop().await;
        self.bus.close();
    }
}
