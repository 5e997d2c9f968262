use honeyguide_proto::ServiceKind;
use proptest::prelude::*;

use super::*;

const ISSUED: Duration = Duration::from_secs(1_800_000_000);
const TTL: Duration = Duration::from_secs(60);

fn at(secs: u64) -> Instant {
    Instant {
        monotonic: Duration::from_secs(1000 + secs),
        wall: ISSUED + Duration::from_secs(secs),
    }
}

fn book() -> Book {
    Book::new(Owner {
        sensor_id: "node-1".to_owned(),
        flush_interval: Duration::from_secs(10),
    })
}

fn service(name: &str) -> ServiceId {
    ServiceId::named(ServiceKind::Process, name)
}

fn scope(service_name: &str, signal: Option<Signal>, sensor: &str) -> Scope {
    Scope {
        service: (!service_name.is_empty()).then(|| service(service_name)),
        signal,
        sensor: (!sensor.is_empty()).then(|| sensor.to_owned()),
    }
}

fn hint(scope: Scope, shift: u8, epoch: u64) -> Hint {
    Hint {
        scope,
        sampling_shift: Some(shift),
        flush_interval: None,
        reason: String::new(),
        issued_at: ISSUED,
        ttl: TTL,
        epoch,
        dry_run: false,
    }
}

fn give(book: &mut Book, hint: &Hint, now: Instant) -> Counted {
    let (outcome, evicted) = book.take(hint.scope.key().as_bytes(), &hint.encode(), now);
    assert_eq!(evicted, None);
    outcome
}

#[test]
fn the_narrowest_scope_counts() {
    const RUNQ: Option<Signal> = Some(Signal::RunQueue);
    let mut book = book();
    let asks = |book: &Book| {
        book.shift_of(&service("x"), Signal::RunQueue)
            .or(book.shift(Signal::RunQueue))
    };
    assert_eq!(asks(&book), None);
    // From the widest to the narrowest, each counts as soon as it is there.
    let scopes = [
        scope("", None, ""),
        scope("", None, "node-1"),
        scope("", RUNQ, ""),
        scope("", RUNQ, "node-1"),
        scope("x", None, ""),
        scope("x", None, "node-1"),
        scope("x", RUNQ, ""),
        scope("x", RUNQ, "node-1"),
    ];
    for (shift, scope) in (1..).zip(&scopes) {
        assert_eq!(give(&mut book, &hint(scope.clone(), shift, 1), at(0)), NEW);
        assert_eq!(asks(&book), Some(shift), "{scope}");
    }
    assert!(scopes.is_sorted(), "as the contract orders them");
    assert_eq!(book.shift(Signal::BlockIo), Some(2));
    assert_eq!(book.shift_of(&service("y"), Signal::RunQueue), None);
    // And the other way when they are withdrawn.
    for (shift, scope) in (0..8).zip(&scopes).rev() {
        let (outcome, _) = book.take(scope.key().as_bytes(), &[], at(0));
        assert_eq!(outcome, WITHDRAWN);
        assert_eq!(asks(&book), Some(shift).filter(|shift| *shift > 0));
    }
    assert!(book.is_empty() && book.services.is_empty());
}

#[test]
fn the_newest_epoch_of_a_scope_counts() {
    let mut book = book();
    let scope = scope("x", None, "");
    let shift = |book: &Book| book.shift_of(&service("x"), Signal::RunQueue);
    let mut give = |shift, epoch| give(&mut book, &hint(scope.clone(), shift, epoch), at(0));
    assert_eq!(give(3, 5), NEW);
    assert_eq!(give(1, 4), OLD_EPOCH);
    assert_eq!(give(1, 5), OLD_EPOCH);
    assert_eq!(give(3, 5), DUPLICATE);
    assert_eq!(give(2, 6), RENEWED);
    assert_eq!(shift(&book), Some(2));
    assert_eq!(book.len(), 1);
}

#[test]
fn hints_to_look_closer_at_a_service_are_told_apart() {
    let mut book = book();
    let mut closer = |scope, shift, epoch| {
        let before = book.closer();
        give(&mut book, &hint(scope, shift, epoch), at(0));
        book.closer() > before
    };
    let of_x = || scope("x", Some(Signal::RunQueue), "");
    assert!(!closer(scope("", Some(Signal::RunQueue), ""), 0, 1), "all");
    assert!(closer(of_x(), 3, 1), "there was none");
    assert!(!closer(of_x(), 3, 2), "the same for longer");
    assert!(!closer(of_x(), 5, 3), "less");
    assert!(!closer(of_x(), 0, 2), "not taken");
    assert!(closer(of_x(), 0, 4));
}

#[test]
fn a_hint_ends_with_its_time() {
    let mut book = book();
    let version = book.version();
    give(&mut book, &hint(scope("", None, ""), 3, 1), at(10));
    assert_ne!(book.version(), version);
    assert_eq!(book.expire(at(59)), 0);
    assert_eq!(book.shift(Signal::RunQueue), Some(3));
    let version = book.version();
    assert_eq!(book.expire(at(60)), 1);
    assert_eq!(book.shift(Signal::RunQueue), None);
    assert_ne!(book.version(), version);
}

#[test]
fn a_step_of_the_wall_clock_does_not_make_a_hint_last() {
    let mut book = book();
    give(&mut book, &hint(scope("", None, ""), 3, 1), at(0));
    let stepped_back = Instant {
        wall: Duration::from_secs(1),
        ..at(60)
    };
    assert_eq!(book.expire(stepped_back), 1);
    // A clock that is behind makes a hint last for its time, not for more.
    let mut behind = at(100);
    behind.wall = ISSUED - SKEW_MAX;
    let hint = hint(scope("x", None, ""), 3, 1);
    assert_eq!(give(&mut book, &hint, behind), NEW);
    behind.monotonic += TTL;
    assert_eq!(book.expire(behind), 1);
}

#[test]
fn late_early_foreign_and_dry_hints_are_not_applied() {
    type Change = fn(&mut Hint);
    let cases: [(Counted, Change, u64); 5] = [
        (CAME_LATE, |_| {}, 60),
        (
            FUTURE,
            |hint| hint.issued_at = ISSUED + SKEW_MAX + Duration::from_nanos(1),
            0,
        ),
        (
            OTHER_SENSOR,
            |hint| hint.scope.sensor = Some("node-2".to_owned()),
            0,
        ),
        (DRY_RUN, |hint| hint.dry_run = true, 0),
        (
            FLUSH_INTERVAL_TOO_LONG,
            |hint| hint.flush_interval = Some(Duration::from_secs(11)),
            0,
        ),
    ];
    for (expected, change, secs) in cases {
        let mut book = book();
        let mut hint = hint(scope("", None, ""), 3, 1);
        change(&mut hint);
        assert_eq!(give(&mut book, &hint, at(secs)), expected);
        assert!(book.is_empty());
        assert_eq!(book.shift(Signal::RunQueue), None);
    }
}

#[test]
fn a_dry_run_leaves_what_is_in_force() {
    let mut book = book();
    give(&mut book, &hint(scope("", None, ""), 3, 1), at(0));
    let dry = Hint {
        dry_run: true,
        ..hint(scope("", None, ""), 6, 2)
    };
    assert_eq!(give(&mut book, &dry, at(0)), DRY_RUN);
    assert_eq!(book.shift(Signal::RunQueue), Some(3));
}

#[test]
fn hints_shorten_the_flush_interval_of_the_sensor() {
    let mut book = book();
    let with = |sensor: &str, secs| Hint {
        sampling_shift: None,
        flush_interval: Some(Duration::from_secs(secs)),
        ..hint(scope("", None, sensor), 0, 1)
    };
    give(&mut book, &with("", 10), at(0));
    give(&mut book, &with("node-1", 2), at(0));
    assert_eq!(book.flush_interval(), Some(Duration::from_secs(2)));
    assert_eq!(book.shift(Signal::RunQueue), None);
    book.expire(at(60));
    assert_eq!(book.flush_interval(), None);
}

#[test]
fn a_record_under_the_key_of_another_scope_is_rejected() {
    let mut book = book();
    let hint = hint(scope("x", None, ""), 3, 1);
    let (outcome, _) = book.take(b"//", &hint.encode(), at(0));
    assert_eq!(outcome, counted(Outcome::Rejected, "bad_key"));
}

#[test]
fn a_flood_is_bounded_and_the_longest_lasting_stay() {
    const FLOOD: u64 = 100_000;
    let mut book = book();
    let mut counts = BTreeMap::new();
    let kept = Hint {
        ttl: *hint::TTL.end(),
        ..hint(scope("kept", None, ""), 5, 1)
    };
    assert_eq!(give(&mut book, &kept, at(0)), NEW);
    for index in 0..FLOOD {
        let name = format!("service-{index}");
        let hint = Hint {
            ttl: Duration::from_secs(1 + index % 3000),
            ..hint(scope(&name, None, ""), 0, 1)
        };
        let (outcome, evicted) = book.take(hint.scope.key().as_bytes(), &hint.encode(), at(0));
        *counts.entry(outcome).or_insert(0) += 1;
        if let Some(evicted) = evicted {
            *counts.entry(evicted).or_insert(0) += 1;
        }
        assert!(book.len() <= SCOPES_MAX);
    }
    assert_eq!(book.services.len(), SCOPES_MAX);
    assert_eq!(counts[&NEW] + counts[&BOOK_FULL], FLOOD);
    assert_eq!(counts[&NEW] - counts[&EVICTED] + 1, SCOPES_MAX as u64);
    assert_eq!(book.shift_of(&service("kept"), Signal::RunQueue), Some(5));
    assert_eq!(book.expire(at(4000)), SCOPES_MAX as u64);
    assert!(book.is_empty() && book.services.is_empty());
}

fn any_hint() -> impl Strategy<Value = Hint> {
    let scope = (0..3_usize, 0..4_u8, 0..3_usize).prop_map(|(name, signal, sensor)| {
        scope(
            ["", "x", "y"][name],
            Signal::from_number(signal).filter(|signal| *signal != Signal::RunQueue),
            ["", "node-1", "node-2"][sensor],
        )
    });
    let times = (0..200_u64, 1..100_u64);
    (scope, 0..=16_u8, 1..6_u64, times, any::<bool>()).prop_map(
        |(scope, shift, epoch, (issued, ttl), dry_run)| Hint {
            issued_at: ISSUED + Duration::from_secs(issued),
            ttl: Duration::from_secs(ttl),
            dry_run,
            ..hint(scope, shift, epoch)
        },
    )
}

proptest! {
    #[test]
    fn any_record_is_taken_or_counted(
        key in proptest::collection::vec(any::<u8>(), 0..40),
        payload in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut book = book();
        let (outcome, _) = book.take(&key, &payload, at(0));
        let known = COUNTED.contains(&outcome) || HintError::REASONS.contains(&outcome.reason);
        prop_assert!(known, "{outcome:?}");
    }

    /// Against the plain meaning: of each scope the newest epoch that was
    /// valid when it came and is not over; of those the narrowest.
    #[test]
    fn any_course_of_hints_means_what_it_says(
        hints in proptest::collection::vec((any_hint(), 0..20_u64), 0..60),
    ) {
        let mut book = book();
        let mut plain: BTreeMap<Scope, (Hint, u64)> = BTreeMap::new();
        let mut now = 0;
        for (hint, pause) in hints {
            now += pause;
            book.expire(at(now));
            plain.retain(|_, (_, end)| *end > now);
            let issued = (hint.issued_at - ISSUED).as_secs();
            let newest = plain
                .get(&hint.scope)
                .is_none_or(|(known, _)| known.epoch < hint.epoch);
            let valid = hint.scope.sensor.as_deref() != Some("node-2")
                && !hint.dry_run
                && issued <= now + SKEW_MAX.as_secs()
                && issued + hint.ttl.as_secs() > now
                && newest;
            let outcome = give(&mut book, &hint, at(now));
            prop_assert_eq!(outcome.outcome == Outcome::Applied, valid, "{:?}", outcome);
            if valid {
                let left = (issued + hint.ttl.as_secs() - now).min(hint.ttl.as_secs());
                plain.insert(hint.scope.clone(), (hint, now + left));
            }
            prop_assert_eq!(book.len(), plain.len());
            for service in ["x", "y", "z"].map(service) {
                for signal in Signal::ALL {
                    let covering = plain
                        .iter()
                        .rev()
                        .find(|(scope, _)| scope.covers(&service, signal));
                    let expected = covering.and_then(|(_, (hint, _))| hint.sampling_shift);
                    let says = book.shift_of(&service, signal).or(book.shift(signal));
                    prop_assert_eq!(says, expected);
                }
            }
        }
    }
}
