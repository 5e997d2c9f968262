//! What the first bytes of a request say, by protocol.

use sensor_common::{
    http::{self, METHOD_LEN_MAX, Method, shape},
    kafka,
    postgresql::is_start,
    protocol::{self, detect},
    record::{GlobalConfig, Loss},
    redis,
    route::{NO_ROUTE, Owner, RouteKey},
};

use super::Requests;
use crate::{
    http1, loss, pipeline,
    route::{self, Lessons, METHOD_LEN},
    scan,
    user_buffer::{Source, UserBuffer},
};

impl Requests {
    #[inline(always)]
    pub(super) fn read_request(
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
        let total = received.total() as u32;
        if begun != 0 {
            return self.read_kafka(owner, (head, begun), total, buffer);
        }
        if self.protocol == protocol::UNKNOWN || self.protocol == protocol::HTTP {
            self.protocol = detect(head, total);
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
            protocol::KAFKA => self.read_kafka(owner, (head, begun), total, buffer),
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

    /// Of which `begun` bytes, the size, were read before, and `total` now.
    #[inline(always)]
    fn read_kafka(
        &mut self,
        owner: Owner,
        (head, begun): (u64, u32),
        total: u32,
        buffer: UserBuffer,
    ) -> Option<()> {
        if !kafka::begins(head, begun + total) {
            return None;
        }
        let mut correlation = [0; 4];
        if buffer.fill(u64::from(8 - (begun & 7)), &mut correlation)? < correlation.len() {
            return None;
        }
        self.protocol = protocol::KAFKA;
        self.method = owner.method(protocol::KAFKA, kafka::api(head));
        let correlation = u64::from(u32::from_be_bytes(correlation));
        // API and version are the lower half of the begin.
        self.shape = head << 32 | correlation;
        Some(())
    }
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
