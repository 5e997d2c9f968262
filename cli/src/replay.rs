//! `honeyguide replay`: a recording through the same pipeline, with the
//! recorded times as now.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use honeyguide_analyzer::pipeline::{Command, Input, Pipeline};
use honeyguide_bus::{Delivery, recording::RecordingReader};
use honeyguide_proto::v1;

use crate::{settings::Settings, view};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The same recording and configuration give the same output, bit for bit.

Examples:
  honeyguide replay incident.hgr                     Alerts as they fire, the last forecasts
  honeyguide replay incident.hgr --all               Every forecast of every step
  honeyguide replay incident.hgr --set analyzer.step=1s
")]
pub struct Args {
    /// Recording made by `honeyguide record`.
    file: PathBuf,
    /// Every forecast of every step.
    #[arg(long)]
    all: bool,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args, settings: Settings) -> anyhow::Result<ExitCode> {
    let config = settings.analyzer.validate()?;
    let step_ns = config.step_ns();
    let reader = RecordingReader::open(&args.file)
        .with_context(|| format!("failed to open {}", args.file.display()))?;
    let mut replay = Replay {
        pipeline: Pipeline::new(config),
        args: &args,
        last: Vec::new(),
        alerts: 0,
    };
    let mut end_ns = 0;
    let mut broken = None;
    for (offset, record) in (0..).zip(reader) {
        match record {
            Ok(record) => {
                end_ns = record.timestamp_ns.max(end_ns);
                let delivery = Delivery { offset, record };
                replay.handle(Input::Delivery(&delivery), end_ns);
            }
            Err(error) => broken = Some(error),
        }
    }
    // Time enough to close the last step.
    let as_of_ns = end_ns + 3 * step_ns + 300_000_000_000;
    replay.handle(Input::CaughtUp { as_of_ns }, as_of_ns);
    replay.finish();
    match broken {
        Some(error) => Err(error).with_context(|| args.file.display().to_string()),
        None => Ok(ExitCode::SUCCESS),
    }
}

struct Replay<'a> {
    pipeline: Pipeline,
    args: &'a Args,
    /// Forecasts of the last step that had any.
    last: Vec<v1::Forecast>,
    alerts: usize,
}

impl Replay<'_> {
    fn handle(&mut self, input: Input<'_>, now_ns: u64) {
        self.pipeline.handle(input, now_ns);
        while let Some(command) = self.pipeline.next_command() {
            match command {
                Command::Forecasts(forecasts) => {
                    if self.args.all {
                        forecasts.iter().for_each(|forecast| self.print(forecast));
                    }
                    if forecasts.iter().any(|forecast| {
                        forecast
                            .now
                            .as_ref()
                            .is_some_and(|now| now.latency.is_some())
                    }) {
                        self.last = forecasts;
                    }
                }
                Command::Alert(alert) => {
                    self.alerts += 1;
                    if self.args.json {
                        println!("{}", view::json::alert(&alert));
                    } else {
                        println!("{}", view::alert_line(&alert));
                    }
                }
                Command::Store { step, .. } => {
                    // Nothing is kept, and nothing waits for it.
                    self.pipeline.handle(Input::Stored { step }, now_ns);
                }
                Command::Commit(_) => {}
            }
        }
    }

    fn print(&self, forecast: &v1::Forecast) {
        if self.args.json {
            println!("{}", view::json::forecast(forecast));
        } else {
            println!("{}", view::line(forecast));
        }
    }

    fn finish(self) {
        if !self.args.all {
            self.last.iter().for_each(|forecast| self.print(forecast));
        }
        let counters = self.pipeline.counters();
        eprintln!(
            "{} batches, {} series-windows, {} steps; {} alerts fired or resolved; {} batches missing, {} undecodable",
            counters.batches,
            counters.series_windows,
            counters.steps,
            self.alerts,
            counters.batches_missing,
            counters.undecodable.values().sum::<u64>()
        );
    }
}
