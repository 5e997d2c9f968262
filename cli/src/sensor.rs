//! `honeyguide sensor`: the sensor alone, publishing to Kafka.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use honeyguide_bus::{kafka::KafkaProducer, spool};
use honeyguide_sensor::{AttachedSensor, Metrics};
use prometheus_client::registry::Registry;
use tracing::info;

use crate::{collector::SpoolCollector, sensor_http, settings::Settings, up::ended};

/// How long the end of the process waits for the broker.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Needs root, or CAP_BPF and CAP_PERFMON. What Kafka does not take is kept in
sensor.spool_dir and published when it does. While it runs:
  curl http://127.0.0.1:9454/metrics      is what Prometheus scrapes

Examples:
  sudo honeyguide sensor --set kafka.brokers=kafka-1:9092,kafka-2:9092
")]
pub struct Args {
    /// Stop after this time.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
}

pub fn run(args: Args, settings: Settings) -> anyhow::Result<ExitCode> {
    let sensor_config = settings.sensor.validate()?;
    let kafka = settings.kafka.validate()?;
    let spool = spool::Config {
        directory: sensor_config.config.spool_dir.clone(),
        bytes_max: sensor_config.config.spool_mb_max << 20,
        age_max: sensor_config.config.spool_age_max,
    };
    let http_listen = sensor_config.config.http_listen;
    // Before any other thread exists, so that none keeps more privileges.
    let attached = AttachedSensor::attach(sensor_config)
        .context("nothing can be measured on this machine (`honeyguide doctor` tells why)")?;
    honeyguide_sensor::privileges::drop_privileges().context("failed to drop privileges")?;

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let producer = KafkaProducer::connect(kafka).await?;
        let directory = spool.directory.clone();
        let spool = spool::Spool::open(spool, producer).with_context(|| {
            format!(
                "failed to open the spool {} (sensor.spool_dir)",
                directory.display()
            )
        })?;
        let spool = Arc::new(spool);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(SpoolCollector(spool.status())));
        let metrics = Metrics::register(&mut registry);
        let sensor = attached.start(Arc::clone(&spool), metrics)?;
        sensor_http::serve(http_listen, registry, sensor.status()).await?;
        info!("publishing to Kafka");
        ended(args.duration).await;
        sensor.stop().await;
        if let Some(spool) = Arc::into_inner(spool) {
            spool.close(CLOSE_TIMEOUT).await;
        }
        anyhow::Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}
