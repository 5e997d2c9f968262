//! The sensor's programs around one case.

use std::{collections::BTreeMap, path::Path, thread, time::Duration};

use anyhow::{Result, ensure};
use honeyguide_sensor::{
    drain::Drain,
    identity::{Hierarchy, Names},
    program::{Kernel, Sizes, probe::Probe},
    routes::Rules,
};
use sensor_common::{Histogram, Signal};

const ROUTES_PER_SERVICE: u32 = 64;
/// A response is counted before its reader has it, what ends a connection later.
const SETTLE: Duration = Duration::from_millis(100);

/// Attached from its begin to [`finish`](Observer::finish).
pub struct Observer {
    kernel: Kernel,
    drain: Drain,
}

/// Everything counted meanwhile.
pub struct Seen {
    histograms: BTreeMap<(String, Signal), Histogram>,
    routes: BTreeMap<(String, String, u8), u64>,
}

impl Observer {
    pub fn start() -> Result<Self> {
        let hierarchy = Hierarchy::find(Path::new("/sys/fs/cgroup"));
        let mut kernel = Kernel::open(Sizes::default(), &hierarchy)?;
        kernel.tables().set_routes_per_service(ROUTES_PER_SERVICE);
        for signal in Signal::ALL {
            kernel.tables().set_signal_config(signal.number(), 0, 0);
        }
        let status = kernel.attach(Probe::Tcp, 0);
        ensure!(status.is_running(), "{}", status.describe());
        let drain = Drain::new(
            kernel.tables(),
            Names::new(hierarchy, "bench"),
            Rules::default(),
            ROUTES_PER_SERVICE,
        );
        Ok(Self { kernel, drain })
    }

    pub fn finish(mut self) -> Result<Seen> {
        thread::sleep(SETTLE);
        self.kernel.detach(Probe::Tcp);
        self.drain.begin_window();
        self.drain.drain(&mut self.kernel)?;
        let window = self.drain.window();
        let name = |service| window.service(service).key().to_owned();
        let mut seen = Seen {
            histograms: BTreeMap::new(),
            routes: BTreeMap::new(),
        };
        for series in window.series() {
            let key = (name(series.service), series.signal);
            let histogram = seen.histograms.entry(key).or_default();
            series.histogram.add_to(histogram);
        }
        for series in window.routes() {
            let (service, _, route) = window.route(series.route);
            let key = (name(service), route.to_string(), series.status_class);
            *seen.routes.entry(key).or_default() += series.histogram.count();
        }
        Ok(seen)
    }
}

impl Seen {
    /// What services whose key ends in `name` did.
    pub fn of(&self, name: &str, signal: Signal) -> Histogram {
        let mut total = Histogram::new();
        for ((service, of), histogram) in &self.histograms {
            if *of == signal && service.ends_with(name) {
                total.merge(histogram);
            }
        }
        total
    }

    /// Requests of a route with a status class.
    pub fn requests(&self, name: &str, route: &str, class: u8) -> u64 {
        self.routes
            .iter()
            .filter(|((service, of, of_class), _)| {
                service.ends_with(name) && of == route && *of_class == class
            })
            .map(|(_, count)| count)
            .sum()
    }
}
