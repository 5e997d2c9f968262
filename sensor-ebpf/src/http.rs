//! Method, path and status of the HTTP/1.1 requests that a server answers, from
//! the buffers that they are read to and written from.
//!
//! Two small reads at most when a request begins, one when its response does.
//! What follows the `?` of a path, headers and bodies are not read. A request
//! counts as one of HTTP only if its response begins as HTTP does.

use sensor_common::{
    http::{METHOD_LEN_MAX, STATUS_LEN, method, shape, status},
    record::{GlobalConfig, Loss},
    route::RouteKey,
};

use crate::{
    histogram::Event,
    loss,
    route::{self, Lessons, METHOD_LEN},
    user_buffer::Source,
};

/// What is kept with a connection.
#[repr(C)]
pub struct Http {
    /// Of the request under way; while `begun` is not 0 its first bytes, from
    /// the most significant one on.
    shape: u64,
    /// Its route when it began.
    slot: u32,
    /// 0 if the request under way is none of HTTP, or not known to be one yet.
    method: u8,
    /// So many bytes were read, too few to tell: Go's server reads the first
    /// byte of a request on its own.
    begun: u8,
    /// Requests in a row that were none.
    misses: u16,
}

/// The status of the response that begins with `sent`, 0 if it is not known;
/// `None` if it is no response of HTTP.
#[inline(always)]
fn read_status(sent: impl Source) -> Option<u32> {
    let Some(buffer) = sent.buffer() else {
        loss::count(Loss::BufferUnknown);
        return Some(0);
    };
    let mut line = [0; STATUS_LEN];
    let len = buffer.fill(0, &mut line)?;
    if len < STATUS_LEN && line[..4] == *b"HTTP" {
        loss::count(Loss::RequestIncomplete);
        return Some(0);
    }
    status(line)
}

/// The hash of the shape of the path in the line buffer, of which `len` bytes are
/// valid, 0 if it is none; its length goes to the buffer.
///
/// A function of its own with numbers as arguments, so that the verifier walks
/// through the loop once, and not once for every way that leads here.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn shape_of_line(len: u64, service: u32, lesson_bits: u64) -> u64 {
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

/// After so many requests in a row that are not HTTP, none of the connection is.
const MISSES_MAX: u16 = 4;
/// The connection changes to another protocol (RFC 9110, 15.2.2).
const SWITCHING_PROTOCOLS: u32 = 101;

impl Http {
    /// Nothing known yet.
    pub const NEW: Http = Http {
        shape: 0,
        slot: 0,
        method: 0,
        begun: 0,
        misses: 0,
    };

    /// A request to the service at `service` begins with what was `received`.
    #[inline(always)]
    pub fn request_begins(&mut self, global: &GlobalConfig, service: u32, received: impl Source) {
        self.method = 0;
        if self.begun != 0 {
            // All of the last request was too short for one of HTTP.
            self.begun = 0;
            self.misses += 1;
        }
        if global.routes_per_service == 0 || self.misses >= MISSES_MAX {
            return;
        }
        self.shape = 0;
        self.request_goes_on(global, service, received);
    }

    /// Whether [`request_goes_on`](Self::request_goes_on) is to be called.
    #[inline(always)]
    pub fn has_begun(&self) -> bool {
        self.begun != 0
    }

    /// The next bytes of a request that too little was read of.
    #[inline(always)]
    pub fn request_goes_on(&mut self, global: &GlobalConfig, service: u32, received: impl Source) {
        if self.read_request(global, service, received).is_none() {
            self.begun = 0;
            self.misses += 1;
        }
    }

    #[inline(always)]
    fn read_request(
        &mut self,
        global: &GlobalConfig,
        service: u32,
        received: impl Source,
    ) -> Option<()> {
        let Some(buffer) = received.buffer() else {
            loss::count(Loss::BufferUnknown);
            return None;
        };
        let begun = u32::from(self.begun);
        let line = route::line_buffer()?;
        let (head, read) = buffer.fill_line(line)?;
        let head = self.shape | head >> (8 * (begun & 7));
        if begun + read < METHOD_LEN_MAX as u32 {
            self.shape = head;
            self.begun = (begun + read) as u8;
            return Some(());
        }
        self.begun = 0;
        let (method, method_len) = method(head.to_be_bytes())?;
        let Some(offset) = method_len.checked_sub(begun) else {
            loss::count(Loss::RequestIncomplete);
            return Some(());
        };
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
            method: u32::from(method),
        };
        self.slot = route::find(global, &key, path);
        self.shape = shape;
        self.method = method;
        Some(())
    }

    /// The response begins with what is `sent`; `event` is the request.
    #[inline(always)]
    pub fn response_begins(
        &mut self,
        global: &GlobalConfig,
        service: u32,
        sent: impl Source,
        event: Event,
    ) {
        if self.method == 0 {
            return;
        }
        let key = RouteKey {
            shape: self.shape,
            service,
            method: u32::from(self.method),
        };
        self.method = 0;
        let Some(status) = read_status(sent) else {
            self.misses += 1;
            return;
        };
        self.misses = if status == SWITCHING_PROTOCOLS {
            MISSES_MAX
        } else {
            0
        };
        route::record(global, &key, self.slot, status, event);
    }
}
