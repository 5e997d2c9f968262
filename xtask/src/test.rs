//! `cargo xtask test`: everything CI tests.

use anyhow::{Result, bail};

use crate::{
    cargo::{cargo, kernel_features},
    machine::{Privilege, no_bpf},
    setup::{self, Purpose},
    step::{show, step},
};

/// Arguments of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Leave out the tests that need root and BPF.
    #[arg(long, conflicts_with = "kernel")]
    no_kernel: bool,
    /// Fail when the tests that need root and BPF cannot run.
    #[arg(long)]
    kernel: bool,
    /// Only tests whose name contains this; no documentation tests.
    filter: Option<String>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    setup::prepare(Purpose::Test, &[])?;
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
    }
    Ok(())
}

/// Features to test with. The kernel tests run wherever they can.
fn features(args: &Args) -> Result<Vec<String>> {
    let reason = match no_bpf(Privilege::detect()) {
        _ if args.no_kernel => "--no-kernel was given",
        Some(reason) if args.kernel => bail!("the kernel tests cannot run: {reason}"),
        Some(reason) => reason,
        None if !is_root() => "they run only as root: sudo -E cargo xtask test",
        None => {
            println!("· kernel tests: included");
            return kernel_features();
        }
    };
    println!("=====================================================================");
    println!("  KERNEL TESTS ARE LEFT OUT: {reason}");
    println!("=====================================================================");
    Ok(Vec::new())
}

fn is_root() -> bool {
    Privilege::detect() == Privilege::Root
}
