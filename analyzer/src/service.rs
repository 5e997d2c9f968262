//! The analyzer alone, a member of the group on Kafka: what
//! `honeyguide-analyzer` and `honeyguide analyzer` run.

mod lag_metrics;

use std::{process::ExitCode, sync::Arc, time::Duration};

use honeyguide_bus::{
    Topic,
    kafka::{self, KafkaConsumer},
};
use honeyguide_service::ended;
use prometheus_client::registry::Registry;
use tracing::info;

use self::lag_metrics::LagCollector;
use crate::{Analyzer, Config, Outlet, StateTopic, config::HintsMode};

/// Flags of the analyzer as a service.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Analyzers of one group share the partitions; another one adds capacity.

Examples:
  honeyguide-analyzer --set kafka.brokers=kafka-1:9092,kafka-2:9092
  honeyguide forecast                     asks it for forecasts
")]
pub struct Args {
    /// Stop after this time.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Publish hints that sensors count and do not follow; as
    /// `--set analyzer.hints.mode=dry-run`.
    #[arg(long)]
    dry_run: bool,
}

/// Forecasts until it is told to end.
///
/// # Errors
/// When the configuration is not valid, or something cannot be opened.
pub fn run(args: Args, mut config: Config, kafka: kafka::Config) -> anyhow::Result<ExitCode> {
    if args.dry_run {
        config.hints.mode = HintsMode::DryRun;
    }
    let config = config.validate()?;
    let kafka = kafka.validate()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let consumer = KafkaConsumer::join(&kafka, Topic::Histograms).await?;
        let state = StateTopic::connect(kafka).await?;
        let outlet = Outlet::Kafka(Box::new(state));
        let mut registry = Registry::default();
        registry.register_collector(Box::new(LagCollector(consumer.lags())));
        let registry = Arc::new(registry);
        let analyzer = Analyzer::start(config, consumer, outlet, registry).await?;
        info!("reading from Kafka");
        ended(args.duration).await;
        analyzer.stop().await;
        anyhow::Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}
