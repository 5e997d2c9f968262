//! `honeyguide analyzer`: the analyzer alone, a member of the group on Kafka.

use std::{process::ExitCode, sync::Arc, time::Duration};

use honeyguide_analyzer::{Analyzer, StateTopic};
use honeyguide_bus::{Topic, kafka::KafkaConsumer};
use prometheus_client::registry::Registry;
use tracing::info;

use crate::{collector::LagCollector, settings::Settings, up::ended};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Analyzers of one group share the partitions; another one adds capacity.

Examples:
  honeyguide analyzer --set kafka.brokers=kafka-1:9092,kafka-2:9092
  honeyguide forecast                     asks it for forecasts
")]
pub struct Args {
    /// Stop after this time.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
}

pub fn run(args: Args, settings: Settings) -> anyhow::Result<ExitCode> {
    let config = settings.analyzer.validate()?;
    let kafka = settings.kafka.validate()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let consumer = KafkaConsumer::join(&kafka, Topic::Histograms).await?;
        let state = StateTopic::connect(kafka).await?;
        let mut registry = Registry::default();
        registry.register_collector(Box::new(LagCollector(consumer.lags())));
        let registry = Arc::new(registry);
        let analyzer = Analyzer::start(config, consumer, Some(state), registry).await?;
        info!("reading from Kafka");
        ended(args.duration).await;
        analyzer.stop().await;
        anyhow::Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}
