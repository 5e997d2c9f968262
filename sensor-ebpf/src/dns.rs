//! Exchanges of DNS: queries wait here until their response is seen.
//!
//! A response is told by the socket, the id and the begin of the name that is asked
//! for, as both messages have them. The name itself is not kept.

use aya_ebpf::{
    macros::map,
    maps::{LruHashMap, PerCpuArray},
};
use sensor_common::{
    Signal,
    dns::{self, BEGIN_LEN, Begin, Message, QUESTION_LEN_MAX},
    protocol,
    record::{GlobalConfig, Loss},
    route::{CLIENT_SIDE, method},
};

use crate::{
    config::SignalNumber,
    histogram::{self, Event},
    loss,
    pipeline::count_answer,
    service::Charged,
    user_buffer::UserBuffer,
};

/// Queries under way at most; those that wait for longest make room, and their
/// responses do not count.
const QUERIES_MAX: u32 = 8192;

/// What a query and its response have in common.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct QueryKey {
    /// Address of the socket; never followed.
    pub socket: u64,
    /// Of [`Begin::name`].
    pub name: u64,
    /// [`Signal::ServerRequest`] or [`Signal::ClientRequest`].
    pub signal: u64,
}

/// A query that waits for its response.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Query {
    /// When it arrived or was sent, and when it was read.
    pub begin_ns: u64,
    pub read_ns: u64,
    /// Who is charged.
    pub index: u32,
    pub generation: u32,
    pub weight: u32,
    /// As in [`RouteKey`](sensor_common::route::RouteKey).
    pub method: u32,
}

#[map]
static QUERIES: LruHashMap<QueryKey, Query> = LruHashMap::with_max_entries(QUERIES_MAX, 0);

/// Where a question is read to: too long for the stack.
#[map]
static QUESTION: PerCpuArray<[u8; QUESTION_LEN_MAX]> = PerCpuArray::with_max_entries(1, 0);

/// What a datagram of `len` bytes is.
#[inline(always)]
pub fn message(buffer: UserBuffer, len: u32) -> Option<Message> {
    let mut begin = [0; BEGIN_LEN];
    buffer.fill(0, &mut begin)?;
    Begin(&begin).message(len)
}

/// What a query is for, as in [`RouteKey`](sensor_common::route::RouteKey); `None` if
/// it is none.
#[inline(always)]
pub fn method_of(buffer: UserBuffer, is_typed: bool) -> Option<u32> {
    let of_type = dns_question(buffer.address(), buffer.len());
    if of_type > u64::from(u16::MAX) {
        return None;
    }
    let number = if is_typed {
        dns::number(of_type as u16)
    } else {
        0
    };
    Some(method(protocol::DNS, number))
}

/// The type asked for, or a greater number. A function of its own with numbers as
/// arguments, so that the verifier walks through the loop once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn dns_question(address: u64, len: u64) -> u64 {
    const NONE: u64 = u64::MAX;
    let Some(bytes) = QUESTION.get_ptr_mut(0) else {
        return NONE;
    };
    // SAFETY: a value of this CPU; a program that uses it is not interrupted by
    // another one that does.
    let bytes = unsafe { &mut *bytes };
    let Some(len) = UserBuffer::new(address, len).fill(0, bytes) else {
        return NONE;
    };
    dns::question(bytes, len).map_or(NONE, u64::from)
}

/// `query` waits.
#[inline(always)]
pub fn begin(key: &QueryKey, query: &Query) {
    if QUERIES.insert(key, query, 0).is_err() {
        loss::count(Loss::StateFull);
    }
}

/// The query that waits for the response, which does not wait any more.
#[inline(always)]
pub fn take(key: &QueryKey) -> Option<Query> {
    // SAFETY: copied at once; one that is replaced meanwhile is of the same name.
    let query = *unsafe { QUERIES.get(key) }?;
    let _ = QUERIES.remove(key);
    Some(query)
}

/// Counts a query of the side that `signal` is of, answered at `now_ns`.
#[inline(always)]
pub fn ends(
    global: &GlobalConfig,
    query: &Query,
    signal: SignalNumber,
    class: u32,
    now_ns: u64,
) -> Option<()> {
    if query.begin_ns < global.resumed_ns {
        loss::count(Loss::UnmatchedEnd);
        return None;
    }
    if query.read_ns < query.begin_ns || now_ns < query.read_ns {
        loss::count(Loss::NegativeDuration);
        return None;
    }
    let charged = Charged::cached(query.index, query.generation)?;
    let weight = query.weight;
    let is_server = signal == Signal::ServerRequest as u32;
    if !is_server && global.client_routes == 0 {
        let value_ns = now_ns - query.begin_ns;
        let event = Event {
            signal,
            value_ns,
            weight,
        };
        histogram::record(global, charged, event);
        return Some(());
    }
    if is_server {
        for (signal, value_ns) in [
            (Signal::ServerQueue as u32, query.read_ns - query.begin_ns),
            (Signal::ServerService as u32, now_ns - query.read_ns),
        ] {
            let event = Event {
                signal,
                value_ns,
                weight,
            };
            histogram::record(global, charged, event);
        }
    }
    let side_bit = if is_server { 0 } else { CLIENT_SIDE };
    count_answer(
        u64::from(query.index) | u64::from(query.generation) << 32,
        u64::from(query.method | side_bit) | u64::from(class) << 32,
        0,
        now_ns - query.begin_ns,
        u64::from(weight) | u64::from(signal) << 32,
    );
    Some(())
}
