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
    routes_per_service: u32,
    pub(crate) hints: Shared,
    pub(crate) ceiling: Ceiling,
    /// What was written: version of the book, floors, services named.
    written: Option<(u64, Configs, u64)>,
    /// Of the book, when it was written.
    closer_written: u64,
}

impl Steering {
    pub(crate) fn new(config: &ValidConfig, hints: Shared) -> Self {
        let configured = Signal::ALL.map(|signal| configured(config, signal));
        let routes_per_service = config.config.routes_per_service_max;
        let mut ceiling = Ceiling::new(config.config.cost_ceiling);
        if routes_per_service > 0 {
            ceiling = ceiling.with_routes();
        }
        Self {
            configured,
            flush_interval: config.config.flush_interval,
            routes_per_service,
            hints,
            ceiling,
            written: None,
            closer_written: 0,
        }
    }

    /// Writes what hints and the ceiling say now.
    pub(crate) fn apply(&mut self, kernel: &Kernel, drain: &Drain) {
        self.apply_routes(kernel.tables());
        let floors = Signal::ALL.map(|signal| self.ceiling.floor(Probe::of_signal(signal)));
        let (state, closer) = self.hints.look(|book| {
            let state = (book.version(), floors, drain.named());
            if self.written != Some(state) {
                write(kernel.tables(), drain, book, self.configured, floors);
            }
            (state, book.closer())
        });
        self.written = Some(state);
        self.closer_written = closer;
    }

    /// Whether hints that are not written yet ask to look closer at a service,
    /// and nothing is shed.
    pub(crate) fn looks_closer(&self) -> bool {
        self.ceiling.level() == 0 && self.hints.look(Book::closer) != self.closer_written
    }

    /// Raises what the ceiling raised, at once and for all services: the first
    /// stage is enough, because an event has the weight of the stricter one.
    pub(crate) fn apply_floors(&self, kernel: &Kernel) {
        let tables = kernel.tables();
        self.apply_routes(tables);
        let config = tables.config();
        for signal in Signal::ALL {
            let number = usize::from(signal.number());
            let floor = self.ceiling.floor(Probe::of_signal(signal));
            let first = at_least(config.first_stage[number], floor);
            let default = at_least(config.default[number], floor);
            tables.set_signal_config(signal.number(), default, first);
        }
    }

    fn apply_routes(&self, tables: &Tables) {
        tables.set_routes_per_service(match self.ceiling.tells_routes() {
            true => self.routes_per_service,
            false => 0,
        });
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

#[cfg(test)]
mod tests {
    use honeyguide_bus::{Record, Topic};
    use honeyguide_proto::hint::{Hint, Scope};
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::{
        Config, Metrics,
        ceiling::{Load, ProbeLoad},
        clock::clock_now,
        hints::{NEW, Owner},
    };

    const CONFIGURED: Duration = Duration::from_secs(10);

    fn steering(config: Config) -> Steering {
        let owner = Owner {
            sensor_id: "node-1".to_owned(),
            flush_interval: CONFIGURED,
        };
        let hints = Shared::new(owner, Metrics::register(&mut Registry::default()));
        Steering::new(&config.validate().unwrap(), hints)
    }

    fn hint_of_two_seconds(steering: &Steering) {
        let now = clock_now();
        let hint = Hint {
            scope: Scope::default(),
            sampling_shift: None,
            flush_interval: Some(Duration::from_secs(2)),
            reason: String::new(),
            issued_at: now.wall,
            ttl: Duration::from_secs(60),
            epoch: 1,
            dry_run: false,
        };
        let record = Record {
            topic: Topic::Hints,
            partition: 0,
            key: hint.scope.key().into(),
            timestamp_ns: 0,
            payload: hint.encode(),
        };
        assert_eq!(steering.hints.take(&record, now), NEW);
    }

    #[test]
    fn a_hint_shortens_windows_as_far_as_the_ceiling_allows() {
        let steering = steering(Config::default());
        let interval = |drain_ms| steering.flush_interval(Duration::from_millis(drain_ms), 2);
        assert_eq!(interval(4), CONFIGURED);
        hint_of_two_seconds(&steering);
        assert_eq!(interval(4), Duration::from_secs(2));
        // 40 ms every 5 s are 0.4 % of two CPUs.
        assert_eq!(interval(40), Duration::from_secs(5));
        assert_eq!(interval(400), CONFIGURED);
    }

    #[test]
    fn windows_are_as_configured_while_anything_is_shed() {
        let mut steering = steering(Config::default());
        hint_of_two_seconds(&steering);
        let dear = ProbeLoad {
            kernel_ns: 1e9,
            runs: 1e6,
            ..ProbeLoad::default()
        };
        let load = Load {
            all_cpus_ns: 2e9,
            user_space_ns: 0.0,
            probes: [(Probe::Runq, dear)].into(),
        };
        assert!(steering.ceiling.check(&load));
        assert_eq!(steering.flush_interval(Duration::ZERO, 2), CONFIGURED);
    }

    #[test]
    fn floors_turn_nothing_on() {
        assert_eq!(at_least(SIGNAL_OFF, 3), SIGNAL_OFF);
        assert_eq!((at_least(1, 3), at_least(5, 3)), (3, 5));
        let config = Config::default().validate().unwrap();
        assert_eq!(configured(&config, Signal::SyscallRead), SIGNAL_OFF);
        assert_eq!(configured(&config, Signal::RunQueue), 0);
    }
}
