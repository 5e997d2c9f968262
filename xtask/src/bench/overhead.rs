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
/// Those of requests, for the bench `request-cost`.
const REQUEST_KEYS: [&str; 4] = [
    "nginx_small_slowdown",
    "nginx_small_slowdown_1_16",
    "nginx_1ms_slowdown",
    "rss_mb",
];
const ROUNDS: usize = 30;

/// Runs the bench.
pub fn run() -> Result<Report> {
    measured("overhead", &KEYS, measure)
}

/// What seeing requests costs a web server, and what the sensor uses for many
/// routes.
pub fn requests() -> Result<Report> {
    measured("request-cost", &REQUEST_KEYS, measure_requests)
}

/// What `measure` reports, or why it cannot.
fn measured(
    name: &str,
    keys: &[&str],
    measure: impl FnOnce(&mut Report) -> Result<()>,
) -> Result<Report> {
    let mut report = Report::default();
    let reason = match (Privilege::detect(), no_bpf(Privilege::detect())) {
        (_, Some(reason)) => Some(reason.to_owned()),
        (Privilege::Root, None) => None,
        _ => Some(format!("run it as root: sudo -E cargo xtask bench {name}")),
    };
    match reason {
        Some(reason) => {
            for key in keys {
                report.skipped.insert((*key).to_owned(), reason.clone());
            }
        }
        None => measure(&mut report)?,
    }
    Ok(report)
}

fn measure(report: &mut Report) -> Result<()> {
    let mut programs = Programs::start()?;
    let mut compare = |key: &str, base: State, measure: &mut dyn FnMut() -> Result<f64>| {
        compare(report, &mut programs, key, (State::Full, base), measure)
    };
    compare(
        "pipe_slowdown_vs_empty",
        State::Empty,
        &mut workloads::pipe_secs,
    )?;
    compare("pipe_slowdown", State::Off, &mut workloads::pipe_secs)?;
    compare("syscall_slowdown", State::Off, &mut workloads::syscall_secs)?;
    let disk = workloads::Disk::create()?;
    compare("fio_slowdown", State::Off, &mut || disk.secs_per_read())?;
    let server = web::Server::start()?;
    compare("nginx_small_slowdown", State::Off, &mut || {
        server.secs_per_request(web::Page::Small)
    })?;
    compare("nginx_1ms_slowdown", State::Off, &mut || {
        server.secs_per_request(web::Page::OneMillisecond)
    })?;
    drop((server, disk, programs));
    sensor::measure(report)
}

fn measure_requests(report: &mut Report) -> Result<()> {
    let mut programs = Programs::start()?;
    let server = web::Server::start()?;
    for (key, state, page) in [
        ("nginx_small_slowdown", State::Requests, web::Page::Small),
        (
            "nginx_small_slowdown_1_16",
            State::RequestsSampled,
            web::Page::Small,
        ),
        (
            "nginx_1ms_slowdown",
            State::Requests,
            web::Page::OneMillisecond,
        ),
    ] {
        let states = (state, State::Off);
        compare(report, &mut programs, key, states, &mut || {
            server.secs_per_request(page)
        })?;
    }
    drop(programs);
    sensor::measure_requests(report, &server)
}

/// Measures a cost in two states in turns, and keeps the slowdown of the first.
fn compare(
    report: &mut Report,
    programs: &mut Programs,
    key: &str,
    (state, base): (State, State),
    measure: &mut dyn FnMut() -> Result<f64>,
) -> Result<()> {
    let pairs = Pairs {
        state,
        base,
        rounds: ROUNDS,
    };
    let slowdown = pairs.run(|state| programs.set(state), measure)?;
    println!("  {key}: {slowdown}");
    keep(report, key, slowdown);
    Ok(())
}

fn keep(report: &mut Report, key: &str, slowdown: Slowdown) {
    report.metrics.insert(key.to_owned(), slowdown.median);
    report
        .metrics
        .insert(format!("{key}_se"), slowdown.standard_error);
}
