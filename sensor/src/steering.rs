//! How closely each service is looked at: the configuration, then hints, then
//! the ceiling, written to the kernel where it is something else.
//!
//! Written right after a drain, so that a window has one ratio. The events
//! between the drain and the write are in the next window with the old one;
//! each adds its own weight, so counts stay unbiased all the same, and
//! `samples` says how many there were.
//!
//! The signals of one exchange are decided together when it begins, by the
//! ratio of `server_request`, `client_request` or `tcp_connect`; what is said
//! of the others of `tcp` matters only for whether they are measured.

use std::time::Duration;

use sensor_common::{
    Signal,
    record::{FIRST_SERVICE, SAMPLING_SHIFT_MASK, SIGNAL_OFF, SignalConfig},
    signal::SIGNALS,
};

use crate::{
    ceiling::Ceiling,
    config::ValidConfig,
    drain::Drain,
    hints::{Book, Shared},
    program::{Kernel, probe::Probe, tables::Tables},
};

/// The part of the ceiling that draining may take at the interval hints ask for.
const DRAIN_SHARE: f64 = 0.4;

type Configs = [SignalConfig; SIGNALS];

/// Writes what is decided.
pub(crate) struct Steering {
    configured: Configs,
    flush_interval: Duration,
    pub(crate) hints: Shared,
    pub(crate) ceiling: Ceiling,
    /// What was written: version of the book, floors, services named.
    written: Option<(u64, Configs, u64)>,
}

impl Steering {
    pub(crate) fn new(config: &ValidConfig, hints: Shared) -> Self {
        let configured = Signal::ALL.map(|signal| configured(config, signal));
        Self {
            configured,
            flush_interval: config.config.flush_interval,
            hints,
            ceiling: Ceiling::new(config.config.cost_ceiling),
            written: None,
        }
    }

    /// Writes what hints and the ceiling say now.
    pub(crate) fn apply(&mut self, kernel: &Kernel, drain: &Drain) {
        let floors = Signal::ALL.map(|signal| self.ceiling.floor(Probe::of_signal(signal)));
        let state = self.hints.look(|book| {
            let state = (book.version(), floors, drain.named());
            if self.written != Some(state) {
                write(kernel.tables(), drain, book, self.configured, floors);
            }
            state
        });
        self.written = Some(state);
    }

    /// Raises what the ceiling raised, at once and for all services: the first
    /// stage is enough, because an event has the weight of the stricter one.
    pub(crate) fn apply_floors(&self, kernel: &Kernel) {
        let tables = kernel.tables();
        let config = tables.config();
        for signal in Signal::ALL {
            let number = usize::from(signal.number());
            let floor = self.ceiling.floor(Probe::of_signal(signal));
            let first = at_least(config.first_stage[number], floor);
            let default = at_least(config.default[number], floor);
            tables.set_signal_config(signal.number(), default, first);
        }
    }

    /// How long the next window is to be. Hints shorten it as far as draining
    /// so often, which took `drain_cpu` the last time, leaves the ceiling alone;
    /// and not while anything is shed.
    pub(crate) fn flush_interval(&self, drain_cpu: Duration, cpus: u32) -> Duration {
        let wanted = self.hints.look(Book::flush_interval);
        let Some(wanted) = wanted.filter(|_| self.ceiling.level() == 0) else {
            return self.flush_interval;
        };
        let share = DRAIN_SHARE * self.ceiling.limit() * f64::from(cpus.max(1));
        let affordable = Duration::try_from_secs_f64(drain_cpu.as_secs_f64() / share);
        let affordable = affordable.unwrap_or(self.flush_interval);
        wanted.max(affordable).min(self.flush_interval)
    }
}

/// What the configuration alone says.
pub(crate) fn configured(config: &ValidConfig, signal: Signal) -> SignalConfig {
    match config.wants(signal) {
        true => config.shifts.get(&signal).copied().unwrap_or(0),
        false => SIGNAL_OFF,
    }
}

fn at_least(config: SignalConfig, floor: u8) -> SignalConfig {
    match config & SIGNAL_OFF != 0 {
        true => config,
        false => (config & SAMPLING_SHIFT_MASK).max(floor),
    }
}

fn write(tables: &Tables, drain: &Drain, book: &Book, configured: Configs, floors: Configs) {
    // A hint never turns on what the configuration leaves out.
    let decide = |number: usize, hinted: Option<u8>| match configured[number] & SIGNAL_OFF {
        0 => hinted.unwrap_or(configured[number]).max(floors[number]),
        _ => SIGNAL_OFF,
    };
    let of_all = Signal::ALL.map(|signal| decide(usize::from(signal.number()), book.shift(signal)));
    let mut first_stage = of_all;
    let nameless = (0..FIRST_SERVICE).map(|index| (index, None));
    let named = drain.known().map(|(index, id)| (index, Some(id)));
    for (index, id) in nameless.chain(named) {
        let hinted = id.filter(|id| book.names(id));
        let written = tables.service_config(index);
        for signal in Signal::ALL {
            let number = usize::from(signal.number());
            let own = hinted.and_then(|id| book.shift_of(id, signal));
            let config = own.map_or(of_all[number], |own| decide(number, Some(own)));
            if written[number] != config {
                tables.set_service_config(index, signal.number(), config);
            }
            first_stage[number] = first_stage[number].min(config);
        }
    }
    for signal in Signal::ALL {
        let number = usize::from(signal.number());
        tables.set_signal_config(signal.number(), of_all[number], first_stage[number]);
    }
}
