//! What the kernel programs and user space must agree on, defined once.
//!
//! - [`histogram`]: the bucket layout, its integer-only index, and [`Histogram`].
//! - [`signal`]: the measured signals and their names.
//! - [`record`]: the `#[repr(C)]` records of the maps shared with the kernel.
//! - [`http`], [`http2`], [`redis`], [`postgresql`], [`kafka`], [`dns`]: what is
//!   read of requests; [`mod@protocol`] tells them apart; [`route`]: its records; [`tls`]:
//!   which records of TLS are requests at all; [`peer`]: who asks whom.
//!
//! It is `no_std` and depends on nothing, so that the BPF target, the models
//! and the analyzer can all use it. It is deliberately not a wire format
//! (that is `honeyguide-proto`). Read [`histogram`] first.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod dns;
pub mod histogram;
pub mod http;
pub mod http2;
pub mod kafka;
pub mod peer;
pub mod postgresql;
pub mod protocol;
pub mod record;
pub mod redis;
pub mod route;
pub mod signal;
pub mod tls;
pub mod words;

pub use histogram::Histogram;
pub use signal::Signal;
