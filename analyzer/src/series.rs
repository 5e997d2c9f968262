//! Series in memory: the compact history that models read, and what a step
//! has collected so far.

use std::collections::VecDeque;

use honeyguide_models::{History, SeriesModel, TARGETS, Target, Window};
use sensor_common::{Histogram, Signal};

/// History kept in memory, in steps: 6 hours of 10 s.
pub const HISTORY_STEPS: usize = 2160;
/// Steps without events after which a series is no longer forecast.
pub const IDLE_STEPS_MAX: u32 = 30;

/// Values in model space (natural logarithms) are kept as multiples of this:
/// 0.05 %, far below the bucket width of 9 %.
const QUANTUM: f32 = 1.0 / 2000.0;
/// Stands for NaN.
const NOTHING: i16 = i16::MIN;
/// Largest magnitude kept: e^±16 s covers 0.1 µs to 100 days.
const LIMIT: f32 = 16.0;

/// A [`Window`] in 14 bytes.
#[derive(Clone, Copy, Debug)]
struct Packed {
    y: [i16; TARGETS],
    /// ln(1 + samples), in quanta.
    samples: i16,
    /// In 1/255.
    completeness: u8,
}

impl Packed {
    fn pack(window: &Window) -> Packed {
        Packed {
            y: window.y.map(quantised),
            samples: quantised(window.samples.max(0.0).ln_1p()),
            completeness: (window.completeness.clamp(0.0, 1.0) * 255.0).round() as u8,
        }
    }

    fn unpack(self) -> Window {
        Window {
            y: self.y.map(restored),
            samples: restored(self.samples).exp_m1(),
            completeness: f32::from(self.completeness) / 255.0,
        }
    }
}

fn quantised(value: f32) -> i16 {
    if value.is_nan() {
        return NOTHING;
    }
    (value.clamp(-LIMIT, LIMIT) / QUANTUM).round() as i16
}

fn restored(quanta: i16) -> f32 {
    if quanta == NOTHING {
        f32::NAN
    } else {
        f32::from(quanta) * QUANTUM
    }
}

/// The last [`HISTORY_STEPS`] windows of a series.
#[derive(Debug, Default)]
pub struct Ring(VecDeque<Packed>);

impl Ring {
    /// Appends the newest window; the oldest goes when the ring is full.
    pub fn push(&mut self, window: &Window) {
        let len = self.0.len();
        if len == HISTORY_STEPS {
            self.0.pop_front();
        } else if len == self.0.capacity() {
            // Doubling would end at 4096 places for 2160 windows.
            self.0.reserve_exact(len.max(60).min(HISTORY_STEPS - len));
        }
        self.0.push_back(Packed::pack(window));
    }

    /// Heap bytes.
    pub fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<Packed>()
    }
}

impl History for Ring {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn window(&self, ago: usize) -> Window {
        let position = self.0.len().checked_sub(ago.saturating_add(1));
        position.map_or(Window::MISSING, |position| self.0[position].unpack())
    }
}

/// One signal of one service.
#[derive(Debug)]
pub struct Series {
    /// What it measures.
    pub signal: Signal,
    /// Windows of closed steps.
    pub ring: Ring,
    /// Its model; taken out while it reads its neighbours.
    pub model: Option<Box<SeriesModel>>,
    /// Steps that still collect, with this series' events in them, by step.
    pub open: Vec<(u64, Box<Collected>)>,
    /// All events ever, for `/metrics`.
    pub cumulative: Box<Histogram>,
    /// The last closed step that had events.
    pub last: LastWindow,
    /// Closed steps since then.
    pub idle_steps: u32,
    /// Closed steps that had events.
    pub observed_steps: u32,
    /// The usual value of each target that an objective needs, and its age in steps.
    pub usual: [Option<f64>; TARGETS],
    usual_age: u32,
}

/// What the last window with events held.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
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
    pub fn new(signal: Signal) -> Self {
        Self {
            signal,
            ring: Ring::default(),
            model: Some(Box::default()),
            open: Vec::new(),
            cumulative: Box::default(),
            last: LastWindow::default(),
            idle_steps: 0,
            observed_steps: 0,
            usual: [None; TARGETS],
            usual_age: USUAL_KEEP_STEPS,
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
    pub fn close_step(&mut self, step: u64, empty: Window, completeness: f64) -> bool {
        // Steps that were skipped after a pause go unused.
        let closed = self.open.partition_point(|(open, _)| *open <= step);
        let last = self.open.drain(..closed).next_back();
        let Some((_, collected)) = last.filter(|(open, _)| *open == step) else {
            self.ring.push(&empty);
            self.idle_steps = self.idle_steps.saturating_add(1);
            return false;
        };
        let histogram = &collected.histogram;
        let covered_secs = collected.covered_ns as f64 / 1e9;
        // The rate is per second covered, so completeness must not raise it again.
        let mut window = Window::from_histogram(histogram, covered_secs, 1.0);
        window.completeness = completeness as f32;
        self.ring.push(&window);
        self.idle_steps = 0;
        self.observed_steps = self.observed_steps.saturating_add(1);
        let quantiles_ns = histogram
            .quantiles_ns([0.5, 0.9, 0.99, 0.999])
            .unwrap_or_default();
        self.last = LastWindow {
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
        self.usual_age = self.usual_age.saturating_add(1);
        if self.usual[index].is_some() && (frozen || self.usual_age < USUAL_KEEP_STEPS) {
            return self.usual[index];
        }
        self.usual_age = 0;
        let windows =
            (RECENT_STEPS..RECENT_STEPS + USUAL_STEPS).take_while(|ago| *ago < self.ring.len());
        let mut values: Vec<f64> = windows
            .filter_map(|ago| self.ring.window(ago).value(target))
            .collect();
        if values.len() >= USUAL_STEPS_MIN {
            let middle = values.len() / 2;
            let (_, median, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
            self.usual[index] = Some(target.to_natural(*median));
        }
        self.usual[index]
    }

    /// Memory of the series in bytes.
    pub fn bytes(&self) -> usize {
        let model = self.model.as_ref().map_or(0, |model| model.bytes());
        size_of::<Self>() + size_of::<Histogram>() + self.ring.bytes() + model
    }
}

/// Sensor windows of one series that fell into one step.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    /// Merged.
    pub histogram: Histogram,
    /// Sum of the windows' durations, of distinct times.
    pub covered_ns: u64,
    /// Newest window end merged, to count each span of time once.
    pub covered_until_ns: u64,
}

impl Collected {
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
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn packing_keeps_values_to_a_twentieth_of_a_percent(ln in -15.9f32..15.9, samples in 0f32..1e6) {
            let window = Window { y: [ln; TARGETS], samples, completeness: 0.5 };
            let mut ring = Ring::default();
            ring.push(&window);
            let read = ring.window(0);
            prop_assert!((read.y[0] - ln).abs() <= QUANTUM);
            prop_assert!((read.samples - samples).abs() <= samples * 0.001 + 0.001);
        }
    }

    #[test]
    fn nothing_stays_nothing() {
        let mut ring = Ring::default();
        ring.push(&Window::MISSING);
        assert!(ring.window(0).y.iter().all(|y| y.is_nan()));
        assert_eq!(ring.window(1).completeness, 0.0);
    }

    #[test]
    fn overlapping_windows_cover_a_time_once() {
        let mut collected = Collected::default();
        collected.cover(0, 10);
        collected.cover(0, 10);
        collected.cover(10, 20);
        assert_eq!(collected.covered_ns, 20);
    }

    #[test]
    fn usual_is_the_median_without_the_newest() {
        let mut series = Series::new(Signal::RunQueue);
        let at = |secs: f32| Window {
            y: [secs.ln(); TARGETS],
            samples: 100.0,
            completeness: 1.0,
        };
        assert_eq!(series.usual(Target::P99, false), None);
        (0..20).for_each(|_| series.ring.push(&at(0.001)));
        (0..3).for_each(|_| series.ring.push(&at(1.0)));
        let mut fresh = Series::new(Signal::RunQueue);
        fresh.ring = series.ring;
        let usual = fresh.usual(Target::P99, false).unwrap();
        assert!((usual / 0.001 - 1.0).abs() < 0.01, "{usual}");
    }
}
