//! What the sensor costs the workloads of its machine, and what it uses itself.
//!
//! Each workload runs many short rounds, alternately with and without the
//! kernel programs, so that what else happens on the machine hits both alike;
//! the slowdown is the median over the pairs. `*_se` is its standard error.

mod pairs;
mod programs;
mod sensor;
mod services;
mod web;
mod workloads;

use anyhow::Result;

pub use self::services::{BUSY_SERVICE, serve};
use self::{
    pairs::{Pairs, Slowdown},
    programs::{Programs, State},
};
use super::report::Report;
use crate::machine::{Privilege, no_bpf};

/// Every key of this bench that has a target.
const KEYS: [&str; 7] = [
    "pipe_slowdown_vs_empty",
    "fio_slowdown",
    "nginx_small_slowdown",
    "nginx_1ms_slowdown",
    "drain_6000_ms",
    "sensor_cpu_fraction",
    "sensor_rss_mb",
];

/// Runs the bench.
pub fn run() -> Result<Report> {
    let mut report = Report::default();
    let reason = match (Privilege::detect(), no_bpf(Privilege::detect())) {
        (_, Some(reason)) => Some(reason),
        (Privilege::Root, None) => None,
        _ => Some("run it as root: sudo -E cargo xtask bench overhead"),
    };
    if let Some(reason) = reason {
        for key in KEYS {
            report.skipped.insert(key.to_owned(), reason.to_owned());
        }
    } else {
        measure(&mut report)?;
    }
    Ok(report)
}

fn measure(report: &mut Report) -> Result<()> {
    let mut programs = Programs::start()?;
    let mut compare = |key: &str, pairs: Pairs, measure: &mut dyn FnMut() -> Result<f64>| {
        let slowdown = pairs.run(|state| programs.set(state), measure)?;
        println!("  {key}: {slowdown}");
        keep(report, key, slowdown);
        anyhow::Ok(())
    };
    let against_empty = Pairs {
        base: State::Empty,
        rounds: 30,
    };
    let against_none = Pairs {
        base: State::Off,
        rounds: 30,
    };
    compare(
        "pipe_slowdown_vs_empty",
        against_empty,
        &mut workloads::pipe_secs,
    )?;
    compare("pipe_slowdown", against_none, &mut workloads::pipe_secs)?;
    compare(
        "syscall_slowdown",
        against_none,
        &mut workloads::syscall_secs,
    )?;
    let disk = workloads::Disk::create()?;
    compare("fio_slowdown", against_none, &mut || disk.secs_per_read())?;
    let server = web::Server::start()?;
    compare("nginx_small_slowdown", against_none, &mut || {
        server.secs_per_request(web::Page::Small)
    })?;
    compare("nginx_1ms_slowdown", against_none, &mut || {
        server.secs_per_request(web::Page::OneMillisecond)
    })?;
    drop((server, disk, programs));
    sensor::measure(report)
}

fn keep(report: &mut Report, key: &str, slowdown: Slowdown) {
    report.metrics.insert(key.to_owned(), slowdown.median);
    report
        .metrics
        .insert(format!("{key}_se"), slowdown.standard_error);
}
