//! The records that tell which services talk to each other.
//!
//! What a service asks of one address is counted like a route of its own (see
//! [`crate::route`]), with the [`Endpoint`] in place of a path. Who answers
//! there is noted when a connection's first request is read: by the address
//! that was accepted on, and by the connection itself, which a translated
//! address (NAT) does not hide as long as both ends are on one machine.

use crate::{
    protocol,
    route::{CLIENT_SIDE, method},
};

/// Addresses a service asks that are counted one by one; the rest together.
pub const PEERS_PER_SERVICE_MAX: u64 = 32;
/// Entries of each map about peers; the least recently used go first.
pub const PEERS_MAX: u32 = 8192;
/// In [`RouteKey::method`](crate::route::RouteKey::method): what is asked of
/// one address, in whatever protocol.
pub const PEER: u32 = method(protocol::TCP, 1) | CLIENT_SIDE;

/// One end of connections.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// IPv6, or IPv4 as IPv6 maps it (RFC 4291, 2.5.5.2).
    pub address: [u8; 16],
    /// Inode of the network namespace where the address is one of loopback, which
    /// every namespace has; 0 elsewhere.
    pub namespace: u32,
    /// Port.
    pub port: u32,
}

/// The service at `index`, while it has `generation`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceRef {
    /// Index in the kernel's table.
    pub index: u32,
    /// Generation of that index.
    pub generation: u32,
}

impl Endpoint {
    /// Bytes of it in a [`Path`](crate::route::Path).
    pub const LEN: usize = 24;

    /// An IPv4 address in network byte order.
    #[inline(always)]
    pub const fn v4([a, b, c, d]: [u8; 4], port: u16) -> Endpoint {
        Endpoint {
            address: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d],
            namespace: 0,
            port: port as u32,
        }
    }

    /// Whether every machine has this address.
    #[inline(always)]
    pub fn is_loopback(&self) -> bool {
        let [high, low] = self.words();
        let is_v4 = high == 0 && low >> 32 == 0xffff && (low >> 24 & 0xff) == 127;
        is_v4 || high == 0 && low == 1
    }

    #[inline(always)]
    fn words(&self) -> [u64; 2] {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = self.address;
        [
            u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            u64::from_be_bytes([i, j, k, l, m, n, o, p]),
        ]
    }

    /// A hash that is never 0 (the finaliser of SplitMix64, on each word).
    #[inline(always)]
    pub fn hash(&self) -> u64 {
        let [high, low] = self.words();
        let mut hash = 0u64;
        for word in [
            high,
            low,
            u64::from(self.namespace) << 32 | u64::from(self.port),
        ] {
            hash = (hash ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
            hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            hash ^= hash >> 31;
        }
        hash | 1
    }

    /// As the first bytes of a path.
    #[inline(always)]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        // SAFETY: plain bytes without padding, of this length.
        unsafe { core::mem::transmute(self) }
    }

    /// Of [`to_bytes`](Self::to_bytes).
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Endpoint {
        // SAFETY: any bytes are one.
        unsafe { core::mem::transmute(bytes) }
    }
}

const _: () = assert!(core::mem::size_of::<Endpoint>() == Endpoint::LEN);

#[cfg(feature = "user")]
mod user {
    use super::*;

    // SAFETY: `#[repr(C)]`, `Copy`, without padding and valid for any bits.
    unsafe impl aya::Pod for Endpoint {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ServiceRef {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_loopback_are_told_from_others() {
        for address in [[127, 0, 0, 1], [127, 8, 9, 1]] {
            assert!(Endpoint::v4(address, 80).is_loopback());
        }
        assert!(!Endpoint::v4([10, 0, 0, 127], 80).is_loopback());
        let mut six = Endpoint::default();
        assert!(!six.is_loopback());
        six.address[15] = 1;
        assert!(six.is_loopback());
        six.address[0] = 0xfe;
        assert!(!six.is_loopback());
    }

    #[test]
    fn each_part_changes_the_hash() {
        let one = Endpoint::v4([10, 0, 0, 1], 80);
        let others = [
            Endpoint::v4([10, 0, 0, 2], 80),
            Endpoint::v4([10, 0, 0, 1], 81),
            Endpoint {
                namespace: 1,
                ..one
            },
        ];
        assert!(others.iter().all(|other| other.hash() != one.hash()));
        assert_eq!(Endpoint::from_bytes(one.to_bytes()), one);
    }
}
