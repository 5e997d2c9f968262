//! Kernel counters → histograms of one window.
//!
//! Counters are cumulative; the difference from the last snapshot is the
//! window. Only rows whose sample count moved are read.

use std::{collections::BTreeMap, path::PathBuf};

use honeyguide_proto::{Route, ServiceId, SparseHistogram};
use sensor_common::{
    Signal,
    histogram::Totals,
    record::{FIRST_SERVICE, HOST_SERVICE, Loss, RowOwner, ServiceKey},
    signal::SIGNALS,
};

mod names;
mod peers;
mod routes;
mod stalls;

pub use peers::DrainedEndpoint;
pub use routes::DrainedRoute;
pub use stalls::Wanted as WantedStalls;

use crate::{
    identity,
    program::{
        Kernel, KernelError,
        tables::{Cumulative, Tables},
    },
    routes::Rules,
};

/// What one window held. Its memory is used again for the next window.
#[derive(Debug, Default)]
pub struct Drained {
    names: names::Names<ServiceId>,
    /// Series of this window, then those of earlier windows for reuse.
    series: Vec<DrainedSeries>,
    used: usize,
    /// Place in `series` by service and signal, [`NOWHERE`] if none.
    places: Vec<u32>,
    routes: routes::Window,
    endpoints: Vec<DrainedEndpoint>,
    /// Losses by reason, of this window, each reason at most once.
    pub losses: Vec<(Loss, u64)>,
}

const NOWHERE: u32 = u32::MAX;

/// One histogram of a window; never empty.
#[derive(Debug)]
pub struct DrainedSeries {
    /// Number of the service, for [`Drained::service`].
    pub service: u32,
    /// What was measured.
    pub signal: Signal,
    /// The events of the window.
    pub histogram: SparseHistogram,
}

impl Drained {
    /// The series, each (service, signal) once, in no particular order.
    pub fn series(&self) -> &[DrainedSeries] {
        &self.series[..self.used]
    }

    /// The name behind a number.
    pub fn service(&self, number: u32) -> &ServiceId {
        self.names.name(number)
    }

    /// Requests by route, each (service, route, status class) once, in no
    /// particular order.
    pub fn routes(&self) -> &[DrainedRoute] {
        self.routes.series()
    }

    /// The service and the route behind a number, and as what its requests are timed:
    /// those of the side that answers, or of the one that makes them.
    pub fn route(&self, number: u32) -> (u32, Signal, &Route) {
        self.routes.name(number)
    }

    /// What is to be said of who answers where.
    pub fn endpoints(&self) -> &[DrainedEndpoint] {
        &self.endpoints
    }

    fn lose(&mut self, reason: Loss, count: u64) {
        match self.losses.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, sum)) => *sum += count,
            None if count > 0 => self.losses.push((reason, count)),
            None => {}
        }
    }

    fn clear(&mut self) {
        self.used = 0;
        self.routes.clear();
        self.places.clear();
        self.losses.clear();
        self.endpoints.clear();
        self.names.settle();
    }

    /// The histogram of a service by name.
    #[cfg(test)]
    pub(crate) fn histogram_of(&mut self, id: ServiceId, signal: Signal) -> &mut SparseHistogram {
        let number = self.names.take(id);
        self.histogram(number, signal)
    }

    /// The requests of a service by name, by route and status class.
    #[cfg(test)]
    pub(crate) fn requests_of(
        &mut self,
        id: ServiceId,
        route: Route,
        status_class: u8,
    ) -> &mut honeyguide_proto::SparseHistogram {
        let name = (self.names.take(id), Signal::ServerRequest, route);
        self.routes.histogram_of(name, status_class)
    }

    /// The histogram to count into.
    fn histogram(&mut self, service: u32, signal: Signal) -> &mut SparseHistogram {
        let key = service as usize * SIGNALS + usize::from(signal.number());
        if key >= self.places.len() {
            self.places.resize(self.names.len() * SIGNALS, NOWHERE);
        }
        if self.places[key] == NOWHERE {
            self.places[key] = self.used as u32;
            match self.series.get_mut(self.used) {
                Some(series) => {
                    (series.service, series.signal) = (service, signal);
                    series.histogram.clear();
                }
                None => self.series.push(DrainedSeries {
                    service,
                    signal,
                    histogram: SparseHistogram::default(),
                }),
            }
            self.used += 1;
        }
        &mut self.series[self.places[key] as usize].histogram
    }
}

/// Remembers the last snapshot, and who each row belongs to.
#[derive(Debug)]
pub struct Drain {
    snapshots: Vec<Option<Box<Cumulative>>>,
    names: identity::Names,
    routes: routes::Routes,
    peers: peers::Peers,
    stalls: Option<stalls::Stalls>,
    services: BTreeMap<u32, KnownService>,
    losses: [u64; Loss::ALL.len()],
    /// Windows without events after which a service is retired.
    idle_windows_max: u32,
    /// Services named since the start.
    named: u64,
    /// Retired in the last window; recycled after this one.
    retired: Vec<u32>,
    window: Drained,
}

#[derive(Debug)]
struct KnownService {
    generation: u32,
    /// Of its name.
    number: u32,
    rows: Vec<u32>,
    idle_windows: u32,
    /// Its cgroup, if stalls of it are read.
    group: Option<PathBuf>,
}

impl Drain {
    /// Starts from zero: what the kernel counted before is the first window's.
    pub fn new(
        tables: &Tables,
        names: identity::Names,
        rules: Rules,
        idle_windows_max: u32,
    ) -> Self {
        let routes_per_service = tables.config().routes_per_service as u32;
        Self {
            snapshots: (0..tables.rows()).map(|_| None).collect(),
            names,
            routes: routes::Routes::new(tables.routes().rows(), routes_per_service, rules),
            peers: peers::Peers::default(),
            stalls: None,
            services: BTreeMap::new(),
            losses: [0; Loss::ALL.len()],
            idle_windows_max,
            named: 0,
            retired: Vec::new(),
            window: Drained::default(),
        }
    }

    /// Reads stalls from files as well.
    pub fn with_stalls(mut self, wanted: WantedStalls) -> Self {
        let machine = self.names.name(HOST_SERVICE, &ServiceKey::default(), 0);
        let machine = self.window.names.take(machine);
        self.stalls = Some(stalls::Stalls::new(wanted, machine));
        self
    }

    /// Number of routes that own rows.
    pub fn known_routes(&self) -> usize {
        self.routes.len()
    }

    /// Number of services that own rows.
    pub fn services(&self) -> usize {
        self.services.len()
    }

    /// Windows without events after which a service is retired from now on.
    pub fn set_idle_windows_max(&mut self, windows: u32) {
        self.idle_windows_max = windows;
    }

    /// Grows when services get a name.
    pub fn named(&self) -> u64 {
        self.named
    }

    /// The kernel's index and the name of every service known.
    pub fn known(&self) -> impl Iterator<Item = (u32, &ServiceId)> {
        let services = self.services.iter();
        services.map(|(index, known)| (*index, self.window.service(known.number)))
    }

    /// What was drained since the window began.
    pub fn window(&self) -> &Drained {
        &self.window
    }

    /// Forgets the window, and begins the next.
    pub fn begin_window(&mut self) {
        self.window.clear();
    }

    /// Adds to the [`window`](Self::window) what happened since the last drain.
    ///
    /// # Errors
    /// [`KernelError`] if the loss counters cannot be read; no event is lost then.
    pub fn drain(&mut self, kernel: &mut Kernel) -> Result<(), KernelError> {
        let losses = kernel.losses()?;
        self.lose(losses);
        let tables = kernel.tables();
        let epoch = tables.next_epoch();
        for service in self.services.values_mut() {
            service.idle_windows = service.idle_windows.saturating_add(1);
        }
        let mut scanned = false;
        for row in 1..tables.rows() {
            let Some(owner) = tables.owner(row) else {
                continue;
            };
            let known = self.snapshots[row as usize]
                .as_deref()
                .map_or(0, |last| last.samples);
            // Memory that cannot be shared just now is next time.
            if tables.samples(row).is_none_or(|samples| samples == known) {
                continue;
            }
            self.know(tables, owner, row, &mut scanned);
            self.take_row(tables, row, owner, epoch);
        }
        let services = &self.services;
        let service_of = |index| services.get(&index).map(|known| known.number);
        self.routes
            .drain(tables, epoch, &mut self.window, service_of);
        self.peers
            .drain(kernel, &self.routes, &self.services, &mut self.window);
        if let Some(stalls) = &mut self.stalls {
            stalls.read(&mut self.window);
        }
        self.retire_and_recycle(kernel);
        Ok(())
    }

    fn take_row(&mut self, tables: &Tables, row: u32, owner: RowOwner, epoch: u32) {
        let Some(signal) = u8::try_from(owner.signal_plus_one - 1)
            .ok()
            .and_then(Signal::from_number)
        else {
            return;
        };
        let Some(service) = self.services.get_mut(&owner.service) else {
            return;
        };
        service.idle_windows = 0;
        let last = self.snapshots[row as usize].get_or_insert_default();
        let histogram = self.window.histogram(service.number, signal);
        let increase = tables.advance(row, last, |position, count| {
            histogram.add(position, u64::from(count));
        });
        if let (Some((samples, sum_ns)), Some(max_ns)) = (increase, tables.take_max_ns(row, epoch))
        {
            histogram.add_totals(Totals {
                samples,
                sum_ns,
                max_ns,
            });
        }
    }

    /// Learns the name of the row's service, and that the row is its.
    fn know(&mut self, tables: &Tables, owner: RowOwner, row: u32, scanned: &mut bool) {
        let generation = tables.generation(owner.service);
        let known = self.services.get_mut(&owner.service);
        if let Some(known) = known.filter(|known| known.generation == generation) {
            if !known.rows.contains(&row) {
                known.rows.push(row);
            }
            return;
        }
        let record = tables.service(owner.service);
        let unknown_group =
            owner.service >= FIRST_SERVICE && !self.names.knows(record.key.cgroup_id);
        if unknown_group && !*scanned {
            *scanned = true;
            self.names.scan();
        }
        self.named += 1;
        let id = self.names.name(owner.service, &record.key, record.tgid);
        let number = self.window.names.take(id);
        let named_after = (owner.service >= FIRST_SERVICE).then_some(&record.key);
        let group = named_after.and_then(|key| self.names.group(key));
        let stalls = self.stalls.as_mut();
        let group = group.zip(stalls).and_then(|(group, stalls)| {
            let joined = stalls.join(&group, number);
            joined.then_some(group)
        });
        let service = KnownService {
            generation: record.generation,
            number,
            rows: vec![row],
            idle_windows: 0,
            group,
        };
        if let Some(before) = self.services.insert(owner.service, service) {
            self.forget(&before);
        }
    }

    fn forget(&mut self, service: &KnownService) {
        self.window.names.release(service.number);
        if let (Some(group), Some(stalls)) = (&service.group, &mut self.stalls) {
            stalls.leave(group, service.number);
        }
    }

    /// Adds what was lost since the last drain to the window.
    fn lose(&mut self, losses: [u64; Loss::ALL.len()]) {
        let before = std::mem::replace(&mut self.losses, losses);
        for (reason, (now, before)) in Loss::ALL.into_iter().zip(losses.into_iter().zip(before)) {
            self.window.lose(reason, now.wrapping_sub(before));
        }
    }

    /// A service retired one window ago had its last drain now.
    fn retire_and_recycle(&mut self, kernel: &mut Kernel) {
        self.routes.recycle(kernel, &mut self.window);
        for index in std::mem::take(&mut self.retired) {
            if let Some(service) = self.services.remove(&index) {
                self.routes.forget_service(kernel, index);
                kernel.recycle(index, &service.rows);
                self.forget(&service);
            }
        }
        let idle = self.services.iter().filter(|(index, service)| {
            **index >= FIRST_SERVICE && service.idle_windows >= self.idle_windows_max
        });
        let idle: Vec<u32> = idle.map(|(index, _)| *index).collect();
        for index in idle {
            kernel.retire(index);
            self.routes.retire_service(index);
            if let Some(service) = self.services.get_mut(&index) {
                // The row of a last event must still find its service.
                service.generation = service.generation.wrapping_add(1);
            }
            self.retired.push(index);
        }
        self.routes
            .retire(kernel, &self.window, self.idle_windows_max);
    }
}

#[cfg(test)]
mod tests {
    use honeyguide_proto::ServiceKind;

    use super::*;

    fn id(name: &str) -> ServiceId {
        ServiceId::named(ServiceKind::Process, name)
    }

    #[test]
    fn services_of_one_name_share_a_histogram() {
        let mut window = Drained::default();
        let (one, two) = (window.names.take(id("x")), window.names.take(id("x")));
        let other = window.names.take(id("y"));
        for number in [one, other, two] {
            window.histogram(number, Signal::RunQueue).add(40, 1);
        }
        window.histogram(one, Signal::BlockIo).add(40, 1);
        let counts: Vec<_> = window
            .series()
            .iter()
            .map(|series| {
                (
                    window.service(series.service).key(),
                    series.histogram.count(),
                )
            })
            .collect();
        let expected = [("process/x", 2), ("process/y", 1), ("process/x", 1)];
        assert_eq!(counts, expected.map(|(key, count)| (key.to_owned(), count)));
    }

    #[test]
    fn a_window_begins_empty() {
        let mut window = Drained::default();
        let number = window.names.take(id("x"));
        window.histogram(number, Signal::RunQueue).add(40, 1);
        window.clear();
        assert!(window.series().is_empty());
        window.histogram(number, Signal::BlockIo).add(5, 1);
        assert_eq!(window.series().len(), 1);
        assert_eq!(window.series()[0].signal, Signal::BlockIo);
        assert_eq!(window.series()[0].histogram.buckets(), [(5, 1)]);
    }
}
