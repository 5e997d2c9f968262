//! Clients that wait for each response before the next request, and keep every
//! latency: from just before the request is written until the first byte of
//! its response is read.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, bail};

use crate::exact::Exact;

/// So many connections, each with so many requests.
#[derive(Clone, Copy)]
pub struct Load {
    pub connections: usize,
    pub requests: usize,
}

impl Load {
    pub const fn total(self) -> u64 {
        (self.connections * self.requests) as u64
    }

    /// Runs it. `request` writes the n-th of all requests; `response` says how
    /// long a whole response at the begin of bytes is, if it is whole.
    pub fn run(
        self,
        address: SocketAddr,
        request: impl Fn(usize) -> Vec<u8> + Sync,
        response: fn(&[u8]) -> Option<usize>,
    ) -> Result<Exact> {
        let connection = |first: usize| -> Result<Vec<u64>> {
            let mut socket = TcpStream::connect(address).context("failed to connect")?;
            socket.set_nodelay(true)?;
            (first..first + self.requests)
                .map(|number| exchange(&mut socket, &request(number), response))
                .collect()
        };
        let latencies = thread::scope(|scope| -> Result<Vec<u64>> {
            let connection = &connection;
            let threads: Vec<_> = (0..self.connections)
                .map(|number| scope.spawn(move || connection(number * self.requests)))
                .collect();
            let mut latencies = Vec::new();
            for thread in threads {
                let of_one = thread
                    .join()
                    .map_err(|_| anyhow::anyhow!("a client panicked"))?;
                latencies.extend(of_one?);
            }
            Ok(latencies)
        })?;
        Ok(Exact::new(latencies))
    }
}

/// Log-logistic delays around `median_us`: the 99th percentile is ten times,
/// the 99.9th 32 times the median. Evenly spread by the golden ratio.
pub fn delay_us(number: usize, median_us: f64) -> u64 {
    const GOLDEN: f64 = 0.618_033_988_749_895;
    let share = (0.5 + number as f64 * GOLDEN).fract();
    let odds = share / (1.0 - share).max(1e-4);
    (median_us * odds.sqrt()) as u64
}

/// One request and its whole response; nanoseconds to the first byte.
fn exchange(
    socket: &mut TcpStream,
    request: &[u8],
    response: fn(&[u8]) -> Option<usize>,
) -> Result<u64> {
    let mut buffer = [0; 16_384];
    let mut received = Vec::new();
    let begin = Instant::now();
    socket.write_all(request)?;
    let mut latency = None;
    loop {
        let read = socket.read(&mut buffer)?;
        latency.get_or_insert_with(|| begin.elapsed().as_nanos() as u64);
        if read == 0 {
            bail!("the server closed after {} bytes", received.len());
        }
        received.extend_from_slice(&buffer[..read]);
        if let Some(len) = response(&received) {
            anyhow::ensure!(len == received.len(), "more than one response");
            return latency.context("no response");
        }
    }
}

/// Length of a response of HTTP/1.1 that says how long it is.
pub fn http_response(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).ok()?;
    let body: usize = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())?;
    (bytes.len() >= head + body).then_some(head + body)
}

/// Length of a reply of Redis that is no aggregate (RESP, "RESP protocol description").
pub fn redis_reply(bytes: &[u8]) -> Option<usize> {
    let line = bytes.windows(2).position(|two| two == b"\r\n")? + 2;
    let len = match bytes[0] {
        b'$' => {
            let number: i64 = std::str::from_utf8(&bytes[1..line - 2])
                .ok()?
                .parse()
                .ok()?;
            usize::try_from(number).map_or(line, |body| line + body + 2)
        }
        _ => line,
    };
    (bytes.len() >= len).then_some(len)
}
