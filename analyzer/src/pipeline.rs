//! The analyzer's logic without its shell: inputs and `now` go in, commands
//! come out. No clock, no I/O, no hash-map order: the same inputs give the
//! same commands, bit for bit.

mod causes;
mod hinting;
mod messages;
mod outlook;
mod requests;
mod restore;
mod route_forecasts;
mod steps;
mod storing;

pub use outlook::BREACH_SAMPLES_MIN;
pub use requests::RouteTotal;
pub(crate) use storing::store_every;

use std::{
    collections::{BTreeMap, VecDeque},
    ops::RangeInclusive,
};

use honeyguide_bus::{Delivery, PartitionId, Position};
use honeyguide_models::{Window, recalibration::Pool, similar::Groups};
use honeyguide_proto::{
    ServiceId,
    batch::{Batch, DecodeError, SeriesWindow},
    v1,
};
use indexmap::IndexMap;
use sensor_common::{Histogram, Signal};

use crate::{
    config::ValidConfig,
    graph::AddressBook,
    hints::{Change, Policy},
    ingest::{Deduplication, Verdict},
    judge::Judge,
    routes::{RecentSteps, Routes},
    series::Series,
};

/// Windows further in the future are of a sensor with a wrong clock.
const CLOCK_SKEW_MAX_NS: u64 = 10 * 60 * 1_000_000_000;
/// Windows further in the past likewise; a spool may be a day behind.
const BACKLOG_MAX_NS: u64 = 7 * 86_400 * 1_000_000_000;
/// Steps without data that are forecast in one go after a pause.
const CATCH_UP_STEPS_MAX: u64 = 360;

/// What happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// A record of the topic of histograms.
    Delivery(&'a Delivery),
    /// Every record that the bus took before this time was delivered. Time is
    /// that of the records and of this, never that of a clock: what waits on
    /// the bus is not late, however long it takes to read it.
    CaughtUp {
        /// Nanoseconds since the Unix epoch.
        as_of_ns: u64,
    },
    /// What was asked to be stored is stored.
    Stored {
        /// Up to and including this step.
        step: u64,
    },
    /// These rows could not be stored; they are asked for again.
    NotStored {
        /// Of [`Command::Store`].
        rows: Vec<HistoryRow>,
    },
}

/// What the shell must do, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Forecasts of a closed step.
    Forecasts(Vec<v1::Forecast>),
    /// An alert fired or resolved.
    Alert(Box<v1::Alert>),
    /// What sensors are to be told.
    Hints(Vec<Change>),
    /// Store these rows, then report [`Input::Stored`] or [`Input::NotStored`].
    Store {
        /// The newest step of the rows.
        step: u64,
        /// Rows in the order of (step, service, signal).
        rows: Vec<HistoryRow>,
    },
    /// Everything before these positions is stored.
    Commit(Vec<Position>),
}

/// One window of one series, as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryRow {
    /// Number of the step: its start divided by its length.
    pub step: u64,
    /// Service key.
    pub service: String,
    /// What was measured.
    pub signal: Signal,
    /// The window.
    pub window: Window,
}

/// Why data was not used; each is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Drop {
    /// The batch was taken before.
    Duplicate,
    /// Its step is closed; it counts in the totals only.
    Late,
    /// Its time is far from now.
    ClockSkew,
    /// No room for another series.
    SeriesFull,
    /// The sensor is newer and measures what this analyzer does not know.
    UnknownSignal,
    /// A series by route, of a protocol, method, signal or status class that
    /// this analyzer does not know.
    UnknownRoute,
    /// A series by route for which there is no room, not even with the requests
    /// that have no route of their own.
    RoutesFull,
}

/// Counts since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Batches taken.
    pub batches: u64,
    /// Series-windows taken.
    pub series_windows: u64,
    /// Windows of series by route taken.
    pub route_windows: u64,
    /// Of those, counted with the requests that have no route of their own,
    /// because of `analyzer.routes_per_service_max` or `analyzer.routes_max`.
    pub route_windows_as_other: u64,
    /// Batches that never came.
    pub batches_missing: u64,
    /// Payloads that are no batch, by reason.
    pub undecodable: BTreeMap<&'static str, u64>,
    /// Data not used, by reason.
    pub dropped: BTreeMap<Drop, u64>,
    /// Steps closed.
    pub steps: u64,
    /// Models refitted.
    pub refits: u64,
    /// Failed attempts to store history.
    pub store_failures: u64,
    /// Rows of history given up because they could not be stored for too long.
    pub rows_given_up: u64,
    /// Hints published, by what they did.
    pub hints: BTreeMap<&'static str, u64>,
}

impl Counters {
    /// Adds the counts of another partition. Steps are the same for all.
    pub fn add(&mut self, other: &Counters) {
        self.batches += other.batches;
        self.series_windows += other.series_windows;
        self.route_windows += other.route_windows;
        self.route_windows_as_other += other.route_windows_as_other;
        self.batches_missing += other.batches_missing;
        for (reason, count) in &other.undecodable {
            *self.undecodable.entry(reason).or_default() += count;
        }
        for (reason, count) in &other.dropped {
            *self.dropped.entry(*reason).or_default() += count;
        }
        self.steps = self.steps.max(other.steps);
        self.refits += other.refits;
        self.store_failures += other.store_failures;
        self.rows_given_up += other.rows_given_up;
        for (kind, count) in &other.hints {
            *self.hints.entry(kind).or_default() += count;
        }
    }
}

/// One service and its series.
#[derive(Debug)]
struct Service {
    key: String,
    /// By signal.
    series: Vec<Series>,
    routes: Routes,
}

impl Service {
    fn new(id: &ServiceId) -> Self {
        Self {
            key: id.key(),
            series: Vec::new(),
            routes: Routes::default(),
        }
    }

    /// The series, made if there is a place for another one.
    fn series(&mut self, signal: Signal, places: &mut Places) -> Option<&mut Series> {
        match self
            .series
            .binary_search_by_key(&signal, |series| series.signal)
        {
            Ok(at) => Some(&mut self.series[at]),
            Err(_) if places.free == 0 => None,
            Err(at) => {
                self.series
                    .insert(at, Series::new(signal, places.next_number));
                places.free -= 1;
                places.next_number += 1;
                Some(&mut self.series[at])
            }
        }
    }
}

/// Sorted, and found by hash: batches name thousands a second.
type Services = IndexMap<ServiceId, Service>;

/// For series that are still to be made.
#[derive(Clone, Copy, Debug)]
struct Places {
    free: usize,
    next_number: u32,
}

/// Batches of a step that still collects; what they hold is in the series.
#[derive(Clone, Copy, Debug, Default)]
struct OpenStep {
    batches: u64,
    missing: u64,
}

/// See the module.
pub struct Pipeline {
    config: ValidConfig,
    deduplication: Deduplication,
    services: Services,
    series_count: usize,
    route_count: usize,
    recent_steps: RecentSteps,
    addresses: AddressBook,
    next_series_number: u32,
    open: BTreeMap<u64, OpenStep>,
    /// The next step to close; known from the first data on.
    next_step: Option<u64>,
    /// The time, as the bus tells it.
    newest_ns: u64,
    /// The time of the last input by the caller's clock.
    now_ns: u64,
    partition: PartitionId,
    /// Of the partition: the record after the last one taken.
    next_offset: u64,
    judge: Judge,
    /// How far breach probabilities can be believed, by and large.
    breach_pool: Pool,
    /// What series without a history can learn from others.
    groups: Groups,
    /// How closely sensors are to look; `None` where they are told nothing.
    policy: Option<Policy>,
    /// Rows of closed steps not yet handed over, and handed over but not stored.
    rows: Vec<HistoryRow>,
    storing: bool,
    stored_step: Option<u64>,
    /// Deliveries not yet stored: (offset, newest step they touch), by partition.
    uncommitted: BTreeMap<PartitionId, VecDeque<(u64, u64)>>,
    steps_until_store: u64,
    /// The step after which models have not been refitted yet.
    refit_step: Option<u64>,
    counters: Counters,
    commands: VecDeque<Command>,
}

impl Pipeline {
    /// A pipeline that has seen nothing.
    pub fn new(config: ValidConfig) -> Self {
        Self {
            steps_until_store: store_every(&config),
            policy: config.hints().map(Policy::new),
            config,
            deduplication: Deduplication::default(),
            services: Services::new(),
            series_count: 0,
            route_count: 0,
            recent_steps: RecentSteps::default(),
            addresses: AddressBook::default(),
            next_series_number: 0,
            open: BTreeMap::new(),
            next_step: None,
            newest_ns: 0,
            now_ns: 0,
            partition: 0,
            next_offset: 0,
            judge: Judge::default(),
            breach_pool: Pool::default(),
            groups: Groups::default(),
            rows: Vec::new(),
            storing: false,
            stored_step: None,
            uncommitted: BTreeMap::new(),
            refit_step: None,
            counters: Counters::default(),
            commands: VecDeque::new(),
        }
    }

    /// Takes one input; then ask [`next_command`](Self::next_command) until it is `None`.
    pub fn handle(&mut self, input: Input<'_>, now_ns: u64) {
        self.refit();
        self.now_ns = now_ns;
        match input {
            Input::Delivery(delivery) => self.take(delivery, now_ns),
            Input::CaughtUp { as_of_ns } => self.pass_time(as_of_ns),
            Input::Stored { step } => self.stored(step),
            Input::NotStored { rows } => self.not_stored(rows),
        }
    }

    /// The next thing to do. What can wait until the rest is done, is done when
    /// there is nothing left.
    pub fn next_command(&mut self) -> Option<Command> {
        let command = self.commands.pop_front();
        if command.is_none() {
            self.refit();
        }
        command
    }

    /// Closes every step that has data and hands over all rows, for shutdown.
    pub fn finish(&mut self) {
        while let Some(step) = self.open.keys().next_back().copied() {
            self.close_until(step);
        }
        self.store();
    }

    /// Stores `number` steps later than others, so that the partitions of one
    /// analyzer do not all store at once.
    pub fn shift_store(&mut self, number: u64) {
        let every = store_every(&self.config);
        self.steps_until_store = every + number % every;
    }

    /// End of the last closed step in nanoseconds since the Unix epoch.
    pub fn last_step_end_ns(&self) -> Option<u64> {
        self.next_step.map(|next| next * self.config.step_ns())
    }

    /// Counts since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Two sensors with one id, seen so often.
    pub fn sensor_conflicts(&self) -> u64 {
        self.deduplication.sensor_conflicts()
    }

    /// Alerts that fire, then those that resolved lately.
    pub fn alerts(&self) -> Vec<v1::Alert> {
        self.judge.alerts()
    }

    /// Number of series.
    pub fn series_count(&self) -> usize {
        self.series_count
    }

    /// Memory of all series and routes in bytes.
    pub fn bytes(&self) -> usize {
        let services = self.services.values();
        let of_service = services.map(|service| {
            let series: usize = service.series.iter().map(Series::bytes).sum();
            series + service.routes.bytes()
        });
        of_service.sum()
    }

    /// All events ever by series, in order; at most `max` series.
    pub fn cumulative(&self, max: usize) -> Vec<(String, Signal, Histogram)> {
        let all = self
            .services
            .values()
            .flat_map(|service| service.series.iter().map(|series| (&service.key, series)));
        all.filter(|(_, series)| !series.cumulative.is_empty())
            .take(max)
            .map(|(key, series)| (key.clone(), series.signal, (*series.cumulative).clone()))
            .collect()
    }

    fn drop_data(&mut self, reason: Drop, count: u64) {
        if count > 0 {
            *self.counters.dropped.entry(reason).or_default() += count;
        }
    }

    fn take(&mut self, delivery: &Delivery, now_ns: u64) {
        self.partition = delivery.record.partition;
        self.next_offset = delivery.offset + 1;
        // A clock ahead of ours tells nothing of what is still to come.
        self.pass_time(delivery.record.timestamp_ns.min(now_ns));
        let touched = self.take_payload(&delivery.record.payload, now_ns);
        // What touches no step is done with as soon as everything before is.
        let step = touched.or(self.stored_step).unwrap_or(0);
        let uncommitted = self
            .uncommitted
            .entry(delivery.record.partition)
            .or_default();
        uncommitted.push_back((delivery.offset, step));
        self.close_due_steps();
    }

    fn pass_time(&mut self, until_ns: u64) {
        let passed_ns = until_ns.saturating_sub(self.newest_ns);
        // More at once is a bus that was away, not silent sensors.
        self.deduplication
            .attend(passed_ns.min(self.config.step_ns()));
        self.newest_ns += passed_ns;
        self.close_due_steps();
    }

    /// Returns the newest step that the payload touches.
    fn take_payload(&mut self, payload: &[u8], now_ns: u64) -> Option<u64> {
        let batch = match Batch::decode(payload) {
            Ok(batch) => batch,
            Err(error) => {
                self.undecodable(&error);
                return None;
            }
        };
        let missing = match self.deduplication.accept(&batch.header) {
            Verdict::New { missing } => missing,
            Verdict::Found => {
                self.counters.batches_missing = self.counters.batches_missing.saturating_sub(1);
                0
            }
            Verdict::Duplicate => {
                self.drop_data(Drop::Duplicate, 1);
                return None;
            }
        };
        self.counters.batches += 1;
        // A number may be anything.
        let batches_missing = &mut self.counters.batches_missing;
        *batches_missing = batches_missing.saturating_add(missing);
        if let Some(policy) = &mut self.policy {
            policy.take(&batch.header, batch.cost.as_ref(), &batch.services);
        }
        self.drop_data(Drop::UnknownSignal, batch.unknown_signals as u64);
        self.drop_data(Drop::UnknownRoute, batch.unknown_routes as u64);
        let end_ns = batch.header.window_end_ns();
        if end_ns > now_ns + CLOCK_SKEW_MAX_NS || end_ns + BACKLOG_MAX_NS < now_ns {
            self.drop_data(Drop::ClockSkew, batch.series.len() as u64);
            return None;
        }
        let steps = self.steps_of(&batch);
        // The first sensor's clock may be ahead; those of others need not be.
        let last_over = (self.newest_ns / self.config.step_ns()).saturating_sub(1);
        let first_open = *self.next_step.get_or_insert(steps.0.min(last_over));
        let late = steps.1 < first_open;
        if late {
            self.drop_data(Drop::Late, batch.series.len() as u64);
        }
        // Too late for a step, but it did happen: no step, only the totals.
        let steps = steps.0.max(first_open)..=steps.1;
        for step in steps.clone() {
            let open = self.open.entry(step).or_default();
            open.batches += 1;
            open.missing = open.missing.saturating_add(missing);
        }
        self.collect(&batch, steps.clone());
        self.addresses.learn(&batch);
        self.collect_routes(&batch, &steps);
        (!late).then(|| *steps.end())
    }

    fn undecodable(&mut self, error: &DecodeError) {
        *self.counters.undecodable.entry(error.reason()).or_default() += 1;
    }

    /// First and last step of a window: the one that holds its middle, or for
    /// a window longer than a step all those it covers by half, the newest
    /// [`CATCH_UP_STEPS_MAX`] of them.
    fn steps_of(&self, batch: &Batch) -> (u64, u64) {
        let step_ns = self.config.step_ns();
        let header = &batch.header;
        let middle = header.window_start_ns + header.window_duration_ns / 2;
        if header.window_duration_ns < step_ns * 3 / 2 {
            return (middle / step_ns, middle / step_ns);
        }
        let first = (header.window_start_ns + step_ns / 2) / step_ns;
        let last = ((header.window_end_ns() - step_ns / 2) / step_ns).max(first);
        (
            first.max((last + 1).saturating_sub(CATCH_UP_STEPS_MAX)),
            last,
        )
    }

    /// Adds a batch to the open `steps` and to the totals.
    fn collect(&mut self, batch: &Batch, steps: RangeInclusive<u64>) {
        let mut places = self.places();
        let (mut taken, mut full) = (0, 0);
        for windows in batch.series.chunk_by(|a, b| a.service == b.service) {
            let id = &batch.services[windows[0].service as usize];
            let Some(service) = service(&mut self.services, id, places) else {
                full += windows.len() as u64;
                continue;
            };
            for window in windows {
                let Some(series) = service.series(window.signal, &mut places) else {
                    full += 1;
                    continue;
                };
                taken += u64::from(!steps.is_empty());
                for step in steps.clone() {
                    let collected = series.open(step);
                    add(&mut collected.histogram, batch, window);
                    collected.cover(batch.header.window_start_ns, batch.header.window_end_ns());
                }
                add(&mut series.cumulative, batch, window);
            }
        }
        self.take_places(places);
        self.counters.series_windows += taken;
        self.drop_data(Drop::SeriesFull, full);
    }

    fn places(&self) -> Places {
        let max = self.config.config.series_max;
        Places {
            free: max.saturating_sub(self.series_count),
            next_number: self.next_series_number,
        }
    }

    /// Notes what became of [`places`](Self::places).
    fn take_places(&mut self, left: Places) {
        self.series_count += (left.next_number - self.next_series_number) as usize;
        self.next_series_number = left.next_number;
    }

    /// The series, made if there is a place for it.
    fn series(&mut self, id: &ServiceId, signal: Signal) -> Option<&mut Series> {
        let mut places = self.places();
        let service = service(&mut self.services, id, places)?;
        let made = service.series(signal, &mut places).is_some();
        self.take_places(places);
        let service = self.services.get_mut(id).filter(|_| made)?;
        service.series(signal, &mut places)
    }
}

/// The service, made if there is a place for a series.
fn service<'a>(
    services: &'a mut Services,
    id: &ServiceId,
    places: Places,
) -> Option<&'a mut Service> {
    if places.free > 0 && !services.contains_key(id) {
        services.insert_sorted(id.clone(), Service::new(id));
    }
    services.get_mut(id)
}

fn add(histogram: &mut Histogram, batch: &Batch, series: &SeriesWindow) {
    for (position, count) in batch.buckets(series) {
        histogram.add(usize::from(*position), *count);
    }
    histogram.add_totals(series.totals);
}

#[cfg(test)]
mod tests;
