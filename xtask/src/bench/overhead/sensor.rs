//! What the sensor itself uses on a host full of services.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{super::report::Report, services::Services, web, workloads::output};
use crate::{cargo, step::show};

const SERVICES: usize = 1000;
/// Until all services run, and the sensor has named them.
const SETTLE: Duration = Duration::from_secs(25);
/// Each of 1,000 services.
const ROUTES: usize = 20;
/// Until each service was asked for all its routes, and a window was drained.
const ROUTES_SETTLE: Duration = Duration::from_secs(35);
/// Six windows.
const MEASURED: Duration = Duration::from_secs(60);
/// The number of series that the target speaks of.
const TARGET_SERIES: f64 = 6000.0;
/// Clock ticks per second of /proc/PID/stat, on every Linux we know.
const TICKS_PER_SEC: f64 = 100.0;

/// Adds the sensor's own figures to `report`.
pub fn measure(report: &mut Report) -> Result<()> {
    for example in ["sensor_alone", "drain_cost"] {
        let mut build = cargo::cargo("build");
        show(build.args(["--workspace", "--example", example]))?;
    }
    let services = Services::start(SERVICES, 0)?;
    let sensor = Alone::start()?;
    thread::sleep(SETTLE);
    let (start, cpu_before) = (Instant::now(), sensor.cpu()?);
    thread::sleep(MEASURED);
    let cpu = (sensor.cpu()? - cpu_before).as_secs_f64() / start.elapsed().as_secs_f64();
    let rss_mb = sensor.rss_mb()?;
    drop(sensor);
    let drains = output(&mut Command::new(example("drain_cost")?))?;
    drop(services);
    let (series, drain_ms) = median_drain(&drains)?;
    for (key, value) in [
        ("sensor_cpu_fraction", cpu),
        ("sensor_rss_mb", rss_mb),
        ("drain_6000_ms", drain_ms * TARGET_SERIES / series),
        ("drained_series", series),
    ] {
        println!("  {key}: {value:.4}");
        report.metrics.insert(key.to_owned(), value);
    }
    Ok(())
}

/// Adds what the sensor uses while a server is busy, and for many routes.
pub fn measure_requests(report: &mut Report, server: &web::Server) -> Result<()> {
    let mut build = cargo::cargo("build");
    show(build.args(["--workspace", "--example", "sensor_alone"]))?;
    let sensor = Alone::start()?;
    server.secs_per_request(web::Page::Small)?;
    let (start, cpu_before) = (Instant::now(), sensor.cpu()?);
    let mut requests = 0.0;
    while start.elapsed() < MEASURED {
        requests += f64::from(web::ROUND_SECS) / server.secs_per_request(web::Page::Small)?;
    }
    let secs = start.elapsed().as_secs_f64();
    let cpu = (sensor.cpu()? - cpu_before).as_secs_f64() / secs;
    drop(sensor);
    let services = Services::start(SERVICES, ROUTES)?;
    let sensor = Alone::start()?;
    thread::sleep(SETTLE + ROUTES_SETTLE);
    let rss_mb = sensor.rss_mb()?;
    drop((sensor, services));
    for (key, value) in [
        ("rss_mb", rss_mb),
        ("sensor_cpu_fraction", cpu),
        ("sensor_cpu_requests_per_s", requests / secs),
    ] {
        println!("  {key}: {value:.4}");
        report.metrics.insert(key.to_owned(), value);
    }
    Ok(())
}

fn example(name: &str) -> Result<PathBuf> {
    Ok(cargo::target_dir()?.join("debug/examples").join(name))
}

/// Median of lines of "series milliseconds", by time.
fn median_drain(lines: &str) -> Result<(f64, f64)> {
    let mut drains = Vec::new();
    for line in lines.lines() {
        let (series, ms) = line.split_once(' ').context("drain_cost printed no pair")?;
        drains.push((series.parse::<f64>()?, ms.parse::<f64>()?));
    }
    drains.sort_by(|one, other| one.1.total_cmp(&other.1));
    let median = drains.get(drains.len() / 2).copied();
    let median = median.context("drain_cost printed nothing")?;
    ensure!(median.0 > 0.0, "no series moved");
    Ok(median)
}

/// The sensor alone in a process.
struct Alone(Child);

impl Alone {
    fn start() -> Result<Self> {
        let program = example("sensor_alone")?;
        let child = Command::new(&program)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("failed to start {}", program.display()))?;
        Ok(Self(child))
    }

    /// CPU time so far, of all its threads, in user space and in system calls.
    fn cpu(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id()))
            .context("the sensor has ended early")?;
        cpu_of(&stat).context("/proc/PID/stat has another form")
    }

    fn rss_mb(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))
            .context("the sensor has ended early")?;
        rss_mb_of(&status).context("/proc/PID/status has no VmRSS")
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        // Its programs go with it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Fields 14 and 15; the command name before them may hold spaces.
fn cpu_of(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some(Duration::from_secs_f64((user + system) / TICKS_PER_SEC))
}

fn rss_mb_of(status: &str) -> Option<f64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_behind_the_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 90 0 0 0 250 50 0 0 20 0 3 0 100";
        assert_eq!(cpu_of(stat), Some(Duration::from_secs(3)));
        assert_eq!(cpu_of("7"), None);
    }

    #[test]
    fn resident_memory_is_read() {
        assert_eq!(rss_mb_of("VmPeak:\t 9 kB\nVmRSS:\t 15625 kB\n"), Some(16.0));
        assert_eq!(rss_mb_of(""), None);
    }

    #[test]
    fn the_median_drain_is_taken_by_time() {
        assert_eq!(
            median_drain("10 3.0\n11 1.0\n12 2.0\n").unwrap(),
            (12.0, 2.0)
        );
        assert!(median_drain("").is_err());
        assert!(median_drain("0 1.0\n").is_err());
    }
}
