//! The kernel programs of the Honeyguide sensor.
//!
//! Each program measures one thing and is loaded and attached on its own.
//! Entry points live in [`probes`], one file per subject; what they share is
//! in [`service`] (who is charged), [`histogram`] (how a value is counted),
//! [`requests`], [`tls`] and [`mod@route`] (which request it was) and [`kernel`]
//! (how kernel memory is read).
//!
//! Deliberately absent: ring buffers and any other per-event output.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(
    internal_features,
    reason = "atomic addition without a result is not reachable through core::sync on this target"
)]

mod config;
mod dns;
mod histogram;
mod http1;
mod http2;
mod kafka;
mod kernel;
mod loss;
mod peers;
mod pipeline;
mod probes;
mod requests;
mod route;
mod scan;
mod scratch;
mod service;
mod storage;
mod tls;
mod user_buffer;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Helpers that read kernel memory are only given to GPL-compatible programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
