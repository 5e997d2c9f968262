//! What the requests of a connection are for and how they ended, from the
//! buffers that they are read to and written from.
//!
//! The protocol of a connection is told by the first bytes of a request and
//! confirmed by its response; then it stays. A connection whose requests are of
//! none that is known is not looked at any more.

use sensor_common::{
    http::{self, STATUS_LEN},
    kafka::{RESPONSE_HEAD_LEN, SIZE_LEN},
    protocol,
    record::{GlobalConfig, Loss},
    redis,
    route::{Owner, RouteKey, has_path},
};

pub use self::reading::shape_of_line;
use crate::{
    histogram::Event,
    http1,
    http2::{self, Transfer},
    kafka, loss,
    route::{self, Outcome},
    scan,
    user_buffer::{Source, UserBuffer},
};

mod reading;
mod waiting;

/// What is kept with a connection.
#[repr(C)]
pub struct Requests {
    /// Of the request under way: the shape of its path, or (Kafka) the id that its
    /// response begins with and, above, for which API in which version it is; while
    /// a request has only `begun` its first bytes, from the most significant one on.
    shape: u64,
    /// Name of the connection in maps, 0 until it needs one.
    id: u64,
    /// The route of the request under way when it began.
    slot: u32,
    /// As in [`RouteKey`]; 0 if the request under way is none, or not known to
    /// be one yet.
    method: u32,
    /// Of [`mod@protocol`].
    protocol: u8,
    /// So many bytes were read, too few to tell: Go's server reads the first byte
    /// of a request on its own, clients of Kafka the head of a response.
    begun: u8,
    /// Requests in a row that were none.
    misses: u8,
    /// Requests that were read with the one under way and wait for their
    /// responses.
    pending: u8,
    /// Those of them that were answered.
    answered: u8,
    /// Whether the next response begins the next write.
    in_order: bool,
    /// Whether a request was looked at.
    is_old: bool,
    /// Whether the last read ended within a request that is not the one under
    /// way, of HTTP/1.1.
    is_cut: bool,
    /// Bytes of a request of HTTP/1.1 as far as they are known: so many are one
    /// request, half as many more may be two.
    usual_len: u16,
}

/// What a response said.
#[derive(Clone, Copy)]
pub enum Answer {
    /// The request is none, or the response is none of it.
    None,
    /// The response is still to come (RFC 9110, 15.2).
    Interim,
    /// The request ended.
    Final(Outcome),
}

/// Where the head of a response of Kafka ends.
enum KafkaHead {
    /// With what was read, or later.
    Alone,
    /// At this place of what was read.
    EndsAt(u32),
}

/// The connection changes to another protocol (RFC 9110, 15.2.2).
const SWITCHING_PROTOCOLS: u32 = 101;
/// After so many requests in a row that are of no protocol, none is.
const MISSES_MAX: u8 = 4;

impl Requests {
    /// Nothing known yet.
    pub const NEW: Requests = Requests {
        shape: 0,
        id: 0,
        slot: 0,
        method: 0,
        protocol: protocol::UNKNOWN,
        begun: 0,
        misses: 0,
        pending: 0,
        answered: 0,
        in_order: false,
        is_old: false,
        is_cut: false,
        usual_len: 0,
    };

    /// A request of `owner` begins with what was `received`, or sent by a client;
    /// of HTTP/1.1 unless `all` protocols are wanted.
    #[inline(always)]
    pub fn request_begins(
        &mut self,
        global: &GlobalConfig,
        owner: Owner,
        received: impl Source,
        all: bool,
    ) {
        self.method = 0;
        self.pending = 0;
        if self.begun != 0 {
            // All of the last request was too short for one of any protocol.
            self.begun = 0;
            self.miss();
        }
        if global.routes_per_service == 0 || self.protocol == protocol::NONE {
            return;
        }
        self.shape = 0;
        self.request_goes_on(global, owner, received, all);
    }

    /// Looks whether the first request of the connection is the begin of HTTP/2,
    /// which is followed from then on, sampled or not.
    #[inline(always)]
    pub fn begins(&mut self, global: &GlobalConfig, request: impl Source) -> Option<()> {
        if self.is_old {
            return None;
        }
        self.is_old = true;
        if global.routes_per_service != 0
            && begin(request.buffer()?)? == u64::from_be_bytes(*b"PRI * HT")
        {
            self.protocol = protocol::HTTP2;
            http2::begin(&mut self.id);
        }
        Some(())
    }

    /// Whether the connection is of HTTP/2: then only
    /// [`transfer`](Self::transfer) is to be called.
    #[inline(always)]
    pub fn is_http2(&self) -> bool {
        self.protocol == protocol::HTTP2
    }

    /// Whether nothing is known that what follows a request may change.
    #[inline(always)]
    pub fn is_idle(&self) -> bool {
        self.protocol != protocol::HTTP2 && self.begun == 0 && self.pending == 0 && !self.is_cut
    }

    /// What a connection of HTTP/2 carries.
    #[inline(always)]
    pub fn transfer(&mut self, transfer: &Transfer) {
        if !http2::transfer(self.id, transfer) {
            self.end_following();
        }
    }

    /// Not all of what a connection of HTTP/2 carries was seen: its exchanges are
    /// timed from now on, as those of any connection.
    #[inline(always)]
    pub fn end_following(&mut self) {
        if self.is_http2() {
            self.protocol = protocol::NONE;
        }
    }

    /// Forgets the request under way, which is not sampled.
    #[inline(always)]
    pub fn forget_request(&mut self) {
        (self.method, self.pending, self.begun) = (0, 0, 0);
        self.is_cut = false;
    }

    #[inline(always)]
    fn miss(&mut self) {
        self.misses += 1;
        if self.misses >= MISSES_MAX {
            self.protocol = protocol::NONE;
        }
    }

    /// Whether [`request_goes_on`](Self::request_goes_on) is to be called.
    #[inline(always)]
    pub fn has_begun(&self) -> bool {
        self.method == 0 && (self.begun != 0 || self.is_cut)
    }

    /// Whether [`answer`](Self::answer) is to be asked about a response.
    #[inline(always)]
    pub fn waits(&self) -> bool {
        self.method != 0
    }

    /// More was read before the request under way was answered; of `all` protocols
    /// if a request that is cut goes on.
    #[inline(always)]
    pub fn more_is_read(&mut self, received: impl Source) {
        if self.is_cut {
            self.is_cut = received
                .buffer()
                .is_some_and(|buffer| http1::part_goes_on(self.id, buffer));
            if !self.is_cut {
                loss::count(Loss::RequestIncomplete);
            }
        }
    }

    /// What was read last, and what this says of it, is not to be looked at.
    #[inline(always)]
    pub fn take_cut(&mut self) -> bool {
        core::mem::take(&mut self.is_cut)
    }

    #[inline(always)]
    pub fn put_cut(&mut self, is_cut: bool) {
        self.is_cut = is_cut;
    }

    /// The next bytes of a request that too little was read of.
    #[inline(always)]
    pub fn request_goes_on(
        &mut self,
        global: &GlobalConfig,
        owner: Owner,
        received: impl Source,
        all: bool,
    ) {
        if self.read_request(global, owner, received, all).is_none() {
            self.begun = 0;
            self.miss();
        }
    }

    /// How the request under way ended, by the begin of what is `sent`, or received
    /// by a client.
    #[inline(always)]
    pub fn answer(&mut self, sent: impl Source, all: bool) -> Answer {
        if self.method == 0 {
            return Answer::None;
        }
        let Some(buffer) = sent.buffer() else {
            loss::count(Loss::BufferUnknown);
            return Answer::Final(Outcome::of_status(0));
        };
        let outcome = match self.protocol {
            protocol::HTTP => match http_status(buffer) {
                Some(SWITCHING_PROTOCOLS) => {
                    self.protocol = protocol::NONE;
                    (self.pending, self.is_cut) = (0, false);
                    return Answer::Final(Outcome::of_status(SWITCHING_PROTOCOLS));
                }
                Some(100..200) => return Answer::Interim,
                status => status.map(Outcome::of_status),
            },
            _ if !all => None,
            protocol::REDIS => begin(buffer)
                .and_then(redis::outcome)
                .map(Outcome::of_class),
            protocol::POSTGRESQL => scan::postgresql_outcome(buffer).map(Outcome::of_class),
            protocol::KAFKA => match self.kafka_head(buffer, sent.total()) {
                Some(KafkaHead::Alone) => return Answer::Interim,
                Some(KafkaHead::EndsAt(place)) => {
                    let request = (self.shape >> 32) as u32;
                    Some(Outcome::of_class(kafka::class(buffer, request, place)))
                }
                None => None,
            },
            _ => None,
        };
        match outcome {
            Some(outcome) => {
                self.misses = 0;
                Answer::Final(outcome)
            }
            None => {
                self.method = 0;
                self.pending = 0;
                self.miss();
                Answer::None
            }
        }
    }

    /// The head of a response of Kafka, if this is one, of `total` bytes: clients read
    /// the head on its own, or half of it.
    #[inline(always)]
    fn kafka_head(&mut self, buffer: UserBuffer, total: u64) -> Option<KafkaHead> {
        let begun = u32::from(core::mem::take(&mut self.begun));
        if begun == RESPONSE_HEAD_LEN {
            return Some(KafkaHead::EndsAt(0));
        }
        if begun == 0 && total == u64::from(SIZE_LEN) {
            self.begun = SIZE_LEN as u8;
            return Some(KafkaHead::Alone);
        }
        let (id_behind, end) = if begun == 0 {
            (0, RESPONSE_HEAD_LEN)
        } else {
            (32, RESPONSE_HEAD_LEN - SIZE_LEN)
        };
        if (begin(buffer)? >> id_behind) as u32 != self.shape as u32 {
            return None;
        }
        if total == u64::from(end) {
            self.begun = RESPONSE_HEAD_LEN as u8;
            return Some(KafkaHead::Alone);
        }
        Some(KafkaHead::EndsAt(end))
    }

    /// Counts the request under way, which is `event`.
    #[inline(always)]
    pub fn ends(&mut self, global: &GlobalConfig, service: u32, outcome: Outcome, event: Event) {
        let key = RouteKey {
            shape: if has_path(self.method) { self.shape } else { 0 },
            service,
            method: self.method,
        };
        self.method = 0;
        route::record(global, &key, self.slot, outcome, event);
    }
}

/// The status of the response that `buffer` begins with, 0 if it is not known;
/// `None` if it is no response of HTTP.
#[inline(always)]
fn http_status(buffer: UserBuffer) -> Option<u32> {
    let mut line = [0; STATUS_LEN];
    let len = buffer.fill(0, &mut line)?;
    if len < STATUS_LEN && line[..4] == *b"HTTP" {
        loss::count(Loss::RequestIncomplete);
        return Some(0);
    }
    http::status(line)
}

/// The first eight bytes, zeros behind what there is.
#[inline(always)]
fn begin(buffer: UserBuffer) -> Option<u64> {
    let mut head = [0; 8];
    buffer.fill(0, &mut head)?;
    Some(u64::from_be_bytes(head))
}
