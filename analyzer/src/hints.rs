//! Hints: how closely sensors should look, from what is forecast and what
//! looking costs.
//!
//! Pure: costs and forecasts go in, hints come out. Two voices speak:
//!
//! - `node`: what calm series may cost. Where a node's measured cost per
//!   event times its rate of events would take more than the budget, its most
//!   expensive signals are sampled at 1/2^k, all services alike, because only
//!   what no service wants is dropped at the first instruction.
//! - [`attention`]: what must be seen. A series with a breach ahead, an unusual
//!   window, or an interval too wide to tell whether a threshold holds, is
//!   looked at closely whatever the budget says. The sensor's own ceiling is
//!   the bound of that.
//!
//! `issued` says each thing once, again before it runs out, and takes it back
//! when it is over.

pub mod attention;
mod issued;
mod node;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use honeyguide_proto::{ServiceId, batch::Header, hint::Scope, v1};
use sensor_common::Signal;

pub use self::issued::Change;
use self::{
    attention::Attention,
    issued::{Issued, Wanted},
    node::Node,
};

/// For how long a hint counts; it is said again after half of that.
pub const TTL: Duration = Duration::from_secs(300);
/// For how long a series stays looked at after it became calm.
const HOLD: Duration = Duration::from_secs(300);
/// Series looked at closely, in a partition.
const WATCHED_MAX: usize = 1000;
/// Nodes whose cost is known, in a partition.
const NODES_MAX: usize = 10_000;
/// Sensors with windows longer than a step, in a partition.
const SLOW_SENSORS_MAX: usize = 1000;
/// Services of such a sensor.
const SLOW_SERVICES_MAX: usize = 1000;
/// Of a node or a sensor that is silent.
const FORGET: Duration = Duration::from_secs(300);

/// What the policy is told to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// What calm series may cost, as a fraction of a node's CPUs.
    pub budget: f64,
    /// Hints are to be counted, not applied.
    pub dry_run: bool,
    /// Length of a step.
    pub step: Duration,
}

/// A series that may deserve attention.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Whose.
    pub service: &'a ServiceId,
    /// What is measured.
    pub signal: Signal,
    /// Events of its newest window, estimated.
    pub events: f64,
    /// Observed samples over estimated events.
    pub sampling_ratio: f64,
}

/// See the module.
#[derive(Debug)]
pub struct Policy {
    settings: Settings,
    nodes: BTreeMap<String, Node>,
    watched: BTreeMap<(ServiceId, Signal), Watched>,
    slow: BTreeMap<String, SlowSensor>,
    issued: Issued,
    left_out: u64,
}

/// A series that is looked at closely.
#[derive(Clone, Debug)]
struct Watched {
    shift: u8,
    priority: f64,
    reason: String,
    /// Nanoseconds since the Unix epoch.
    until_ns: u64,
}

/// A sensor whose windows are longer than a step.
#[derive(Clone, Debug, Default)]
struct SlowSensor {
    services: BTreeSet<ServiceId>,
    /// End of its newest window.
    heard_ns: u64,
}

impl Policy {
    /// A policy that knows nothing yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            nodes: BTreeMap::new(),
            watched: BTreeMap::new(),
            slow: BTreeMap::new(),
            issued: Issued::default(),
            left_out: 0,
        }
    }

    /// Takes what a batch says of its sensor.
    pub fn take(&mut self, header: &Header, cost: Option<&v1::SensorCost>, services: &[ServiceId]) {
        let heard_ns = header.window_end_ns();
        if let Some(cost) = cost {
            let known = self.nodes.contains_key(&header.sensor_id);
            if known || self.nodes.len() < NODES_MAX && can_be_told(&header.sensor_id) {
                let node = self.nodes.entry(header.sensor_id.clone()).or_default();
                node.take(cost, header, self.settings.budget);
            } else {
                self.left_out += 1;
            }
        }
        let step_ns = self.settings.step.as_nanos() as u64;
        if header.window_duration_ns < step_ns * 3 / 2 {
            self.slow.remove(&header.sensor_id);
        } else if self.slow.contains_key(&header.sensor_id)
            || self.slow.len() < SLOW_SENSORS_MAX && can_be_told(&header.sensor_id)
        {
            let slow = self.slow.entry(header.sensor_id.clone()).or_default();
            if slow.heard_ns < heard_ns {
                *slow = SlowSensor {
                    services: BTreeSet::new(),
                    heard_ns,
                };
            }
            let room = SLOW_SERVICES_MAX.saturating_sub(slow.services.len());
            self.left_out += services.len().saturating_sub(room) as u64;
            slow.services.extend(services.iter().take(room).cloned());
        } else {
            self.left_out += 1;
        }
    }

    /// Whether a series is looked at closely already.
    pub fn is_watched(&self, service: &ServiceId, signal: Signal) -> bool {
        let deciders = attention::deciders(signal);
        let mut keys = deciders.iter().map(|signal| (service.clone(), *signal));
        !self.watched.is_empty() && keys.any(|key| self.watched.contains_key(&key))
    }

    /// Notes that a series deserves attention at `at_ns`.
    pub fn attend(&mut self, subject: Subject<'_>, attention: &Attention, at_ns: u64) {
        let shift = attention.shift(subject.events);
        // What is observed at least as closely needs no hint.
        let sampled = shift_of(subject.sampling_ratio) > shift;
        let until_ns = at_ns + HOLD.as_nanos() as u64;
        for signal in attention::deciders(subject.signal) {
            let key = (subject.service.clone(), *signal);
            if let Some(watched) = self.watched.get_mut(&key) {
                watched.until_ns = until_ns;
                // Not back and forth where the number of events is near a power of two.
                if shift < watched.shift || shift > watched.shift + 1 {
                    watched.shift = shift;
                }
                if attention.priority >= watched.priority {
                    watched.priority = attention.priority;
                    watched.reason.clone_from(&attention.reason);
                }
            } else if sampled && self.make_room(attention.priority) {
                let watched = Watched {
                    shift,
                    priority: attention.priority,
                    reason: attention.reason.clone(),
                    until_ns,
                };
                self.watched.insert(key, watched);
            } else if sampled {
                self.left_out += 1;
            }
        }
    }

    /// Whether there is room for another series, if need be in the place of
    /// one that matters less.
    fn make_room(&mut self, priority: f64) -> bool {
        if self.watched.len() < WATCHED_MAX {
            return true;
        }
        let least = self
            .watched
            .iter()
            .min_by(|(_, a), (_, b)| a.priority.total_cmp(&b.priority))
            .filter(|(_, least)| least.priority < priority)
            .map(|(key, _)| key.clone());
        self.left_out += u64::from(least.is_some());
        least.is_some_and(|key| self.watched.remove(&key).is_some())
    }

    /// What is to be published after a step that ended at `at_ns`. `partition`
    /// tells the hints of several pipelines apart.
    pub fn decide(&mut self, at_ns: u64, partition: u32) -> Vec<Change> {
        let silent_ns = at_ns.saturating_sub(FORGET.as_nanos() as u64);
        self.nodes.retain(|_, node| node.heard_ns() >= silent_ns);
        self.slow.retain(|_, slow| slow.heard_ns >= silent_ns);
        self.watched.retain(|_, watched| watched.until_ns > at_ns);
        let mut wanted = BTreeMap::new();
        for (sensor_id, node) in &self.nodes {
            for (signal, shift) in node.shifts() {
                let scope = Scope {
                    service: None,
                    signal: Some(signal),
                    sensor: Some(sensor_id.clone()),
                };
                wanted.insert(
                    scope,
                    Wanted::sampling(shift, node.reason(sensor_id, shift)),
                );
            }
        }
        for ((service, signal), watched) in &self.watched {
            let scope = Scope {
                service: Some(service.clone()),
                signal: Some(*signal),
                sensor: None,
            };
            wanted.insert(
                scope,
                Wanted::sampling(watched.shift, watched.reason.clone()),
            );
        }
        wanted.extend(self.shorter_windows());
        let dry_run = self.settings.dry_run;
        self.issued.reconcile(wanted, at_ns, partition, dry_run)
    }

    /// Windows longer than a step tell of a service at risk too late.
    fn shorter_windows(&self) -> impl Iterator<Item = (Scope, Wanted)> {
        let services: BTreeSet<_> = self.watched.keys().map(|(service, _)| service).collect();
        let step = self.settings.step;
        self.slow.iter().filter_map(move |(sensor_id, slow)| {
            let service = slow.services.iter().find(|one| services.contains(one))?;
            let scope = Scope {
                sensor: Some(sensor_id.clone()),
                ..Scope::default()
            };
            let reason = format!("{service} is watched, windows are longer than a step");
            Some((scope, Wanted::flush_interval(step, reason)))
        })
    }

    /// Hints in force, by scope.
    pub fn hints(&self) -> Vec<v1::Hint> {
        self.issued.hints().map(v1::Hint::from).collect()
    }

    /// What nodes cost, by sensor; of those whose cost comes in this partition.
    pub fn nodes(&self) -> Vec<v1::NodeCost> {
        let nodes = self.nodes.iter();
        nodes.map(|(id, node)| node.message(id)).collect()
    }

    /// Nodes and series for which there was no room.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }
}

/// Whether a hint can name this sensor, and no other one.
fn can_be_told(sensor_id: &str) -> bool {
    let named = Scope::parse(&format!("{sensor_id}//"));
    named.is_ok_and(|scope| scope.sensor.as_deref() == Some(sensor_id))
}

/// The k of a sampling ratio 1/2^k, rounded; 0 if there is none.
pub fn shift_of(sampling_ratio: f64) -> u8 {
    let is_ratio = sampling_ratio > 0.0 && sampling_ratio <= 1.0;
    if is_ratio {
        (-sampling_ratio.log2()).round() as u8
    } else {
        0
    }
}

#[cfg(test)]
mod tests;
