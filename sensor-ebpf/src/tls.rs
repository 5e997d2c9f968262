//! TLS connections: what of the encrypted bytes is a request or a response at
//! all, for any library, and the exchange of plaintext with OpenSSL.
//!
//! The socket tracepoints time an exchange by its encrypted bytes, and know the
//! socket. OpenSSL's functions have the plaintext, and know only their own
//! connection. They meet in the thread: the bytes that a thread read last from a
//! socket are those that OpenSSL decrypts next, and what OpenSSL encrypted last
//! is what the thread sends next. So a request is parsed where OpenSSL returns
//! it, and counted where its response is sent, with the latency that the socket
//! tracepoints measured.

use aya_ebpf::{helpers::bpf_get_current_pid_tgid, macros::map, maps::LruHashMap};
use sensor_common::{
    Signal,
    peer::ServiceRef,
    record::{GlobalConfig, Loss},
    route::Owner,
    tls::{HEADER_LEN, Record, after, answered, stage},
};

use crate::{
    http2::Transfer,
    kernel::{current_task, now_ns},
    loss,
    requests::Requests,
    service::Charged,
    storage::TaskStorage,
    user_buffer::{Source, UserBuffer},
};

/// What is kept with each socket.
#[repr(C)]
pub struct Tls {
    /// Number of the connection, 0 while it is not known to be one of TLS.
    connection: u64,
    /// Bytes of the last record that were not read or sent yet.
    left: u32,
    /// Of [`stage`], of the side that makes requests.
    stage: u8,
    /// Requests that did not begin as TLS does.
    tries: u8,
    /// 1 while the request under way came together with the end of the handshake,
    /// which a server may answer with session tickets first.
    is_first: u8,
    has_pending: u8,
    /// Whether what is inside is followed, so that the connection is not timed.
    is_followed: bool,
}

/// After so many requests that do not begin as TLS does, none of the connection
/// is: some protocols begin in the clear, and change to TLS.
const TRIES_MAX: u8 = 3;
/// Records of a handshake that are looked at in one read.
const RECORDS_MAX: u32 = 8;

/// Walks over the records in `len` bytes at `address`, the first of `total`;
/// `state` says where the first record begins. Returns the state after them.
///
/// A function of its own with numbers as arguments, so that the verifier walks
/// through the loop once, and not once for every way that leads here.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn walk_records(address: u64, len: u64, total: u64, state: u64) -> u64 {
    let mut walk = Walk::unpack(state);
    let mut at = u64::from(walk.left);
    for _ in 0..RECORDS_MAX {
        if at + HEADER_LEN as u64 > len {
            break;
        }
        let buffer = UserBuffer::new(address.wrapping_add(at), HEADER_LEN as u64);
        let Some(record) = read_record(buffer) else {
            // Nothing was known, or the place was lost.
            walk.is_request = true;
            break;
        };
        (walk.stage, walk.is_request) = after(walk.stage, record);
        at += HEADER_LEN as u64 + u64::from(record.len);
        if walk.is_request {
            break;
        }
    }
    walk.left = at.saturating_sub(total) as u32;
    walk.pack()
}

struct Walk {
    left: u32,
    stage: u8,
    is_request: bool,
}

impl Walk {
    #[inline(always)]
    fn pack(self) -> u64 {
        u64::from(self.left) | u64::from(self.stage) << 32 | u64::from(self.is_request) << 40
    }

    #[inline(always)]
    fn unpack(packed: u64) -> Walk {
        Walk {
            left: packed as u32,
            stage: (packed >> 32) as u8,
            is_request: packed >> 40 & 1 != 0,
        }
    }
}

#[inline(always)]
fn read_record(buffer: UserBuffer) -> Option<Record> {
    let mut header = [0; HEADER_LEN];
    if buffer.fill(0, &mut header)? < HEADER_LEN {
        return None;
    }
    Record::parse(header)
}

impl Tls {
    /// Nothing known yet.
    pub const NEW: Tls = Tls {
        connection: 0,
        left: 0,
        stage: stage::UNKNOWN,
        tries: 0,
        is_first: 0,
        has_pending: 0,
        is_followed: false,
    };

    /// Whether [`request_begins`](Self::request_begins) has to be asked.
    #[inline(always)]
    pub fn is_possible(&self) -> bool {
        self.stage != stage::PLAIN
    }

    /// Whether the connection is one of TLS.
    #[inline(always)]
    pub fn is_on(&self) -> bool {
        self.connection != 0
    }

    /// Whether `bytes` of the side that makes requests, which do not belong to
    /// one, begin one. That side's handshake and alerts do not.
    #[inline(always)]
    pub fn request_begins(&mut self, bytes: impl Source, is_server: bool) -> bool {
        let Some(buffer) = bytes.buffer() else {
            return !self.is_on() || self.stage == stage::OPEN;
        };
        let before = self.stage;
        let walk = Walk {
            left: self.left,
            stage: before,
            is_request: false,
        };
        let walk = walk_records(buffer.address(), buffer.len(), bytes.total(), walk.pack());
        let walk = Walk::unpack(walk);
        if before == stage::UNKNOWN && matches!(walk.stage, stage::UNKNOWN | stage::PLAIN) {
            self.tries += 1;
            if self.tries >= TRIES_MAX {
                self.stage = stage::PLAIN;
            }
            return true;
        }
        if self.connection == 0 {
            self.connection = now_ns();
        }
        self.stage = walk.stage;
        if walk.stage == stage::OPEN && before != stage::OPEN && is_server {
            self.is_first = u8::from(walk.is_request);
            note_unseen();
        }
        // The next one begins with a record of its own.
        self.left = if walk.is_request { 0 } else { walk.left };
        walk.is_request
    }

    /// Whether `bytes` of the side that answers are of a response: handshake,
    /// alerts and session tickets are not.
    #[inline(always)]
    pub fn is_response(&mut self, bytes: impl Source) -> bool {
        let record = bytes.buffer().and_then(read_record);
        self.stage = answered(self.stage, record);
        if self.stage != stage::OPEN || record.is_some_and(|record| !record.is_application_data()) {
            return false;
        }
        if self.is_first == 0 {
            return true;
        }
        // A library whose plaintext is seen says whether it is data that it sends.
        let is_data = Thread::existing()
            .is_none_or(|thread| Connection::writing(thread, self.connection).is_some());
        self.is_first = u8::from(!is_data);
        is_data
    }

    /// The current thread read from the connection, of a request to `server`.
    #[inline(always)]
    pub fn received(&self, server: ServiceRef, is_sampled: bool) {
        if let Some(thread) = Thread::existing() {
            thread.server = server;
            thread.is_sampled = is_sampled;
            thread.connection = self.connection;
        }
    }

    /// Whether requests of the connection are followed in what OpenSSL has, each on
    /// its own.
    #[inline(always)]
    pub fn is_followed(&self) -> bool {
        self.is_followed
    }

    /// As [`is_followed`](Self::is_followed), where the current thread is to send.
    #[inline(always)]
    pub fn becomes_followed(&mut self) -> bool {
        if let Some(thread) = Thread::existing()
            && let Some(connection) = Connection::existing(thread.written, self.connection)
        {
            self.is_followed = connection.requests.is_http2();
        }
        self.is_followed
    }

    /// The current thread read a response from the connection: what OpenSSL returns
    /// next is not of the connection before.
    #[inline(always)]
    pub fn received_response(&self) {
        if let Some(thread) = Thread::existing() {
            thread.connection = 0;
        }
    }

    /// What OpenSSL has of the request under way, if it was OpenSSL that encrypted
    /// the response which the current thread sends, and the plaintext of that.
    #[inline(always)]
    pub fn response(&self) -> Option<(*mut Requests, UserBuffer)> {
        let thread = Thread::existing()?;
        let Some(connection) = Connection::writing(thread, self.connection) else {
            loss::count(Loss::BufferUnknown);
            return None;
        };
        let [address, len] = core::mem::take(&mut connection.response);
        Some((&raw mut connection.requests, UserBuffer::new(address, len)))
    }

    /// The request goes on behind the response that the current thread sends.
    #[inline(always)]
    pub fn response_is_interim(&self) -> Option<()> {
        let thread = Thread::existing()?;
        Connection::existing(thread.written, self.connection)?.is_request = 1;
        Some(())
    }

    /// Whether requests wait that were read with one that is answered.
    #[inline(always)]
    pub fn has_pending(&self) -> bool {
        self.has_pending != 0
    }

    #[inline(always)]
    pub fn note_pending(&mut self, has_pending: bool) {
        self.has_pending = u8::from(has_pending);
    }
}

/// Processes that accept TLS connections in threads that are not known to use
/// OpenSSL; user space looks at them.
#[map]
static TLS_UNSEEN: LruHashMap<u32, u32> = LruHashMap::with_max_entries(256, 0);

#[inline(always)]
fn note_unseen() {
    if Thread::existing().is_none() {
        // Which of the last processes is kept when there are too many does not
        // matter.
        let _ = TLS_UNSEEN.insert(current_process(), 1, 0);
    }
}

#[inline(always)]
fn current_process() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

#[unsafe(link_section = ".maps")]
#[unsafe(export_name = "TLS_THREADS")]
static THREADS: TaskStorage<Thread> = TaskStorage::new();

/// What is kept with each thread that calls OpenSSL.
#[repr(C)]
pub struct Thread {
    /// Number of the connection that the thread read from last, if it is of a
    /// request; 0 when OpenSSL has returned something since.
    connection: u64,
    /// OpenSSL's connection of the call that reads, its buffer, and where it
    /// says how much it read if it does not return that.
    pub reads: [u64; 3],
    /// The same of the call that writes, and when it began.
    pub writes: [u64; 4],
    /// OpenSSL's connection that the thread wrote to, and has not sent since.
    written: u64,
    /// Who was asked in what was read last, and whether that is sampled.
    server: ServiceRef,
    is_sampled: bool,
}

impl Thread {
    #[inline(always)]
    fn existing() -> Option<&'static mut Thread> {
        // SAFETY: the current task is trusted; its CPU alone uses the value.
        unsafe { THREADS.get(current_task()).as_mut() }
    }

    /// The state of the current thread, made if it has none. A failure is counted.
    #[inline(always)]
    pub fn current() -> Option<&'static mut Thread> {
        // SAFETY: as above.
        let thread = unsafe { THREADS.get_or_create(current_task()).as_mut() };
        if thread.is_none() {
            loss::count(Loss::StateFull);
        }
        thread
    }

    /// OpenSSL returned `len` bytes of plaintext at `address`, of its connection
    /// `ssl`.
    #[inline(always)]
    pub fn read(&mut self, global: &GlobalConfig, ssl: u64, (address, len): (u64, u64)) {
        let number = core::mem::take(&mut self.connection);
        let Some(connection) = Connection::existing_or_new(ssl, number != 0) else {
            return;
        };
        if number != 0 && number != connection.connection {
            // The address of one that is gone.
            connection.connection = number;
            connection.is_request = 0;
            connection.requests = Requests::NEW;
        }
        let plaintext = UserBuffer::new(address, len);
        if number != 0 {
            connection.server = self.server;
        }
        connection.requests.begins(global, plaintext);
        if connection.requests.is_http2() {
            connection.transfer(plaintext, true, now_ns());
            return;
        }
        if number != 0 && !self.is_sampled {
            connection.is_request = 0;
            connection.requests.forget_request();
            return;
        }
        let owner = Owner::server(self.server.index);
        if connection.is_request == 0 {
            connection.is_request = 1;
            connection
                .requests
                .request_begins(global, owner, plaintext, true);
        } else if connection.requests.has_begun() {
            connection
                .requests
                .request_goes_on(global, owner, plaintext, true);
        } else {
            connection.requests.more_is_read(plaintext);
        }
    }

    /// OpenSSL encrypted `len` bytes at `address`, for its connection `ssl`, in a call
    /// that began at `begin_ns`.
    #[inline(always)]
    pub fn wrote(&mut self, ssl: u64, (address, len): (u64, u64), begin_ns: u64) {
        if let Some(connection) = Connection::of(ssl)
            && connection.requests.is_http2()
        {
            connection.transfer(UserBuffer::new(address, len), false, begin_ns);
        }
    }

    /// OpenSSL is to encrypt `len` bytes at `address`, for its connection `ssl`;
    /// whether it matters how much of it [was](Self::wrote).
    #[inline(always)]
    pub fn write(&mut self, ssl: u64, (address, len): (u64, u64)) -> bool {
        let Some(connection) = Connection::of(ssl) else {
            return false;
        };
        self.written = ssl;
        connection.is_request = 0;
        connection.response = [address, len];
        connection.requests.is_http2()
    }
}

/// Some of what OpenSSL's connection `ssl` carries was not seen.
#[inline(always)]
pub fn end_following(ssl: u64) {
    if let Some(connection) = Connection::of(ssl) {
        connection.requests.end_following();
    }
}

/// OpenSSL's connections by process and address. Evicted ones are those that were
/// not used for longest.
#[map]
static TLS_CONNECTIONS: LruHashMap<ConnectionKey, Connection> =
    LruHashMap::with_max_entries(CONNECTIONS_MAX, 0);
const CONNECTIONS_MAX: u32 = 16_384;

#[repr(C)]
struct ConnectionKey {
    ssl: u64,
    process: u64,
}

/// What is kept with a connection of OpenSSL.
#[repr(C)]
struct Connection {
    /// Number of the connection on whose socket it was read.
    connection: u64,
    /// Address and length of the plaintext that was written last and not sent
    /// since.
    response: [u64; 2],
    /// Who answers.
    server: ServiceRef,
    requests: Requests,
    /// 1 from the first bytes of a request to those of its response.
    is_request: u32,
}

impl Connection {
    const NEW: Connection = Connection {
        connection: 0,
        response: [0; 2],
        server: ServiceRef {
            index: 0,
            generation: 0,
        },
        requests: Requests::NEW,
        is_request: 0,
    };

    /// That with this number, if `thread` wrote to it what was not sent since.
    #[inline(always)]
    fn writing(thread: &Thread, number: u64) -> Option<&'static mut Connection> {
        Self::existing(thread.written, number).filter(|connection| connection.response[1] != 0)
    }

    /// That of `ssl`, if it is the one with this number.
    #[inline(always)]
    fn existing(ssl: u64, number: u64) -> Option<&'static mut Connection> {
        let connection = Self::of(ssl)?;
        (connection.connection == number).then_some(connection)
    }

    /// Follows what a connection of HTTP/2 carries.
    #[inline(always)]
    fn transfer(&mut self, plaintext: UserBuffer, is_request: bool, now_ns: u64) {
        let Some(charged) = Charged::cached(self.server.index, self.server.generation) else {
            self.requests.end_following();
            return;
        };
        self.requests.transfer(&Transfer {
            buffer: plaintext,
            total: plaintext.len(),
            is_request,
            charged,
            now_ns,
            signal: Signal::ServerRequest as u32,
            side_bit: 0,
            peer: 0,
        });
    }

    #[inline(always)]
    fn of(ssl: u64) -> Option<&'static mut Connection> {
        let key = ConnectionKey {
            ssl,
            process: u64::from(current_process()),
        };
        // SAFETY: a live map value; who uses a connection of OpenSSL keeps other
        // threads away.
        unsafe { TLS_CONNECTIONS.get_ptr_mut(&key)?.as_mut() }
    }

    #[inline(always)]
    fn existing_or_new(ssl: u64, is_known: bool) -> Option<&'static mut Connection> {
        if let Some(connection) = Self::of(ssl) {
            return Some(connection);
        }
        if !is_known {
            return None;
        }
        let key = ConnectionKey {
            ssl,
            process: u64::from(current_process()),
        };
        if TLS_CONNECTIONS.insert(&key, &Connection::NEW, 0).is_err() {
            loss::count(Loss::StateFull);
            return None;
        }
        Self::of(ssl)
    }
}
