//! What the threads write down and the interfaces read.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use honeyguide_bus::PartitionId;
use honeyguide_proto::v1::{self, SeriesKey};
use tokio::sync::{broadcast, watch};

use crate::analyzer::now_ns;

/// Closed steps of single partitions kept for watchers that read slowly.
const STEPS_BUFFERED: usize = 256;
/// So far behind the end of the bus an analyzer is not ready.
const BEHIND_MAX: Duration = Duration::from_secs(60);

/// The newest forecasts and alerts.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    partitions: BTreeMap<PartitionId, PartitionSnapshot>,
    /// Steps closed since the start, of the partition that closed most.
    pub steps: u64,
}

#[derive(Clone, Debug, Default)]
struct PartitionSnapshot {
    /// Of its last closed step, by [`sort_key`].
    forecasts: Arc<Vec<v1::Forecast>>,
    /// Those that fire first.
    alerts: Arc<Vec<v1::Alert>>,
    hints: Arc<v1::ListHintsResponse>,
    /// By service, side and route.
    routes: Arc<Vec<v1::RouteSummary>>,
    steps: u64,
}

impl Snapshot {
    /// Forecasts of the last closed step, by service and signal.
    pub fn forecasts(&self) -> Vec<&v1::Forecast> {
        let partitions = self.partitions.values();
        let mut all: Vec<_> = partitions
            .flat_map(|partition| partition.forecasts.iter())
            .collect();
        // Sorted runs, which the sort finds.
        all.sort_by(|a, b| sort_key(a).cmp(&sort_key(b)));
        all
    }

    /// Number of [`forecasts`](Self::forecasts).
    pub fn forecasts_len(&self) -> usize {
        let partitions = self.partitions.values();
        partitions.map(|partition| partition.forecasts.len()).sum()
    }

    /// Alerts that fire, then those that resolved lately.
    pub fn alerts(&self) -> Vec<v1::Alert> {
        let partitions = self.partitions.values();
        let mut alerts: Vec<_> = partitions
            .flat_map(|partition| partition.alerts.iter().cloned())
            .collect();
        alerts.sort_by_key(|alert| alert.state() != v1::AlertState::Firing);
        alerts
    }

    /// Hints in force, by partition and scope, and what nodes cost.
    pub fn hints(&self) -> v1::ListHintsResponse {
        let mut all = v1::ListHintsResponse::default();
        for partition in self.partitions.values() {
            all.hints.extend_from_slice(&partition.hints.hints);
            all.nodes.extend_from_slice(&partition.hints.nodes);
        }
        all
    }

    /// What routes do, by partition, service, side and route.
    pub fn routes(&self) -> impl Iterator<Item = &v1::RouteSummary> {
        let partitions = self.partitions.values();
        partitions.flat_map(|partition| partition.routes.iter())
    }

    /// The forecast of a series.
    pub fn forecast(&self, key: &SeriesKey) -> Option<&v1::Forecast> {
        let wanted = Some((key.service.as_str(), key.signal.as_str()));
        self.partitions.values().find_map(|partition| {
            let forecasts = &partition.forecasts;
            let at = forecasts.binary_search_by(|forecast| sort_key(forecast).cmp(&wanted));
            at.ok().map(|at| &forecasts[at])
        })
    }

    /// Forecasts of a partition's step, on average.
    pub(crate) fn forecasts_per_step(&self) -> usize {
        self.forecasts_len() / self.partitions.len().max(1)
    }
}

fn sort_key(forecast: &v1::Forecast) -> Option<(&str, &str)> {
    let key = forecast.key.as_ref()?;
    Some((&key.service, &key.signal))
}

/// How far a partition was read.
#[derive(Clone, Copy, Debug)]
struct Progress {
    /// Everything that the bus took before this time.
    read_until_ns: u64,
    /// The end was reached since the partition came.
    was_caught_up: bool,
}

/// See the module.
pub(crate) struct Board {
    snapshots: watch::Sender<Snapshot>,
    steps: broadcast::Sender<Arc<Vec<v1::Forecast>>>,
    progress: Mutex<BTreeMap<PartitionId, Progress>>,
    rebalances: watch::Sender<u64>,
    /// Whether the first forecasts are needed to be ready. Not on Kafka: a
    /// member of the group may have nothing to do.
    needs_step: bool,
}

impl Board {
    pub(crate) fn new(needs_step: bool) -> Self {
        Self {
            snapshots: watch::Sender::default(),
            steps: broadcast::Sender::new(STEPS_BUFFERED),
            progress: Mutex::default(),
            rebalances: watch::Sender::new(0),
            needs_step,
        }
    }

    pub(crate) fn snapshots(&self) -> watch::Receiver<Snapshot> {
        self.snapshots.subscribe()
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.snapshots.borrow().clone()
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Arc<Vec<v1::Forecast>>> {
        self.steps.subscribe()
    }

    /// Notes that partitions came or went.
    pub(crate) fn rebalanced(&self) {
        self.rebalances.send_modify(|rebalances| *rebalances += 1);
    }

    pub(crate) fn rebalances(&self) -> u64 {
        *self.rebalances.borrow()
    }

    /// Why this analyzer should not be asked yet; `None` when it is ready.
    pub(crate) fn not_ready(&self) -> Option<String> {
        if self.rebalances() == 0 {
            return Some("no partitions are assigned yet".to_owned());
        }
        if self.needs_step && self.snapshots.borrow().steps == 0 {
            return Some("no window was analyzed yet".to_owned());
        }
        let behind: Vec<String> = self.behind().into_iter().map(|id| id.to_string()).collect();
        let text = format!("partitions not read to their end: {}", behind.join(", "));
        (!behind.is_empty()).then_some(text)
    }

    /// Partitions that are not read to their end, or were not for long.
    fn behind(&self) -> Vec<PartitionId> {
        let oldest = now_ns().saturating_sub(BEHIND_MAX.as_nanos() as u64);
        let progress = self.progress();
        let behind = progress
            .iter()
            .filter(|(_, one)| !one.was_caught_up || one.read_until_ns < oldest);
        behind.map(|(partition, _)| *partition).collect()
    }

    /// How long ago the bus took what is read next, at most, in seconds.
    pub(crate) fn behind_secs(&self) -> f64 {
        let oldest = self.progress().values().map(|one| one.read_until_ns).min();
        oldest.map_or(0.0, |oldest| now_ns().saturating_sub(oldest) as f64 / 1e9)
    }

    fn progress(&self) -> std::sync::MutexGuard<'_, BTreeMap<PartitionId, Progress>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, partition: PartitionId) {
        let progress = Progress {
            read_until_ns: now_ns(),
            was_caught_up: false,
        };
        self.progress().insert(partition, progress);
    }

    pub(crate) fn remove(&self, partition: PartitionId) {
        self.progress().remove(&partition);
        self.snapshots.send_modify(|snapshot| {
            snapshot.partitions.remove(&partition);
        });
    }

    /// Notes the time of a record.
    pub(crate) fn read_until(&self, partition: PartitionId, read_until_ns: u64) {
        if let Some(progress) = self.progress().get_mut(&partition) {
            progress.read_until_ns = read_until_ns;
        }
    }

    /// Notes that everything before a time is read.
    pub(crate) fn caught_up(&self, partition: PartitionId, as_of_ns: u64) {
        if let Some(progress) = self.progress().get_mut(&partition) {
            progress.read_until_ns = progress.read_until_ns.max(as_of_ns);
            progress.was_caught_up = true;
        }
    }

    /// Shows the forecasts of a step that was closed now, and the alerts then.
    pub(crate) fn step(
        &self,
        partition: PartitionId,
        forecasts: Vec<v1::Forecast>,
        alerts: Vec<v1::Alert>,
    ) {
        let forecasts = sorted(forecasts);
        // Nobody may be watching.
        let _ = self.steps.send(Arc::clone(&forecasts));
        self.snapshots.send_modify(|snapshot| {
            let shown = snapshot.partitions.entry(partition).or_default();
            shown.forecasts = forecasts;
            shown.alerts = Arc::new(alerts);
            shown.steps += 1;
            snapshot.steps = snapshot.steps.max(shown.steps);
        });
    }

    /// Shows forecasts that were made before.
    pub(crate) fn forecasts(&self, partition: PartitionId, forecasts: Vec<v1::Forecast>) {
        let forecasts = sorted(forecasts);
        self.snapshots.send_modify(|snapshot| {
            snapshot.partitions.entry(partition).or_default().forecasts = forecasts;
        });
    }

    pub(crate) fn hints(&self, partition: PartitionId, hints: v1::ListHintsResponse) {
        self.snapshots.send_modify(|snapshot| {
            let shown = snapshot.partitions.entry(partition).or_default();
            shown.hints = Arc::new(hints);
        });
    }

    pub(crate) fn routes(&self, partition: PartitionId, routes: Vec<v1::RouteSummary>) {
        self.snapshots.send_modify(|snapshot| {
            let shown = snapshot.partitions.entry(partition).or_default();
            shown.routes = Arc::new(routes);
        });
    }

    pub(crate) fn alerts(&self, partition: PartitionId, alerts: Vec<v1::Alert>) {
        self.snapshots.send_modify(|snapshot| {
            let shown = snapshot.partitions.entry(partition).or_default();
            shown.alerts = Arc::new(alerts);
        });
    }
}

fn sorted(mut forecasts: Vec<v1::Forecast>) -> Arc<Vec<v1::Forecast>> {
    forecasts.sort_by(|a, b| sort_key(a).cmp(&sort_key(b)));
    Arc::new(forecasts)
}
