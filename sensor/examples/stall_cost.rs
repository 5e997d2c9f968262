//! What it costs to read pressure and throttling of so many cgroups (200, or as
//! many as the first argument says), which it makes. Needs root.
//!
//! Prints the CPU time of one flush.

use std::{fs, path::PathBuf, thread, time::Duration};

use anyhow::{Context, Result};
use honeyguide_sensor::{
    cost::thread_cpu_time,
    identity::Hierarchy,
    stalls::{
        Places,
        counters::{some_total_us, throttled},
        meters::{Pressure, Throttling},
        read,
    },
};

const FLUSHES: u32 = 50;
const INTERVAL: Duration = Duration::from_millis(200);

/// Groups that go with the program.
struct Groups(Vec<PathBuf>);

impl Drop for Groups {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = fs::remove_dir(path);
        }
    }
}

fn main() -> Result<()> {
    let count = std::env::args()
        .nth(1)
        .map_or(Ok(200), |text| text.parse())?;
    let mounts = PathBuf::from("/sys/fs/cgroup");
    let v2 = [mounts.clone(), mounts.join("unified")];
    let mut v2 = v2
        .into_iter()
        .filter(|root| root.join("cgroup.controllers").exists());
    let v2 = v2.next().context("cgroup2 is not mounted")?;
    let mut groups = Groups(Vec::new());
    for number in 0..count {
        let path = v2.join(format!("hg-cost-{number}.service"));
        fs::create_dir(&path).with_context(|| format!("failed to make {}", path.display()))?;
        groups.0.push(path);
    }
    let places = Places::of(&Hierarchy::find(&mounts));
    let mut meters = Vec::new();
    for path in &groups.0 {
        let path = path.strip_prefix(&v2)?;
        let pressure = places
            .pressure(path)
            .context("services are named by version 1")?;
        let pressure = pressure.map(|(_, path)| (path, Pressure::default()));
        meters.push((pressure, places.throttling(path), Throttling::default()));
    }
    let (mut text, mut spent) = (Vec::new(), Duration::ZERO);
    for _ in 0..FLUSHES {
        thread::sleep(INTERVAL);
        let before = thread_cpu_time();
        for (pressure, stats, throttling) in &mut meters {
            for (path, meter) in pressure {
                let file = read(path, &mut text)?;
                let total_us = some_total_us(&text)?;
                meter.advance(file, std::time::Instant::now(), total_us)?;
            }
            for path in stats {
                let Ok(file) = read(path, &mut text) else {
                    continue;
                };
                if let Some(value) = throttled(&text)? {
                    throttling.advance(file, std::time::Instant::now(), value)?;
                    break;
                }
            }
        }
        spent += thread_cpu_time() - before;
    }
    let of_flush = spent / FLUSHES;
    println!(
        "{count} groups, {:.2} ms of CPU time per flush",
        of_flush.as_secs_f64() * 1e3
    );
    Ok(())
}
