//! Who asks whom: see `sensor_common::peer`.

use aya_ebpf::{
    macros::map,
    maps::{Array, LruHashMap},
};
use sensor_common::{
    http::PATH_LEN_MAX,
    peer::{Endpoint, PEER, PEERS_MAX, ServiceRef},
    record::GlobalConfig,
    route::{NO_ROUTE, Path, RouteKey},
};

use crate::{
    config::MMAPABLE,
    histogram::{Event, add_u64},
    kernel::{
        OFFSET_NET_INODE, OFFSET_SOCK_DADDR, OFFSET_SOCK_DPORT, OFFSET_SOCK_FAMILY,
        OFFSET_SOCK_NET, OFFSET_SOCK_NUM, OFFSET_SOCK_RCV_SADDR, OFFSET_SOCK_V6_DADDR,
        OFFSET_SOCK_V6_RCV_SADDR, Object, load, load_untyped,
    },
    route::{self, Outcome},
};

/// What is asked, by the asking end of a connection.
#[map]
static CLIENTS: LruHashMap<Endpoint, RouteKey> = LruHashMap::with_max_entries(PEERS_MAX, 0);
/// Who accepts connections on an address.
#[map]
static LISTENERS: LruHashMap<Endpoint, ServiceRef> = LruHashMap::with_max_entries(PEERS_MAX, 0);
/// Who answers what is asked, where both ends are on this machine.
#[map]
static ANSWERERS: LruHashMap<RouteKey, ServiceRef> = LruHashMap::with_max_entries(PEERS_MAX, 0);
/// Grows when one of the two above changes.
#[map]
static PEER_CHANGES: Array<u64> = Array::with_max_entries(1, MMAPABLE);

const AF_INET: u16 = 2;

/// What is kept with a connection.
#[repr(C)]
pub struct Peer {
    /// Hash of who is asked; of a server 1 once its client was looked for; 0
    /// before that.
    shape: u64,
    slot: u32,
    _padding: u32,
}

impl Peer {
    /// Nothing known yet.
    pub const NEW: Peer = Peer {
        shape: 0,
        slot: 0,
        _padding: 0,
    };

    /// Whether the connection was looked at.
    #[inline(always)]
    pub fn is_known(&self) -> bool {
        self.shape != 0
    }

    /// Hash of who is asked, 0 if it is not known.
    #[inline(always)]
    pub fn shape(&self) -> u64 {
        self.shape
    }

    /// A connection of the service at `service`, which asks.
    ///
    /// # Safety
    /// `socket` must be a TCP socket of a tracepoint.
    #[inline(always)]
    pub unsafe fn connected(&mut self, global: &GlobalConfig, socket: Object, service: u32) {
        if global.routes_per_service != 0 {
            // SAFETY: the caller's promise.
            let _ = unsafe { self.find(global, socket, service) };
        }
    }

    #[inline(always)]
    unsafe fn find(&mut self, global: &GlobalConfig, socket: Object, service: u32) -> Option<()> {
        // SAFETY: the caller's promise.
        let (local, remote) = unsafe { ends(socket)? };
        let key = RouteKey {
            shape: remote.hash(),
            service,
            method: PEER,
        };
        let mut path = Path {
            bytes: [0; PATH_LEN_MAX],
            len: Endpoint::LEN as u32,
            is_whole: 1,
        };
        path.bytes[..Endpoint::LEN].copy_from_slice(&remote.to_bytes());
        self.shape = key.shape;
        self.slot = route::find(global, &key, &path);
        // Without it the ends may still be joined by address.
        let _ = CLIENTS.insert(&local, &key, 0);
        Some(())
    }

    /// A connection of `server`, which answers.
    ///
    /// # Safety
    /// As [`connected`](Self::connected).
    #[inline(always)]
    pub unsafe fn accepted(&mut self, global: &GlobalConfig, socket: Object, server: ServiceRef) {
        self.shape = 1;
        if global.routes_per_service != 0 {
            // SAFETY: the caller's promise.
            let _ = unsafe { note(socket, server) };
        }
    }

    /// A request to the peer was answered.
    #[inline(always)]
    pub fn record(&mut self, global: &GlobalConfig, service: u32, event: Event) {
        let key = RouteKey {
            shape: self.shape,
            service,
            method: PEER,
        };
        if self.slot == NO_ROUTE {
            self.slot = route::existing(&key);
        }
        route::record(global, &key, self.slot, Outcome::of_class(0), event);
    }
}

#[inline(always)]
unsafe fn note(socket: Object, server: ServiceRef) -> Option<()> {
    // SAFETY: the caller's promise; values are plain numbers.
    unsafe {
        let (local, remote) = ends(socket)?;
        if LISTENERS.get(&local) != Some(&server) {
            LISTENERS.insert(&local, &server, 0).ok()?;
            changed()?;
        }
        let asked = CLIENTS.get(&remote)?;
        if ANSWERERS.get(asked) != Some(&server) {
            ANSWERERS.insert(asked, &server, 0).ok()?;
            changed()?;
        }
    }
    Some(())
}

#[inline(always)]
fn changed() -> Option<()> {
    let changes = PEER_CHANGES.get_ptr_mut(0)?;
    // SAFETY: a live map value.
    unsafe { add_u64(changes, 1) };
    Some(())
}

/// The local end of a connection, and the other.
#[inline(always)]
unsafe fn ends(socket: Object) -> Option<(Endpoint, Endpoint)> {
    // SAFETY: the caller's promise; `skc_net` is never null.
    unsafe {
        let local_port: u16 = load(socket, &OFFSET_SOCK_NUM);
        let remote_port = u16::from_be(load_untyped(socket, &OFFSET_SOCK_DPORT)?);
        let family: u16 = load(socket, &OFFSET_SOCK_FAMILY);
        let (mut local, mut remote) = if family == AF_INET {
            (
                Endpoint::v4(load_untyped(socket, &OFFSET_SOCK_RCV_SADDR)?, local_port),
                Endpoint::v4(load_untyped(socket, &OFFSET_SOCK_DADDR)?, remote_port),
            )
        } else {
            let six = |address, port: u16| Endpoint {
                address,
                namespace: 0,
                port: u32::from(port),
            };
            (
                six(load_untyped(socket, &OFFSET_SOCK_V6_RCV_SADDR)?, local_port),
                six(load_untyped(socket, &OFFSET_SOCK_V6_DADDR)?, remote_port),
            )
        };
        // Each on its own: the two ends of a connection whose address is
        // translated may see one of them alike and the other not.
        for end in [&mut local, &mut remote] {
            if end.is_loopback() {
                let namespace: Object = load_untyped(socket, &OFFSET_SOCK_NET)?;
                end.namespace = load_untyped(namespace, &OFFSET_NET_INODE)?;
            }
        }
        Some((local, remote))
    }
}
