//! Request/response exchanges on TCP and Unix stream sockets, without knowing the
//! protocol.
//!
//! A socket's state goes IDLE → REQUEST (first bytes of a request) → RESPONSE
//! (first bytes of its response) → and the next request closes the exchange.
//!
//! - Server: the request begins when its data is *ready*, not when it is read:
//!   under load most of the wait is in the socket's queue.
//! - Client: the request begins with the first send.
//!
//! Pipelined and multiplexed requests are one exchange here. Where system calls
//! are seen and routes are wanted, [`Requests`](crate::requests::Requests) looks at the begin of what a server
//! reads and writes; whatever it finds, exchanges are timed all the same.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use sensor_common::{Signal, peer::ServiceRef, route::Owner};

use self::{
    carried::{
        follows_http2, may_begin_request, no_request_begins, of_connection, others_answered,
    },
    exchange::{
        charged, client_request_begins, client_response_begins, server_request_begins,
        server_response_begins,
    },
    socket::{InStorage, NOT_SAMPLED, WithRequests, phase, response_is_not_sampled},
};
pub(super) use self::{
    connection::{on_state, states},
    exchange::current_service,
    socket::{Socket, Sockets, get_or_create, role},
};
use crate::{
    config::{self, Draw},
    kernel::{OFFSET_SOCK_FAMILY, OFFSET_SOCK_PROTOCOL, Object, load, now_ns},
    probes::udp,
    scratch,
    user_buffer::{OfSystemCall, Source},
};

mod carried;
mod client;
mod connection;
mod exchange;
mod socket;

pub(super) const AF_INET: u16 = 2;

pub(super) const AF_INET6: u16 = 10;

const IPPROTO_TCP: u16 = 6;

const MSG_PEEK: i32 = 2;

#[inline(always)]
pub(super) unsafe fn is_tcp(socket: Object) -> bool {
    // SAFETY: the caller passes a socket of a tracepoint.
    unsafe {
        let family: u16 = load(socket, &OFFSET_SOCK_FAMILY);
        let protocol: u16 = load(socket, &OFFSET_SOCK_PROTOCOL);
        (family == AF_INET || family == AF_INET6) && protocol == IPPROTO_TCP
    }
}

#[btf_tracepoint(function = "sk_data_ready")]
pub fn tcp_data_ready(context: BtfTracePointContext) -> i32 {
    // SAFETY: the socket is the first argument.
    unsafe {
        let socket: Object = context.arg(0);
        if on_ready::<InStorage>(socket).is_none() && udp::is_udp(socket) {
            udp::on_ready(socket);
        }
    }
    0
}

/// Runs in the interrupt that received the data; only notes the time.
#[inline(always)]
pub(super) unsafe fn on_ready<S: Sockets>(socket: Object) -> Option<()> {
    // SAFETY: the caller passes a socket of a tracepoint. Only TCP sockets
    // have a state.
    let state = unsafe { S::existing(socket) }?;
    if state.role == role::SERVER && state.phase != phase::REQUEST && state.ready_ns == 0 {
        // A request that is not sampled needs no time, and a clock read is most
        // of what it would cost.
        match Draw::first_stage(config::global()?, Signal::ServerRequest as u32) {
            Some(draw) => {
                state.ready_ns = now_ns();
                state.ready_shift = draw.first();
            }
            None => state.ready_ns = NOT_SAMPLED,
        }
    }
    Some(())
}

#[btf_tracepoint(function = "sock_recv_length")]
pub fn tcp_receive(context: BtfTracePointContext) -> i32 {
    // SAFETY: the socket is the first argument.
    unsafe { receive::<InStorage>(&context) };
    0
}

// Without a call from the entry point: calls are eight deep at most.
#[btf_tracepoint(function = "sock_recv_length")]
#[inline(always)]
pub fn tcp_receive_requests(context: BtfTracePointContext) -> i32 {
    // SAFETY: the socket is the first argument.
    unsafe { receive::<WithRequests<true>>(&context) };
    0
}

#[btf_tracepoint(function = "sock_recv_length")]
#[inline(always)]
pub fn tcp_receive_http(context: BtfTracePointContext) -> i32 {
    // SAFETY: the socket is the first argument.
    unsafe { receive::<WithRequests<false>>(&context) };
    0
}

#[inline(always)]
unsafe fn receive<S: Sockets>(context: &BtfTracePointContext) -> Option<()> {
    let (length, flags): (i32, i32) = (context.arg(1), context.arg(2));
    if length <= 0 || flags & MSG_PEEK != 0 {
        return None;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let socket: Object = context.arg(0);
        let mut existing = S::existing(socket);
        if S::READS_REQUESTS {
            if let Some(state) = &mut existing {
                if state.passes_by(true) {
                    return Some(());
                }
            } else if S::READS_ALL && udp::is_udp(socket) {
                return udp::received(socket, length as u32, flags);
            }
        }
        if S::READS_REQUESTS {
            scratch::set_in_socket(true);
        }
        let done = on_receive::<S>(socket, existing, OfSystemCall(length as u32));
        if S::READS_REQUESTS {
            scratch::set_in_socket(false);
        }
        done
    }
}

/// Something was read from a socket whose state is `existing`.
#[inline(always)]
pub(super) unsafe fn on_receive<S: Sockets>(
    socket: Object,
    existing: Option<&'static mut Socket>,
    read: impl Source,
) -> Option<()> {
    // SAFETY: the caller passes a socket of a tracepoint.
    unsafe {
        let state = get_or_create::<S>(socket, existing)?;
        if S::READS_ALL && !state.tls.is_on() {
            let is_request = state.role == role::SERVER;
            if follows_http2(state, read, is_request).is_some() {
                return Some(());
            }
        } else if S::READS_ALL && state.tls.is_followed() {
            state.ready_ns = 0;
            let charged = charged(config::global()?, state)?;
            let server = ServiceRef {
                index: charged.index,
                generation: charged.generation,
            };
            state.tls.received(server, true);
            return Some(());
        }
        if state.role == role::SERVER {
            if state.phase != phase::REQUEST {
                if S::READS_REQUESTS && !may_begin_request(state, read) {
                    no_request_begins(socket, state);
                    return Some(());
                }
                server_request_begins::<S>(state, read);
                state.note_whether_passes();
                if S::READS_REQUESTS && !state.peer.is_known() && state.index != 0 {
                    let server = ServiceRef {
                        index: state.index,
                        generation: state.generation,
                    };
                    state.peer.accepted(config::global()?, socket, server);
                }
            } else if S::READS_REQUESTS && state.requests.has_begun() {
                let global = config::global()?;
                let all = S::READS_ALL;
                let owner = Owner::server(state.index);
                state.requests.request_goes_on(global, owner, read, all);
            } else if S::READS_ALL && !state.tls.is_on() {
                state.requests.more_is_read(read);
            }
            if S::READS_REQUESTS && state.tls.is_on() {
                let server = ServiceRef {
                    index: state.index,
                    generation: state.generation,
                };
                state.tls.received(server, state.weight != 0);
            }
            return Some(());
        }
        if S::READS_REQUESTS && state.tls.is_on() {
            state.tls.received_response();
            if !state.tls.is_response(read) {
                return None;
            }
        }
        if state.weight == 0 {
            response_is_not_sampled(state);
            return Some(());
        }
        let now_ns = now_ns();
        if state.phase == phase::REQUEST {
            client_response_begins::<S>(socket, state, now_ns, read);
        } else if S::READS_ALL {
            client::is_answered(state, read, now_ns, false);
        }
        state.last_ns = now_ns;
    }
    Some(())
}

#[btf_tracepoint(function = "sock_send_length")]
pub fn tcp_send(context: BtfTracePointContext) -> i32 {
    // SAFETY: the socket is the first argument.
    unsafe { send::<InStorage>(&context) };
    0
}

#[btf_tracepoint(function = "sock_send_length")]
#[inline(always)]
pub fn tcp_send_requests(context: BtfTracePointContext) -> i32 {
    // SAFETY: the socket is the first argument.
    unsafe { send::<WithRequests<true>>(&context) };
    0
}

#[btf_tracepoint(function = "sock_send_length")]
#[inline(always)]
pub fn tcp_send_http(context: BtfTracePointContext) -> i32 {
    // SAFETY: the socket is the first argument.
    unsafe { send::<WithRequests<false>>(&context) };
    0
}

#[inline(always)]
unsafe fn send<S: Sockets>(context: &BtfTracePointContext) -> Option<()> {
    let length: i32 = context.arg(1);
    if length <= 0 {
        return None;
    }
    // SAFETY: the caller passes the socket as first argument.
    unsafe {
        let socket: Object = context.arg(0);
        let mut existing = S::existing(socket);
        if S::READS_REQUESTS {
            if let Some(state) = &mut existing {
                if state.passes_by(false) {
                    return Some(());
                }
            } else if S::READS_ALL && udp::is_udp(socket) {
                return udp::sent(socket, length as u32);
            }
        }
        let state = get_or_create::<S>(socket, existing)?;
        if S::READS_REQUESTS {
            scratch::set_in_socket(true);
        }
        let done = sent::<S>(socket, state, OfSystemCall(length as u32));
        if S::READS_REQUESTS {
            scratch::set_in_socket(false);
        }
        done
    }
}

/// New data of the connection was sent.
#[inline(always)]
pub(super) unsafe fn sent<S: Sockets>(
    socket: Object,
    state: &mut Socket,
    written: impl Source,
) -> Option<()> {
    // SAFETY: the caller passes a socket of a tracepoint.
    unsafe {
        if S::READS_ALL && !state.tls.is_on() {
            let is_request = state.role == role::CLIENT;
            if follows_http2(state, written, is_request).is_some() {
                return Some(());
            }
        }
        if state.role == role::CLIENT {
            if state.phase == phase::REQUEST {
                if S::READS_ALL {
                    client::asks(state, written, false);
                }
            } else if !S::READS_REQUESTS || may_begin_request(state, written) {
                client_request_begins::<S>(state, written);
                state.note_whether_passes();
                if S::READS_REQUESTS && !state.peer.is_known() && state.index != 0 {
                    let global = config::global()?;
                    state.peer.connected(global, socket, state.index);
                }
            }
            return Some(());
        }
        if S::READS_REQUESTS && state.tls.is_on() {
            if S::READS_ALL && state.tls.becomes_followed() {
                (state.phase, state.weight) = (phase::IDLE, 0);
                state.ready_ns = 0;
                return Some(());
            }
            if !state.tls.is_response(written) {
                return None;
            }
        }
        if state.weight == 0 {
            response_is_not_sampled(state);
            return Some(());
        }
        let now_ns = now_ns();
        if state.phase == phase::REQUEST {
            server_response_begins::<S>(socket, state, now_ns, written);
        } else if S::READS_ALL && (state.requests.has_pending() || state.tls.has_pending()) {
            let (requests, bytes) = of_connection(state, written);
            // SAFETY: of `of_connection`.
            others_answered(state, &mut *requests, (now_ns, false), bytes);
        }
        state.last_ns = now_ns;
    }
    Some(())
}
