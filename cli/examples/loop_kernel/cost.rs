//! What the sensor costs with the loop, beside full sampling of the same load:
//! by event that there was, because others have work on this machine as well.

use std::time::Duration;

use anyhow::{Result, ensure};
use honeyguide_analyzer::config::HintsMode;
use honeyguide_sensor::program::probe::Probe;

use crate::{loads::PacedSwitches, looped::Looped};

/// Turns of each, one after the other.
const ROUNDS: usize = 2;
const WINDOW: Duration = Duration::from_secs(2);
/// Windows until the loop has settled, and then as many that count.
const SETTLE: usize = 8;
const COUNTED: usize = 12;
/// Round trips a second: each takes two switches and four system calls.
const ROUND_TRIPS: u32 = 30_000;

#[derive(Debug)]
pub struct Cost {
    /// Nanoseconds by event, user space and kernel.
    pub full_ns: f64,
    pub loop_ns: f64,
    pub vs_full: f64,
}

pub async fn cost_vs_full() -> Result<Cost> {
    let _load = PacedSwitches::begin(ROUND_TRIPS);
    let (mut full, mut with_loop) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        full.extend(costs(HintsMode::Off).await?);
        with_loop.extend(costs(HintsMode::On).await?);
    }
    let (full_ns, loop_ns) = (median(full), median(with_loop));
    let cost = Cost {
        full_ns,
        loop_ns,
        vs_full: loop_ns / full_ns,
    };
    println!(
        "cost_vs_full: {:.3} ({loop_ns:.0} ns by event with the loop, {full_ns:.0} ns when all are \
         sampled)",
        cost.vs_full
    );
    Ok(cost)
}

/// The cost of each window that counts, in nanoseconds by event.
async fn costs(mode: HintsMode) -> Result<Vec<f64>> {
    let sensor = honeyguide_sensor::Config {
        flush_interval: WINDOW,
        // Full sampling is to cost what it does.
        cost_ceiling: 1.0,
        probes: vec![Probe::Runq, Probe::Blkio, Probe::Tcp, Probe::Syscall],
        ..honeyguide_sensor::Config::default()
    };
    let mut analyzer = honeyguide_analyzer::Config {
        step: WINDOW,
        ..honeyguide_analyzer::Config::default()
    };
    analyzer.hints.mode = mode;
    let mut looped = Looped::start(sensor, analyzer).await?;
    let mut costs = Vec::new();
    while costs.len() < SETTLE + COUNTED {
        let batch = looped.batch().await?;
        let Some(cost) = &batch.cost else { continue };
        ensure!(cost.kernel_ns > 0, "the kernel does not measure programs");
        let events: u64 = batch.series.iter().map(|series| series.count).sum();
        ensure!(events > 0, "the load makes no events");
        costs.push((cost.kernel_ns + cost.user_space_ns) as f64 / events as f64);
    }
    looped.stop().await;
    Ok(costs.split_off(SETTLE))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
