//! What a node's sensor costs, and the sampling ratios that fit the budget.
//!
//! The cost of a signal is taken to be `events × (unsampled + ratio × rest)`:
//! an event that is not sampled costs little, whatever the signal. The rest
//! follows from what the sensor measured at the ratio it had.

use std::collections::VecDeque;

use honeyguide_proto::{batch::Header, v1};
use sensor_common::Signal;

/// Largest k of a ratio 1/2^k. Beyond, sampling saves less than an event that
/// is not sampled costs, and series with few events would not be seen.
pub const SHIFT_MAX: u8 = 4;
/// Kernel time of an event that is not sampled, as long as nothing better is
/// known (bench `probe-cost`).
const UNSAMPLED_NS: f64 = 10.0;
/// The same at most.
const UNSAMPLED_NS_MAX: f64 = 100.0;
/// Windows that must all agree before a node is looked at more closely again.
const CALM_WINDOWS: usize = 6;
/// Weight of a new measurement.
const ALPHA: f64 = 0.3;
/// Observed events that make a measurement.
const EVENTS_MIN: f64 = 100.0;
/// Sampling ratio from which on it is exact.
const RATIO_MIN: f64 = 0.125;
/// What a sampled event is taken to cost at most until then.
const SAMPLED_NS_MAX: f64 = 1000.0;
/// The part of a sensor's own ceiling that hints may use: above the ceiling it
/// sheds by itself.
const CEILING_SHARE: f64 = 0.75;
/// The part of the budget that programs have at least, where the sensor's user
/// space alone is near it: sampling would not help.
const PROGRAMS_SHARE_MIN: f64 = 0.1;

/// Signals that share one sampling decision: those that a hint names, and
/// those that are measured along with them.
struct Group {
    named: &'static [Signal],
    along: &'static [Signal],
}

const fn alone(named: &'static [Signal]) -> Group {
    Group { named, along: &[] }
}

const GROUPS: [Group; 14] = [
    alone(&[Signal::RunQueue]),
    alone(&[Signal::BlockIo, Signal::BlockIoDevice]),
    Group {
        named: &[
            Signal::TcpConnect,
            Signal::ServerRequest,
            Signal::ClientRequest,
        ],
        along: &[
            Signal::TcpRtt,
            Signal::ServerQueue,
            Signal::ServerService,
            Signal::ServerResponse,
            Signal::ClientResponse,
        ],
    },
    alone(&[Signal::SyscallRead]),
    alone(&[Signal::SyscallWrite]),
    alone(&[Signal::SyscallSync]),
    alone(&[Signal::SyscallFutex]),
    alone(&[Signal::SyscallPoll]),
    alone(&[Signal::SyscallFile]),
    alone(&[Signal::SyscallSocket]),
    alone(&[Signal::SyscallMemory]),
    alone(&[Signal::SyscallProcess]),
    alone(&[Signal::SyscallSleep]),
    alone(&[Signal::SyscallOther]),
];

type Shifts = [u8; GROUPS.len()];

/// A group in one window.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    /// Kernel time if no event were sampled.
    unsampled_ns: f64,
    /// What it takes beyond that if every event is.
    sampled_ns: f64,
}

impl Load {
    fn at(self, shift: u8) -> f64 {
        self.unsampled_ns + self.sampled_ns * 0.5f64.powi(i32::from(shift))
    }
}

/// Nanoseconds of one event, as far as they are known.
#[derive(Clone, Copy, Debug, Default)]
struct EventCost {
    unsampled: Option<f64>,
    /// Beyond an unsampled one.
    sampled: Option<f64>,
}

impl EventCost {
    /// Takes what `events` took of which some were `observed`.
    fn learn(&mut self, kernel_ns: f64, events: f64, observed: f64) {
        let unsampled = self.unsampled.unwrap_or(UNSAMPLED_NS);
        match self.sampled {
            // Where few are sampled, the others blur what each of them costs.
            Some(sampled) if observed < events * RATIO_MIN => {
                let measured = (kernel_ns - observed * sampled) / events;
                blend(&mut self.unsampled, measured.clamp(0.0, UNSAMPLED_NS_MAX));
            }
            Some(_) => {
                let measured = (kernel_ns - events * unsampled) / observed;
                blend(&mut self.sampled, measured.max(0.0));
            }
            None => {
                let measured = (kernel_ns - events * unsampled) / observed;
                self.sampled = Some(measured.clamp(0.0, SAMPLED_NS_MAX));
            }
        }
    }
}

fn blend(known: &mut Option<f64>, measured: f64) {
    let known = known.get_or_insert(measured);
    *known += ALPHA * (measured - *known);
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    event_costs: [EventCost; GROUPS.len()],
    /// What the last windows asked for, newest last.
    asked: VecDeque<Shifts>,
    heard_ns: u64,
    /// Of the last window, as fractions of the node's CPUs.
    cost: f64,
    full_cost: f64,
    budget: f64,
}

impl Node {
    /// Takes the cost of one window.
    pub(super) fn take(&mut self, cost: &v1::SensorCost, header: &Header, budget: f64) {
        self.heard_ns = self.heard_ns.max(header.window_end_ns());
        let all_cpus_ns = f64::from(cost.cpus.max(1)) * header.window_duration_ns.max(1) as f64;
        let mut allowed_ns = budget * all_cpus_ns;
        if cost.ceiling_ns > 0 {
            allowed_ns = allowed_ns.min(CEILING_SHARE * cost.ceiling_ns as f64);
        }
        let user_space_ns = cost.user_space_ns as f64;
        let programs_ns = (allowed_ns - user_space_ns).max(PROGRAMS_SHARE_MIN * allowed_ns);
        let loads: [Load; GROUPS.len()] = std::array::from_fn(|at| self.load(at, cost));
        let shifts = shifts_within(&loads, programs_ns);
        if self.asked.len() == CALM_WINDOWS {
            self.asked.pop_front();
        }
        self.asked.push_back(shifts);
        let full_ns: f64 = loads.iter().map(|load| load.at(0)).sum();
        self.cost = (user_space_ns + cost.kernel_ns as f64) / all_cpus_ns;
        self.full_cost = (user_space_ns + full_ns) / all_cpus_ns;
        self.budget = allowed_ns / all_cpus_ns;
    }

    /// Measures the group at position `at`.
    fn load(&mut self, at: usize, cost: &v1::SensorCost) -> Load {
        let (mut kernel_ns, mut events, mut observed) = (0.0, 0.0, 0.0);
        for one in &cost.signals {
            let signal = u8::try_from(one.signal).ok().and_then(Signal::from_number);
            let Some(signal) = signal else { continue };
            let named = GROUPS[at].named.contains(&signal);
            if named || GROUPS[at].along.contains(&signal) {
                kernel_ns += one.kernel_ns as f64;
            }
            if named {
                events += one.estimated_events as f64;
                observed += one.events as f64;
            }
        }
        let event_cost = &mut self.event_costs[at];
        if kernel_ns > 0.0 && observed >= EVENTS_MIN {
            event_cost.learn(kernel_ns, events, observed);
        }
        Load {
            unsampled_ns: events * event_cost.unsampled.unwrap_or(UNSAMPLED_NS),
            sampled_ns: events * event_cost.sampled.unwrap_or(0.0),
        }
    }

    /// End of the newest window heard of.
    pub(super) fn heard_ns(&self) -> u64 {
        self.heard_ns
    }

    /// Signals to sample: less at once, more only when all of the last windows
    /// allow it.
    pub(super) fn shifts(&self) -> impl Iterator<Item = (Signal, u8)> {
        let asked = |at: usize| self.asked.iter().map(move |shifts| shifts[at]).max();
        let shifts = (0..GROUPS.len()).filter_map(move |at| Some((at, asked(at)?)));
        shifts
            .filter(|(_, shift)| *shift > 0)
            .flat_map(|(at, shift)| GROUPS[at].named.iter().map(move |signal| (*signal, shift)))
    }

    /// Why `shift` is asked for.
    pub(super) fn reason(&self, sensor_id: &str, shift: u8) -> String {
        format!(
            "1/{}: seeing all would cost {:.2} % of the CPUs of {sensor_id}, its budget is {:.2} %",
            1u32 << shift,
            self.full_cost * 100.0,
            self.budget * 100.0
        )
    }

    /// For people.
    pub(super) fn message(&self, sensor_id: &str) -> v1::NodeCost {
        v1::NodeCost {
            sensor_id: sensor_id.to_owned(),
            cost_ratio: self.cost,
            full_cost_ratio: self.full_cost,
            budget_ratio: self.budget,
        }
    }
}

/// The smallest shifts whose cost is within `allowed_ns`: the most expensive
/// group is halved, again and again.
fn shifts_within(loads: &[Load; GROUPS.len()], allowed_ns: f64) -> Shifts {
    let mut shifts = Shifts::default();
    loop {
        let cost: f64 = loads
            .iter()
            .zip(shifts)
            .map(|(load, shift)| load.at(shift))
            .sum();
        if cost <= allowed_ns {
            return shifts;
        }
        let saves = |at: usize| loads[at].at(shifts[at]) - loads[at].at(shifts[at] + 1);
        let most = (0..GROUPS.len())
            .filter(|at| shifts[*at] < SHIFT_MAX && saves(*at) > 0.0)
            .max_by(|a, b| saves(*a).total_cmp(&saves(*b)));
        match most {
            Some(at) => shifts[at] += 1,
            None => return shifts,
        }
    }
}
