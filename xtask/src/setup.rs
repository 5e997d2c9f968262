//! `cargo xtask setup`: installs what this machine lacks, asking nothing.
//!
//! First everything is asked (what is installed, mounted, offered), then the
//! plan is computed by pure functions, then it is carried out and said aloud.
//! When nothing lacks this takes well under two seconds.

mod apt;
mod chart;
mod ebpf;
mod mounts;
mod packages;
pub mod python;

use std::time::Instant;

use anyhow::{Result, bail};
use kafka_node::Jars;

pub use self::{
    chart::ChartTools,
    ebpf::{Rust, linker_path, prefix},
    packages::{INCIDENTS, Purpose},
};
use crate::{
    machine::{self, Privilege},
    step::{seconds, step},
};

/// Arguments of `cargo xtask setup`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What the machine is needed for; `bench` includes every bench's tools.
    #[arg(long = "for", value_enum, default_value_t = Purpose::Run)]
    purpose: Purpose,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let benches: &[&str] = match args.purpose {
        Purpose::Test => &[KAFKA],
        Purpose::Run | Purpose::Bench => &[],
    };
    prepare(args.purpose, benches)
}

/// What a whole build for tests takes of disk, in GB.
const BUILD_GB: u64 = 12;

/// The bench, and the tests, that need a broker.
pub const KAFKA: &str = "kafka";

/// Makes the machine ready for `purpose`; `benches` narrows
/// [`Purpose::Bench`] to the tools of those benches. [`KAFKA`] among them gets
/// Apache Kafka, also for tests.
pub fn prepare(purpose: Purpose, benches: &[&str]) -> Result<()> {
    let start = Instant::now();
    let privilege = Privilege::detect();
    let rust = Rust::find();
    let linker = ebpf::linker();
    let mut wanted = packages::tools(purpose, benches);
    if rust.is_none() {
        wanted.extend(packages::RUST_WITH_SOURCES);
    }
    if linker.is_none() || !machine::in_path("cc") {
        wanted.extend(packages::C_COMPILER);
    }
    wanted.push(packages::TLS_LIBRARY);
    let kafka = benches.contains(&KAFKA) || purpose == Purpose::Bench && benches.is_empty();
    if kafka && !kafka_is_present() {
        wanted.extend(absent(&packages::KAFKA_TOOLS));
    }
    if purpose == Purpose::Test {
        wanted.extend(absent(&packages::HTTP_SERVERS));
    }
    if machine::has_apt() {
        install(privilege, wanted, linker.is_none(), rust.as_ref())?;
    } else if rust.is_none() || linker.is_none() {
        bail!(
            "{}",
            packages::by_hand(
                rust.is_none(),
                linker.is_none(),
                &packages::tools(purpose, benches)
            )
        );
    }
    if linker.is_none() {
        step("building bpf-linker (once; kept in the tool cache)", || {
            ebpf::build_linker(&ebpf::prefix()?)
        })?;
    }
    if kafka && !kafka_is_present() {
        step("getting Apache Kafka from Maven Central (once)", || {
            Jars::fetch().map(drop)
        })?;
    }
    if purpose == Purpose::Test {
        ChartTools::fetch()?;
        python::NOTEBOOKS.fetch()?;
    }
    mounts::ensure(privilege);
    if let Some(free) = machine::free_disk_gb().filter(|free| *free < BUILD_GB) {
        println!("· only {free} GB of disk are free here: a whole build takes about {BUILD_GB}");
    }
    println!("· this machine is ready ({})", seconds(start.elapsed()));
    Ok(())
}

/// Packages of those programs that are not there.
fn absent(programs: &[(&str, &'static str)]) -> impl Iterator<Item = &'static str> {
    let absent = programs
        .iter()
        .filter(|(program, _)| !machine::in_path(program));
    absent.map(|(_, package)| *package)
}

/// Installs those of `wanted` that are missing, and LLVM for the linker.
fn install(
    privilege: Privilege,
    wanted: Vec<&str>,
    linker_is_missing: bool,
    rust: Option<&Rust>,
) -> Result<()> {
    let mut missing = packages::missing(&wanted, &apt::installed(&wanted));
    if missing.is_empty() && !linker_is_missing {
        return Ok(());
    }
    if privilege == Privilege::None {
        bail!(
            "this needs root once (or `sudo` without a password): run `sudo apt-get install {}`, \
             then this command again",
            missing.join(" ")
        );
    }
    step("reading the package lists", || apt::update(privilege))?;
    if linker_is_missing {
        let offered = apt::offered_llvm();
        let major = packages::choose_llvm(rust.and_then(Rust::llvm_major), &offered)?;
        let llvm = packages::llvm(major);
        let present = apt::installed(&llvm.each_ref().map(String::as_str));
        missing.extend(llvm.into_iter().filter(|name| !present.contains(name)));
    }
    if missing.is_empty() {
        return Ok(());
    }
    step(&format!("installing {}", missing.join(" ")), || {
        apt::install(privilege, &missing)
    })
}

/// Whether the broker tests have Apache Kafka. They need it even if the
/// environment names a broker, because some kill nodes.
fn kafka_is_present() -> bool {
    machine::in_path("java") && Jars::find().is_ok()
}

/// Whether bpf-linker is there already.
pub fn linker_is_present() -> bool {
    ebpf::linker().is_some()
}
