//! A server that writes down when each request arrived, was read, and answered.
//!
//! Arrival is the kernel's own time stamp of the packet (SO_TIMESTAMPNS), so
//! the wait before the server reads is known as well.

use std::{
    io::Write,
    mem::{size_of, size_of_val},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Result;

use crate::{exact::Exact, load::delay_us};

/// Latencies of every request, in nanoseconds.
#[derive(Default)]
struct Written {
    request: Vec<u64>,
    queue: Vec<u64>,
    service: Vec<u64>,
}

/// What the server knows of its requests.
pub struct Known {
    pub request: Exact,
    pub queue: Exact,
    pub service: Exact,
}

/// How the body of a response is sent.
#[derive(Clone, Copy)]
pub enum Answer {
    /// At once.
    Whole,
    /// In pieces with a pause between them.
    Streamed,
    /// Byte after byte, each with a system call of its own.
    Bytes,
    /// Half of it, then the connection is reset.
    Reset,
    /// At once, by a server that reads requests late.
    ReadLate,
}

/// Listens until the process ends.
pub struct OwnServer {
    pub address: SocketAddr,
    written: Arc<Mutex<Written>>,
}

impl OwnServer {
    /// Requests `GET /delay/MICROSECONDS` are answered after that time.
    pub fn start(answer: Answer) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        // What it accepts inherits this, for data that comes before that as well.
        set_option(&listener, libc::SO_TIMESTAMPNS, &1i32)?;
        let written = Arc::new(Mutex::new(Written::default()));
        let writer = Arc::clone(&written);
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let written = Arc::clone(&writer);
                thread::spawn(move || serve(socket, answer, &written));
            }
        });
        Ok(Self { address, written })
    }

    /// What it wrote down so far.
    pub fn known(&self) -> Known {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let exact = |latencies: &Vec<u64>| Exact::new(latencies.clone());
        Known {
            request: exact(&written.request),
            queue: exact(&written.queue),
            service: exact(&written.service),
        }
    }
}

/// Serves one connection; ends with it.
fn serve(mut socket: TcpStream, answer: Answer, written: &Mutex<Written>) -> Option<()> {
    socket.set_nodelay(true).ok()?;
    let mut pending: Vec<u8> = Vec::new();
    // Of the first bytes of the request that is being read.
    let mut begin = None;
    let mut late = 0;
    loop {
        while let Some(end) = pending.windows(4).position(|four| four == b"\r\n\r\n") {
            let delay = delay_of(&pending[..end]);
            pending.drain(..end + 4);
            thread::sleep(delay);
            let (arrived, read) = begin.take().unwrap_or_else(|| (now_ns(), now_ns()));
            respond(&mut socket, answer, || {
                let now = now_ns();
                let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
                written.request.push(now.saturating_sub(arrived));
                written.queue.push(read.saturating_sub(arrived));
                written.service.push(now.saturating_sub(read));
            })?;
        }
        if let Answer::ReadLate = answer {
            socket.peek(&mut [0]).ok()?;
            late += 1;
            thread::sleep(Duration::from_micros(delay_us(late, LATE_MEDIAN_US)));
        }
        let (bytes, arrived_ns) = receive(&socket)?;
        begin.get_or_insert_with(|| (arrived_ns, now_ns()));
        pending.extend_from_slice(&bytes);
    }
}

fn delay_of(head: &[u8]) -> Duration {
    let text = String::from_utf8_lossy(head);
    let path = text.split(' ').nth(1).unwrap_or_default();
    let microseconds = path.rsplit('/').next().and_then(|last| last.parse().ok());
    Duration::from_micros(microseconds.unwrap_or(0))
}

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nhello world\n";
const LATE_MEDIAN_US: f64 = 700.0;
const PIECE: usize = 10;
const PAUSE: Duration = Duration::from_millis(1);

/// Sends a response; `begun` is called once its first bytes are on the way.
fn respond(socket: &mut TcpStream, answer: Answer, begun: impl FnOnce()) -> Option<()> {
    let (first, rest) = match answer {
        Answer::Whole | Answer::ReadLate => (RESPONSE.len(), 1),
        Answer::Streamed => (PIECE + 5, PIECE),
        // A status line, so that there is one; then bytes.
        Answer::Bytes => (PIECE + 7, 1),
        Answer::Reset => (RESPONSE.len() / 2, 1),
    };
    socket.write_all(&RESPONSE[..first]).ok()?;
    begun();
    if let Answer::Reset = answer {
        reset(socket);
        return None;
    }
    for piece in RESPONSE[first..].chunks(rest) {
        if let Answer::Streamed = answer {
            thread::sleep(PAUSE);
        }
        socket.write_all(piece).ok()?;
    }
    Some(())
}

/// Makes the end of the connection a reset (SO_LINGER of 0 seconds).
fn reset(socket: &TcpStream) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // A failure ends the connection in order, and the client notices.
    let _ = set_option(socket, libc::SO_LINGER, &linger);
}

fn set_option<T>(socket: &impl AsRawFd, option: i32, value: &T) -> std::io::Result<()> {
    // SAFETY: the value lives through the call and has the length given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const *value).cast(),
            size_of_val(value) as u32,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

/// The next bytes and when they arrived; `None` at the end.
fn receive(socket: &TcpStream) -> Option<(Vec<u8>, u64)> {
    const CONTROL_LEN: usize = 64;
    // Aligned as a header of control messages must be.
    let mut control = [0u64; CONTROL_LEN / 8];
    let mut bytes = vec![0u8; 4096];
    let mut vector = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: all zero is a valid msghdr; everything it points to outlives the call,
    // and what the kernel wrote to `control` is walked by its own macros.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut vector;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = CONTROL_LEN;
        let read = libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0);
        bytes.truncate(usize::try_from(read).ok().filter(|read| *read > 0)?);
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if header.is_null() || (*header).cmsg_type != libc::SCM_TIMESTAMPNS {
            return Some((bytes, now_ns()));
        }
        let mut time: libc::timespec = std::mem::zeroed();
        std::ptr::copy_nonoverlapping(
            libc::CMSG_DATA(header),
            (&raw mut time).cast::<u8>(),
            size_of::<libc::timespec>(),
        );
        Some((
            bytes,
            time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64,
        ))
    }
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_nanos() as u64
}
