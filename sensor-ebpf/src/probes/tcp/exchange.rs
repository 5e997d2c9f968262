//! Timing of exchanges, and who is charged with them.

use sensor_common::{
    Signal,
    record::{GlobalConfig, Loss},
    route::Owner,
};

use super::{
    carried::{Written, give_up_pending, of_connection, others_answered},
    client,
    socket::{DRAWN, NO_ROUND_TRIP, NOT_SAMPLED, Socket, Sockets, phase},
};
use crate::{
    config::{self, Draw, SignalNumber},
    histogram::{Event, record},
    kernel::{Object, current_task, now_ns},
    loss,
    requests::Answer,
    service::{self, Charged},
    user_buffer::Source,
};

#[inline(always)]
pub fn server_request_begins<S: Sockets>(state: &mut Socket, read: impl Source) -> Option<()> {
    let global = config::global()?;
    exchange_ends(global, state, Signal::ServerResponse as u32);
    if S::READS_ALL && state.requests.has_pending() {
        give_up_pending(state);
    }
    state.phase = phase::REQUEST;
    // Of what is not sampled the begin is not of use.
    let is_cut = S::READS_ALL && state.requests.take_cut();
    let ready_ns = core::mem::take(&mut state.ready_ns);
    if ready_ns == NOT_SAMPLED {
        state.weight = 0;
        return None;
    }
    if ready_ns == 0 {
        charge(global, state, Signal::ServerRequest as u32)?;
        state.read_ns = now_ns();
        state.request_ns = state.read_ns;
    } else {
        state.weight = 0;
        let charged = charged(global, state)?;
        let config = charged.config(Signal::ServerRequest as u32);
        state.weight = Draw::second_stage(state.ready_shift, config)?;
        state.read_ns = now_ns();
        state.request_ns = ready_ns;
    }
    if S::READS_REQUESTS && !state.tls.is_on() {
        if S::READS_ALL {
            state.requests.put_cut(is_cut);
        }
        state
            .requests
            .request_begins(global, Owner::server(state.index), read, S::READS_ALL);
    }
    Some(())
}

#[inline(always)]
pub unsafe fn server_response_begins<S: Sockets>(
    socket: Object,
    state: &mut Socket,
    now_ns: u64,
    written: impl Source,
) -> Option<()> {
    let (requests, bytes) = if S::READS_REQUESTS {
        of_connection(state, written)
    } else {
        (&raw mut state.requests, Written::AsSent(written))
    };
    // SAFETY: of `of_connection`; nothing else refers to it.
    let requests = unsafe { &mut *requests };
    let answer = if S::READS_REQUESTS {
        requests.answer(bytes, S::READS_ALL)
    } else {
        Answer::None
    };
    if let Answer::Interim = answer {
        if state.tls.is_on() {
            state.tls.response_is_interim();
        }
        return None;
    }
    state.phase = phase::RESPONSE;
    // What arrived meanwhile belongs to this request.
    state.ready_ns = 0;
    let global = config::global()?;
    let charged = Charged::cached(state.index, state.generation)?;
    let weight = state.weight;
    let (request_ns, read_ns) = (state.request_ns, state.read_ns);
    for (signal, begin_ns, end_ns) in [
        (Signal::ServerRequest as u32, request_ns, now_ns),
        (Signal::ServerQueue as u32, request_ns, read_ns),
        (Signal::ServerService as u32, read_ns, now_ns),
    ] {
        count(global, charged, weight, signal, begin_ns, end_ns);
    }
    if let Answer::Final(outcome) = answer
        && request_ns >= global.resumed_ns
        && request_ns <= now_ns
    {
        let event = Event {
            signal: Signal::ServerRequest as u32,
            value_ns: now_ns - request_ns,
            weight,
        };
        requests.ends(global, state.index, outcome, event);
        if S::READS_ALL && requests.has_pending() {
            others_answered(state, requests, (now_ns, true), bytes);
        }
    }
    // SAFETY: the caller passes a socket of a tracepoint.
    unsafe { round_trip::<S>(global, socket, state, charged) }
}

#[inline(always)]
pub fn client_request_begins<S: Sockets>(state: &mut Socket, written: impl Source) -> Option<()> {
    let global = config::global()?;
    exchange_ends(global, state, Signal::ClientResponse as u32);
    if S::READS_ALL && state.requests.has_pending() {
        give_up_pending(state);
    }
    state.phase = phase::REQUEST;
    let is_cut = S::READS_ALL && state.requests.take_cut();
    // Else it may be when the connection began that is still being made.
    if state.ready_ns == DRAWN {
        (state.ready_ns, state.weight) = (0, 0);
        let config = charged(global, state)?.config(Signal::ClientRequest as u32);
        state.weight = Draw::second_stage(state.ready_shift, config)?;
    } else {
        charge(global, state, Signal::ClientRequest as u32)?;
    }
    state.request_ns = now_ns();
    if S::READS_ALL {
        state.requests.put_cut(is_cut);
        client::asks(state, written, true);
    }
    Some(())
}

#[inline(always)]
pub unsafe fn client_response_begins<S: Sockets>(
    socket: Object,
    state: &mut Socket,
    now_ns: u64,
    read: impl Source,
) -> Option<()> {
    if S::READS_ALL && !client::is_answered(state, read, now_ns, true) {
        return None;
    }
    state.phase = phase::RESPONSE;
    let global = config::global()?;
    let charged = Charged::cached(state.index, state.generation)?;
    count(
        global,
        charged,
        state.weight,
        Signal::ClientRequest as u32,
        state.request_ns,
        now_ns,
    );
    if S::READS_REQUESTS
        && state.peer.is_known()
        && state.request_ns >= global.resumed_ns
        && state.request_ns <= now_ns
    {
        let event = Event {
            signal: Signal::ClientRequest as u32,
            value_ns: now_ns - state.request_ns,
            weight: state.weight,
        };
        state.peer.record(global, state.index, event);
    }
    // SAFETY: the caller passes a socket of a tracepoint.
    unsafe { round_trip::<S>(global, socket, state, charged) }
}

/// Counts the whole of a response once it is known that no more of it comes.
#[inline(always)]
pub fn exchange_ends(
    global: &GlobalConfig,
    state: &mut Socket,
    signal: SignalNumber,
) -> Option<()> {
    if state.phase != phase::RESPONSE || state.weight == 0 {
        return None;
    }
    let charged = Charged::cached(state.index, state.generation)?;
    count(
        global,
        charged,
        state.weight,
        signal,
        state.request_ns,
        state.last_ns,
    );
    Some(())
}

/// Decides whether the exchange that begins is sampled, and who is charged.
#[inline(always)]
pub fn charge(global: &GlobalConfig, state: &mut Socket, signal: SignalNumber) -> Option<()> {
    state.weight = 0;
    let draw = Draw::first_stage(global, signal)?;
    let charged = charged(global, state)?;
    state.weight = draw.passes(charged.config(signal))?;
    Some(())
}

/// Who is charged with what the connection carries.
#[inline(always)]
pub fn charged(global: &GlobalConfig, state: &mut Socket) -> Option<Charged> {
    match Charged::cached(state.index, state.generation) {
        Some(charged) if state.index != 0 => Some(charged),
        _ => {
            let charged = current_service(global)?;
            state.index = charged.index;
            state.generation = charged.generation;
            Some(charged)
        }
    }
}

#[inline(always)]
pub fn current_service(global: &GlobalConfig) -> Option<Charged> {
    let task = current_task();
    // SAFETY: the current task is trusted.
    unsafe {
        let state = service::task_state(task)?;
        service::of_task(global, task, state)
    }
}

#[inline(always)]
pub fn count(
    global: &GlobalConfig,
    charged: Charged,
    weight: u32,
    signal: SignalNumber,
    begin_ns: u64,
    end_ns: u64,
) {
    if begin_ns < global.resumed_ns {
        loss::count(Loss::UnmatchedEnd);
        return;
    }
    if end_ns < begin_ns {
        loss::count(Loss::NegativeDuration);
        return;
    }
    let event = Event {
        signal,
        value_ns: end_ns - begin_ns,
        weight,
    };
    record(global, charged, event);
}

/// Nanoseconds of [`Sockets::smoothed_rtt`]; counts a loss if it is unknown.
#[inline(always)]
pub fn rtt_ns(smoothed: Option<u32>) -> Option<u64> {
    if smoothed.is_none() {
        loss::count(Loss::ReadError);
    }
    Some(u64::from(smoothed?) * 125)
}

/// Exchanges of a connection per counted round-trip time: it is a mean over
/// about so many segments anyway (RFC 6298: alpha = 1/8).
pub const EXCHANGES_PER_RTT: u8 = 8;

/// Counts the smoothed round-trip time of the connection, in its first
/// exchange and now and then.
#[inline(always)]
pub unsafe fn round_trip<S: Sockets>(
    global: &GlobalConfig,
    socket: Object,
    state: &mut Socket,
    charged: Charged,
) -> Option<()> {
    if state.rtt_in == NO_ROUND_TRIP {
        return None;
    }
    if state.rtt_in > 0 {
        state.rtt_in -= 1;
        return None;
    }
    state.rtt_in = EXCHANGES_PER_RTT - 1;
    let weight = state.weight;
    if global.first_stage[Signal::TcpRtt as usize] & sensor_common::record::SIGNAL_OFF != 0 {
        return None;
    }
    // SAFETY: the caller passes a socket of a tracepoint.
    let smoothed = unsafe { S::smoothed_rtt(socket) };
    let event = Event {
        signal: Signal::TcpRtt as u32,
        value_ns: rtt_ns(smoothed)?,
        weight,
    };
    record(global, charged, event);
    Some(())
}
