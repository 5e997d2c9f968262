//! `honeyguide-sensor`: the sensor as a service. See `service`.

use std::process::ExitCode;

use honeyguide_sensor::{Config, service};
use honeyguide_service::{
    program::{self, Program},
    settings::OfAnother,
};
use serde::{Deserialize, Serialize};

const PROGRAM: Program = Program {
    name: "honeyguide-sensor",
    about: "Measures latency in the kernel and publishes it to Kafka",
    version: env!("CARGO_PKG_VERSION"),
};

/// The configuration file, which is the same for every program.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    sensor: Config,
    kafka: honeyguide_bus::kafka::Config,
    analyzer: OfAnother,
}

fn main() -> ExitCode {
    program::main(PROGRAM, |args, settings: Settings| {
        service::run(args, settings.sensor, settings.kafka)
    })
}
