//! DNS over UDP, on the hooks of [`super::tcp`].
//!
//! A datagram that is a query begins an exchange: received, one of a server, sent,
//! one of a client; the response that goes the other way ends it. A socket that
//! carries something else is hardly looked at.

use sensor_common::{Signal, dns::Message, record::Loss};

use super::tcp::{AF_INET, AF_INET6, current_service};
use crate::{
    config::{self, Draw},
    dns::{self, Query, QueryKey},
    kernel::{OFFSET_SOCK_FAMILY, OFFSET_SOCK_PROTOCOL, Object, load, now_ns},
    loss,
    storage::SocketStorage,
    user_buffer::{OfSystemCall, Source},
};

#[unsafe(link_section = ".maps")]
#[unsafe(export_name = "UDP_SOCKETS")]
static UDP_SOCKETS: SocketStorage<UdpSocket> = SocketStorage::new();

/// What is kept with each socket.
#[repr(C)]
struct UdpSocket {
    /// Since when something is there to be read, 0 if that is not known.
    ready_ns: u64,
    /// Datagrams in a row that were no DNS.
    misses: u32,
    /// Whether a query was received: then it matters when.
    is_server: u16,
    /// Whether a query was answered: then rubbish in between hides no others.
    is_known: u16,
}

/// After so many datagrams in a row that are no DNS, only one of [`LOOKS_EVERY`] is
/// looked at.
const MISSES_MAX: u32 = 4;
/// So that a server that got rubbish first is found all the same.
const LOOKS_EVERY: u32 = 64;

const IPPROTO_UDP: u16 = 17;
const MSG_ERRQUEUE: i32 = 0x2000;

impl UdpSocket {
    /// Whether the next datagram is to be looked at.
    #[inline(always)]
    fn looks(&mut self) -> bool {
        if self.is_known != 0 || self.misses < MISSES_MAX {
            return true;
        }
        self.misses += 1;
        if self.misses < MISSES_MAX + LOOKS_EVERY {
            return false;
        }
        self.misses = MISSES_MAX;
        true
    }

    #[inline(always)]
    fn miss(&mut self) {
        if self.misses < MISSES_MAX {
            self.misses += 1;
        }
    }
}

/// Whether `socket` is of UDP.
///
/// # Safety
/// `socket` must be a socket of a tracepoint.
#[inline(always)]
pub unsafe fn is_udp(socket: Object) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let protocol: u16 = load(socket, &OFFSET_SOCK_PROTOCOL);
        if protocol != IPPROTO_UDP {
            return false;
        }
        let family: u16 = load(socket, &OFFSET_SOCK_FAMILY);
        family == AF_INET || family == AF_INET6
    }
}

/// Runs in the interrupt that received the datagram; only notes the time. The
/// kernel says so (since 6.14) when there was nothing to be read before.
///
/// # Safety
/// As [`is_udp`].
#[inline(always)]
pub unsafe fn on_ready(socket: Object) -> Option<()> {
    // SAFETY: the caller's promise; what several threads write at once is one
    // number or the other.
    let state = unsafe { UDP_SOCKETS.get(socket).as_mut() }?;
    if state.is_server != 0 && state.ready_ns == 0 {
        state.ready_ns = now_ns();
    }
    Some(())
}

/// A datagram of `length` bytes was received, unless it is what came back with an error.
///
/// # Safety
/// As [`is_udp`], and it must be one.
#[inline(always)]
pub unsafe fn received(socket: Object, length: u32, flags: i32) -> Option<()> {
    if flags & MSG_ERRQUEUE == 0 {
        // SAFETY: the caller's promise.
        unsafe { datagram(socket, length, true) };
    }
    Some(())
}

/// A datagram of `length` bytes was sent.
///
/// # Safety
/// As [`received`].
#[inline(always)]
pub unsafe fn sent(socket: Object, length: u32) -> Option<()> {
    // SAFETY: the caller's promise.
    unsafe { datagram(socket, length, false) };
    Some(())
}

/// Not inlined: it has nothing to do with what its callers do else, and has a stack
/// of its own.
#[inline(never)]
unsafe fn datagram(socket: Object, length: u32, is_received: bool) -> u64 {
    // SAFETY: the caller's promise.
    u64::from(unsafe { look(socket, length, is_received) }.is_some())
}

#[inline(always)]
unsafe fn look(socket: Object, length: u32, is_received: bool) -> Option<()> {
    let global = config::global()?;
    if global.routes_per_service == 0 {
        return None;
    }
    // SAFETY: the caller's promise; as in `on_ready`.
    let Some(state) = (unsafe { UDP_SOCKETS.get_or_create(socket).as_mut() }) else {
        loss::count(Loss::StateFull);
        return None;
    };
    let ready_ns = if is_received {
        core::mem::take(&mut state.ready_ns)
    } else {
        0
    };
    if !state.looks() {
        return None;
    }
    let Some(buffer) = OfSystemCall(length).buffer() else {
        state.miss();
        return None;
    };
    let Some(message) = dns::message(buffer, length) else {
        state.miss();
        return None;
    };
    let (is_query, name) = match message {
        Message::Query { name, .. } => (true, name),
        Message::Response { name, .. } => (false, name),
    };
    let signal = if is_query == is_received {
        Signal::ServerRequest as u32
    } else {
        Signal::ClientRequest as u32
    };
    let key = QueryKey {
        socket: socket as u64,
        name,
        signal: u64::from(signal),
    };
    match message {
        Message::Response { class, .. } => {
            let query = dns::take(&key)?;
            state.is_known = 1;
            dns::ends(global, &query, signal, class, now_ns())
        }
        Message::Query { is_typed, .. } => {
            let draw = Draw::first_stage(global, signal)?;
            let Some(method) = dns::method_of(buffer, is_typed) else {
                state.miss();
                return None;
            };
            state.misses = 0;
            if is_received {
                state.is_server = 1;
            }
            let charged = current_service(global)?;
            let weight = draw.passes(charged.config(signal))?;
            let read_ns = now_ns();
            let query = Query {
                begin_ns: if ready_ns == 0 { read_ns } else { ready_ns },
                read_ns,
                index: charged.index,
                generation: charged.generation,
                weight,
                method,
            };
            dns::begin(&key, &query);
            Some(())
        }
    }
}
