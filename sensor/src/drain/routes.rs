//! Counters of routes → requests of one window by route and status class.
//!
//! A route gets its name from the path that the kernel left with it; those of
//! one name share a series, as services of one name do.

use std::{collections::BTreeMap, mem};

use honeyguide_proto::{Route, SparseHistogram};
use sensor_common::{
    Signal,
    histogram::Totals,
    http::STATUS_CLASSES,
    route::{CLIENT_SIDE, Path, RouteKey, RouteRowOwner, has_path, is_others, is_peer},
};
use tracing::warn;

use super::{Drained, NOWHERE, names::Names};
use crate::{
    program::{
        Kernel,
        tables::{Cumulative, RouteTables, Tables},
    },
    routes::{Lessons, Rules},
};

/// Requests of one window; never empty.
#[derive(Debug, Default)]
pub struct DrainedRoute {
    /// Number of the route, for [`Drained::route`].
    pub route: u32,
    /// First digit of the status; 0 where it is not known.
    pub status_class: u8,
    /// Time from the request to the begin of its response.
    pub histogram: SparseHistogram,
}

/// Number of the service, as what its requests are timed, route.
pub(super) type Name = (u32, Signal, Route);

/// What one window held. Its memory is used again for the next.
#[derive(Debug, Default)]
pub(super) struct Window {
    names: Names<Name>,
    series: Vec<DrainedRoute>,
    used: usize,
    /// Place in `series` by route and status class, [`NOWHERE`] if none.
    places: Vec<u32>,
}

impl Window {
    pub fn series(&self) -> &[DrainedRoute] {
        &self.series[..self.used]
    }

    pub fn name(&self, number: u32) -> (u32, Signal, &Route) {
        let (service, signal, route) = self.names.name(number);
        (*service, *signal, route)
    }

    pub fn clear(&mut self) {
        self.used = 0;
        self.places.clear();
        self.names.settle();
    }

    #[cfg(test)]
    pub fn histogram_of(&mut self, name: Name, status_class: u8) -> &mut SparseHistogram {
        let number = self.names.take(name);
        self.histogram(number, status_class)
    }

    fn histogram(&mut self, route: u32, status_class: u8) -> &mut SparseHistogram {
        let key = route as usize * STATUS_CLASSES + usize::from(status_class);
        if key >= self.places.len() {
            self.places
                .resize(self.names.len() * STATUS_CLASSES, NOWHERE);
        }
        if self.places[key] == NOWHERE {
            self.places[key] = self.used as u32;
            if self.used == self.series.len() {
                self.series.push(DrainedRoute::default());
            }
            let series = &mut self.series[self.used];
            (series.route, series.status_class) = (route, status_class);
            series.histogram.clear();
            self.used += 1;
        }
        &mut self.series[self.places[key] as usize].histogram
    }
}

/// Remembers the last snapshot of each row, and what each route is called.
#[derive(Debug)]
pub(super) struct Routes {
    snapshots: Vec<Option<Box<Cumulative>>>,
    /// By slot.
    known: BTreeMap<u32, KnownRoute>,
    /// Retired in the last window; recycled after this one.
    retired: Vec<u32>,
    /// How many of `known` that are not retired have a number.
    live: BTreeMap<u32, u32>,
    /// Routes by number of the service, its others not counted.
    of_service: BTreeMap<u32, u32>,
    of_service_max: u32,
    rules: Rules,
    /// What services taught, by the kernel's index.
    lessons: BTreeMap<u32, Lessons>,
}

#[derive(Debug)]
struct KnownRoute {
    key: RouteKey,
    /// Of its name.
    number: u32,
    /// Number of its service's name.
    service: u32,
    rows: Vec<u32>,
    idle_windows: u32,
}

/// What a service asks of one address.
pub(super) struct Asked {
    pub slot: u32,
    /// Of its name.
    pub number: u32,
    /// Number of the service's name.
    pub service: u32,
}

impl Routes {
    /// Knows no route; a service may have `of_service_max`.
    pub fn new(rows: u32, of_service_max: u32, rules: Rules) -> Self {
        Self {
            snapshots: (0..rows).map(|_| None).collect(),
            known: BTreeMap::new(),
            retired: Vec::new(),
            live: BTreeMap::new(),
            of_service: BTreeMap::new(),
            of_service_max,
            rules,
            lessons: BTreeMap::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Those that are what a service asks of one address.
    pub fn peers(&self) -> impl Iterator<Item = Asked> {
        self.known
            .iter()
            .filter(|(_, route)| is_peer(route.key.method) && !is_others(route.key.method))
            .map(|(slot, route)| Asked {
                slot: *slot,
                number: route.number,
                service: route.service,
            })
    }

    /// Adds to `window` what happened since the last drain. `service_of` gives
    /// the number of a service by the kernel's index; what belongs to a service
    /// that has none yet waits for the next drain.
    pub fn drain(
        &mut self,
        tables: &Tables,
        epoch: u32,
        window: &mut Drained,
        service_of: impl Fn(u32) -> Option<u32>,
    ) {
        for route in self.known.values_mut() {
            route.idle_windows = route.idle_windows.saturating_add(1);
        }
        let tables = tables.routes();
        for row in 1..tables.rows() {
            let Some(owner) = tables.owner(row) else {
                continue;
            };
            let known = self.snapshots[row as usize].as_deref();
            let known = known.map_or(0, |last| last.samples);
            if tables.samples(row).is_none_or(|samples| samples == known) {
                continue;
            }
            if self
                .know(tables, owner, row, (window, &service_of))
                .is_some()
            {
                self.take_row(tables, (row, owner), epoch, window);
            }
        }
    }

    /// Learns the name of the row's route, and that the row is its.
    fn know(
        &mut self,
        tables: &RouteTables,
        owner: RouteRowOwner,
        row: u32,
        (window, service_of): (&mut Drained, &impl Fn(u32) -> Option<u32>),
    ) -> Option<()> {
        if let Some(known) = self.known.get_mut(&owner.route) {
            if !known.rows.contains(&row) {
                known.rows.push(row);
            }
            return Some(());
        }
        let (key, path) = tables.route(owner.route)?;
        let service = service_of(key.service)?;
        window.names.share(service);
        let name = (service, signal_of(&key), self.name(&key, &path));
        let number = self.take_name(&mut window.routes.names, name);
        let known = KnownRoute {
            key,
            number,
            service,
            rows: vec![row],
            idle_windows: 0,
        };
        self.known.insert(owner.route, known);
        Some(())
    }

    fn name(&self, key: &RouteKey, path: &Path) -> Route {
        let none = Lessons::default();
        let own = self.lessons.get(&key.service).unwrap_or(&none);
        self.rules.name(key.method, path, own)
    }

    /// The number of a route, or of the service's others if that would be one
    /// route too many: several services of the kernel may share a name.
    fn take_name(&mut self, names: &mut Names<Name>, mut name: Name) -> u32 {
        let number = names.number(&name);
        let is_live = number.is_some_and(|number| self.live.contains_key(&number));
        if !name.2.is_other() && !is_live {
            let routes = self.of_service.entry(name.0).or_default();
            if *routes < self.of_service_max {
                *routes += 1;
            } else {
                name.2 = Route::other(name.2.protocol());
            }
        }
        let number = names.take(name);
        *self.live.entry(number).or_default() += 1;
        number
    }

    fn take_row(
        &mut self,
        tables: &RouteTables,
        (row, owner): (u32, RouteRowOwner),
        epoch: u32,
        window: &mut Drained,
    ) {
        let Some(route) = self.known.get_mut(&owner.route) else {
            return;
        };
        route.idle_windows = 0;
        let last = self.snapshots[row as usize].get_or_insert_default();
        let histogram = window
            .routes
            .histogram(route.number, owner.status_class as u8);
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

    /// Routes retired one window ago had their last drain now.
    pub fn recycle(&mut self, kernel: &mut Kernel, window: &mut Drained) {
        for slot in mem::take(&mut self.retired) {
            if let Some(route) = self.known.remove(&slot) {
                kernel.recycle_route(slot, &route.rows);
                window.names.release(route.service);
                window.routes.names.release(route.number);
            }
        }
    }

    /// All routes of a service that is retired are idle, too.
    pub fn retire_service(&mut self, service: u32) {
        let of_service = self.known.values_mut();
        for route in of_service.filter(|route| route.key.service == service) {
            route.idle_windows = u32::MAX;
        }
    }

    /// Forgets what a service taught whose index is given back.
    pub fn forget_service(&mut self, kernel: &mut Kernel, service: u32) {
        if let Some(lessons) = self.lessons.remove(&service) {
            // Nothing is added, so nothing can be too much.
            let _ = kernel.teach(service, &lessons, &Lessons::default());
        }
    }

    /// Retires what was idle for too long, and what is called otherwise since
    /// its service taught something.
    pub fn retire(&mut self, kernel: &mut Kernel, window: &Drained, idle_windows_max: u32) {
        let taught = self.learn(kernel);
        let tables = kernel.tables().routes();
        let is_renamed = |slot: u32, route: &KnownRoute| {
            let named = tables.route(slot);
            named.is_some_and(|(key, path)| {
                self.name(&key, &path) != *window.routes.name(route.number).2
            })
        };
        let slots: Vec<u32> = self
            .known
            .iter()
            .filter(|(slot, _)| !self.retired.contains(slot))
            .filter(|(slot, route)| {
                route.idle_windows >= idle_windows_max
                    || taught.contains(&route.key.service) && is_renamed(**slot, route)
            })
            .map(|(slot, _)| *slot)
            .collect();
        for slot in slots {
            let route = &self.known[&slot];
            kernel.retire_route(slot, route.key);
            self.retired.push(slot);
            if let Some(live) = self.live.get_mut(&route.number) {
                *live -= 1;
                if *live == 0 {
                    self.live.remove(&route.number);
                    if !window.routes.name(route.number).2.is_other() {
                        let routes = self.of_service.entry(route.service).or_default();
                        *routes = routes.saturating_sub(1);
                    }
                }
            }
        }
    }

    /// Learns from services whose routes are all taken; returns which taught
    /// something.
    fn learn(&mut self, kernel: &mut Kernel) -> Vec<u32> {
        let mut routes_of: BTreeMap<u32, Vec<(Path, u64)>> = BTreeMap::new();
        let full = self
            .of_service
            .values()
            .any(|routes| *routes >= self.of_service_max);
        if !full {
            return Vec::new();
        }
        for (slot, route) in &self.known {
            let method = route.key.method;
            if has_path(method) && !is_peer(method) && !self.retired.contains(slot) {
                let samples = route.rows.iter().map(|row| {
                    let snapshot = self.snapshots[*row as usize].as_deref();
                    snapshot.map_or(0, |snapshot| snapshot.samples)
                });
                if let Some((_, path)) = kernel.tables().routes().route(*slot) {
                    let of = routes_of.entry(route.key.service).or_default();
                    of.push((path, samples.sum()));
                }
            }
        }
        routes_of.retain(|_, routes| routes.len() >= self.of_service_max as usize);
        let mut taught = Vec::new();
        for (service, routes) in routes_of {
            let own = self.lessons.entry(service).or_default();
            let Some(lesson) = self.rules.learn(&routes, own) else {
                continue;
            };
            let before = own.clone();
            own.extend(lesson);
            if let Err(error) = kernel.teach(service, &before, own) {
                warn!(%error, "a service has too many routes, and no room to learn from them");
            }
            taught.push(service);
        }
        taught
    }
}

/// The side that a route is of.
fn signal_of(key: &RouteKey) -> Signal {
    match key.method & CLIENT_SIDE {
        0 => Signal::ServerRequest,
        _ => Signal::ClientRequest,
    }
}

#[cfg(test)]
mod tests {
    use honeyguide_proto::route::Template;
    use sensor_common::http::Method;

    use super::*;

    fn get(template: &str) -> Route {
        Route::http(Method::Get, Template::new(template).unwrap())
    }

    #[test]
    fn a_service_has_so_many_routes_and_no_more() {
        let mut routes = Routes::new(1, 2, Rules::default());
        let mut names = Names::default();
        let mut take = |service, text: &str| {
            let name = (service, Signal::ServerRequest, get(text));
            let number = routes.take_name(&mut names, name);
            names.name(number).2.to_string()
        };
        for _ in 0..2 {
            assert_eq!(take(0, "/a"), "GET /a");
            assert_eq!(take(0, "/b"), "GET /b");
            assert_eq!(take(0, "/c"), "other");
            assert_eq!(take(1, "/c"), "GET /c");
        }
    }

    #[test]
    fn a_window_begins_without_routes() {
        let mut window = Window::default();
        let name = |signal| (0, signal, get("/a"));
        let served = name(Signal::ServerRequest);
        window.histogram_of(served.clone(), 2).add(5, 1);
        window.histogram_of(served.clone(), 5).add(5, 1);
        window.histogram_of(served.clone(), 2).add(5, 1);
        let made = name(Signal::ClientRequest);
        window.histogram_of(made, 2).add(5, 4);
        let counts: Vec<_> = window
            .series()
            .iter()
            .map(|of| (of.status_class, of.histogram.count()))
            .collect();
        assert_eq!(counts, [(2, 2), (5, 1), (2, 4)]);
        window.clear();
        assert!(window.series().is_empty());
        window.histogram_of(served, 4).add(7, 3);
        assert_eq!(window.series()[0].histogram.buckets(), [(7, 3)]);
    }
}
