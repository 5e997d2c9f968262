//! What a connection speaks, from the first bytes of a request.
//!
//! A guess only: a request counts if its response fits, too.

use crate::{http, kafka, postgresql, redis};

/// Not known yet.
pub const UNKNOWN: u8 = 0;
/// HTTP/1.1 and HTTP/2. The numbers are those of `honeyguide_proto::route::Protocol`.
pub const HTTP: u8 = 1;
/// gRPC.
pub const GRPC: u8 = 2;
/// Redis.
pub const REDIS: u8 = 3;
/// PostgreSQL.
pub const POSTGRESQL: u8 = 4;
/// Kafka.
pub const KAFKA: u8 = 5;
/// DNS over UDP.
pub const DNS: u8 = 6;
/// TCP, of which nothing but the connection is looked at.
pub const TCP: u8 = 7;
/// The connection is HTTP/2; its requests are of [`HTTP`] or [`GRPC`].
pub const HTTP2: u8 = 254;
/// None that is known.
pub const NONE: u8 = 255;

/// What begins with `head` (its first byte the most significant one), of a
/// read of `len` bytes in all; [`UNKNOWN`] if nothing fits.
#[inline(always)]
pub fn detect(head: u64, len: u32) -> u8 {
    if http::method(head.to_be_bytes()).is_some() {
        return HTTP;
    }
    if head == u64::from_be_bytes(*b"PRI * HT") {
        return HTTP2;
    }
    if redis::is_array(head) {
        return REDIS;
    }
    if postgresql::begins(head, len) {
        return POSTGRESQL;
    }
    if kafka::begins(head, len) {
        return KAFKA;
    }
    if redis::is_inline(head) {
        return REDIS;
    }
    UNKNOWN
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(head: &[u8; 8], len: u32) -> u8 {
        detect(u64::from_be_bytes(*head), len)
    }

    #[test]
    fn protocols_are_told_by_their_first_bytes() {
        assert_eq!(of(b"GET / HT", 80), HTTP);
        assert_eq!(of(b"PRI * HT", 24), HTTP2);
        assert_eq!(of(b"*2\r\n$3\r\n", 20), REDIS);
        assert_eq!(of(b"PING\r\n\0\0", 6), REDIS);
        assert_eq!(of(b"\0\0\0\x08\x04\xd2\x16\x2f", 8), POSTGRESQL);
        assert_eq!(of(b"\0\0\0\x54\0\x03\0\0", 84), POSTGRESQL);
        assert_eq!(of(b"Q\0\0\0\x0dSEL", 14), POSTGRESQL);
        assert_eq!(of(b"\0\0\0\x20\0\x12\0\x04", 36), KAFKA);
        for other in [
            b"\x16\x03\x01\x02\0\x01\0\0",
            b"SSH-2.0-",
            b"\0\0\0\0\0\0\0\0",
        ] {
            assert_eq!(of(other, 517), UNKNOWN, "{other:?}");
        }
    }
}
