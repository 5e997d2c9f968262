//! What the bytes of a connection are, as far as requests are looked at: of a
//! TLS connection [`Tls`](crate::tls::Tls) says what of them is an exchange.

use sensor_common::{Signal, route::CLIENT_SIDE};

use super::{
    exchange::charged,
    socket::{NOT_SAMPLED, Socket, role},
};
use crate::{
    config::{self, SignalNumber},
    histogram::Event,
    http2::Transfer,
    kernel::{OFFSET_TCP_READ, OFFSET_TCP_RECEIVED, Object, load, now_ns, tcp_sock},
    pipeline::Charge,
    requests::Requests,
    user_buffer::{Source, UserBuffer},
};

/// Whether `bytes` of the side that makes requests may begin one: of a TLS
/// connection, some of what is sent is for the connection itself.
#[inline(always)]
pub fn may_begin_request(state: &mut Socket, bytes: impl Source) -> bool {
    !state.tls.is_possible() || state.tls.request_begins(bytes, state.role == role::SERVER)
}

/// What was read was no request; what is still to be read may be one, and then
/// arrived not much later.
#[inline(always)]
pub unsafe fn no_request_begins(socket: Object, state: &mut Socket) {
    // SAFETY: the caller passes a TCP socket of a tracepoint.
    unsafe {
        let tcp = tcp_sock(socket);
        if tcp.is_null() {
            return;
        }
        let received: u32 = load(tcp, &OFFSET_TCP_RECEIVED);
        let read: u32 = load(tcp, &OFFSET_TCP_READ);
        if received == read {
            state.ready_ns = 0;
        }
    }
}

/// Whether requests of this side of the connection are looked at, of all protocols.
#[inline(always)]
pub fn looks_at_requests(state: &Socket) -> bool {
    if state.role == role::SERVER {
        return true;
    }
    !state.tls.is_on()
        && config::global()
            .is_some_and(|global| global.client_routes != 0 && global.routes_per_service != 0)
}

/// Follows what a connection of HTTP/2 carries, if it is to be; `None` if it is none.
#[inline(always)]
pub fn follows_http2(state: &mut Socket, carried: impl Source, is_request: bool) -> Option<()> {
    if !looks_at_requests(state) {
        return None;
    }
    if is_request {
        state.requests.begins(config::global()?, carried);
    }
    if !state.requests.is_http2() {
        return None;
    }
    let is_server = state.role == role::SERVER;
    let (signal, side_bit, peer) = if is_server {
        (Signal::ServerRequest as u32, 0, 0)
    } else {
        let peer = state.peer.shape();
        (Signal::ClientRequest as u32, CLIENT_SIDE, peer)
    };
    let ready_ns = core::mem::take(&mut state.ready_ns);
    let now_ns = if is_server && is_request && ready_ns > NOT_SAMPLED {
        ready_ns
    } else {
        now_ns()
    };
    let Some(charged) = config::global().and_then(|global| charged(global, state)) else {
        state.requests.end_following();
        return Some(());
    };
    // What cannot be read may be a payload that need not be.
    let buffer = carried.buffer().unwrap_or(UserBuffer::new(0, 0));
    state.requests.transfer(&Transfer {
        buffer,
        total: carried.total(),
        is_request,
        charged,
        now_ns,
        signal,
        side_bit,
        peer,
    });
    Some(())
}

/// Responses to requests that were read with the one that is answered.
#[inline(always)]
pub fn others_answered(
    state: &mut Socket,
    requests: &mut Requests,
    (now_ns, begins): (u64, bool),
    written: impl Source,
) -> Option<()> {
    let charge = charge_of_request(state, now_ns)?;
    requests.others_answered(written, begins, charge);
    if state.tls.is_on() {
        state.tls.note_pending(requests.has_pending());
    }
    Some(())
}

/// The requests of the connection, a live value of this socket or of what OpenSSL
/// has for it, and what is `written` as they have it: inside TLS the plaintext.
#[inline(always)]
pub fn of_connection<W: Source>(state: &mut Socket, written: W) -> (*mut Requests, Written<W>) {
    let inside = if state.tls.is_on() {
        state.tls.response()
    } else {
        None
    };
    match inside {
        Some((requests, plaintext)) => (requests, Written::Inside(plaintext)),
        None => (&raw mut state.requests, Written::AsSent(written)),
    }
}

/// The bytes that a response begins with.
#[derive(Clone, Copy)]
pub enum Written<W> {
    AsSent(W),
    Inside(UserBuffer),
}

impl<W: Source> Source for Written<W> {
    #[inline(always)]
    fn buffer(self) -> Option<UserBuffer> {
        match self {
            Written::AsSent(written) => written.buffer(),
            Written::Inside(plaintext) => Some(plaintext),
        }
    }

    #[inline(always)]
    fn total(self) -> u64 {
        match self {
            Written::AsSent(written) => written.total(),
            Written::Inside(plaintext) => plaintext.total(),
        }
    }
}

/// A request that was read with the one under way and ended at `end_ns`.
#[inline(always)]
pub fn charge_of_request(state: &Socket, end_ns: u64) -> Option<Charge> {
    if state.request_ns < config::global()?.resumed_ns {
        return None;
    }
    let event = Event {
        signal: request_signal(state.role),
        value_ns: end_ns.checked_sub(state.request_ns)?,
        weight: state.weight,
    };
    Some(Charge {
        index: state.index,
        generation: state.generation,
        event,
    })
}

#[inline(always)]
pub fn give_up_pending(state: &mut Socket) -> Option<()> {
    let charge = charge_of_request(state, state.last_ns)?;
    state.requests.give_up_pending(charge);
    Some(())
}

/// What a request to the other side is timed as.
#[inline(always)]
pub fn request_signal(role: u8) -> SignalNumber {
    if role == role::SERVER {
        Signal::ServerRequest as u32
    } else {
        Signal::ClientRequest as u32
    }
}
