//! The sensor's side of the closed loop, for `cargo xtask bench loop`: whether
//! counts are right at every ratio that hints ask for, whether a storm stays
//! under the ceiling, and what an event costs that is not sampled. The rest is
//! in `loop_kernel`, with the analyzer.

#[path = "../tests/hinted/mod.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod hinted;

use std::{
    fs,
    io::{Read, Write, pipe},
    path::Path,
    thread,
};

use anyhow::{Context, Result, ensure};
use honeyguide_sensor::{
    identity::Hierarchy,
    program::{
        Kernel, Sizes, enable_run_stats,
        probe::{Probe, ProgramSpec},
    },
};
use sensor_common::{Signal, record::SAMPLING_SHIFT_MAX};
use serde_json::json;

/// Turns of ours and empty; the median counts.
const ROUNDS: usize = 9;
const SWITCHES: usize = 20_000;

fn main() -> Result<()> {
    let unsampled_net_ns = unsampled_net_ns()?;
    println!("unsampled_net_ns: {unsampled_net_ns:.1}");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let ratios = runtime.block_on(hinted::ratios());
    for ratio in &ratios {
        println!(
            "1/{}: {} of {}, {:.2} sigma",
            1u32 << ratio.shift,
            ratio.count,
            ratio.truth,
            ratio.sigmas()
        );
    }
    let bias_sigma = ratios.iter().map(hinted::Ratio::sigmas).fold(0.0, f64::max);
    let weathered = runtime.block_on(hinted::weather());
    for window in &weathered.windows {
        println!(
            "{:+.1} s: {:.2} of the ceiling, {} steps shed",
            window.start_secs, window.of_ceiling, window.level
        );
    }
    let rate = weathered.calls_per_sec;
    ensure!(rate >= 1e6, "{rate:.0} calls a second are no storm");
    if let Some(out) = std::env::var_os("HONEYGUIDE_BENCH_OUT") {
        let report = json!({
            "metrics": {
                "unsampled_net_ns": unsampled_net_ns,
                "bias_sigma": bias_sigma,
                "ceiling_violations": weathered.violations(),
                "storm_calls_per_s": rate,
            },
            "skipped": {},
        });
        fs::write(&out, report.to_string())
            .with_context(|| format!("failed to write {}", out.display()))?;
    }
    Ok(())
}

/// Run time of the run-queue program for a switch that it does not sample,
/// above that of an empty one.
fn unsampled_net_ns() -> Result<f64> {
    const EMPTY: ProgramSpec = ProgramSpec {
        program: "empty_sched_switch",
        tracepoint: "sched_switch",
        offsets: &[],
    };
    let hierarchy = Hierarchy::find(Path::new("/sys/fs/cgroup"));
    let mut kernel = Kernel::open(Sizes::default(), &hierarchy)?;
    let shift = SAMPLING_SHIFT_MAX;
    kernel
        .tables()
        .set_signal_config(Signal::RunQueue.number(), shift, shift);
    let (mut ours, mut empty) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let status = kernel.attach(Probe::Runq, 0);
        ensure!(status.is_running(), "runq: {}", status.describe());
        ours.push(ns_per_run(
            &kernel,
            Probe::Runq.levels()[0].programs[0].program,
        )?);
        kernel.detach(Probe::Runq);
        kernel
            .attach_programs(&[EMPTY])
            .map_err(anyhow::Error::msg)?;
        empty.push(ns_per_run(&kernel, EMPTY.program)?);
        kernel.unload(&[EMPTY]);
    }
    Ok(median(ours) - median(empty))
}

fn ns_per_run(kernel: &Kernel, program: &str) -> Result<f64> {
    let _enabled = enable_run_stats()?;
    let stats = || kernel.run_stats().get(program).copied().unwrap_or_default();
    let before = stats();
    switches()?;
    let after = stats();
    let runs = after.runs - before.runs;
    ensure!(runs > 0, "{program} did not run");
    Ok((after.run_time_ns - before.run_time_ns) as f64 / runs as f64)
}

/// Two threads that wake each other.
fn switches() -> Result<()> {
    let (mut there_reader, mut there) = pipe()?;
    let (mut back_reader, mut back) = pipe()?;
    let echo = thread::spawn(move || -> std::io::Result<()> {
        let mut byte = [0];
        while there_reader.read(&mut byte)? > 0 {
            back.write_all(&byte)?;
        }
        Ok(())
    });
    let mut byte = [0];
    for _ in 0..SWITCHES / 2 {
        there.write_all(&byte)?;
        back_reader.read_exact(&mut byte)?;
    }
    drop(there);
    echo.join()
        .map_err(|_| anyhow::anyhow!("the echo panicked"))??;
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
