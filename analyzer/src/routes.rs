//! Requests by route: what a service's requests to, or by, each route took, and
//! how they ended, ever and lately.
//!
//! A route is no series: it has no history of hours and no objectives, because
//! there are many more of them. Those with most requests have a model, which
//! forecasts them. The requests of routes are in the series of their
//! service, so nothing here is added to anything there.

mod forecast;
mod stored;
mod summary;

use std::{
    collections::{BTreeSet, VecDeque},
    ops::RangeInclusive,
};

use honeyguide_proto::{
    Route, SparseHistogram,
    batch::{Batch, RouteSeriesWindow},
};
use sensor_common::Signal;

use crate::series::Collected;

pub use forecast::ClosingStep;
pub(crate) use stored::{restored, stored};

/// Steps whose requests count as those of now: a minute of 10 s.
pub const RECENT_STEPS: u64 = 6;

/// Whether requests are measured by route under this signal.
pub fn is_measured(signal: Signal) -> bool {
    matches!(signal, Signal::ServerRequest | Signal::ClientRequest)
}

/// Whether a response of `status_class` is an error of the side that `signal`
/// measures (OpenTelemetry, semantic conventions of HTTP spans, "Status"): a
/// server that tells a client of the client's error did nothing wrong.
pub fn is_error(signal: Signal, status_class: u8) -> bool {
    match status_class {
        5 => true,
        4 => signal == Signal::ClientRequest,
        _ => false,
    }
}

/// Requests by status class, each class at most once, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Classes(Vec<(u8, SparseHistogram)>);

impl Classes {
    /// The requests of a class, none so far if it is new.
    pub fn of(&mut self, status_class: u8) -> &mut SparseHistogram {
        let at = self.0.partition_point(|(class, _)| *class < status_class);
        if self
            .0
            .get(at)
            .is_none_or(|(class, _)| *class != status_class)
        {
            self.0
                .insert(at, (status_class, SparseHistogram::default()));
        }
        &mut self.0[at].1
    }

    /// Classes that had requests, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &SparseHistogram)> {
        self.0.iter().map(|(class, histogram)| (*class, histogram))
    }

    /// Gives back what they grew by for more requests.
    fn settle(&mut self) {
        self.0.shrink_to_fit();
        for (_, histogram) in &mut self.0 {
            histogram.shrink_to_fit();
        }
    }

    /// Heap bytes.
    fn bytes(&self) -> usize {
        let buckets = self.0.iter().map(|(_, histogram)| histogram.bytes());
        self.0.capacity() * size_of::<(u8, SparseHistogram)>() + buckets.sum::<usize>()
    }
}

/// Requests of one side of a route.
#[derive(Debug)]
pub struct RouteRequests {
    /// Which side: requests served, or issued.
    pub signal: Signal,
    /// Which requests.
    pub route: Route,
    /// All of them ever, for `/metrics`.
    pub total: Classes,
    /// Of steps that still collect, by step.
    open: Vec<(u64, Collected<Classes>)>,
    /// Of the last closed steps, oldest first.
    recent: VecDeque<(u64, Collected<Classes>)>,
    /// The first and the last step with requests.
    first_step: u64,
    last_step: u64,
    /// Of those that are forecast.
    model: Option<Box<forecast::RouteModel>>,
}

impl RouteRequests {
    fn new(signal: Signal, route: Route, step: u64) -> Self {
        Self {
            signal,
            route,
            total: Classes::default(),
            open: Vec::new(),
            recent: VecDeque::new(),
            first_step: step,
            last_step: step,
            model: None,
        }
    }

    fn key(&self) -> (Signal, &Route) {
        (self.signal, &self.route)
    }

    /// What `step` has collected; it must not be closed.
    fn open(&mut self, step: u64) -> &mut Collected<Classes> {
        let at = self.open.partition_point(|(known, _)| *known < step);
        if self.open.get(at).is_none_or(|(known, _)| *known != step) {
            self.open.insert(at, (step, Collected::default()));
        }
        self.last_step = self.last_step.max(step);
        &mut self.open[at].1
    }

    fn close(&mut self, closing: &ClosingStep) {
        let step = closing.step;
        let closed = self.open.partition_point(|(open, _)| *open <= step);
        // Steps that were skipped after a pause go unused.
        let last = self.open.drain(..closed).next_back();
        let mut last = last.filter(|(open, _)| *open == step);
        if let Some(model) = &mut self.model {
            let collected = last.as_ref().map(|(_, collected)| collected);
            model.ring.push(&closing.window(collected));
        }
        if let Some((_, closed)) = &mut last {
            closed.histogram.settle();
        }
        self.recent.extend(last);
        let is_old = |(recent, _): &mut (u64, _)| *recent + RECENT_STEPS <= step;
        while self.recent.pop_front_if(is_old).is_some() {}
    }

    /// Memory in bytes.
    fn bytes(&self) -> usize {
        let collected = self.open.iter().chain(&self.recent);
        let windows: usize = collected.map(|(_, of)| of.histogram.bytes()).sum();
        let text = self.route.method().len()
            + self.route.template().len()
            + self.route.peer().map_or(0, str::len);
        let model = self.model.as_ref().map_or(0, |model| model.bytes());
        let slots = self.open.capacity() + self.recent.capacity();
        size_of::<Self>()
            + text
            + self.total.bytes()
            + windows
            + model
            + slots * size_of::<(u64, Collected<Classes>)>()
    }
}

/// How many routes there may be.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Of one service: that many routes, and that many addresses that it asks.
    /// Those of [`Route::other`] are not counted.
    pub of_service: usize,
    /// In all, from now on.
    pub free: usize,
}

/// What became of series by route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Counted, whether under their own route or not.
    pub taken: u64,
    /// Of those, counted as [`Route::other`], because the service has so many.
    pub as_other: u64,
    /// Not counted, because there is no room at all.
    pub full: u64,
    /// Not counted, because of a signal that is not one of requests.
    pub unknown: u64,
}

impl std::ops::AddAssign for Taken {
    fn add_assign(&mut self, other: Self) {
        self.taken += other.taken;
        self.as_other += other.as_other;
        self.full += other.full;
        self.unknown += other.unknown;
    }
}

/// A batch, and what it counts for.
#[derive(Clone, Debug)]
pub struct Arrival<'a> {
    /// Whose series by route are taken.
    pub batch: &'a Batch,
    /// Steps that collect them; none if all of them are closed, and then they
    /// are in the totals alone.
    pub steps: RangeInclusive<u64>,
    /// The first step in which a route that comes new can have requests.
    pub first_step: u64,
}

/// The routes of one service.
#[derive(Debug, Default)]
pub struct Routes {
    /// By signal and route.
    all: Vec<RouteRequests>,
    /// Those that have a name.
    named: usize,
    /// Those that have none, and an address that is asked.
    peers: usize,
}

impl Routes {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// In the order of (signal, route).
    pub fn iter(&self) -> impl Iterator<Item = &RouteRequests> {
        self.all.iter()
    }

    /// Adds series by route of one service, as far as there is room.
    pub fn collect(
        &mut self,
        arrival: &Arrival<'_>,
        windows: &[RouteSeriesWindow],
        room: &mut Room,
    ) -> Taken {
        let mut taken = Taken::default();
        let batch = arrival.batch;
        for window in windows {
            let signal = window.series.signal;
            if !is_measured(signal) {
                taken.unknown += 1;
                continue;
            }
            let (place, as_other) =
                self.place(signal, batch.route(window), arrival.first_step, room);
            let Some(place) = place else {
                taken.full += 1;
                continue;
            };
            taken.taken += 1;
            taken.as_other += u64::from(as_other);
            let requests = &mut self.all[place];
            let header = &batch.header;
            for step in arrival.steps.clone() {
                let collected = requests.open(step);
                let of_class = collected.histogram.of(window.status_class);
                add(of_class, batch, window);
                collected.cover(header.window_start_ns, header.window_end_ns());
            }
            add(requests.total.of(window.status_class), batch, window);
        }
        taken
    }

    /// Where requests of a route are counted, and whether that is with those
    /// that have none of their own; `None` where there is no room.
    fn place(
        &mut self,
        signal: Signal,
        route: &Route,
        step: u64,
        room: &mut Room,
    ) -> (Option<usize>, bool) {
        match self.find(signal, route) {
            Ok(at) => (Some(at), false),
            Err(at) if room.free > 0 && self.has_room(route, room.of_service) => {
                self.insert(at, RouteRequests::new(signal, route.clone(), step));
                room.free -= 1;
                (Some(at), false)
            }
            Err(_) => {
                let other = Route::other(route.protocol());
                let at = match self.find(signal, &other) {
                    Ok(at) => Some(at),
                    Err(_) if room.free == 0 => None,
                    Err(at) => {
                        self.insert(at, RouteRequests::new(signal, other, step));
                        room.free -= 1;
                        Some(at)
                    }
                };
                (at, at.is_some())
            }
        }
    }

    fn find(&self, signal: Signal, route: &Route) -> Result<usize, usize> {
        self.all
            .binary_search_by(|known| known.key().cmp(&(signal, route)))
    }

    fn has_room(&self, route: &Route, of_service: usize) -> bool {
        match (route.is_other(), route.peer()) {
            (false, _) => self.named < of_service,
            (true, Some(_)) => self.peers < of_service,
            (true, None) => true,
        }
    }

    fn insert(&mut self, at: usize, requests: RouteRequests) {
        self.all.insert(at, requests);
        self.count();
    }

    /// Counts what is bounded.
    fn count(&mut self) {
        let is_other = |known: &&RouteRequests| known.route.is_other();
        let others = self.all.iter().filter(is_other);
        let (others, peers) = others.fold((0, 0), |(others, peers), known| {
            (
                others + 1,
                peers + usize::from(known.route.peer().is_some()),
            )
        });
        self.named = self.all.len() - others;
        self.peers = peers;
    }

    /// Closes a step; routes that had no requests for `forget_steps` go.
    pub fn close_step(&mut self, closing: &ClosingStep, forget_steps: u64) {
        let step = closing.step;
        self.all
            .iter_mut()
            .for_each(|requests| requests.close(closing));
        let before = self.all.len();
        self.all
            .retain(|requests| requests.last_step + forget_steps > step);
        if self.all.len() < before {
            self.count();
        }
    }

    /// Memory in bytes.
    pub fn bytes(&self) -> usize {
        self.all.iter().map(RouteRequests::bytes).sum()
    }
}

fn add(histogram: &mut SparseHistogram, batch: &Batch, window: &RouteSeriesWindow) {
    for (position, count) in batch.buckets(&window.series) {
        histogram.add(*position, *count);
    }
    histogram.add_totals(window.series.totals);
}

/// The last closed steps of which anything is known; what routes did then is
/// what they do now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecentSteps(BTreeSet<u64>);

impl RecentSteps {
    /// Notes that `step` was closed, with data of any sensor.
    pub fn close(&mut self, step: u64, is_known: bool) {
        if is_known {
            self.0.insert(step);
        }
        self.0.retain(|recent| recent + RECENT_STEPS > step);
    }

    /// In order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = u64> {
        self.0.iter().copied()
    }
}

impl FromIterator<u64> for RecentSteps {
    fn from_iter<T: IntoIterator<Item = u64>>(steps: T) -> Self {
        Self(steps.into_iter().collect())
    }
}

#[cfg(test)]
pub(crate) mod tests;
