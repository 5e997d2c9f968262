//! Requests that were read together, and are answered one after the other.
//!
//! The first of them is the exchange of the connection. What the others are for
//! waits here, in order. They are timed from the read they came with to the
//! write that has the begin of their response.

use aya_ebpf::{macros::map, maps::LruHashMap};
use sensor_common::{
    peer::PEER,
    protocol,
    record::Loss,
    redis::COMMANDS_MAX,
    route::{NO_ROUTE, RouteKey, method},
};

use crate::{
    config::{self, SignalNumber},
    histogram::{self, Event},
    loss,
    route::{self, Outcome},
    scan,
    service::Charged,
};

/// Requests that wait at once on a connection, the first one not counted.
pub const WAITING_MAX: usize = COMMANDS_MAX;

/// Connections with pipelined requests at most; those that were idle for longest
/// make room, and what they wait for has no route.
const PIPELINES_MAX: u32 = 1024;

/// A request that waits for its response.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Waiting {
    pub shape: u64,
    /// As in [`RouteKey`].
    pub method: u32,
    pub padding: u32,
}

#[map]
static PIPELINES: LruHashMap<u64, [Waiting; WAITING_MAX]> =
    LruHashMap::with_max_entries(PIPELINES_MAX, 0);

/// Who is charged with an answer, and how it counts.
#[derive(Clone, Copy)]
pub struct Charge {
    pub index: u32,
    pub generation: u32,
    pub event: Event,
}

impl Charge {
    #[inline(always)]
    fn who(self) -> u64 {
        u64::from(self.index) | u64::from(self.generation) << 32
    }

    #[inline(always)]
    fn weight_and_signal(self) -> u64 {
        u64::from(self.event.weight) | u64::from(self.event.signal) << 32
    }
}

/// The name of a connection in maps, made if it has none.
#[inline(always)]
pub fn id(id: &mut u64) -> u64 {
    if *id == 0 {
        *id = u64::from(config::random()) << 32 | u64::from(config::random()) | 1;
    }
    *id
}

/// The commands of the scan on this CPU, `count` of them and of the side that the
/// bit says, wait, all but the first; returns how many.
#[inline(always)]
pub fn begin(name: &mut u64, count: u32, side_bit: u32) -> Option<u8> {
    let stored = pipeline_of_commands(id(name), u64::from(count), u64::from(side_bit));
    if stored == 0 {
        loss::count(Loss::StateFull);
        return None;
    }
    Some(count.saturating_sub(1) as u8)
}

/// The requests of the scan on this CPU, `count` of them, wait, all but the first;
/// returns how many.
#[inline(always)]
pub fn begin_http(name: &mut u64, count: u32) -> u8 {
    if pipeline_of_requests(id(name)) == 0 {
        loss::count(Loss::StateFull);
        return 0;
    }
    count.saturating_sub(1) as u8
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn pipeline_of_requests(id: u64) -> u64 {
    let Some(scan) = scan::current() else {
        return 0;
    };
    u64::from(PIPELINES.insert(&id, &scan.waiting, 0).is_ok())
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn pipeline_of_commands(id: u64, count: u64, side_bit: u64) -> u64 {
    let Some(scan) = scan::current() else {
        return 0;
    };
    for place in 0..WAITING_MAX {
        if place as u64 >= count {
            break;
        }
        scan.waiting[place] = Waiting {
            shape: 0,
            method: method(protocol::REDIS, scan.found[place]) | side_bit as u32,
            padding: 0,
        };
    }
    u64::from(PIPELINES.insert(&id, &scan.waiting, 0).is_ok())
}

/// The requests from place `first` on, `count` of them, were answered as the
/// scan on this CPU says from place `from` on.
#[inline(always)]
pub fn answered(id: u64, (first, from, count): (u32, u32, u32), charge: Charge) {
    let places = u64::from(first & 0xff) | u64::from(from & 0xff) << 8 | u64::from(count) << 16;
    pipeline_answered(
        id,
        places,
        charge.who(),
        charge.event.value_ns,
        charge.weight_and_signal(),
    );
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn pipeline_answered(
    id: u64,
    places: u64,
    who: u64,
    value_ns: u64,
    weight_and_signal: u64,
) -> u64 {
    let Some(waiting) = PIPELINES.get_ptr_mut(&id) else {
        loss::count(Loss::StateFull);
        return 0;
    };
    let Some(scan) = scan::current() else {
        return 0;
    };
    let (first, from, count) = (places & 0xff, places >> 8 & 0xff, places >> 16);
    for number in 0..WAITING_MAX as u64 {
        if number >= count {
            break;
        }
        // Masks, because the verifier does not see bounds that the compiler moves.
        let place = (first + number) as usize & (WAITING_MAX - 1);
        let found = (from + number) as usize & (COMMANDS_MAX - 1);
        // SAFETY: a live map value, and a place in it.
        let Waiting { shape, method, .. } = unsafe { (*waiting)[place] };
        let outcome = u64::from(scan.found[found]);
        count_answer(
            who,
            u64::from(method) | outcome << 32,
            shape,
            value_ns,
            weight_and_signal,
        );
    }
    0
}

/// Counts a request of a service by the address that it was made to, of which
/// `shape` is the hash.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn count_peer(who: u64, shape: u64, value_ns: u64, weight_and_signal: u64) -> u64 {
    let (Some(global), Some(charged)) = (
        config::global(),
        Charged::cached(who as u32, (who >> 32) as u32),
    ) else {
        return 0;
    };
    let event = Event {
        signal: (weight_and_signal >> 32) as SignalNumber,
        value_ns,
        weight: weight_and_signal as u32,
    };
    let key = RouteKey {
        shape,
        service: charged.index,
        method: PEER,
    };
    route::record(global, &key, NO_ROUTE, Outcome::of_class(0), event);
    0
}

/// Counts a request for its service and its route. The outcome is a class, or
/// from 100 on the status of HTTP.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn count_answer(
    who: u64,
    method_and_outcome: u64,
    shape: u64,
    value_ns: u64,
    weight_and_signal: u64,
) -> u64 {
    let (Some(global), Some(charged)) = (
        config::global(),
        Charged::cached(who as u32, (who >> 32) as u32),
    ) else {
        return 0;
    };
    let event = Event {
        signal: (weight_and_signal >> 32) as SignalNumber,
        value_ns,
        weight: weight_and_signal as u32,
    };
    histogram::record(global, charged, event);
    let outcome = (method_and_outcome >> 32) as u32;
    let outcome = if outcome >= 100 {
        Outcome::of_status(outcome)
    } else {
        Outcome::of_class(outcome)
    };
    let key = RouteKey {
        shape,
        service: charged.index,
        method: method_and_outcome as u32,
    };
    route::record(global, &key, NO_ROUTE, outcome, event);
    0
}
