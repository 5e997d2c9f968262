//! `cargo xtask test`: everything CI tests.

use anyhow::{Result, bail};

use crate::{
    cargo::{self, BROKER_TESTS, KERNEL_TESTS, cargo},
    fuzz, helm,
    machine::{Privilege, no_bpf},
    notebooks,
    setup::{self, KAFKA, Purpose},
    step::{show, step},
};

/// Each target of [`fuzz`] is fed for so long; it is the build of them that takes time.
const FUZZ_SECONDS: u32 = 10;

/// Arguments of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Leave out the tests that need root and BPF.
    #[arg(long, conflicts_with = "kernel")]
    no_kernel: bool,
    /// Fail when the tests that need root and BPF cannot run.
    #[arg(long)]
    kernel: bool,
    /// Leave out the tests that need a real Kafka.
    #[arg(long)]
    no_broker: bool,
    /// Only tests whose name contains this; no documentation tests.
    filter: Option<String>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let kafka: &[&str] = if args.no_broker { &[] } else { &[KAFKA] };
    setup::prepare(Purpose::Test, kafka)?;
    let features = features(args)?;
    let filter = args.filter.as_slice();
    // Benches have no harness of their own to skip them: they run once each,
    // in test mode.
    step("tests, and benches in test mode", || {
        let mut test = cargo("test");
        test.args(["--workspace", "--all-targets", "--no-fail-fast"]);
        show(test.args(&features).arg("--").args(filter))
    })?;
    if filter.is_empty() {
        step("documentation tests", || {
            show(cargo("test").args(["--workspace", "--doc"]).args(&features))
        })?;
        fuzz::all(FUZZ_SECONDS)?;
        helm::check()?;
        notebooks::check_shipped()?;
    }
    Ok(())
}

/// Features to test with. Tests of the kernel and of the broker run wherever
/// they can.
fn features(args: &Args) -> Result<Vec<String>> {
    let mut wanted = Vec::new();
    match no_bpf(Privilege::detect()) {
        _ if args.no_kernel => left_out("KERNEL", "--no-kernel was given"),
        Some(reason) if args.kernel => bail!("the kernel tests cannot run: {reason}"),
        Some(reason) => left_out("KERNEL", reason),
        None if !is_root() => left_out("KERNEL", "they run only as root: sudo -E cargo xtask test"),
        None => {
            println!("· kernel tests: included");
            wanted.push(KERNEL_TESTS);
        }
    }
    if args.no_broker {
        left_out("BROKER", "--no-broker was given");
    } else {
        println!("· broker tests: included");
        wanted.push(BROKER_TESTS);
    }
    cargo::features(&wanted)
}

fn left_out(what: &str, reason: &str) {
    println!("=====================================================================");
    println!("  {what} TESTS ARE LEFT OUT: {reason}");
    println!("=====================================================================");
}

fn is_root() -> bool {
    Privilege::detect() == Privilege::Root
}
