//! What the requests of a connection are for and how they ended, from the
//! buffers that they are read to and written from.
//!
//! The protocol of a connection is told by the first bytes of a request and
//! confirmed by its response; then it stays. A connection whose requests are of
//! none that is known is not looked at any more.

use sensor_common::{
    http::{self, METHOD_LEN_MAX, Method, STATUS_LEN, shape},
    kafka,
    postgresql::is_start,
    protocol::{self, detect},
    record::{GlobalConfig, Loss},
    redis,
    route::{NO_ROUTE, Owner, RouteKey, has_path},
};

use crate::{
    histogram::Event,
    http1,
    http2::{self, Transfer},
    loss,
    pipeline::{self, Charge},
    route::{self, Lessons, METHOD_LEN, Outcome},
    scan,
    user_buffer::{Source, UserBuffer},
};

/// What is kept with a connection.
#[repr(C)]
pub struct Requests {
    /// Of the request under way: the shape of its path, or what its response
    /// begins with; while `begun` is not 0 its first bytes, from the most
    /// significant one on.
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
    /// So many bytes were read, too few to tell: Go's server reads the first
    /// byte of a request on its own.
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
            // From now on its exchanges are timed, as those of any connection.
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

    #[inline(always)]
    fn read_request(
        &mut self,
        global: &GlobalConfig,
        owner: Owner,
        received: impl Source,
        all: bool,
    ) -> Option<()> {
        let Some(buffer) = received.buffer() else {
            loss::count(Loss::BufferUnknown);
            return None;
        };
        if all && self.is_cut && self.read_rest(owner, buffer).is_some() {
            return Some(());
        }
        let begun = u32::from(self.begun);
        let line = route::line_buffer()?;
        let (head, read) = buffer.fill_line(line)?;
        let head = self.shape | head >> (8 * (begun & 7));
        if begun + read < METHOD_LEN_MAX as u32 && !self.is_short(head) {
            self.shape = head;
            self.begun = (begun + read) as u8;
            return Some(());
        }
        self.begun = 0;
        self.slot = NO_ROUTE;
        if let Some(method) = http::method(head.to_be_bytes()) {
            self.protocol = protocol::HTTP;
            self.read_http(global, owner, (method, begun, read), buffer)?;
            if all && self.method != 0 {
                self.read_others(method.0, owner, buffer);
            }
            return Some(());
        }
        if !all {
            return None;
        }
        if begun != 0 {
            return self.read_kafka(owner, head, begun, buffer);
        }
        if self.protocol == protocol::UNKNOWN || self.protocol == protocol::HTTP {
            self.protocol = detect(head, buffer.len() as u32);
            if self.protocol == protocol::HTTP2 {
                // Later than a connection begins: it is not followed.
                self.protocol = protocol::UNKNOWN;
            }
        }
        match self.protocol {
            protocol::REDIS => self.read_redis(owner, buffer),
            protocol::POSTGRESQL => {
                if !is_start(head)
                    && let Some(verb) = scan::verb((head >> 56) as u8, read)
                {
                    self.method = owner.method(protocol::POSTGRESQL, verb);
                }
                Some(())
            }
            protocol::KAFKA => self.read_kafka(owner, head, begun, buffer),
            _ => None,
        }
    }

    /// Whether less than eight bytes are a request, or none that goes on.
    #[inline(always)]
    fn is_short(&self, head: u64) -> bool {
        self.protocol == protocol::REDIS
            || self.protocol == protocol::POSTGRESQL
            || redis::is_inline(head)
    }

    #[inline(always)]
    fn read_http(
        &mut self,
        global: &GlobalConfig,
        owner: Owner,
        ((number, method_len), begun, read): ((u8, u32), u32, u32),
        buffer: UserBuffer,
    ) -> Option<()> {
        let Some(offset) = method_len.checked_sub(begun) else {
            loss::count(Loss::RequestIncomplete);
            return Some(());
        };
        let service = owner.service;
        let line = route::line_buffer()?;
        let path = &mut line.path;
        let len = if offset == METHOD_LEN as u32 {
            read as usize - METHOD_LEN
        } else {
            buffer.fill(u64::from(offset), &mut path.bytes)?
        };
        let shape = shape_of_line(len as u64, service, route::lesson_bits(global, service));
        if shape == 0 {
            return None;
        }
        let path = &line.path;
        if path.is_whole == 0 && len < path.bytes.len() {
            loss::count(Loss::RequestIncomplete);
            return Some(());
        }
        let key = RouteKey {
            shape,
            service,
            method: owner.method(protocol::HTTP, u16::from(number)),
        };
        self.slot = route::find(global, &key, path);
        self.shape = shape;
        self.method = key.method;
        Some(())
    }

    /// The requests of HTTP/1.1 that were read with the first one, whose method is
    /// `number`. They are looked for where there is more than one usually has.
    #[inline(always)]
    fn read_others(&mut self, number: u8, owner: Owner, buffer: UserBuffer) {
        let len = buffer.len().min(u64::from(u16::MAX)) as u16;
        let usual = u32::from(self.usual_len);
        if u32::from(len) < usual + usual / 2 {
            self.usual_len = self.usual_len.min(len);
            return;
        }
        // What is more than usual is the body.
        let has_body = number == Method::Post as u8
            || number == Method::Put as u8
            || number == Method::Patch as u8;
        if has_body && usual != 0 {
            return;
        }
        let found = http1::requests(buffer, owner, 0);
        self.usual_len = if found.count > 1 || found.is_cut {
            len / (found.count as u16 + 1)
        } else {
            len
        };
        self.others_wait(&found);
    }

    /// The rest of the request that the last read ended in, and what follows it;
    /// `None` if it does not go on.
    #[inline(always)]
    fn read_rest(&mut self, owner: Owner, buffer: UserBuffer) -> Option<()> {
        self.is_cut = false;
        let found = http1::requests(buffer, owner, self.id);
        if found.count == 0 && !found.is_cut {
            return None;
        }
        if found.count != 0 {
            let first = scan::current()?.waiting[0];
            (self.shape, self.method) = (first.shape, first.method);
            self.slot = NO_ROUTE;
        }
        self.others_wait(&found);
        Some(())
    }

    #[inline(always)]
    fn others_wait(&mut self, found: &http1::Requests) {
        if found.count > 1 {
            self.pending = pipeline::begin_http(&mut self.id, found.count);
            (self.answered, self.in_order) = (0, true);
        }
        if found.is_cut {
            self.is_cut = http1::part_waits(pipeline::id(&mut self.id));
        }
    }

    #[inline(always)]
    fn read_redis(&mut self, owner: Owner, buffer: UserBuffer) -> Option<()> {
        let found = scan::commands(buffer);
        if found.count == 0 {
            return None;
        }
        self.method = owner.method(protocol::REDIS, found.first);
        if found.count > 1 {
            self.pending = pipeline::begin(&mut self.id, found.count, owner.side_bit)?;
            (self.answered, self.in_order) = (0, true);
        }
        Some(())
    }

    /// Of which `begun` bytes, the size, were read before.
    #[inline(always)]
    fn read_kafka(
        &mut self,
        owner: Owner,
        head: u64,
        begun: u32,
        buffer: UserBuffer,
    ) -> Option<()> {
        if !kafka::begins(head, begun + buffer.len() as u32) {
            return None;
        }
        let mut correlation = [0; 4];
        if buffer.fill(u64::from(8 - (begun & 7)), &mut correlation)? < correlation.len() {
            return None;
        }
        self.protocol = protocol::KAFKA;
        self.method = owner.method(protocol::KAFKA, kafka::api(head));
        self.shape = u64::from(u32::from_be_bytes(correlation));
        Some(())
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
            // Clients read the size on its own.
            protocol::KAFKA if self.begun == 0 && buffer.len() == 4 => {
                self.begun = 4;
                return Answer::Interim;
            }
            // Which error a response has depends on its API and version.
            protocol::KAFKA => {
                let place = if core::mem::take(&mut self.begun) == 0 {
                    0
                } else {
                    32
                };
                begin(buffer)
                    .filter(|head| (*head >> place) as u32 == self.shape as u32)
                    .map(|_| Outcome::of_class(2))
            }
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

impl Requests {
    /// Whether requests wait that were read with one that is answered.
    #[inline(always)]
    pub fn has_pending(&self) -> bool {
        self.pending != 0
    }

    /// Counts the requests behind the first one whose responses begin in what
    /// is `sent`, which `begins` with the response to the first one or not.
    #[inline(always)]
    pub fn others_answered(&mut self, sent: impl Source, begins: bool, charge: Charge) {
        if !self.in_order {
            return;
        }
        let is_http = self.protocol == protocol::HTTP;
        let Some(buffer) = sent.buffer() else {
            // Of HTTP it may be a body, and responses are found by their begin.
            self.in_order = is_http;
            return;
        };
        let before = u32::from(begins);
        let pending = u32::from(self.pending);
        let found = if is_http {
            http1::responses(buffer, pending + before)
        } else {
            let replies = scan::replies(buffer, pending + before);
            self.in_order = replies.is_whole;
            replies.count
        };
        let count = found.saturating_sub(before);
        if count == 0 || count > pending {
            return;
        }
        let first = u32::from(self.answered) + 1;
        pipeline::answered(self.id, (first, before, count), charge);
        self.pending -= count as u8;
        self.answered += count as u8;
    }

    /// Counts what still waits, without knowing how it ended.
    #[inline(always)]
    pub fn give_up_pending(&mut self, charge: Charge) {
        scan::unknown();
        let first = u32::from(self.answered) + 1;
        pipeline::answered(self.id, (first, 0, u32::from(self.pending)), charge);
        self.pending = 0;
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

/// The hash of the shape of the path in the line buffer, of which `len` bytes are
/// valid, 0 if it is none; its length goes to the buffer.
///
/// A function of its own with numbers as arguments, so that the verifier walks
/// through the loop once, and not once for every way that leads here.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn shape_of_line(len: u64, service: u32, lesson_bits: u64) -> u64 {
    let Some(line) = route::line_buffer() else {
        return 0;
    };
    let path = &mut line.path;
    let lessons = Lessons {
        service,
        bits: lesson_bits,
    };
    let Some(shape) = shape(&path.bytes, len as usize, &lessons) else {
        return 0;
    };
    path.len = shape.len;
    path.is_whole = u32::from(shape.is_whole);
    shape.hash
}
