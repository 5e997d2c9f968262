//! What the sensor costs while it runs, by part of a window, and giving up what
//! is too much: what [`crate::ceiling`] decides is done here.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use honeyguide_proto::v1::SignalCost;
use sensor_common::Signal;
use tracing::{info, warn};

use super::{Stop, worker::Worker};
use crate::{
    batches::Window,
    ceiling::{FIXED_NS, Load, ProbeLoad},
    cost::{Measurement, by_probe},
    drain::DrainedSeries,
    metrics::{RECOVERED, SHED, ShedLabels, TRIAL_FAILED},
    program::probe::Probe,
};

/// For how long a paused probe is tried at most.
const TRIAL_MAX: Duration = Duration::from_millis(50);

/// Events of all signals of a probe in a window.
#[derive(Clone, Copy, Default)]
struct Observed {
    samples: u64,
    estimated: u64,
}

impl Observed {
    /// What of the cost of the probe is of a signal with so many events: what
    /// all runs take by the events there were, the rest by those observed.
    fn share(self, load: &ProbeLoad, samples: u64, estimated: u64) -> u64 {
        let fixed_ns = (load.runs * FIXED_NS).min(load.kernel_ns);
        let part = |of: u64, all: u64| of as f64 / all.max(1) as f64;
        let rest_ns = load.kernel_ns - fixed_ns;
        (fixed_ns * part(estimated, self.estimated) + rest_ns * part(samples, self.samples)) as u64
    }
}

impl Worker {
    /// Sleeps until `end`; measures at the end of that part of the window, and
    /// sheds if it was above the ceiling (after the `last` part the end of the
    /// window does). True if the sensor is to stop.
    pub(super) fn measure_until(
        &mut self,
        end: Instant,
        part: Duration,
        (last, stop): (bool, &Stop),
    ) -> bool {
        // Each part has its share of the time that a window is measured for.
        let measured = self
            .measure
            .mul_f64(part.as_secs_f64() / self.flush.as_secs_f64());
        let measured = measured.min(part / 2);
        let stopping = stop.sleep_until(end - measured);
        let measurement = self.begin_measurement(stopping);
        let begun = Instant::now();
        let stopping = stopping || stop.sleep_until(end);
        if let Some(measurement) = measurement {
            let cost = measurement.finish(&self.kernel, (begun.elapsed(), part), self.overhead_ns);
            self.kernel_cost.add(&cost);
            let load = Load {
                all_cpus_ns: part.as_nanos() as f64 * f64::from(cpus()),
                user_space_ns: self.last_user_space.as_nanos() as f64 * part.as_secs_f64()
                    / self.flush.as_secs_f64(),
                probes: by_probe(&cost, &self.events),
            };
            if !last && self.steering.ceiling.check(&load) {
                self.shed(load.ratio());
                self.steering.apply_floors(&self.kernel);
                self.shed_in_window = true;
            }
            self.last_part = load;
        }
        stopping
    }

    /// Pauses what the ceiling wants paused, and says so.
    pub(super) fn shed(&mut self, ratio: f64) {
        let ceiling = &self.steering.ceiling;
        let (shed, limit) = (ceiling.describe(), ceiling.limit());
        warn!(
            shed,
            "costs {:.2} % of this machine, more than {:.2} %: looks less closely",
            ratio * 100.0,
            limit * 100.0
        );
        for probe in Probe::ALL {
            if ceiling.is_paused(probe) {
                self.kernel.pause(probe);
            }
        }
        self.look_for_tls();
        self.count_shedding(&SHED);
    }

    pub(super) fn count_shedding(&self, action: &ShedLabels) {
        let level = self.steering.ceiling.level();
        self.metrics.shedding_level.set(i64::from(level));
        self.metrics.shedding.get_or_create(action).inc();
    }

    /// Lets a paused probe run for a moment, and on if it is cheap enough now.
    pub(super) fn try_again(&mut self, probe: Probe, stop: &Stop) {
        let length = (self.measure / 2).min(TRIAL_MAX);
        let measurement = self.begin_measurement(false);
        if let Err(why) = self.kernel.resume(probe) {
            warn!(%probe, why, "not attached again");
            self.steering.ceiling.trial_failed(probe);
            self.count_shedding(&TRIAL_FAILED);
            return;
        }
        let begun = Instant::now();
        // Where nothing is measured, its next window is the trial.
        let mut passed = true;
        if let Some(measurement) = measurement {
            let stopping = stop.sleep_until(begun + length);
            let measured = begun.elapsed();
            let cost = measurement.finish(&self.kernel, (measured, measured), self.overhead_ns);
            let mut probes = by_probe(&cost, &self.events);
            probes.retain(|of, _| *of == probe);
            let load = Load {
                all_cpus_ns: measured.as_nanos() as f64 * f64::from(cpus()),
                user_space_ns: 0.0,
                probes,
            };
            passed = !stopping && self.steering.ceiling.trial_passes(&load);
        }
        if passed {
            info!(%probe, "attached again, it is cheap enough now");
            self.steering.ceiling.resume(probe);
            self.count_shedding(&RECOVERED);
        } else {
            self.kernel.pause(probe);
            self.steering.ceiling.trial_failed(probe);
            self.count_shedding(&TRIAL_FAILED);
        }
    }

    pub(super) fn begin_measurement(&mut self, stopping: bool) -> Option<Measurement> {
        if stopping || self.measure.is_zero() {
            return None;
        }
        match Measurement::begin(&self.kernel) {
            Ok(measurement) => Some(measurement),
            Err(error) => {
                warn!(%error, "the run time of kernel programs cannot be measured (CAP_SYS_ADMIN)");
                self.measure = Duration::ZERO;
                None
            }
        }
    }

    /// What the window that ends cost; remembers its events.
    pub(super) fn load(&mut self, window: Window, user_space: Duration) -> Load {
        self.events.clear();
        let sampled = |series: &&DrainedSeries| Probe::of_signal(series.signal).is_sampled();
        for series in self.drain.window().series().iter().filter(sampled) {
            let (count, samples) = (series.histogram.count(), series.histogram.totals().samples);
            let ratio = count as f64 / samples.max(1) as f64;
            let events = self.events.entry(Probe::of_signal(series.signal));
            let events = events.or_default();
            let shift = (ratio.log2().round() as usize).min(events.len() - 1);
            events[shift] += count as f64;
        }
        let assumed = self.measure.is_zero();
        Load {
            all_cpus_ns: (window.duration_ns * u64::from(cpus())) as f64,
            user_space_ns: user_space.as_nanos() as f64,
            probes: if assumed {
                let events = self.events.iter();
                events
                    .map(|(probe, events)| (*probe, ProbeLoad::assumed(*events)))
                    .collect()
            } else {
                by_probe(&self.kernel_cost, &self.events)
            },
        }
    }

    /// By signal what it cost and gave, in the order of numbers.
    pub(super) fn signal_costs(&self, load: &Load) -> Vec<SignalCost> {
        let mut events = [(0u64, 0u64); Signal::ALL.len()];
        let mut of_probe = BTreeMap::<Probe, Observed>::new();
        for series in self.drain.window().series() {
            let (samples, estimated) = &mut events[usize::from(series.signal.number())];
            *samples += series.histogram.totals().samples;
            *estimated += series.histogram.count();
            let of_probe = of_probe.entry(Probe::of_signal(series.signal)).or_default();
            of_probe.samples += series.histogram.totals().samples;
            of_probe.estimated += series.histogram.count();
        }
        let measured = self.kernel_cost.total_ns > 0;
        let costs = Signal::ALL.into_iter().zip(events);
        let costs = costs.map(|(signal, (samples, estimated))| {
            let probe = Probe::of_signal(signal);
            let of_probe = of_probe.get(&probe).copied().unwrap_or_default();
            let load = load.probes.get(&probe).filter(|_| measured);
            SignalCost {
                signal: u32::from(signal.number()),
                kernel_ns: load.map_or(0, |load| of_probe.share(load, samples, estimated)),
                events: samples,
                estimated_events: estimated,
                shed_shift: u32::from(self.steering.ceiling.floor(probe)),
                detached: self.steering.ceiling.is_paused(probe),
            }
        });
        let tells = |cost: &SignalCost| cost.events > 0 || cost.shed_shift > 0 || cost.detached;
        costs.filter(tells).collect()
    }
}

pub(super) fn cpus() -> u32 {
    thread::available_parallelism().map_or(1, usize::from) as u32
}
