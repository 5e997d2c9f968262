use honeyguide_proto::{ServiceKind, hint::Hint};
use proptest::prelude::*;

use super::*;

const STEP_NS: u64 = 10_000_000_000;
/// 2023.
const BEGIN_NS: u64 = 170_000_000 * STEP_NS;

const SETTINGS: Settings = Settings {
    budget: 0.003,
    dry_run: false,
    step: Duration::from_secs(10),
};

fn at(step: u64) -> u64 {
    BEGIN_NS + step * STEP_NS
}

/// Of the window that fills the step before `at(step)`.
fn header(sensor_id: &str, step: u64) -> Header {
    Header {
        sensor_id: sensor_id.to_owned(),
        boot_id: [1; 16],
        seq: step + 1,
        partition: 0,
        window_start_ns: at(step) - STEP_NS,
        window_duration_ns: STEP_NS,
        more: false,
    }
}

/// Of a node with two CPUs on which `events` of `signal` took 100 ns each when
/// sampled at 1/2^shift, and 10 ns else.
fn cost(signal: Signal, events: u64, shift: u8) -> v1::SensorCost {
    let observed = events >> shift;
    let kernel_ns = events * 10 + observed * 90;
    v1::SensorCost {
        user_space_ns: 5_000_000,
        kernel_ns,
        cpus: 2,
        ceiling_ns: 200_000_000,
        signals: vec![v1::SignalCost {
            signal: u32::from(signal.number()),
            kernel_ns,
            events: observed,
            estimated_events: events,
            ..v1::SignalCost::default()
        }],
        ..v1::SensorCost::default()
    }
}

fn service(name: &str) -> ServiceId {
    ServiceId::named(ServiceKind::Process, name)
}

fn subject(service: &ServiceId, sampling_ratio: f64) -> Subject<'_> {
    Subject {
        service,
        signal: Signal::ServerQueue,
        events: 1000.0,
        sampling_ratio,
    }
}

fn attention(priority: f64) -> Attention {
    Attention {
        priority,
        reason: "a test".to_owned(),
    }
}

/// What a sensor would have heard, checked as it does.
fn told(changes: &[Change]) -> Vec<(String, Option<u8>)> {
    let checked = changes.iter().map(|change| {
        let Some(hint) = &change.hint else {
            return (change.scope.key(), None);
        };
        let decoded = Hint::decode(&hint.encode()).unwrap();
        assert_eq!(&decoded, hint);
        assert_eq!(hint.scope, change.scope);
        (change.scope.key(), hint.sampling_shift)
    });
    checked.collect()
}

#[test]
fn a_node_within_its_budget_is_told_nothing() {
    let mut policy = Policy::new(SETTINGS);
    // 60 ms may be used, 5 ms + 500,000 * 100 ns are.
    for step in 0..20 {
        let cost = cost(Signal::RunQueue, 500_000, 0);
        policy.take(&header("a", step), Some(&cost), &[]);
        assert_eq!(policy.decide(at(step), 0), []);
    }
    let node = &policy.nodes()[0];
    assert!((node.cost_ratio - 0.00275).abs() < 1e-5, "{node:?}");
    assert!((node.full_cost_ratio - 0.00275).abs() < 1e-5, "{node:?}");
}

#[test]
fn a_node_above_its_budget_samples_as_little_as_it_must_and_recovers_slowly() {
    let mut policy = Policy::new(SETTINGS);
    // 205 ms without sampling; 1/4 is 5 + 20 + 45, 1/8 is 5 + 20 + 22.5.
    let mut shift = 0;
    for step in 0..10 {
        let cost = cost(Signal::RunQueue, 2_000_000, shift);
        policy.take(&header("a", step), Some(&cost), &[]);
        let told = told(&policy.decide(at(step), 0));
        if step == 0 {
            assert_eq!(told, [("a//runq".to_owned(), Some(3))]);
            shift = 3;
        } else {
            assert_eq!(told, [], "step {step}");
        }
    }
    let hint = &policy.hints()[0];
    assert!(hint.reason.contains("1.03 % of the CPUs of a"), "{hint:?}");
    assert!(hint.reason.contains("0.30 %"), "{hint:?}");
    // The load goes away: not before six calm windows.
    for step in 10..16 {
        let cost = cost(Signal::RunQueue, 1000, 3);
        policy.take(&header("a", step), Some(&cost), &[]);
        let told = told(&policy.decide(at(step), 0));
        let expected = if step == 15 {
            vec![("a//runq".to_owned(), None)]
        } else {
            vec![]
        };
        assert_eq!(told, expected, "step {step}");
    }
}

#[test]
fn the_most_expensive_signals_are_sampled_and_exchanges_as_a_whole() {
    let mut policy = Policy::new(SETTINGS);
    let mut both = cost(Signal::RunQueue, 100_000, 0);
    both.signals
        .extend(cost(Signal::ServerRequest, 1_000_000, 0).signals);
    // The queue is measured along with the request.
    both.signals.push(v1::SignalCost {
        signal: u32::from(Signal::ServerQueue.number()),
        kernel_ns: 100_000_000,
        events: 1_000_000,
        estimated_events: 1_000_000,
        ..v1::SignalCost::default()
    });
    policy.take(&header("a", 0), Some(&both), &[]);
    let told = told(&policy.decide(at(0), 0));
    let signals: Vec<_> = told.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(
        signals,
        ["a//tcp_connect", "a//server_request", "a//client_request"]
    );
    // 5 + 10 ms for runq, 10 unsampled, 190 sampled: an eighth of those fits.
    assert!(told.iter().all(|(_, shift)| *shift == Some(3)), "{told:?}");
}

#[test]
fn hints_stay_below_the_ceiling_of_the_sensor() {
    let mut policy = Policy::new(Settings {
        budget: 1.0,
        ..SETTINGS
    });
    let mut cost = cost(Signal::RunQueue, 2_000_000, 0);
    policy.take(&header("a", 0), Some(&cost), &[]);
    // 205 ms of 200; three quarters of it are aimed at.
    assert_eq!(
        told(&policy.decide(at(0), 0)),
        [("a//runq".to_owned(), Some(1))]
    );
    cost.ceiling_ns = 0;
    let mut policy = Policy::new(Settings {
        budget: 1.0,
        ..SETTINGS
    });
    policy.take(&header("a", 0), Some(&cost), &[]);
    assert_eq!(policy.decide(at(0), 0), []);
}

#[test]
fn a_series_at_risk_is_seen_closely_as_long_as_it_is_and_a_while_longer() {
    let mut policy = Policy::new(SETTINGS);
    let x = service("x");
    policy.attend(subject(&x, 1.0), &attention(1.0), at(0));
    assert_eq!(policy.decide(at(0), 0), [], "every event is seen already");
    policy.attend(subject(&x, 0.125), &attention(0.5), at(1));
    let key = "/process/x/server_request".to_owned();
    assert_eq!(told(&policy.decide(at(1), 0)), [(key.clone(), Some(0))]);
    assert!(policy.is_watched(&x, Signal::ServerQueue));
    // Now all are seen, and that is why it stays so.
    policy.attend(subject(&x, 1.0), &attention(0.9), at(2));
    assert_eq!(policy.decide(at(2), 0), []);
    assert_eq!(policy.decide(at(31), 0).len(), 1, "renewed");
    assert_eq!(told(&policy.decide(at(32), 0)), [(key, None)]);
    assert!(!policy.is_watched(&x, Signal::ServerQueue));
}

#[test]
fn attention_wants_no_more_samples_than_tell_something() {
    assert_eq!(attention(1.0).shift(65_000.0), 0);
    assert_eq!(attention(1.0).shift(1_000_000.0), 3);
    assert_eq!(attention(0.0).shift(200_000.0), 5);
    assert_eq!(attention(0.0).shift(1e30), attention::SHIFT_MAX);
    assert_eq!(attention(0.0).shift(f64::NAN), 0);
}

#[test]
fn hints_are_renewed_before_they_run_out_with_greater_epochs() {
    let mut policy = Policy::new(Settings {
        dry_run: true,
        ..SETTINGS
    });
    let mut issued = Vec::new();
    for step in 0..40 {
        let cost = cost(Signal::RunQueue, 2_000_000, 0);
        policy.take(&header("a", step), Some(&cost), &[]);
        issued.extend(policy.decide(at(step), 7));
    }
    let kinds: Vec<_> = issued.iter().map(Change::kind).collect();
    assert_eq!(kinds, ["issued", "renewed", "renewed"]);
    let hints: Vec<_> = issued
        .iter()
        .filter_map(|change| change.hint.as_ref())
        .collect();
    assert!(hints.iter().all(|hint| hint.dry_run));
    for pair in hints.windows(2) {
        assert!(pair[0].epoch < pair[1].epoch);
        assert!(pair[1].issued_at < pair[0].expires_at());
    }
    // Another analyzer goes on later, and is heard.
    let mut next = Policy::new(SETTINGS);
    let cost = cost(Signal::RunQueue, 2_000_000, 3);
    next.take(&header("a", 40), Some(&cost), &[]);
    let hint = next.decide(at(40), 7)[0].hint.clone().unwrap();
    assert_eq!(hint.sampling_shift, Some(3));
    assert!(hint.epoch > hints[2].epoch);
}

#[test]
fn a_sensor_with_long_windows_is_asked_for_shorter_ones_while_its_service_is_watched() {
    let mut policy = Policy::new(SETTINGS);
    let (x, y) = (service("x"), service("y"));
    let slow = |step| Header {
        window_duration_ns: 3 * STEP_NS,
        window_start_ns: at(step) - 3 * STEP_NS,
        ..header("slow", step)
    };
    policy.take(&slow(3), None, std::slice::from_ref(&x));
    policy.take(&header("fast", 3), None, std::slice::from_ref(&x));
    policy.attend(subject(&y, 0.5), &attention(1.0), at(3));
    assert_eq!(policy.decide(at(3), 0).len(), 1, "another service");
    policy.attend(subject(&x, 0.5), &attention(1.0), at(4));
    let changes = policy.decide(at(4), 0);
    let hint = changes[0].hint.as_ref().unwrap();
    assert_eq!(hint.scope.key(), "slow//");
    assert_eq!(hint.flush_interval, Some(SETTINGS.step));
    // It follows: nothing more is asked for, and nothing taken back, because
    // another partition may want it as well.
    policy.take(&header("slow", 5), None, std::slice::from_ref(&x));
    assert_eq!(policy.decide(at(5), 0), []);
}

#[test]
fn those_that_matter_most_are_watched() {
    let mut policy = Policy::new(SETTINGS);
    for number in 0..2 * WATCHED_MAX {
        let service = service(&format!("s{number}"));
        let priority = if number < WATCHED_MAX { 0.3 } else { 0.9 };
        policy.attend(subject(&service, 0.5), &attention(priority), at(0));
    }
    let hints = policy.decide(at(0), 0);
    assert_eq!(hints.len(), WATCHED_MAX);
    assert_eq!(policy.left_out(), WATCHED_MAX as u64);
    assert!(policy.is_watched(&service("s1999"), Signal::ServerQueue));
}

#[test]
fn silent_nodes_are_forgotten() {
    let mut policy = Policy::new(SETTINGS);
    let cost = cost(Signal::RunQueue, 2_000_000, 0);
    policy.take(&header("a", 0), Some(&cost), &[]);
    assert_eq!(policy.decide(at(0), 0).len(), 1);
    policy.decide(at(31), 0);
    assert!(policy.nodes().is_empty());
}

fn any_cost() -> impl Strategy<Value = v1::SensorCost> {
    let signal = (0..32u32, any::<u64>(), any::<u64>(), any::<u64>());
    let signals = prop::collection::vec(signal, 0..32);
    let whole = (any::<u64>(), any::<u64>(), any::<u32>(), any::<u64>());
    (whole, signals).prop_map(|((user_space_ns, kernel_ns, cpus, ceiling_ns), signals)| {
        let signals = signals
            .into_iter()
            .map(|(signal, kernel_ns, events, estimated)| v1::SignalCost {
                signal,
                kernel_ns,
                events,
                estimated_events: estimated,
                ..v1::SignalCost::default()
            });
        v1::SensorCost {
            user_space_ns,
            kernel_ns,
            cpus,
            ceiling_ns,
            signals: signals.collect(),
            ..v1::SensorCost::default()
        }
    })
}

proptest! {
    #[test]
    fn whatever_sensors_say_hints_are_valid(
        costs in prop::collection::vec((any_cost(), "\\PC{0,80}", any::<u64>(), any::<u64>()), 0..20),
        events in any::<f64>(),
        ratio in any::<f64>(),
    ) {
        let mut policy = Policy::new(SETTINGS);
        for (step, (cost, name, start, duration)) in (0..).zip(costs) {
            let header = Header {
                window_start_ns: start,
                window_duration_ns: duration,
                ..header(&name.replace('/', ""), step)
            };
            policy.take(&header, Some(&cost), &[service("x")]);
            let x = service("x");
            let subject = Subject { events, ..subject(&x, ratio) };
            policy.attend(subject, &attention(1.0), at(step));
            told(&policy.decide(at(step), 0));
        }
    }
}
