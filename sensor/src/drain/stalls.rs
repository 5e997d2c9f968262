//! Stalls of services, from the files of their cgroups into the window.
//!
//! Of services that own rows: no other group is read. What several services share
//! is told of none of them: executables in one group, or in the root, count for
//! the machine as a whole only.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::Instant,
};

use sensor_common::{
    Signal,
    histogram::{Totals, position},
    record::Loss,
};
use tracing::warn;

use super::Drained;
use crate::{
    identity::{Owner, owner},
    stalls::{
        Places,
        counters::{some_total_us, throttled},
        meters::{FileId, Pressure, Throttling},
        read,
    },
};

/// Groups read at each flush at most; a group takes some 50 µs (see `stall_cost`).
pub const GROUPS_MAX: usize = 1024;

/// Reading takes at most one part in so many of the time of one CPU: with many groups
/// and a short flush interval, not every flush has them.
const READ_SHARE: u32 = 200;

/// Which files are read.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Where they are.
    pub places: Places,
    /// PSI of the machine.
    pub machine: bool,
    /// PSI of services.
    pub pressure: bool,
    /// Quotas of services.
    pub throttling: bool,
}

/// Reads the files of the groups it is told of.
#[derive(Debug)]
pub struct Stalls {
    wanted: Wanted,
    machine: Option<Group>,
    groups: BTreeMap<PathBuf, Group>,
    /// Not before this is read again.
    due: Option<Instant>,
    /// What was read last.
    text: Vec<u8>,
    warned: Warned,
}

#[derive(Debug, Default)]
struct Warned {
    full: bool,
    unreadable: bool,
}

/// The files of one group.
#[derive(Debug)]
struct Group {
    /// Number of each service's name, and how many kernel services have it.
    services: BTreeMap<u32, u32>,
    /// Who is in a group below is another service.
    is_executable: bool,
    pressure: Vec<(Signal, PathBuf, Pressure)>,
    /// The first that tells it counts.
    throttling: (Vec<PathBuf>, Throttling),
}

impl Group {
    fn new(
        pressure: Option<[(Signal, PathBuf); 3]>,
        throttling: Vec<PathBuf>,
        is_executable: bool,
    ) -> Self {
        let pressure = pressure.into_iter().flatten();
        Self {
            services: BTreeMap::new(),
            is_executable,
            pressure: pressure
                .map(|(signal, path)| (signal, path, Pressure::default()))
                .collect(),
            throttling: (throttling, Throttling::default()),
        }
    }

    /// The only service in it.
    fn alone(&self) -> Option<u32> {
        let mut services = self.services.keys();
        let first = services.next().copied();
        first.filter(|_| services.next().is_none())
    }

    /// Forgets what was read: it will be of another time.
    fn reset(&mut self) {
        for (.., meter) in &mut self.pressure {
            *meter = Pressure::default();
        }
        self.throttling.1 = Throttling::default();
    }
}

impl Stalls {
    /// Reads what is `wanted`; `machine` is the number of the machine's name.
    pub fn new(wanted: Wanted, machine: u32) -> Self {
        let of_machine = || {
            let mut group = Group::new(Some(Places::of_machine()), Vec::new(), false);
            group.services.insert(machine, 1);
            group
        };
        Self {
            machine: wanted.machine.then(of_machine),
            wanted,
            groups: BTreeMap::new(),
            due: None,
            text: Vec::new(),
            warned: Warned::default(),
        }
    }

    /// A kernel service of the group at `path`, whose name has the number `service`.
    /// Returns whether it is to [`leave`](Self::leave) some time.
    pub fn join(&mut self, path: &Path, service: u32) -> bool {
        let wanted = &self.wanted;
        if !wanted.pressure && !wanted.throttling {
            return false;
        }
        if self.groups.len() == GROUPS_MAX && !self.groups.contains_key(path) {
            if !std::mem::replace(&mut self.warned.full, true) {
                warn!(
                    GROUPS_MAX,
                    "pressure and throttling of more services are not read"
                );
            }
            return false;
        }
        let group = self.groups.entry(path.to_owned()).or_insert_with(|| {
            let pressure = wanted.pressure.then(|| wanted.places.pressure(path));
            let throttling = wanted.throttling.then(|| wanted.places.throttling(path));
            let is_executable = owner(path) == Owner::Executable;
            Group::new(
                pressure.flatten(),
                throttling.unwrap_or_default(),
                is_executable,
            )
        });
        *group.services.entry(service).or_default() += 1;
        true
    }

    /// The kernel service is no more.
    pub fn leave(&mut self, path: &Path, service: u32) {
        let Some(group) = self.groups.get_mut(path) else {
            return;
        };
        if let Some(users) = group.services.get_mut(&service) {
            *users -= 1;
            if *users == 0 {
                group.services.remove(&service);
            }
        }
        if group.services.is_empty() {
            self.groups.remove(path);
        }
    }

    /// Adds what happened since the last time to the window, if there is time for it.
    pub fn read(&mut self, window: &mut Drained) {
        let begun = Instant::now();
        if self.due.is_some_and(|due| begun < due) {
            return;
        }
        self.read_all(window);
        self.due = Some(begun + READ_SHARE * begun.elapsed());
    }

    fn read_all(&mut self, window: &mut Drained) {
        let mut reader = Reader {
            text: &mut self.text,
            warned: &mut self.warned,
            window,
        };
        if let Some(machine) = &mut self.machine {
            reader.group(machine);
        }
        let mut groups = self.groups.iter_mut().peekable();
        while let Some((path, group)) = groups.next() {
            // Those below a path come right after it.
            let has_below = groups
                .peek()
                .is_some_and(|(next, _)| next.starts_with(path));
            match group.is_executable && has_below {
                true => group.reset(),
                false => reader.group(group),
            }
        }
    }
}

/// Reads into a window.
struct Reader<'a> {
    text: &'a mut Vec<u8>,
    warned: &'a mut Warned,
    window: &'a mut Drained,
}

impl Reader<'_> {
    fn group(&mut self, group: &mut Group) {
        let Some(service) = group.alone() else {
            group.reset();
            return;
        };
        for (signal, path, meter) in &mut group.pressure {
            self.pressure((service, *signal), path, meter);
        }
        let (paths, meter) = &mut group.throttling;
        self.throttling(service, paths, meter);
    }

    fn pressure(&mut self, (service, signal): (u32, Signal), path: &Path, meter: &mut Pressure) {
        let Some(file) = look(path, self.text, self.warned) else {
            return;
        };
        let total_us = some_total_us(self.text).ok();
        match total_us.map(|total_us| meter.advance(file, Instant::now(), total_us)) {
            Some(Ok(Some(of_second))) => {
                let value_ns = of_second.as_nanos() as u64;
                self.window.add(service, signal, (1, value_ns), value_ns);
            }
            Some(Ok(None)) => {}
            Some(Err(_)) | None => self.window.lose(Loss::ReadError, 1),
        }
    }

    fn throttling(&mut self, service: u32, paths: &[PathBuf], meter: &mut Throttling) {
        for path in paths {
            let Some(file) = look(path, self.text, self.warned) else {
                continue;
            };
            let added = match throttled(self.text) {
                // The cpu controller is elsewhere.
                Ok(None) => continue,
                Ok(Some(value)) => meter.advance(file, Instant::now(), value).ok(),
                Err(_) => None,
            };
            match added {
                Some(Some(added)) => {
                    let value_ns = added.time_ns / added.periods;
                    let counted = (added.periods, added.time_ns);
                    self.window
                        .add(service, Signal::CpuThrottled, counted, value_ns);
                }
                Some(None) => {}
                None => self.window.lose(Loss::ReadError, 1),
            }
            return;
        }
    }
}

/// Reads a file that may not be there: the group is gone, has no such controller, or
/// its pressure is not followed.
fn look(path: &Path, text: &mut Vec<u8>, warned: &mut Warned) -> Option<FileId> {
    match read(path, text) {
        Ok(file) => Some(file),
        Err(error) => {
            let is_expected = error.kind() == io::ErrorKind::NotFound
                || matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EOPNOTSUPP));
            if !is_expected && !std::mem::replace(&mut warned.unreadable, true) {
                warn!(path = %path.display(), %error, "not read; others may not be either");
            }
            None
        }
    }
}

impl Drained {
    /// Adds so many events with this sum in nanoseconds, all of the same value.
    fn add(&mut self, service: u32, signal: Signal, (count, sum_ns): (u64, u64), value_ns: u64) {
        let histogram = self.histogram(service, signal);
        histogram.add(position(value_ns) as u8, count);
        histogram.add_totals(Totals {
            samples: count,
            sum_ns,
            max_ns: value_ns,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, thread, time::Duration};

    use honeyguide_proto::{ServiceId, ServiceKind};

    use super::*;
    use crate::identity::Hierarchy;

    const GROUP: &str = "x.service";

    fn stalls(root: &Path) -> (Stalls, Drained, u32) {
        let hierarchy = Hierarchy {
            root: root.to_owned(),
            mounts: root.to_owned(),
            v1_controller: None,
        };
        let wanted = Wanted {
            places: Places::of(&hierarchy),
            machine: false,
            pressure: true,
            throttling: true,
        };
        let mut window = Drained::default();
        let mut take = |name| {
            window
                .names
                .take(ServiceId::named(ServiceKind::Systemd, name))
        };
        let (machine, service) = (take("machine"), take(GROUP));
        (Stalls::new(wanted, machine), window, service)
    }

    fn write(root: &Path, file: &str, text: &str) {
        fs::write(root.join(GROUP).join(file), text).unwrap();
    }

    /// Reads once more; returns signal, count and longest of each series.
    fn read_again(stalls: &mut Stalls, window: &mut Drained) -> Vec<(Signal, u64, u64)> {
        thread::sleep(Duration::from_millis(150));
        window.clear();
        stalls.read(window);
        let of = |series: &super::super::DrainedSeries| {
            let totals = series.histogram.totals();
            (series.signal, totals.samples, totals.max_ns)
        };
        window.series().iter().map(of).collect()
    }

    #[test]
    fn a_group_is_read_while_somebody_is_in_it() {
        let tree = tempfile::tempdir().unwrap();
        let root = tree.path();
        fs::create_dir(root.join(GROUP)).unwrap();
        let (mut stalls, mut window, service) = stalls(root);
        let path = Path::new(GROUP);
        assert!(stalls.join(path, service) && stalls.join(path, service));
        let throttled = |periods, us| format!("nr_throttled {periods}\nthrottled_usec {us}\n");

        write(root, "memory.pressure", "some avg10=0.00 total=1000\n");
        write(root, "cpu.stat", &throttled(5, 100));
        assert_eq!(read_again(&mut stalls, &mut window), []);
        write(root, "memory.pressure", "some avg10=0.00 total=81000\n");
        write(root, "cpu.stat", &throttled(9, 500));
        let read = read_again(&mut stalls, &mut window);
        let [(Signal::MemoryPressure, 1, stalled_ns), throttled_now] = read[..] else {
            panic!("{read:?}");
        };
        assert!(
            (1_000_000..=80_000_000 * 1000 / 150).contains(&stalled_ns),
            "{stalled_ns}"
        );
        assert_eq!(throttled_now, (Signal::CpuThrottled, 4, 100_000));
        assert!(window.losses.is_empty());

        // A file that cannot be, one that is empty, and one without a controller.
        write(root, "memory.pressure", "some avg10=0.00 total=7\n");
        write(root, "io.pressure", "");
        write(root, "cpu.stat", "usage_usec 7\n");
        assert_eq!(read_again(&mut stalls, &mut window), []);
        assert_eq!(window.losses, [(Loss::ReadError, 2)]);

        stalls.leave(path, service);
        write(root, "memory.pressure", "some avg10=0.00 total=8\n");
        fs::remove_file(root.join(GROUP).join("io.pressure")).unwrap();
        let read = read_again(&mut stalls, &mut window);
        assert_eq!(read.len(), 1, "calm follows a stall: {read:?}");
        stalls.leave(path, service);
        assert_eq!(read_again(&mut stalls, &mut window), []);
        assert!(window.losses.is_empty());
    }

    #[test]
    fn what_executables_share_is_told_of_none() {
        let tree = tempfile::tempdir().unwrap();
        let root = tree.path();
        let (mut stalls, mut window, service) = stalls(root);
        let other = window
            .names
            .take(ServiceId::named(ServiceKind::Process, "y"));
        let mut total_us = 0;
        let mut told = |stalls: &mut Stalls, names: &[&str]| {
            total_us += 50_000;
            for name in names {
                let line = format!("some avg10=0.00 total={total_us}\n");
                fs::create_dir_all(root.join(name)).unwrap();
                fs::write(root.join(name).join("io.pressure"), line).unwrap();
            }
            read_again(stalls, &mut window).len()
        };
        let (whole, below) = (Path::new("x"), Path::new("x/y"));
        stalls.join(whole, service);
        assert_eq!(
            [told(&mut stalls, &["x"]), told(&mut stalls, &["x"])],
            [0, 1]
        );
        stalls.join(whole, other);
        assert_eq!(told(&mut stalls, &["x"]), 0, "two in one group");
        stalls.leave(whole, other);
        assert_eq!(
            told(&mut stalls, &["x"]),
            0,
            "since when it is alone is not known"
        );
        assert_eq!(told(&mut stalls, &["x"]), 1);
        stalls.join(below, other);
        let both = ["x", "x/y"];
        assert_eq!(
            told(&mut stalls, &both),
            0,
            "the upper group has the lower one's"
        );
        assert_eq!(told(&mut stalls, &both), 1, "of the lower one");
    }

    #[test]
    fn what_there_was_no_time_for_is_read_later() {
        let tree = tempfile::tempdir().unwrap();
        let root = tree.path();
        fs::create_dir(root.join(GROUP)).unwrap();
        let (mut stalls, mut window, service) = stalls(root);
        stalls.join(Path::new(GROUP), service);
        let throttled = |periods: u64| format!("nr_throttled {periods}\nthrottled_usec 10\n");
        write(root, "cpu.stat", &throttled(5));
        assert_eq!(read_again(&mut stalls, &mut window), []);
        stalls.due = Some(Instant::now() + Duration::from_secs(3600));
        write(root, "cpu.stat", &throttled(6));
        assert_eq!(read_again(&mut stalls, &mut window), []);
        stalls.due = None;
        write(root, "cpu.stat", &throttled(8));
        let read = read_again(&mut stalls, &mut window);
        assert_eq!(read, [(Signal::CpuThrottled, 3, 0)]);
        assert!(
            stalls
                .due
                .is_some_and(|due| due < Instant::now() + Duration::from_secs(60))
        );
    }

    #[test]
    fn a_group_that_is_gone_is_no_error() {
        let tree = tempfile::tempdir().unwrap();
        let (mut stalls, mut window, service) = stalls(tree.path());
        assert!(stalls.join(Path::new("gone.service"), service));
        assert_eq!(read_again(&mut stalls, &mut window), []);
        assert!(window.losses.is_empty());
        assert!(!stalls.warned.unreadable);
    }

    #[test]
    fn groups_are_bounded() {
        let tree = tempfile::tempdir().unwrap();
        let (mut stalls, _, service) = stalls(tree.path());
        let path = |number: usize| PathBuf::from(format!("{number}.service"));
        for number in 0..GROUPS_MAX {
            assert!(stalls.join(&path(number), service));
        }
        assert!(!stalls.join(&path(GROUPS_MAX), service));
        assert!(stalls.join(&path(0), service));
        stalls.leave(&path(1), service);
        assert!(stalls.join(&path(GROUPS_MAX), service));
    }
}
