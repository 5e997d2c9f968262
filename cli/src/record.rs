//! `honeyguide record`: the sensor alone, into a file.

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use honeyguide_bus::{
    Consumer, ConsumerEvent, Position, Topic,
    memory::{self, MemoryBus},
    recording::RecordingWriter,
};
use honeyguide_sensor::{AttachedSensor, Metrics};
use prometheus_client::registry::Registry;

use crate::settings::Settings;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sudo honeyguide record incident.hgr                  Until Ctrl-C
  sudo honeyguide record --duration 10m incident.hgr
")]
pub struct Args {
    /// File to write; it must not exist.
    file: PathBuf,
    /// Stop after this time.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
}

pub fn run(args: Args, settings: Settings) -> anyhow::Result<ExitCode> {
    let config = settings.sensor.validate()?;
    let mut writer = RecordingWriter::create(&args.file)
        .with_context(|| format!("failed to create {}", args.file.display()))?;
    let attached = AttachedSensor::attach(config)
        .context("nothing can be measured on this machine (`honeyguide doctor` tells why)")?;
    honeyguide_sensor::privileges::drop_privileges().context("failed to drop privileges")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let records = runtime.block_on(async {
        let bus = MemoryBus::new(memory::Config::default());
        let mut consumer = bus.consumer("record", Topic::Histograms);
        let metrics = Metrics::register(&mut Registry::default());
        let sensor = attached.start(Arc::new(bus.clone()), metrics)?;
        let end = honeyguide_service::ended(args.duration);
        tokio::pin!(end);
        let mut sensor = Some(sensor);
        let mut records = 0u64;
        loop {
            let event = tokio::select! {
                () = &mut end, if sensor.is_some() => {
                    if let Some(sensor) = sensor.take() {
                        sensor.stop().await;
                        bus.close();
                    }
                    continue;
                }
                event = consumer.next() => event,
            };
            let delivery = match event {
                Ok(ConsumerEvent::Delivery(delivery)) => delivery,
                Ok(_) => continue,
                Err(_) => return anyhow::Ok(records),
            };
            writer
                .write(&delivery.record)
                .with_context(|| format!("failed to write {}", args.file.display()))?;
            records += 1;
            let position = Position {
                topic: delivery.record.topic,
                partition: delivery.record.partition,
                offset: delivery.offset + 1,
            };
            consumer.commit(&[position]).await?;
        }
    })?;
    eprintln!("{records} batches in {}", args.file.display());
    Ok(ExitCode::SUCCESS)
}
