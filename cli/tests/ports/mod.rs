//! Ports for servers of tests.

use std::{
    net::TcpListener,
    process,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

/// Below those that Linux gives to clients unless told otherwise.
const FIRST: u32 = 20_000;
const COUNT: u32 = 12_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A port of loopback that nobody listens on. Each is given once: two tests at a time
/// that ask the kernel for a free one may get the same.
pub fn free_port() -> u16 {
    loop {
        let number = process::id() + NEXT.fetch_add(1, Relaxed);
        let port = (FIRST + number % COUNT) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
