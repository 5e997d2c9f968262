//! What is kept with each socket, and where.

use aya_ebpf::{macros::map, maps::Array};
use sensor_common::{Signal, record::Loss};

use super::is_tcp;
use crate::{
    config::{self, Draw},
    kernel::{OFFSET_SOCK_NUM, OFFSET_TCP_SRTT, Object, load, tcp_sock},
    loss,
    peers::Peer,
    probes::unix,
    requests::Requests,
    storage::SocketStorage,
    tls::Tls,
};

#[unsafe(link_section = ".maps")]
#[unsafe(export_name = "SOCKETS")]
pub static SOCKETS: SocketStorage<Socket> = SocketStorage::new();

/// Where the state of a socket is kept.
pub trait Sockets {
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
pub struct InStorage;

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
pub struct WithRequests<const ALL: bool>;

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
pub static LISTENING_PORTS: Array<u64> = Array::with_max_entries(65_536 / 64, 0);

/// What is kept with each socket.
#[repr(C)]
pub struct Socket {
    /// Server: when data of the next request arrived, or [`NOT_SAMPLED`]. Client:
    /// when it connected.
    pub ready_ns: u64,
    pub request_ns: u64,
    pub read_ns: u64,
    /// Last send (server) or read (client) of the response.
    pub last_ns: u64,
    /// Weight of the exchange under way; 0 when it is not sampled.
    pub weight: u32,
    pub index: u32,
    pub generation: u32,
    pub phase: u8,
    pub role: u8,
    /// Exchanges until the round-trip time is counted again.
    pub rtt_in: u8,
    /// Sampling shift that the next request passed when it was ready.
    pub ready_shift: u8,
    /// End of what was transmitted so far (see `tcp_packets`).
    pub transmitted: u32,
    /// Whether the exchange under way needs nothing but its phase, see
    /// [`passes_by`](Self::passes_by).
    pub passes: bool,
    pub requests: Requests,
    pub peer: Peer,
    pub tls: Tls,
}

impl Socket {
    /// Nothing known yet.
    pub const NEW: Socket = Socket {
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
    pub fn passes_by(&mut self, is_read: bool) -> bool {
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
            let draw =
                global.and_then(|global| Draw::first_stage(global, Signal::ClientRequest as u32));
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
    pub fn note_whether_passes(&mut self) {
        self.passes = self.weight == 0 && !self.tls.is_possible() && self.requests.is_idle();
    }
}

pub mod phase {
    /// Nothing seen yet, or older than the sensor.
    pub const IDLE: u8 = 0;
    pub const REQUEST: u8 = 1;
    pub const RESPONSE: u8 = 2;
}

pub mod role {
    pub const UNKNOWN: u8 = 0;
    pub const SERVER: u8 = 1;
    pub const CLIENT: u8 = 2;
}

/// In place of the time when data was ready.
pub const NOT_SAMPLED: u64 = 1;

/// Client, likewise: the request that begins passed the first stage.
pub const DRAWN: u64 = 1;

/// A response of an exchange that is not sampled, or of none.
#[inline(always)]
pub fn response_is_not_sampled(state: &mut Socket) {
    if state.phase == phase::REQUEST {
        state.phase = phase::RESPONSE;
        state.ready_ns = 0;
    }
}

/// In place of exchanges, for what has no round-trip time.
pub const NO_ROUND_TRIP: u8 = u8::MAX;

/// The state of a TCP or Unix stream socket, which is `existing` if it has one; a
/// TCP connection older than the sensor gets its role from the ports that were
/// listening then.
#[inline(always)]
pub unsafe fn get_or_create<S: Sockets>(
    socket: Object,
    existing: Option<&'static mut Socket>,
) -> Option<&'static mut Socket> {
    // SAFETY: the caller passes a socket of a tracepoint.
    unsafe {
        if let Some(state) = existing
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
pub fn is_listening(port: u16) -> bool {
    match LISTENING_PORTS.get(u32::from(port) / 64) {
        Some(bits) => bits >> (port % 64) & 1 != 0,
        None => false,
    }
}
