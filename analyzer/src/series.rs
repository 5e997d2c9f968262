//! Series in memory: what is known of each, and what a step has collected of
//! it so far.

use honeyguide_models::{
    History, SeriesModel, TARGETS, Target, ValidParams, Window, attribution::Reason,
    recalibration::Recalibration, wasserstein::Wasserstein,
};
use sensor_common::{Histogram, Signal};
use serde::{Deserialize, Serialize};

use crate::ring::Ring;

/// Steps without events after which a series is no longer forecast.
pub const IDLE_STEPS_MAX: u32 = 30;

/// One signal of one service.
#[derive(Debug)]
pub struct Series {
    /// What it measures.
    pub signal: Signal,
    /// Its name in the stored history; never used twice in a partition.
    pub number: u32,
    /// Windows of closed steps.
    pub ring: Ring,
    /// Its model; taken out while it reads its neighbours.
    pub model: Option<Box<SeriesModel>>,
    /// Its usual distribution, and how far the newest window is from it.
    pub distribution: Box<Wasserstein>,
    /// Steps that still collect, with this series' events in them, by step.
    pub open: Vec<(u64, Box<Collected>)>,
    /// All events ever, for `/metrics`.
    pub cumulative: Box<Histogram>,
    /// What its closed steps say beside their windows.
    pub facts: Facts,
    /// Of its newest forecast. Kept, because finding them takes longer than
    /// anything else that a restarted analyzer does before it serves again.
    pub reasons: Vec<Because>,
    /// How far its breach probabilities can be believed, by objective.
    pub recalibrations: Vec<(String, Recalibration)>,
}

/// Why a series is at risk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Because {
    /// A signal of its service, or what its service asks of an address.
    Signal(Reason),
    /// A service that its service waits for, or what is between two.
    Service(ServiceReason),
}

impl Because {
    /// Its signed share.
    pub fn contribution(&self) -> f64 {
        match self {
            Because::Signal(reason) => reason.contribution,
            Because::Service(reason) => reason.contribution,
        }
    }
}

/// See [`Because::Service`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceReason {
    /// Who.
    pub part: Part,
    /// The address at which it is asked.
    pub peer: String,
    /// Signed share, as of a [`Reason`].
    pub contribution: f64,
    /// By how many seconds it came before.
    pub lead_secs: f64,
    /// Its mean latency now over its usual one.
    pub ratio_to_usual: f64,
}

/// A part of a call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Part {
    /// What the service of this key does itself.
    Service(String),
    /// What the service of this key waits for at an address, beyond what the one
    /// behind takes.
    Link(String),
}

/// What a series remembers of its closed steps, beside windows and model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// The last closed step that had events.
    pub last: LastWindow,
    /// Closed steps since then.
    pub idle_steps: u32,
    /// Closed steps that had events.
    pub observed_steps: u32,
    /// Whether an alert of it fires.
    pub incident: bool,
    /// The usual value of each target that an objective needs, and for how many steps
    /// they have been kept.
    usual: [Option<f64>; TARGETS],
    usual_age: u32,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            last: LastWindow::default(),
            idle_steps: 0,
            observed_steps: 0,
            incident: false,
            usual: [None; TARGETS],
            usual_age: USUAL_KEEP_STEPS,
        }
    }
}

/// What the last window with events held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LastWindow {
    /// Seconds by quantile: p50, p90, p99, p99.9.
    pub quantiles_secs: [f64; 4],
    /// Seconds.
    pub max_secs: f64,
    /// Events per second.
    pub rate: f64,
    /// Events observed.
    pub samples: u64,
    /// Observed samples over estimated events.
    pub sampling_ratio: f64,
    /// Share of the window that was received.
    pub completeness: f64,
}

/// Windows that make up the usual value: the hour before the last ones, which
/// may be the incident.
const USUAL_STEPS: usize = 360;
const RECENT_STEPS: usize = 3;
const USUAL_STEPS_MIN: usize = 3;
/// Steps for which a usual value is kept.
const USUAL_KEEP_STEPS: u32 = 6;

impl Series {
    /// A series that has seen nothing.
    pub fn new(signal: Signal, number: u32) -> Self {
        Self {
            signal,
            number,
            ring: Ring::default(),
            model: Some(Box::default()),
            distribution: Box::default(),
            open: Vec::new(),
            cumulative: Box::default(),
            facts: Facts::default(),
            reasons: Vec::new(),
            recalibrations: Vec::new(),
        }
    }

    /// What `step` has collected; it must not be closed.
    pub fn open(&mut self, step: u64) -> &mut Collected {
        let at = self.open.partition_point(|(known, _)| *known < step);
        if self.open.get(at).is_none_or(|(known, _)| *known != step) {
            self.open.insert(at, (step, Box::default()));
        }
        &mut self.open[at].1
    }

    /// Appends `step`, whose share `completeness` was received: what it has
    /// collected, else `empty`. Returns whether it had events.
    pub fn close_step(
        &mut self,
        params: &ValidParams,
        step: u64,
        empty: Window,
        completeness: f64,
    ) -> bool {
        self.facts.usual_age = match self.facts.usual_age {
            USUAL_KEEP_STEPS.. => 1,
            age => age + 1,
        };
        // Steps that were skipped after a pause go unused.
        let closed = self.open.partition_point(|(open, _)| *open <= step);
        let last = self.open.drain(..closed).next_back();
        let Some((_, collected)) = last.filter(|(open, _)| *open == step) else {
            self.ring.push(&empty);
            self.distribution.pass();
            self.facts.idle_steps = self.facts.idle_steps.saturating_add(1);
            return false;
        };
        let histogram = &collected.histogram;
        let covered_secs = collected.covered_ns as f64 / 1e9;
        // The rate is per second covered, so completeness must not raise it again.
        let mut window = Window::from_histogram(histogram, covered_secs, 1.0);
        window.completeness = completeness as f32;
        self.ring.push(&window);
        self.distribution.update(params, histogram);
        self.facts.idle_steps = 0;
        self.facts.observed_steps = self.facts.observed_steps.saturating_add(1);
        let quantiles_ns = histogram
            .quantiles_ns([0.5, 0.9, 0.99, 0.999])
            .unwrap_or_default();
        self.facts.last = LastWindow {
            quantiles_secs: quantiles_ns.map(|ns| ns / 1e9),
            max_secs: histogram.max_ns() as f64 / 1e9,
            rate: histogram.count() as f64 / covered_secs,
            samples: histogram.samples(),
            sampling_ratio: histogram.samples() as f64 / histogram.count() as f64,
            completeness,
        };
        true
    }

    /// The usual value of `target`: the median of about the last hour without
    /// the newest windows. Kept for a minute, and as long as `frozen`.
    pub fn usual(&mut self, target: Target, frozen: bool) -> Option<f64> {
        let index = target.index();
        let is_kept = self.facts.usual_age < USUAL_KEEP_STEPS;
        if self.facts.usual[index].is_some() && (frozen || is_kept) {
            return self.facts.usual[index];
        }
        let windows =
            (RECENT_STEPS..RECENT_STEPS + USUAL_STEPS).take_while(|ago| *ago < self.ring.len());
        let mut values: Vec<f64> = windows
            .filter_map(|ago| self.ring.value(ago, target))
            .collect();
        if values.len() >= USUAL_STEPS_MIN {
            let middle = values.len() / 2;
            let (_, median, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
            self.facts.usual[index] = Some(target.to_natural(*median));
        }
        self.facts.usual[index]
    }

    /// Memory of the series in bytes.
    pub fn bytes(&self) -> usize {
        let bytes = |model: &SeriesModel| model.bytes() + model.history_bytes();
        let model = self.model.as_deref().map_or(0, bytes);
        let reasons = size_of_val(self.reasons.as_slice());
        let recalibrations = self.recalibrations.iter().map(|(name, recalibration)| {
            size_of::<(String, Recalibration)>() + name.len() + recalibration.heap_bytes()
        });
        size_of::<Self>()
            + size_of::<Histogram>()
            + size_of::<Wasserstein>()
            + self.ring.bytes()
            + model
            + reasons
            + recalibrations.sum::<usize>()
    }

    /// How far the probabilities of an objective can be believed.
    pub fn recalibration(&mut self, objective: &str) -> &mut Recalibration {
        let known = self.recalibrations.iter();
        let known = known
            .map(|(name, _)| name)
            .position(|name| name == objective);
        let at = known.unwrap_or_else(|| {
            let new = (objective.to_owned(), Recalibration::default());
            self.recalibrations.push(new);
            self.recalibrations.len() - 1
        });
        &mut self.recalibrations[at].1
    }
}

/// Sensor windows of one series that fell into one step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected<H = Histogram> {
    /// Merged.
    pub histogram: H,
    /// Sum of the windows' durations, of distinct times.
    pub covered_ns: u64,
    /// Newest window end merged, to count each span of time once.
    pub covered_until_ns: u64,
}

impl<H> Collected<H> {
    /// Notes that a window was merged. Windows of several sensors cover the
    /// same time: it counts once.
    pub fn cover(&mut self, start_ns: u64, end_ns: u64) {
        let from = start_ns.max(self.covered_until_ns);
        self.covered_ns += end_ns.saturating_sub(from);
        self.covered_until_ns = self.covered_until_ns.max(end_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_windows_cover_a_time_once() {
        let mut collected: Collected = Collected::default();
        collected.cover(0, 10);
        collected.cover(0, 10);
        collected.cover(10, 20);
        assert_eq!(collected.covered_ns, 20);
    }

    /// Also where several objectives ask for different ones.
    #[test]
    fn every_target_s_usual_value_follows_what_lasts() {
        let params = honeyguide_models::Params::default().validate().unwrap();
        let mut series = Series::new(Signal::RunQueue, 0);
        let mut usual = [None; 2];
        for step in 0..60 {
            let ns = if step < 10 { 1_000_000 } else { 10_000_000 };
            let open = series.open(step);
            (0..100).for_each(|_| open.histogram.record(ns));
            open.cover(step * 1_000_000_000, (step + 1) * 1_000_000_000);
            assert!(series.close_step(&params, step, Window::MISSING, 1.0));
            usual = [Target::P50, Target::P99].map(|target| series.usual(target, false));
        }
        for usual in usual {
            assert!(usual.is_some_and(|secs| secs > 0.009), "{usual:?}");
        }
    }

    #[test]
    fn usual_is_the_median_without_the_newest() {
        let mut series = Series::new(Signal::RunQueue, 0);
        let at = |secs: f32| Window {
            y: [secs.ln(); TARGETS],
            samples: 100.0,
            completeness: 1.0,
        };
        assert_eq!(series.usual(Target::P99, false), None);
        (0..20).for_each(|_| series.ring.push(&at(0.001)));
        (0..3).for_each(|_| series.ring.push(&at(1.0)));
        let mut fresh = Series::new(Signal::RunQueue, 0);
        fresh.ring = series.ring;
        let usual = fresh.usual(Target::P99, false).unwrap();
        assert!((usual / 0.001 - 1.0).abs() < 0.01, "{usual}");
    }
}
