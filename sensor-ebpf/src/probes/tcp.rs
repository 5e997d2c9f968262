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
//! are seen and routes are wanted, [`Requests`] looks at the begin of what a server
//! reads and writes; whatever it finds, exchanges are timed all the same. Of TLS
//! connections [`Tls`] says what of the bytes is an exchange.

use aya_ebpf::{
    macros::{btf_tracepoint, map},
    maps::Array,
    programs::BtfTracePointContext,
};
use sensor_common::{
    Signal,
    peer::ServiceRef,
    record::{GlobalConfig, Loss},
};

use crate::{
    config::{self, Draw, SignalNumber},
    histogram::{Event, record},
    http2::Transfer,
    kernel::{
        OFFSET_SOCK_FAMILY, OFFSET_SOCK_NUM, OFFSET_SOCK_PROTOCOL, OFFSET_TCP_READ,
        OFFSET_TCP_RECEIVED, OFFSET_TCP_SRTT, Object, current_task, load, now_ns, tcp_sock,
    },
    loss,
    peers::Peer,
    pipeline::Charge,
    probes::tcp_packets::ByAddress,
    probes::{udp, unix},
    requests::{Answer, Requests},
    service::{self, Charged},
    storage::SocketStorage,
    tls::Tls,
    user_buffer::{OfSystemCall, Source, UserBuffer},
};

#[unsafe(link_section = ".maps")]
#[unsafe(export_name = "SOCKETS")]
static SOCKETS: SocketStorage<Socket> = SocketStorage::new();

/// Where the state of a socket is kept.
pub(super) trait Sockets {
    /// Whether requests are looked at: only where the task that receives or
    /// sends is the current one.
    const READS_REQUESTS: bool = false;
    /// Whether Unix sockets are seen as well.
    const SEES_UNIX: bool = true;
    /// Whether those of other protocols than HTTP/1.1 are, too.
    const READS_ALL: bool = false;

    /// The state of `socket` if it has one.
    ///
    /// # Safety
    /// `socket` must be a socket of a tracepoint.
    unsafe fn existing(socket: Object) -> Option<&'static mut Socket>;

    /// The state of `socket`, made (zeroed) if it has none. A failure is counted.
    ///
    /// # Safety
    /// As [`Self::existing`].
    unsafe fn create(socket: Object) -> Option<&'static mut Socket>;

    /// `srtt_us`: eight times the smoothed round-trip time in microseconds.
    ///
    /// # Safety
    /// As [`Self::existing`]; it must be a TCP socket.
    unsafe fn smoothed_rtt(socket: Object) -> Option<u32>;
}

/// With the socket, by the kernel itself.
struct InStorage;

impl Sockets for InStorage {
    #[inline(always)]
    unsafe fn existing(socket: Object) -> Option<&'static mut Socket> {
        // SAFETY: the caller's promise; the socket's lock, or the one CPU that
        // receives for it, keeps others away.
        unsafe { SOCKETS.get(socket).as_mut() }
    }

    #[inline(always)]
    unsafe fn create(socket: Object) -> Option<&'static mut Socket> {
        // SAFETY: as above.
        let state = unsafe { SOCKETS.get_or_create(socket).as_mut() };
        if state.is_none() {
            loss::count(Loss::StateFull);
        }
        state
    }

    #[inline(always)]
    unsafe fn smoothed_rtt(socket: Object) -> Option<u32> {
        // SAFETY: the caller's promise.
        unsafe {
            let tcp = tcp_sock(socket);
            if tcp.is_null() {
                return None;
            }
            Some(load(tcp, &OFFSET_TCP_SRTT))
        }
    }
}

/// With the socket, requests looked at: those of HTTP/1.1, or `ALL`.
struct WithRequests<const ALL: bool>;

impl<const ALL: bool> Sockets for WithRequests<ALL> {
    const READS_REQUESTS: bool = true;
    const READS_ALL: bool = ALL;

    #[inline(always)]
    unsafe fn existing(socket: Object) -> Option<&'static mut Socket> {
        // SAFETY: the caller's promise.
        unsafe { InStorage::existing(socket) }
    }

    #[inline(always)]
    unsafe fn create(socket: Object) -> Option<&'static mut Socket> {
        // SAFETY: the caller's promise.
        unsafe { InStorage::create(socket) }
    }

    #[inline(always)]
    unsafe fn smoothed_rtt(socket: Object) -> Option<u32> {
        // SAFETY: the caller's promise.
        unsafe { InStorage::smoothed_rtt(socket) }
    }
}

/// One bit per local port that was listening when the sensor started: tells
/// the role of connections that are older.
#[map]
static LISTENING_PORTS: Array<u64> = Array::with_max_entries(65_536 / 64, 0);

/// What is kept with each socket.
#[repr(C)]
pub(super) struct Socket {
    /// Server: when data of the next request arrived, or [`NOT_SAMPLED`]. Client:
    /// when it connected.
    ready_ns: u64,
    request_ns: u64,
    read_ns: u64,
    /// Last send (server) or read (client) of the response.
    last_ns: u64,
    /// Weight of the exchange under way; 0 when it is not sampled.
    weight: u32,
    index: u32,
    generation: u32,
    phase: u8,
    role: u8,
    /// Exchanges until the round-trip time is counted again.
    rtt_in: u8,
    /// Sampling shift that the next request passed when it was ready.
    ready_shift: u8,
    /// End of what was transmitted so far (see `tcp_packets`).
    pub(super) transmitted: u32,
    /// Whether the exchange under way needs nothing but its phase, see
    /// [`passes_by`](Self::passes_by).
    passes: bool,
    requests: Requests,
    peer: Peer,
    tls: Tls,
}

impl Socket {
    /// Nothing known yet.
    pub(super) const NEW: Socket = Socket {
        ready_ns: 0,
        request_ns: 0,
        read_ns: 0,
        last_ns: 0,
        weight: 0,
        index: 0,
        generation: 0,
        phase: phase::IDLE,
        role: role::UNKNOWN,
        rtt_in: 0,
        ready_shift: 0,
        transmitted: 0,
        passes: false,
        requests: Requests::NEW,
        peer: Peer::NEW,
        tls: Tls::NEW,
    };

    /// Whether what was read, or sent, is of an exchange that is not sampled, so
    /// that this is all that is to be done about it: no more than is looked at
    /// here, because most of what is not sampled would cost is code that the
    /// processor has to fetch.
    #[inline(always)]
    fn passes_by(&mut self, is_read: bool) -> bool {
        if !self.passes {
            return false;
        }
        let is_request = is_read == (self.role == role::SERVER);
        if !is_request {
            response_is_not_sampled(self);
            return true;
        }
        if self.phase == phase::REQUEST {
            return true;
        }
        if self.role == role::SERVER {
            if self.ready_ns != NOT_SAMPLED {
                return false;
            }
            self.ready_ns = 0;
        } else {
            let global = config::global();
            let draw = global.and_then(|global| {
                Draw::first_stage(global, Signal::ClientRequest as u32)
            });
            if let Some(draw) = draw {
                self.ready_ns = DRAWN;
                self.ready_shift = draw.first();
                return false;
            }
        }
        self.phase = phase::REQUEST;
        true
    }

    /// A request began: whether what follows may [pass by](Self::passes_by).
    #[inline(always)]
    fn note_whether_passes(&mut self) {
        self.passes = self.weight == 0 && !self.tls.is_possible() && self.requests.is_idle();
    }
}

mod phase {
    /// Nothing seen yet, or older than the sensor.
    pub const IDLE: u8 = 0;
    pub const REQUEST: u8 = 1;
    pub const RESPONSE: u8 = 2;
}

pub(super) mod role {
    pub const UNKNOWN: u8 = 0;
    pub const SERVER: u8 = 1;
    pub const CLIENT: u8 = 2;
}

/// States of `include/net/tcp_states.h`.
pub(super) mod tcp {
    pub const ESTABLISHED: i32 = 1;
    pub const SYN_SENT: i32 = 2;
    pub const SYN_RECV: i32 = 3;
    pub const CLOSE: i32 = 7;
}

/// In place of the time when data was ready.
const NOT_SAMPLED: u64 = 1;
/// Client, likewise: the request that begins passed the first stage.
const DRAWN: u64 = 1;

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
        if S::READS_REQUESTS {
            if let Some(state) = S::existing(socket) {
                if state.passes_by(true) {
                    return Some(());
                }
            } else if S::READS_ALL && udp::is_udp(socket) {
                return udp::received(socket, length as u32, flags);
            }
        }
        on_receive::<S>(socket, OfSystemCall(length as u32))
    }
}

/// Something was read.
#[inline(always)]
pub(super) unsafe fn on_receive<S: Sockets>(socket: Object, read: impl Source) -> Option<()> {
    // SAFETY: the caller passes a socket of a tracepoint.
    unsafe {
        let state = get_or_create::<S>(socket)?;
        if state.role == role::SERVER {
            if S::READS_ALL && !state.tls.is_on() && follows_http2(state, read, true).is_some() {
                return Some(());
            }
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
                state
                    .requests
                    .request_goes_on(global, state.index, read, all);
            } else if S::READS_ALL && !state.tls.is_on() {
                state.requests.more_is_read(read);
            }
            if S::READS_REQUESTS && state.tls.is_on() {
                state.tls.received(state.index, state.weight != 0);
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
            client_response_begins::<S>(socket, state, now_ns);
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
        if S::READS_REQUESTS {
            if let Some(state) = S::existing(socket) {
                if state.passes_by(false) {
                    return Some(());
                }
            } else if S::READS_ALL && udp::is_udp(socket) {
                return udp::sent(socket, length as u32);
            }
        }
        let state = get_or_create::<S>(socket)?;
        sent::<S>(socket, state, OfSystemCall(length as u32))
    }
}

/// Whether `bytes` of the side that makes requests may begin one: of a TLS
/// connection, some of what is sent is for the connection itself.
#[inline(always)]
fn may_begin_request(state: &mut Socket, bytes: impl Source) -> bool {
    !state.tls.is_possible() || state.tls.request_begins(bytes, state.role == role::SERVER)
}

/// What was read was no request; what is still to be read may be one, and then
/// arrived not much later.
#[inline(always)]
unsafe fn no_request_begins(socket: Object, state: &mut Socket) {
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

/// Follows what a connection of HTTP/2 carries; `None` if it is none.
#[inline(always)]
fn follows_http2(state: &mut Socket, carried: impl Source, is_request: bool) -> Option<()> {
    if is_request {
        state.requests.begins(config::global()?, carried);
    }
    if !state.requests.is_http2() {
        return None;
    }
    let ready_ns = core::mem::take(&mut state.ready_ns);
    let now_ns = if is_request && ready_ns > NOT_SAMPLED {
        ready_ns
    } else {
        now_ns()
    };
    let Some(charged) = config::global().and_then(|global| charged(global, state)) else {
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
        signal: Signal::ServerRequest as u32,
        side_bit: 0,
    });
    Some(())
}

/// A response of an exchange that is not sampled, or of none.
#[inline(always)]
fn response_is_not_sampled(state: &mut Socket) {
    if state.phase == phase::REQUEST {
        state.phase = phase::RESPONSE;
        state.ready_ns = 0;
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
        if state.role == role::CLIENT {
            if state.phase != phase::REQUEST
                && (!S::READS_REQUESTS || may_begin_request(state, written))
            {
                client_request_begins(state);
                state.note_whether_passes();
                if S::READS_REQUESTS && !state.peer.is_known() && state.index != 0 {
                    let global = config::global()?;
                    state.peer.connected(global, socket, state.index);
                }
            }
            return Some(());
        }
        if S::READS_REQUESTS && state.tls.is_on() {
            if !state.tls.is_response(written) {
                return None;
            }
        } else if S::READS_ALL && follows_http2(state, written, false).is_some() {
            return Some(());
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

/// Responses to requests that were read with the one that is answered.
#[inline(always)]
fn others_answered(
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
fn of_connection<W: Source>(state: &mut Socket, written: W) -> (*mut Requests, Written<W>) {
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
enum Written<W> {
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
fn charge_of_request(state: &Socket, end_ns: u64) -> Option<Charge> {
    if state.request_ns < config::global()?.resumed_ns {
        return None;
    }
    let event = Event {
        signal: Signal::ServerRequest as u32,
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
fn server_request_begins<S: Sockets>(state: &mut Socket, read: impl Source) -> Option<()> {
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
            .request_begins(global, state.index, read, S::READS_ALL);
    }
    Some(())
}

#[inline(always)]
fn give_up_pending(state: &mut Socket) -> Option<()> {
    let charge = charge_of_request(state, state.last_ns)?;
    state.requests.give_up_pending(charge);
    Some(())
}

#[inline(always)]
unsafe fn server_response_begins<S: Sockets>(
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
fn client_request_begins(state: &mut Socket) -> Option<()> {
    let global = config::global()?;
    exchange_ends(global, state, Signal::ClientResponse as u32);
    state.phase = phase::REQUEST;
    if core::mem::take(&mut state.ready_ns) == DRAWN {
        state.weight = 0;
        let config = charged(global, state)?.config(Signal::ClientRequest as u32);
        state.weight = Draw::second_stage(state.ready_shift, config)?;
    } else {
        charge(global, state, Signal::ClientRequest as u32)?;
    }
    state.request_ns = now_ns();
    Some(())
}

#[inline(always)]
unsafe fn client_response_begins<S: Sockets>(
    socket: Object,
    state: &mut Socket,
    now_ns: u64,
) -> Option<()> {
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
fn exchange_ends(global: &GlobalConfig, state: &mut Socket, signal: SignalNumber) -> Option<()> {
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
fn charge(global: &GlobalConfig, state: &mut Socket, signal: SignalNumber) -> Option<()> {
    state.weight = 0;
    let draw = Draw::first_stage(global, signal)?;
    let charged = charged(global, state)?;
    state.weight = draw.passes(charged.config(signal))?;
    Some(())
}

/// Who is charged with what the connection carries.
#[inline(always)]
fn charged(global: &GlobalConfig, state: &mut Socket) -> Option<Charged> {
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
pub(super) fn current_service(global: &GlobalConfig) -> Option<Charged> {
    let task = current_task();
    // SAFETY: the current task is trusted.
    unsafe {
        let state = service::task_state(task)?;
        service::of_task(global, task, state)
    }
}

#[inline(always)]
fn count(
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
fn rtt_ns(smoothed: Option<u32>) -> Option<u64> {
    if smoothed.is_none() {
        loss::count(Loss::ReadError);
    }
    Some(u64::from(smoothed?) * 125)
}

/// Exchanges of a connection per counted round-trip time: it is a mean over
/// about so many segments anyway (RFC 6298: alpha = 1/8).
const EXCHANGES_PER_RTT: u8 = 8;

/// In place of exchanges, for what has no round-trip time.
const NO_ROUND_TRIP: u8 = u8::MAX;

/// Counts the smoothed round-trip time of the connection, in its first
/// exchange and now and then.
#[inline(always)]
unsafe fn round_trip<S: Sockets>(
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

#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn tcp_state(context: BtfTracePointContext) -> i32 {
    let (old, new): (i32, i32) = (context.arg(1), context.arg(2));
    // SAFETY: the socket is the first argument.
    unsafe { on_state::<InStorage>(context.arg(0), old, new) };
    0
}

#[inline(always)]
pub(super) unsafe fn on_state<S: Sockets>(socket: Object, old: i32, new: i32) -> Option<()> {
    // SAFETY: the caller passes a socket of a tracepoint.
    unsafe {
        if !is_tcp(socket) {
            return None;
        }
        match (old, new) {
            (_, tcp::SYN_SENT) => connect_begins(S::create(socket)?),
            (tcp::SYN_SENT, tcp::ESTABLISHED) => {
                let state = S::existing(socket)?;
                if state.index != 0 {
                    let global = config::global()?;
                    state.peer.connected(global, socket, state.index);
                }
                connect_ends(state)
            }
            (tcp::SYN_RECV, tcp::ESTABLISHED) => {
                S::create(socket)?.role = role::SERVER;
                Some(())
            }
            (_, tcp::CLOSE) => connection_ends(S::existing(socket)?),
            _ => None,
        }
    }
}

#[inline(always)]
fn connect_begins(state: &mut Socket) -> Option<()> {
    state.role = role::CLIENT;
    let global = config::global()?;
    // Also where it is not sampled: later, no task is there to tell who connects.
    charged(global, state)?;
    charge(global, state, Signal::TcpConnect as u32)?;
    state.ready_ns = now_ns();
    Some(())
}

#[inline(always)]
fn connect_ends(state: &mut Socket) -> Option<()> {
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
fn connection_ends(state: &mut Socket) -> Option<()> {
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
unsafe fn on_retransmit(socket: Object) -> Option<()> {
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

/// The state of a TCP or Unix stream socket; a TCP connection older than the sensor gets its role
/// from the ports that were listening then.
#[inline(always)]
pub(super) unsafe fn get_or_create<S: Sockets>(socket: Object) -> Option<&'static mut Socket> {
    // SAFETY: the caller passes a socket of a tracepoint.
    unsafe {
        if let Some(state) = S::existing(socket)
            && state.role != role::UNKNOWN
        {
            return Some(state);
        }
        if !is_tcp(socket) {
            if !S::SEES_UNIX {
                return None;
            }
            let role = unix::role(socket)?;
            let state = S::create(socket)?;
            state.role = role;
            state.rtt_in = NO_ROUND_TRIP;
            return Some(state);
        }
        let state = S::create(socket)?;
        let port: u16 = load(socket, &OFFSET_SOCK_NUM);
        state.role = if is_listening(port) {
            role::SERVER
        } else {
            role::CLIENT
        };
        Some(state)
    }
}

#[inline(always)]
fn is_listening(port: u16) -> bool {
    match LISTENING_PORTS.get(u32::from(port) / 64) {
        Some(bits) => bits >> (port % 64) & 1 != 0,
        None => false,
    }
}
