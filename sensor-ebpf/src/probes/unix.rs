//! Unix stream sockets, whose exchanges are those of [`super::tcp`].
//!
//! Nothing tells when they connect, so the role of a socket is told by addresses:
//! one that was accepted shares that of the socket that listens, one that
//! connected has none, or one of its own. Both ends of a pair have none, and are
//! no connection to a service.

use super::tcp::role;
use crate::kernel::{
    OFFSET_SOCK_FAMILY, OFFSET_SOCK_TYPE, OFFSET_UNIX_ADDRESS, OFFSET_UNIX_ADDRESS_USERS,
    OFFSET_UNIX_PEER, Object, load, load_untyped, unix_sock,
};

const AF_UNIX: u16 = 1;
const SOCK_STREAM: u16 = 1;

/// The role of `socket`; `None` if it is no Unix stream socket, or not connected
/// by an address.
///
/// # Safety
/// `socket` must be a socket of a tracepoint.
#[inline(always)]
pub unsafe fn role(socket: Object) -> Option<u8> {
    // SAFETY: the caller's promise; both sockets begin with their `sock`.
    unsafe {
        let family: u16 = load(socket, &OFFSET_SOCK_FAMILY);
        if family != AF_UNIX {
            return None;
        }
        let kind: u16 = load(socket, &OFFSET_SOCK_TYPE);
        let unix = unix_sock(socket);
        if kind != SOCK_STREAM || unix.is_null() {
            return None;
        }
        let address: u64 = load(unix, &OFFSET_UNIX_ADDRESS);
        let peer: u64 = load(unix, &OFFSET_UNIX_PEER);
        let of_peer: u64 = if peer == 0 {
            0
        } else {
            load_untyped(peer as Object, &OFFSET_UNIX_ADDRESS)?
        };
        match (address != 0, of_peer != 0) {
            (false, false) => None,
            (false, true) => Some(role::CLIENT),
            (true, false) => Some(role::SERVER),
            (true, true) => {
                let users: u32 = load_untyped(address as Object, &OFFSET_UNIX_ADDRESS_USERS)?;
                Some(if users > 1 {
                    role::SERVER
                } else {
                    role::CLIENT
                })
            }
        }
    }
}
