//! How long a drain takes on this machine as it is now, for
//! `cargo xtask bench overhead`.
//!
//! Prints the number of series and the milliseconds of each drain. The first
//! ones, which name the services, are not counted.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use honeyguide_sensor::{
    drain::Drain,
    identity::{Hierarchy, Names},
    program::{Kernel, Sizes, probe::Probe},
    routes::Rules,
};

const WARM_UP: usize = 2;
const DRAINS: usize = 20;
/// Longer than the period of the bench's services: every series moves.
const INTERVAL: Duration = Duration::from_secs(2);
const IDLE_WINDOWS_MAX: u32 = 1000;

fn main() -> Result<()> {
    let hierarchy = Hierarchy::find(Path::new("/sys/fs/cgroup"));
    let mut kernel = Kernel::open(Sizes::default(), &hierarchy)?;
    for probe in [Probe::Runq, Probe::Blkio, Probe::Tcp] {
        kernel.attach(probe, 0);
    }
    let names = Names::new(hierarchy, "localhost");
    let mut drain = Drain::new(kernel.tables(), names, Rules::default(), IDLE_WINDOWS_MAX);
    for number in 0..WARM_UP + DRAINS {
        thread::sleep(INTERVAL);
        let start = Instant::now();
        drain.begin_window();
        drain.drain(&mut kernel)?;
        let elapsed = start.elapsed();
        if number >= WARM_UP {
            println!(
                "{} {}",
                drain.window().series().len(),
                elapsed.as_secs_f64() * 1e3
            );
        }
    }
    Ok(())
}
