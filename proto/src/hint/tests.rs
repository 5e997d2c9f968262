use proptest::prelude::*;

use super::*;
use crate::ServiceKind;

fn hint() -> Hint {
    Hint {
        scope: Scope {
            service: Some(ServiceId::kubernetes("shop", "cart", "app").unwrap()),
            signal: Some(Signal::ServerRequest),
            sensor: Some("node-1".to_owned()),
        },
        sampling_shift: Some(3),
        flush_interval: None,
        reason: "calm for an hour".to_owned(),
        issued_at: Duration::new(1_800_000_000, 5),
        ttl: Duration::from_secs(120),
        epoch: 7,
        dry_run: false,
    }
}

fn of_sensor() -> Hint {
    Hint {
        scope: Scope::default(),
        flush_interval: Some(Duration::from_secs(2)),
        ..hint()
    }
}

#[test]
fn hints_come_back_as_they_were() {
    for hint in [hint(), of_sensor()] {
        assert_eq!(Hint::decode(&hint.encode()), Ok(hint));
    }
}

#[test]
fn keys_name_the_scope_and_parse_back() {
    let full = hint().scope;
    assert_eq!(full.key(), "node-1/k8s/shop/cart/app/server_request");
    let part = |service: bool, signal: bool, sensor: bool| Scope {
        service: full.service.clone().filter(|_| service),
        signal: full.signal.filter(|_| signal),
        sensor: full.sensor.clone().filter(|_| sensor),
    };
    let mut keys = Vec::new();
    for bits in 0..8 {
        let scope = part(bits & 1 != 0, bits & 2 != 0, bits & 4 != 0);
        assert_eq!(Scope::parse(&scope.key()), Ok(scope.clone()));
        keys.push(scope.key());
    }
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 8);
    assert_eq!(Scope::default().key(), "//");
}

#[test]
fn a_narrower_scope_is_greater() {
    let full = hint().scope;
    let order = [
        Scope::default(),
        Scope {
            sensor: full.sensor.clone(),
            ..Scope::default()
        },
        Scope {
            signal: full.signal,
            ..Scope::default()
        },
        Scope {
            service: full.service.clone(),
            ..Scope::default()
        },
        Scope {
            service: full.service.clone(),
            sensor: full.sensor.clone(),
            ..Scope::default()
        },
        Scope {
            sensor: None,
            ..full.clone()
        },
        full,
    ];
    assert!(order.is_sorted_by(|narrow, wide| narrow < wide));
}

#[test]
fn each_wrong_field_is_an_error_that_names_it() {
    type Change = fn(&mut v1::Hint);
    let cases: [(&str, Change); 17] = [
        ("sensor_id", |h| h.sensor_id = "a/b".to_owned()),
        ("sensor_id", |h| h.sensor_id = "x".repeat(PART_LEN_MAX + 1)),
        ("service", |h| h.service = "cart".to_owned()),
        ("signal", |h| h.signal = "nope".to_owned()),
        ("sampling_shift", |h| h.sampling_shift = Some(17)),
        ("sampling_shift", |h| h.sampling_shift = Some(256)),
        ("sampling_shift", |h| h.sampling_shift = None),
        ("flush_interval", |h| h.flush_interval = duration(5)),
        ("flush_interval", |h| {
            (h.service, h.signal) = Default::default();
            h.flush_interval = duration(61);
        }),
        ("flush_interval", |h| {
            (h.service, h.signal) = Default::default();
            h.flush_interval = duration(-5);
        }),
        ("reason", |h| h.reason = "x".repeat(REASON_LEN_MAX + 1)),
        ("reason", |h| h.reason = "\u{1b}[2J".to_owned()),
        ("issued_at", |h| h.issued_at = None),
        ("issued_at", |h| {
            h.issued_at = Some(prost_types::Timestamp {
                seconds: -1,
                nanos: 0,
            })
        }),
        ("ttl", |h| h.ttl = None),
        ("ttl", |h| h.ttl = duration(3601)),
        ("epoch", |h| h.epoch = 0),
    ];
    for (name, change) in cases {
        let mut message = v1::Hint::from(&hint());
        change(&mut message);
        let error = Hint::try_from(message).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        assert!(HintError::REASONS.contains(&error.reason()), "{error:?}");
    }
    let error = Hint::decode(&vec![0; HINT_LEN_MAX + 1]).unwrap_err();
    assert_eq!(error.reason(), "too_long");
}

fn duration(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

#[test]
fn the_longest_hint_is_within_the_bound() {
    let part = "x".repeat(PART_LEN_MAX);
    let longest = Hint {
        scope: Scope {
            service: Some(ServiceId::kubernetes(&part, &part, &part).unwrap()),
            signal: Some(Signal::TcpRetransmit),
            sensor: Some(part),
        },
        reason: "x".repeat(REASON_LEN_MAX),
        epoch: u64::MAX,
        dry_run: true,
        ..hint()
    };
    assert!(longest.encode().len() < HINT_LEN_MAX);
    assert!(Hint::decode(&longest.encode()).is_ok());
}

proptest! {
    #[test]
    fn any_bytes_are_a_hint_or_an_error(payload in proptest::collection::vec(any::<u8>(), 0..600)) {
        if let Ok(hint) = Hint::decode(&payload) {
            prop_assert_eq!(Hint::decode(&hint.encode()), Ok(hint));
        }
    }

    #[test]
    fn any_change_of_a_byte_is_a_hint_or_an_error(at in 0..200_usize, byte: u8) {
        let mut payload = hint().encode();
        let at = at % payload.len();
        payload[at] = byte;
        if let Ok(hint) = Hint::decode(&payload) {
            prop_assert!(hint.sampling_shift.is_none_or(|shift| shift <= SAMPLING_SHIFT_MAX));
            prop_assert!(TTL.contains(&hint.ttl));
        }
    }

    #[test]
    fn any_text_is_a_key_or_an_error(key in ".{0,80}") {
        if let Ok(scope) = Scope::parse(&key) {
            prop_assert_eq!(scope.key(), key);
        }
    }

    #[test]
    fn services_of_any_name_have_keys_that_parse_back(name in ".{1,60}") {
        let scope = Scope {
            service: Some(ServiceId::named(ServiceKind::Process, &name)),
            ..Scope::default()
        };
        prop_assert_eq!(Scope::parse(&scope.key()), Ok(scope));
    }
}
