use proptest::prelude::*;

use super::*;

const SECOND: f64 = 1e9;

/// A machine of two CPUs with so many events a second, and what they cost.
#[derive(Clone, Copy, Debug)]
struct Machine {
    runq: f64,
    syscalls: f64,
    /// Nanoseconds of an event that is not sampled, and what a sampled one adds.
    fixed_ns: f64,
    sampled_ns: f64,
    user_space_ns: f64,
}

impl Machine {
    const CALM: Machine = Machine {
        runq: 10_000.0,
        syscalls: 10_000.0,
        fixed_ns: 40.0,
        sampled_ns: 200.0,
        user_space_ns: 1e6,
    };

    fn probe(&self, events: f64, floor: u8) -> ProbeLoad {
        let observed = events * 0.5f64.powi(i32::from(floor));
        let mut load = ProbeLoad {
            kernel_ns: events * self.fixed_ns + observed * self.sampled_ns,
            runs: events,
            ..ProbeLoad::default()
        };
        load.events_by_shift[usize::from(floor)] = events;
        load
    }

    /// What a second costs with what `ceiling` allows.
    fn load(&self, ceiling: &Ceiling) -> Load {
        let probes = [(Probe::Runq, self.runq), (Probe::Syscall, self.syscalls)];
        let running = probes
            .into_iter()
            .filter(|(probe, _)| !ceiling.is_paused(*probe));
        Load {
            all_cpus_ns: 2.0 * SECOND,
            user_space_ns: self.user_space_ns,
            probes: running
                .map(|(probe, events)| (probe, self.probe(events, ceiling.floor(probe))))
                .collect(),
        }
    }

    fn trial(&self, probe: Probe) -> Load {
        let events = if probe == Probe::Runq {
            self.runq
        } else {
            self.syscalls
        };
        Load {
            all_cpus_ns: 2.0 * SECOND,
            user_space_ns: 0.0,
            probes: [(probe, self.probe(events, FLOOR_MAX))].into(),
        }
    }

    /// One window; what it cost.
    fn window(&self, ceiling: &mut Ceiling) -> f64 {
        let load = self.load(ceiling);
        if let Some(probe) = ceiling.end_window(&load).trial {
            match ceiling.trial_passes(&self.trial(probe)) {
                true => ceiling.resume(probe),
                false => ceiling.trial_failed(probe),
            }
        }
        load.ratio()
    }
}

#[test]
fn under_the_ceiling_nothing_is_shed() {
    let mut ceiling = Ceiling::new(0.01);
    for _ in 0..100 {
        assert!(Machine::CALM.window(&mut ceiling) < 0.01);
        assert_eq!((ceiling.level(), ceiling.describe()), (0, String::new()));
    }
}

#[test]
fn sampling_comes_first_and_hits_the_costliest() {
    let busy = Machine {
        runq: 100_000.0,
        ..Machine::CALM
    };
    let mut ceiling = Ceiling::new(0.01);
    assert!(busy.window(&mut ceiling) > 0.01);
    assert!((1..=4).contains(&ceiling.floor(Probe::Runq)), "{ceiling:?}");
    assert_eq!(ceiling.floor(Probe::Syscall), 0);
    assert!(!ceiling.is_paused(Probe::Runq));
    assert!(ceiling.describe().starts_with("runq at most 1/"));
    // At once, and it stays so.
    for _ in 0..100 {
        assert!(busy.window(&mut ceiling) <= 0.01);
    }
}

#[test]
fn what_sampling_cannot_save_is_detached_at_once() {
    let storm = Machine {
        syscalls: 2e6,
        ..Machine::CALM
    };
    let mut ceiling = Ceiling::new(0.01);
    assert!(storm.window(&mut ceiling) > 0.01);
    assert!(ceiling.is_paused(Probe::Syscall));
    assert_eq!(ceiling.floor(Probe::Runq), 0);
    assert_eq!(ceiling.describe(), "syscall detached");
    assert_eq!(ceiling.level(), PAUSED_STEPS + u32::from(FLOOR_MAX));
    // Trials fail while it lasts, and never above the ceiling.
    for _ in 0..1000 {
        assert!(storm.window(&mut ceiling) <= 0.01);
        assert!(ceiling.is_paused(Probe::Syscall));
    }
}

#[test]
fn it_recovers_step_by_step() {
    let storm = Machine {
        syscalls: 2e6,
        runq: 50_000.0,
        ..Machine::CALM
    };
    let mut ceiling = Ceiling::new(0.01);
    storm.window(&mut ceiling);
    let mut level = ceiling.level();
    let mut since = 0;
    for _ in 0..500 {
        assert!(Machine::CALM.window(&mut ceiling) <= 0.01);
        since += 1;
        if ceiling.level() != level {
            assert!(ceiling.level() < level, "{ceiling:?}");
            assert!(since >= CALM_WINDOWS, "too fast");
            (level, since) = (ceiling.level(), 0);
        }
    }
    assert_eq!(ceiling.level(), 0, "{ceiling:?}");
}

#[test]
fn trials_become_rare() {
    let storm = Machine {
        syscalls: 2e6,
        ..Machine::CALM
    };
    let mut ceiling = Ceiling::new(0.01);
    let mut trials = 0;
    for _ in 0..1000 {
        let decision = ceiling.end_window(&storm.load(&ceiling));
        if let Some(probe) = decision.trial {
            trials += 1;
            ceiling.trial_failed(probe);
        }
    }
    assert!((3..=9).contains(&trials), "{trials}");
}

#[test]
fn a_user_space_above_the_ceiling_does_not_take_all_the_rest() {
    let machine = Machine {
        user_space_ns: 5e7,
        runq: 1000.0,
        syscalls: 1000.0,
        ..Machine::CALM
    };
    let mut ceiling = Ceiling::new(0.01);
    for _ in 0..10 {
        machine.window(&mut ceiling);
    }
    assert_eq!(ceiling.level(), 0);
}

#[test]
fn a_check_within_a_window_sheds_only_above_the_ceiling() {
    let mut ceiling = Ceiling::new(0.01);
    assert!(!ceiling.check(&Machine::CALM.load(&ceiling)));
    let storm = Machine {
        syscalls: 2e6,
        ..Machine::CALM
    };
    assert!(ceiling.check(&storm.load(&ceiling)));
    assert!(storm.load(&ceiling).ratio() <= 0.01);
}

proptest! {
    /// From the third window on, whatever the load and whatever it costs.
    #[test]
    fn two_windows_are_enough(
        runq in 0.0..5e6,
        syscalls in 0.0..1e7,
        fixed_ns in FIXED_NS_MIN..150.0,
        sampled_ns in 0.0..2000.0,
        user_space_ns in 0.0..1e7,
    ) {
        let machine = Machine { runq, syscalls, fixed_ns, sampled_ns, user_space_ns };
        let mut ceiling = Ceiling::new(0.01);
        machine.window(&mut ceiling);
        machine.window(&mut ceiling);
        for window in 2..200 {
            let ratio = machine.window(&mut ceiling);
            prop_assert!(ratio <= 0.01, "{ratio} in window {window}: {ceiling:?}");
        }
    }
}

/// A machine that serves requests.
fn serving(ceiling: &Ceiling, exchanges: f64, exchange_ns: f64) -> Load {
    let observed = exchanges * 0.5f64.powi(i32::from(ceiling.floor(Probe::Tcp)));
    let routes_ns = match ceiling.tells_routes() {
        true => exchange_ns * ROUTES_PART,
        false => 0.0,
    };
    let rest_ns = exchange_ns * (1.0 - ROUTES_PART);
    let mut load = ProbeLoad {
        kernel_ns: exchanges * 40.0 + observed * (rest_ns + routes_ns - 40.0),
        runs: exchanges,
        ..ProbeLoad::default()
    };
    load.events_by_shift[usize::from(ceiling.floor(Probe::Tcp))] = exchanges;
    Load {
        all_cpus_ns: 2.0 * SECOND,
        user_space_ns: 1e6,
        probes: [(Probe::Tcp, load)].into(),
    }
}

#[test]
fn routes_are_shed_first_and_come_back_last() {
    let mut ceiling = Ceiling::new(0.01).with_routes();
    // Little above the ceiling: routes are enough.
    assert!(ceiling.check(&serving(&ceiling, 28_000.0, 700.0)));
    assert_eq!(
        (
            ceiling.tells_routes(),
            ceiling.describe().as_str(),
            ceiling.level()
        ),
        (false, "no routes", 1)
    );
    assert!(!ceiling.check(&serving(&ceiling, 28_000.0, 600.0)));
    // Far above: sampling as well, although routes did not help enough before.
    assert!(ceiling.check(&serving(&ceiling, 100_000.0, 700.0)));
    assert!(ceiling.floor(Probe::Tcp) > 0 && !ceiling.is_paused(Probe::Tcp));
    assert!(!ceiling.tells_routes());
    let mut order = Vec::new();
    for _ in 0..200 {
        if ceiling
            .end_window(&serving(&ceiling, 1_000.0, 700.0))
            .changed
        {
            order.push((ceiling.floor(Probe::Tcp), ceiling.tells_routes()));
        }
    }
    assert_eq!(order.last(), Some(&(0, true)), "{order:?}");
    let routes = order.iter().filter(|(_, told)| *told).count();
    assert_eq!((routes, ceiling.level()), (1, 0), "{order:?}");
}

#[test]
fn sampling_is_tried_when_routes_alone_were_not_enough() {
    let mut ceiling = Ceiling::new(0.01).with_routes();
    assert!(ceiling.check(&serving(&ceiling, 28_000.0, 700.0)));
    assert_eq!(ceiling.level(), 1);
    // They saved nothing.
    assert!(ceiling.check(&serving(&ceiling, 28_000.0, 1000.0)));
    assert!(ceiling.floor(Probe::Tcp) > 0 && !ceiling.is_paused(Probe::Tcp));
}

#[test]
fn routes_that_nobody_wants_are_not_shed() {
    let mut ceiling = Ceiling::new(0.01);
    assert!(ceiling.check(&serving(&ceiling, 28_000.0, 1000.0)));
    assert!(!ceiling.tells_routes() && ceiling.floor(Probe::Tcp) > 0);
}

/// As [`serving`], inside TLS.
fn serving_tls(ceiling: &Ceiling, exchanges: f64) -> Load {
    let mut load = serving(ceiling, exchanges, 500.0);
    let exchange = load.probes.get_mut(&Probe::Tcp).unwrap();
    if ceiling.tells_routes() {
        exchange.inside_tls = (exchanges * 4500.0, exchanges * 3.0);
        exchange.kernel_ns += exchange.inside_tls.0;
        exchange.runs += exchange.inside_tls.1;
    }
    load
}

#[test]
fn what_looks_inside_tls_is_shed_with_routes_and_stays_away_while_it_would_cost_too_much() {
    let mut ceiling = Ceiling::new(0.01).with_routes();
    // 2 % with routes, a quarter of the ceiling without: nothing else is shed.
    assert!(ceiling.check(&serving_tls(&ceiling, 8_000.0)));
    assert_eq!(ceiling.describe(), "no routes");
    for _ in 0..100 {
        assert!(!ceiling.end_window(&serving_tls(&ceiling, 8_000.0)).changed);
    }
    // They come back when they can be afforded.
    let changed =
        (0..CALM_WINDOWS).any(|_| ceiling.end_window(&serving_tls(&ceiling, 1_000.0)).changed);
    assert!(changed && ceiling.tells_routes());
    assert!(!ceiling.check(&serving_tls(&ceiling, 1_000.0)));
}
