//! The overhead ceiling: whatever hints say, the sensor costs no more.
//!
//! Pure: what a stretch of time cost goes in, floors of the sampling shifts
//! and probes to pause come out. Above the ceiling the sensor sheds in the
//! declared order, as much at once as it takes to be under it next time:
//!
//! 1. routes: requests are not told apart any more, inside TLS either, which takes
//!    nothing away from any signal of a service;
//! 2. sampling: the costliest probe counts half as many of its events, again
//!    and again, down to 1/2^[`FLOOR_MAX`];
//! 3. detaching: the costliest probe is paused. Nothing else makes an event
//!    that is not sampled free.
//!
//! It recovers one step at a time, in the opposite order, after
//! [`CALM_WINDOWS`] calm windows; a probe that had to be paused again waits
//! twice as long each time.
//!
//! A probe's cost is taken to be `runs × fixed + events × rest`: the fixed part
//! is that of an event that is not sampled (see `probe-cost`), the rest falls
//! with the events observed. Where the next measurement shows that the model was
//! wrong, nothing more is expected of sampling, and the costliest is detached.

use std::collections::BTreeMap;

use sensor_common::record::SAMPLING_SHIFT_MAX;

use crate::program::probe::Probe;

/// Largest floor of a sampling shift: 1/1024. Beyond, sampling saves nothing
/// more that counts: what is left is the fixed part.
pub const FLOOR_MAX: u8 = 10;
const _: () = assert!(FLOOR_MAX <= SAMPLING_SHIFT_MAX);
/// What the sensor aims at when it has to shed, as a part of the ceiling.
const TARGET: f64 = 0.75;
/// Part of what exchanges cost that telling requests apart by route takes: all
/// of them of HTTP (see `request-cost`).
const ROUTES_PART: f64 = 0.3;
/// What the kernel programs may have at least, as a part of the ceiling, when
/// the sensor's user space alone is near it: shedding all would not help.
const KERNEL_SHARE_MIN: f64 = 0.1;
/// Windows in a row that would stay under the target with one step less,
/// before that step is taken.
pub const CALM_WINDOWS: u32 = 6;
/// How many times longer that takes at most for a probe that was paused.
const PATIENCE_MAX: u32 = 64;
/// Measured nanoseconds of a run that samples nothing, as long as nothing
/// better is known; a little above what `probe-cost` measures.
pub const FIXED_NS: f64 = 15.0;
/// The same, at least: what recovering reckons with, so that it never takes
/// the sensor above the ceiling.
const FIXED_NS_MIN: f64 = 5.0;
/// The steps that a paused probe counts for: one more than sampling has.
const PAUSED_STEPS: u32 = FLOOR_MAX as u32 + 1;
/// Sampling shifts told apart.
const SHIFTS: usize = SAMPLING_SHIFT_MAX as usize + 1;

/// Events there were, by the sampling shift they were observed at.
pub type EventsByShift = [f64; SHIFTS];

/// Cost of an event that is sampled and of a run that samples nothing, where
/// the kernel does not measure: on the safe side of what `probe-cost` shows.
const UNMEASURED_SAMPLE_NS: f64 = 400.0;
/// Runs that an event takes then.
const UNMEASURED_RUNS: f64 = 2.0;

/// What one probe cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProbeLoad {
    /// Run time of its programs.
    pub kernel_ns: f64,
    /// Runs of its programs.
    pub runs: f64,
    /// Run time of those that look inside TLS, and their runs: sampling saves
    /// little of it, giving up routes all.
    pub inside_tls: (f64, f64),
    /// Events there were, by the sampling shift they were observed at.
    pub events_by_shift: EventsByShift,
}

impl ProbeLoad {
    /// What such events are assumed to cost where nothing is measured.
    pub fn assumed(events_by_shift: EventsByShift) -> Self {
        let events: f64 = events_by_shift.iter().sum();
        let mut load = Self {
            kernel_ns: 0.0,
            runs: events * UNMEASURED_RUNS,
            inside_tls: (0.0, 0.0),
            events_by_shift,
        };
        load.kernel_ns = load.runs * FIXED_NS + load.observed(0) * UNMEASURED_SAMPLE_NS;
        load
    }

    /// Events observed if no shift were below `floor`.
    fn observed(&self, floor: u8) -> f64 {
        let of_shift = |(shift, events): (usize, &f64)| {
            let shift = shift.max(usize::from(floor)) as i32;
            events * 0.5f64.powi(shift)
        };
        self.events_by_shift.iter().enumerate().map(of_shift).sum()
    }

    /// Expected cost if no shift were below `floor`, which is `now`.
    fn at(&self, floor: u8, now: u8, fixed_ns: f64) -> f64 {
        let fixed = self.runs * fixed_ns.min(self.kernel_ns / self.runs.max(1.0));
        let rest = self.kernel_ns - fixed;
        let before = self.observed(now);
        // Without events there is nothing to go by but the ratio itself; and
        // those of a lower floor are not known by the shift they would have.
        let part = if before > 0.0 && floor >= now {
            self.observed(floor) / before
        } else {
            0.5f64.powi(i32::from(floor) - i32::from(now))
        };
        fixed + rest * part
    }
}

/// What a stretch of time cost.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Load {
    /// CPU time of all CPUs in it.
    pub all_cpus_ns: f64,
    /// The sensor's own CPU time.
    pub user_space_ns: f64,
    /// By probe that ran in it.
    pub probes: BTreeMap<Probe, ProbeLoad>,
}

impl Load {
    /// The whole cost as a fraction of all CPUs.
    pub fn ratio(&self) -> f64 {
        let kernel_ns: f64 = self.probes.values().map(|probe| probe.kernel_ns).sum();
        (self.user_space_ns + kernel_ns) / self.all_cpus_ns.max(1.0)
    }
}

/// What to do about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Floors or paused probes are others now.
    pub changed: bool,
    /// This probe may be resumed if a short trial shows that it would cost
    /// less than [`Ceiling::trial_passes`] allows; then tell
    /// [`Ceiling::resume`] or [`Ceiling::trial_failed`].
    pub trial: Option<Probe>,
}

/// Whether requests are told apart by route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Routes {
    NotWanted,
    Told,
    Shed,
}

/// What is shed now.
#[derive(Clone, Debug)]
pub struct Ceiling {
    /// As a fraction of all CPUs.
    limit: f64,
    routes: Routes,
    floors: BTreeMap<Probe, u8>,
    paused: BTreeMap<Probe, Paused>,
    /// Pauses of each probe until now, to wait longer each time.
    patience: BTreeMap<Probe, u32>,
    /// Least measured nanoseconds of a run.
    fixed_ns: BTreeMap<Probe, f64>,
    calm: u32,
    /// The last stretch was above the ceiling.
    above: bool,
    /// More than routes was shed since it is: sampling did not help as expected.
    sampling_failed: bool,
    /// Cost of what looks inside TLS when it was given up, as a part of that of
    /// the rest of `tcp`.
    inside_tls: f64,
    /// Of the last window without its paused probes.
    last: Load,
}

#[derive(Clone, Copy, Debug)]
struct Paused {
    calm_needed: u32,
}

impl Ceiling {
    /// Nothing is shed. `limit` is a fraction of all CPUs.
    pub fn new(limit: f64) -> Self {
        Self {
            limit,
            routes: Routes::NotWanted,
            floors: BTreeMap::new(),
            paused: BTreeMap::new(),
            patience: BTreeMap::new(),
            fixed_ns: BTreeMap::new(),
            calm: 0,
            above: false,
            sampling_failed: false,
            inside_tls: 0.0,
            last: Load::default(),
        }
    }

    /// Requests are told apart by route as well.
    pub fn with_routes(mut self) -> Self {
        self.routes = Routes::Told;
        self
    }

    /// Whether requests are to be told apart by route.
    pub fn tells_routes(&self) -> bool {
        self.routes == Routes::Told
    }

    /// The ceiling as a fraction of all CPUs.
    pub fn limit(&self) -> f64 {
        self.limit
    }

    /// Whether the last stretch was above the ceiling.
    pub fn is_above(&self) -> bool {
        self.above
    }

    /// The smallest sampling shift that signals of `probe` may have.
    pub fn floor(&self, probe: Probe) -> u8 {
        self.floors.get(&probe).copied().unwrap_or(0)
    }

    /// Whether `probe` is to be paused.
    pub fn is_paused(&self, probe: Probe) -> bool {
        self.paused.contains_key(&probe)
    }

    /// Steps shed; 0 when nothing is.
    pub fn level(&self) -> u32 {
        let floors: u32 = self.floors.values().map(|floor| u32::from(*floor)).sum();
        let routes = u32::from(self.routes == Routes::Shed);
        routes + floors + PAUSED_STEPS * self.paused.len() as u32
    }

    /// What is shed, for people; empty when nothing is.
    pub fn describe(&self) -> String {
        let paused = self.paused.keys().map(|probe| format!("{probe} detached"));
        let floors = self
            .floors
            .iter()
            .filter(|(probe, floor)| **floor > 0 && !self.is_paused(**probe));
        let floors = floors.map(|(probe, floor)| format!("{probe} at most 1/{}", 1u32 << floor));
        let routes = (self.routes == Routes::Shed).then(|| "no routes".to_owned());
        let shed = paused.chain(floors).chain(routes);
        shed.collect::<Vec<_>>().join(", ")
    }

    /// In the middle of a window: sheds if `load` is above the ceiling.
    /// Returns whether anything changed.
    pub fn check(&mut self, load: &Load) -> bool {
        self.learn(load);
        if load.ratio() <= self.limit {
            self.is_not_above();
            return false;
        }
        self.shed(load)
    }

    /// At the end of a window: sheds if `load` is above the ceiling, takes a
    /// step back after calm windows.
    pub fn end_window(&mut self, load: &Load) -> Decision {
        self.learn(load);
        self.last = load.clone();
        if load.ratio() > self.limit {
            self.calm = 0;
            let changed = self.shed(load);
            return Decision {
                changed,
                trial: None,
            };
        }
        self.is_not_above();
        self.recover(load)
    }

    fn is_not_above(&mut self) {
        self.above = false;
        self.sampling_failed = false;
    }

    fn learn(&mut self, load: &Load) {
        for (probe, load) in &load.probes {
            // Of a few runs the mean says little.
            let (inside_tls_ns, inside_tls_runs) = load.inside_tls;
            let runs = load.runs - inside_tls_runs;
            if runs >= 1000.0 {
                let per_run = (load.kernel_ns - inside_tls_ns) / runs;
                let fixed = self.fixed_ns.entry(*probe).or_insert(FIXED_NS);
                *fixed = fixed.min(per_run);
            }
        }
    }

    fn fixed(&self, probe: Probe) -> f64 {
        self.fixed_ns.get(&probe).copied().unwrap_or(FIXED_NS)
    }

    /// Kernel time that a stretch like `load` should have at most.
    fn target_ns(&self, load: &Load) -> f64 {
        let limit_ns = self.limit * load.all_cpus_ns;
        (TARGET * limit_ns - load.user_space_ns).max(KERNEL_SHARE_MIN * limit_ns)
    }

    /// Cost of `probe` as it was decided, where `load` had the floors `before`.
    fn expected(&self, probe: Probe, load: &ProbeLoad, before: u8) -> f64 {
        match self.is_paused(probe) {
            true => 0.0,
            false => load.at(self.floor(probe), before, self.fixed(probe)),
        }
    }

    /// Gives up routes, halves the costliest, then pauses the costliest, until
    /// the kernel time is expected to be on target.
    fn shed(&mut self, load: &Load) -> bool {
        self.above = true;
        let mut load = load.clone();
        let mut changed = self.shed_routes(&mut load);
        let load = &load;
        let target_ns = self.target_ns(load);
        let before = self.floors.clone();
        let floor_before = |probe| before.get(&probe).copied().unwrap_or(0);
        // Above it again at once: sampling did not help as the model said.
        let mut sampling_helps = None;
        loop {
            let expected: BTreeMap<Probe, f64> = load
                .probes
                .iter()
                .map(|(probe, load)| (*probe, self.expected(*probe, load, floor_before(*probe))))
                .filter(|(_, ns)| *ns > 0.0)
                .collect();
            if expected.values().sum::<f64>() <= target_ns {
                return changed;
            }
            let sampling_helps = *sampling_helps
                .get_or_insert_with(|| !std::mem::replace(&mut self.sampling_failed, true));
            let costliest = |probes: &mut dyn Iterator<Item = (&Probe, &f64)>| {
                probes
                    .max_by(|a, b| a.1.total_cmp(b.1))
                    .map(|(probe, _)| *probe)
            };
            // Sampling, while it can still bring everything on target.
            let fixed_ns: f64 = expected
                .keys()
                .map(|probe| {
                    let of = &load.probes[probe];
                    of.at(FLOOR_MAX, floor_before(*probe), self.fixed(*probe))
                })
                .sum();
            let mut reducible = expected
                .iter()
                .filter(|(probe, _)| self.floor(**probe) < FLOOR_MAX);
            let sampled = match sampling_helps && fixed_ns <= target_ns {
                true => costliest(&mut reducible),
                false => None,
            };
            changed = true;
            match sampled {
                Some(probe) => *self.floors.entry(probe).or_insert(0) += 1,
                None => match costliest(&mut expected.iter()) {
                    Some(probe) => self.pause(probe),
                    None => return changed,
                },
            }
        }
    }

    /// Takes from `load` what is expected to be saved.
    fn shed_routes(&mut self, load: &mut Load) -> bool {
        let Some(exchanges) = load.probes.get_mut(&Probe::Tcp) else {
            return false;
        };
        if self.routes != Routes::Told {
            return false;
        }
        self.routes = Routes::Shed;
        let (kernel_ns, runs) = std::mem::take(&mut exchanges.inside_tls);
        exchanges.kernel_ns = (exchanges.kernel_ns - kernel_ns).max(0.0) * (1.0 - ROUTES_PART);
        exchanges.runs = (exchanges.runs - runs).max(0.0);
        self.inside_tls = kernel_ns / exchanges.kernel_ns.max(1.0);
        true
    }

    fn pause(&mut self, probe: Probe) {
        let patience = self.patience.entry(probe).or_insert(0);
        *patience = (*patience * 2).clamp(1, PATIENCE_MAX);
        let calm_needed = CALM_WINDOWS * *patience;
        self.paused.insert(probe, Paused { calm_needed });
        // When it comes back it begins with the least.
        self.floors.insert(probe, FLOOR_MAX);
    }

    fn recover(&mut self, load: &Load) -> Decision {
        self.calm = self.calm.saturating_add(1);
        let nothing = Decision::default();
        // Paused probes first, those that wait for the fewest windows first.
        let first = self
            .paused
            .iter()
            .min_by_key(|(_, paused)| paused.calm_needed);
        // Until then others may recover.
        if let Some((probe, _)) = first.filter(|(_, paused)| self.calm >= paused.calm_needed) {
            return Decision {
                trial: Some(*probe),
                ..nothing
            };
        }
        if self.calm == 0 || !self.calm.is_multiple_of(CALM_WINDOWS) {
            return nothing;
        }
        let target_ns = self.target_ns(load);
        let kernel_ns: f64 = load.probes.values().map(|probe| probe.kernel_ns).sum();
        // The one that is sampled most, among those that it would not be too much for.
        let shed = self.floors.iter().filter(|(probe, floor)| {
            let rise = load.probes.get(*probe).map_or(0.0, |load| {
                load.at(floor.saturating_sub(1), **floor, FIXED_NS_MIN) - load.kernel_ns
            });
            **floor > 0 && !self.is_paused(**probe) && kernel_ns + rise <= target_ns
        });
        let Some(probe) = shed
            .max_by_key(|(_, floor)| **floor)
            .map(|(probe, _)| *probe)
        else {
            return Decision {
                changed: self.recover_routes(load),
                ..nothing
            };
        };
        if let Some(floor) = self.floors.get_mut(&probe) {
            *floor -= 1;
            self.floors.retain(|_, floor| *floor > 0);
        }
        Decision {
            changed: true,
            ..nothing
        }
    }

    /// The first that was shed comes back last.
    fn recover_routes(&mut self, load: &Load) -> bool {
        let exchanges_ns = load.probes.get(&Probe::Tcp).map_or(0.0, |of| of.kernel_ns);
        let rise = exchanges_ns * (ROUTES_PART / (1.0 - ROUTES_PART) + self.inside_tls);
        let kernel_ns: f64 = load.probes.values().map(|of| of.kernel_ns).sum();
        let recovers = self.routes == Routes::Shed
            && self.floors.is_empty()
            && self.paused.is_empty()
            && kernel_ns + rise <= self.target_ns(load);
        if recovers {
            self.routes = Routes::Told;
        }
        recovers
    }

    /// Whether a trial that had `load` of the paused probe alone shows that it
    /// can come back: at the largest floor, next to all that the last window had.
    pub fn trial_passes(&self, trial: &Load) -> bool {
        let others: f64 = self.last.probes.values().map(|probe| probe.kernel_ns).sum();
        let others = others / self.last.all_cpus_ns.max(1.0);
        let target = self.target_ns(&self.last) / self.last.all_cpus_ns.max(1.0);
        let trial_ns: f64 = trial.probes.values().map(|probe| probe.kernel_ns).sum();
        others + trial_ns / trial.all_cpus_ns.max(1.0) <= target
    }

    /// The trial passed: `probe` runs again, at the largest floor.
    pub fn resume(&mut self, probe: Probe) {
        self.paused.remove(&probe);
        self.calm = 0;
    }

    /// The trial failed: `probe` stays paused, for twice as long.
    pub fn trial_failed(&mut self, probe: Probe) {
        self.pause(probe);
        self.calm = 0;
    }
}

#[cfg(test)]
mod tests;
