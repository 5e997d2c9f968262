//! The sensor alone, publishing to Kafka: what `honeyguide-sensor` and
//! `honeyguide sensor` run.

mod http;
mod spool_metrics;

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use honeyguide_bus::{
    Topic,
    kafka::{self, KafkaProducer, KafkaTail},
    spool,
};
use honeyguide_service::ended;
use prometheus_client::registry::Registry;
use tracing::info;

use self::spool_metrics::SpoolCollector;
use crate::{AttachedSensor, Config, Metrics};

/// How long the end of the process waits for the broker.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Flags of the sensor as a service.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Needs root, or CAP_BPF and CAP_PERFMON. What Kafka does not take is kept in
sensor.spool_dir and published when it does. While it runs:
  curl http://127.0.0.1:9454/metrics      is what Prometheus scrapes

Examples:
  sudo honeyguide-sensor --set kafka.brokers=kafka-1:9092,kafka-2:9092
")]
pub struct Args {
    /// Stop after this time.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
}

/// Measures and publishes until it is told to end.
///
/// # Errors
/// When the configuration is not valid, or something cannot be opened.
pub fn run(args: Args, config: Config, kafka: kafka::Config) -> anyhow::Result<ExitCode> {
    let sensor_config = config.validate()?;
    let kafka = kafka.validate()?;
    let spool = spool::Config {
        directory: sensor_config.config.spool_dir.clone(),
        bytes_max: sensor_config.config.spool_mb_max << 20,
        age_max: sensor_config.config.spool_age_max,
    };
    let http_listen = sensor_config.config.http_listen;
    // Before any other thread exists, so that none keeps more privileges.
    let attached = AttachedSensor::attach(sensor_config)
        .context("nothing can be measured on this machine (`honeyguide doctor` tells why)")?;
    crate::privileges::drop_privileges().context("failed to drop privileges")?;

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let hints = KafkaTail::new(kafka.clone(), Topic::Hints);
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
        let mut sensor = attached.start(Arc::clone(&spool), metrics)?;
        sensor.follow_hints(hints);
        http::serve(http_listen, registry, sensor.status()).await?;
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
