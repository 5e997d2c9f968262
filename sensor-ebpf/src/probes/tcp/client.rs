//! Requests on the side that makes them: as on the side that answers, in the other
//! direction.
//!
//! Functions of their own, so that what a server costs does not depend on them.

use sensor_common::{Signal, record::GlobalConfig, route::Owner};

use super::{
    carried::{charge_of_request, looks_at_requests},
    socket::Socket,
};
use crate::{
    config,
    histogram::Event,
    requests::Answer,
    service::Charged,
    user_buffer::{OfSystemCall, Source},
};

/// The request under way begins with `written`, or goes on with it.
#[inline(always)]
pub fn asks(state: &mut Socket, written: impl Source, begins: bool) {
    if state.weight != 0 && looks_at_requests(state) {
        client_asks(state, written.total() as u32, begins);
    }
}

#[inline(never)]
fn client_asks(state: &mut Socket, len: u32, begins: bool) -> u64 {
    let Some(global) = config::global() else {
        return 0;
    };
    let owner = Owner::client(state.index);
    let written = OfSystemCall(len);
    if begins {
        state.requests.request_begins(global, owner, written, true);
    } else if state.requests.has_begun() {
        state.requests.request_goes_on(global, owner, written, true);
    } else {
        state.requests.more_is_read(written);
    }
    0
}

/// What was `read` at `now_ns` begins a response, or goes on with one; whether the
/// response to the request under way is still to come.
#[inline(always)]
pub fn is_answered(state: &mut Socket, read: impl Source, now_ns: u64, begins: bool) -> bool {
    let waits = if begins {
        state.requests.waits()
    } else {
        state.requests.has_pending()
    };
    !waits || client_is_answered(state, read.total() as u32, now_ns, begins) == 0
}

/// 1 if the response is still to come.
#[inline(never)]
fn client_is_answered(state: &mut Socket, len: u32, now_ns: u64, begins: bool) -> u64 {
    let Some(global) = config::global() else {
        return 0;
    };
    let read = OfSystemCall(len);
    if begins {
        match state.requests.answer(read, true) {
            Answer::Interim => return 1,
            Answer::None => return 0,
            Answer::Final(outcome) => {
                let Some(event) = event(global, state, now_ns) else {
                    return 0;
                };
                state.requests.ends(global, state.index, outcome, event);
            }
        }
    }
    if state.requests.has_pending()
        && let Some(charge) = charge_of_request(state, now_ns)
    {
        state.requests.others_answered(read, begins, charge);
    }
    0
}

/// The request under way, if it ended at `now_ns` and its service is still there.
#[inline(always)]
fn event(global: &GlobalConfig, state: &Socket, now_ns: u64) -> Option<Event> {
    Charged::cached(state.index, state.generation)?;
    if state.request_ns < global.resumed_ns {
        return None;
    }
    Some(Event {
        signal: Signal::ClientRequest as u32,
        value_ns: now_ns.checked_sub(state.request_ns)?,
        weight: state.weight,
    })
}
