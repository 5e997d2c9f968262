//! Compares the bucket index of the kernel's build with that of user space,
//! value by value, for `cargo xtask bench histogram`.
//!
//! The same values are compared with big integers in `sensor-common`'s bench,
//! so agreement here makes both exact. Needs root.

use std::{env, fs, path::Path};

use anyhow::{Context, Result};
use honeyguide_sensor::{
    identity::Hierarchy,
    program::{Kernel, Sizes},
};
use sensor_common::histogram::position;
use serde_json::json;

/// Random values beside those around every bound.
const RANDOM_VALUES: usize = 20_000;

fn main() -> Result<()> {
    let report = match mismatches() {
        Ok(mismatches) => json!({"metrics": {"mismatches": mismatches}}),
        Err(error) => json!({"skipped": {"mismatches": format!("kernel side: {error:#}")}}),
    };
    println!("{report}");
    if let Some(out) = env::var_os("HONEYGUIDE_BENCH_OUT") {
        fs::write(&out, report.to_string()).context("failed to write the report")?;
    }
    Ok(())
}

fn mismatches() -> Result<usize> {
    let sizes = Sizes {
        services: 16,
        rows: 64,
        ..Sizes::default()
    };
    let mut kernel = Kernel::open(sizes, &Hierarchy::find(Path::new("/sys/fs/cgroup")))?;
    let mut mismatches = 0;
    for value_ns in values() {
        let theirs = kernel
            .bucket_position(value_ns)
            .map_err(anyhow::Error::msg)?;
        mismatches += usize::from(theirs as usize != position(value_ns));
    }
    Ok(mismatches)
}

fn values() -> impl Iterator<Item = u64> {
    let around_bounds = (-239..276).flat_map(|index| {
        let bound = (1e9 * (f64::from(index) / 8.0).exp2()) as u64;
        bound.saturating_sub(3)..=bound.saturating_add(3)
    });
    let mut state = 1u64;
    let at_random = (0..RANDOM_VALUES).map(move |number| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        // Every order of magnitude alike.
        state >> (number % 64)
    });
    around_bounds.chain(at_random)
}
