//! `honeyguide-analyzer`: the analyzer as a service. See `service`.

use std::process::ExitCode;

use honeyguide_analyzer::{Config, service};
use honeyguide_service::{
    program::{self, Program},
    settings::OfAnother,
};
use serde::{Deserialize, Serialize};

const PROGRAM: Program = Program {
    name: "honeyguide-analyzer",
    about: "Forecasts latency from what sensors publish to Kafka",
    version: env!("CARGO_PKG_VERSION"),
};

/// The configuration file, which is the same for every program.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    analyzer: Config,
    kafka: honeyguide_bus::kafka::Config,
    sensor: OfAnother,
}

fn main() -> ExitCode {
    program::main(PROGRAM, |args, settings: Settings| {
        service::run(args, settings.analyzer, settings.kafka)
    })
}
