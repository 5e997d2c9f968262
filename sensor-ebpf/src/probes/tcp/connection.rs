//! Begin and end of connections, and retransmissions.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use sensor_common::Signal;

use super::{
    exchange::{charge, charged, count, exchange_ends, rtt_ns},
    is_tcp,
    socket::{InStorage, Socket, Sockets, phase, role},
};
use crate::{
    config,
    histogram::{Event, record},
    kernel::{Object, now_ns},
    probes::tcp_packets::ByAddress,
    service::Charged,
};

/// States of `include/net/tcp_states.h`.
pub mod states {
    pub const ESTABLISHED: i32 = 1;
    pub const SYN_SENT: i32 = 2;
    pub const SYN_RECV: i32 = 3;
    pub const CLOSE: i32 = 7;
}

#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn tcp_state(context: BtfTracePointContext) -> i32 {
    let (old, new): (i32, i32) = (context.arg(1), context.arg(2));
    // SAFETY: the socket is the first argument.
    unsafe { on_state::<InStorage>(context.arg(0), old, new) };
    0
}

#[inline(always)]
pub unsafe fn on_state<S: Sockets>(socket: Object, old: i32, new: i32) -> Option<()> {
    // SAFETY: the caller passes a socket of a tracepoint.
    unsafe {
        if !is_tcp(socket) {
            return None;
        }
        match (old, new) {
            (_, states::SYN_SENT) => connect_begins(S::create(socket)?),
            (states::SYN_SENT, states::ESTABLISHED) => {
                let state = S::existing(socket)?;
                if state.index != 0 {
                    let global = config::global()?;
                    state.peer.connected(global, socket, state.index);
                }
                connect_ends(state)
            }
            (states::SYN_RECV, states::ESTABLISHED) => {
                S::create(socket)?.role = role::SERVER;
                Some(())
            }
            (_, states::CLOSE) => connection_ends(S::existing(socket)?),
            _ => None,
        }
    }
}

#[inline(always)]
pub fn connect_begins(state: &mut Socket) -> Option<()> {
    state.role = role::CLIENT;
    let global = config::global()?;
    // Also where it is not sampled: later, no task is there to tell who connects.
    charged(global, state)?;
    charge(global, state, Signal::TcpConnect as u32)?;
    state.ready_ns = now_ns();
    Some(())
}

#[inline(always)]
pub fn connect_ends(state: &mut Socket) -> Option<()> {
    let begin_ns = core::mem::take(&mut state.ready_ns);
    if begin_ns == 0 || state.weight == 0 {
        return None;
    }
    let global = config::global()?;
    let charged = Charged::cached(state.index, state.generation)?;
    count(
        global,
        charged,
        state.weight,
        Signal::TcpConnect as u32,
        begin_ns,
        now_ns(),
    );
    Some(())
}

/// The last response of a connection ends with the connection, when both sides
/// have closed it: one that only the other side closed still has data to read,
/// one that only this side closed may still get its response.
#[inline(always)]
pub fn connection_ends(state: &mut Socket) -> Option<()> {
    let global = config::global()?;
    let signal = if state.role == role::SERVER {
        Signal::ServerResponse as u32
    } else {
        Signal::ClientResponse as u32
    };
    exchange_ends(global, state, signal);
    state.phase = phase::IDLE;
    Some(())
}

#[btf_tracepoint(function = "tcp_retransmit_skb")]
pub fn tcp_retransmit(context: BtfTracePointContext) -> i32 {
    // SAFETY: the socket is the first argument.
    unsafe { on_retransmit(context.arg(0)) };
    0
}

/// Retransmissions are rare and never sampled away.
#[inline(always)]
pub unsafe fn on_retransmit(socket: Object) -> Option<()> {
    let global = config::global()?;
    // SAFETY: the caller passes a socket of a tracepoint.
    unsafe {
        // Kept where the level of the TCP probe keeps it.
        let state = match InStorage::existing(socket) {
            Some(state) => Some(state),
            None => ByAddress::existing(socket),
        };
        let charged = match state {
            Some(state) if state.index != 0 => Charged::cached(state.index, state.generation),
            _ => None,
        };
        let charged = match charged {
            Some(charged) => charged,
            None => Charged::host()?,
        };
        let event = Event {
            signal: Signal::TcpRetransmit as u32,
            value_ns: rtt_ns(InStorage::smoothed_rtt(socket))?,
            weight: 1,
        };
        record(global, charged, event);
    }
    Some(())
}
