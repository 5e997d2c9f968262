//! `honeyguide topics`: makes and checks the topics on Kafka.

use std::process::ExitCode;

use honeyguide_bus::kafka::topics;

use crate::settings::Settings;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  honeyguide topics apply --set kafka.brokers=kafka-1:9092 --set kafka.replication=3
  honeyguide topics check
")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make the topics that are missing, and check all. Existing ones are never changed.
    Apply,
    /// Check that all topics exist as they must.
    Check,
}

pub fn run(args: Args, settings: Settings) -> anyhow::Result<ExitCode> {
    let kafka = settings.kafka.validate()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match args.command {
            Command::Apply => {
                for topic in topics::apply(&kafka).await? {
                    let what = if topic.made { "made" } else { "is there" };
                    println!("{}: {what}, {} partitions", topic.topic, topic.partitions);
                }
            }
            Command::Check => {
                for (topic, partitions) in topics::check(&kafka).await? {
                    println!("{}: {partitions} partitions", topic.name());
                }
            }
        }
        anyhow::Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}
