//! The records of the kernel tables that count requests by route.
//!
//! A *route* here is a service, a protocol, a method and the
//! [`Shape`](crate::http::Shape) of a path; user space gives it a name and merges those of one name. As with
//! services, the kernel takes a free slot for a route on its first response, so
//! that it is counted from the first, and leaves the path there for user space
//! to name it. Every status class of a route has a row of its own, which is one
//! for all CPUs: there are many more routes than services.

use crate::http::{PATH_LEN_MAX, STATUS_CLASSES};

/// Default number of routes, slot 0 unused.
pub const ROUTES_MAX: u32 = 24_576;
/// Default number of rows, row 0 unused.
pub const ROUTE_ROWS_MAX: u32 = 24_576;
/// Slot that means "none yet".
pub const NO_ROUTE: u32 = 0;
/// In place of a number in [`RouteKey::method`]: the route of all requests of a
/// service and protocol that have none of their own.
pub const OTHER_ROUTES: u32 = 1 << 15;
/// Place of the protocol in [`RouteKey::method`].
const PROTOCOL_SHIFT: u32 = 16;
/// Bit of [`RouteKey::method`]: the service makes the requests, another answers.
pub const CLIENT_SIDE: u32 = 1 << 24;
/// Bit of the method of a route that is being given up: the kernel does not
/// count in it any more.
pub const RETIRED: u32 = 1 << 31;

/// What the kernel tells routes apart by.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey {
    /// [`Shape::hash`](crate::http::Shape), 0 where there is no path.
    pub shape: u64,
    /// Index of the service.
    pub service: u32,
    /// Of [`method`], of [`others`], perhaps with [`CLIENT_SIDE`]; 0 while the slot
    /// is free.
    pub method: u32,
}

/// For [`RouteKey::method`]: what requests of a [`protocol`](crate::protocol) are
/// for, by its number there (a method, a command, a verb, an API); 0 is one that
/// is not known.
#[inline(always)]
pub const fn method(protocol: u8, number: u16) -> u32 {
    let number = if number == 0 {
        OTHER_ROUTES
    } else {
        number as u32
    };
    (protocol as u32) << PROTOCOL_SHIFT | number
}

/// Whose requests are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Index of the service.
    pub service: u32,
    /// [`CLIENT_SIDE`] if it makes them, else 0.
    pub side_bit: u32,
}

impl Owner {
    /// The service at this index, which answers.
    #[inline(always)]
    pub const fn server(service: u32) -> Owner {
        Owner {
            service,
            side_bit: 0,
        }
    }

    /// The service at this index, which makes them.
    #[inline(always)]
    pub const fn client(service: u32) -> Owner {
        Owner {
            service,
            side_bit: CLIENT_SIDE,
        }
    }

    /// As [`method`], of its side.
    #[inline(always)]
    pub const fn method(self, protocol: u8, number: u16) -> u32 {
        method(protocol, number) | self.side_bit
    }
}

/// All requests that have no route of their own, of the protocol and side of a
/// method.
#[inline(always)]
pub const fn others(method: u32) -> u32 {
    method & !0xffff | OTHER_ROUTES
}

/// Whether it is one of [`others`].
#[inline(always)]
pub const fn is_others(method: u32) -> bool {
    method & 0xffff == OTHER_ROUTES
}

/// The protocol of a method, and the number there.
#[inline(always)]
pub const fn parts(method: u32) -> (u8, u16) {
    ((method >> PROTOCOL_SHIFT) as u8, method as u16)
}

/// Whether routes of a method are told apart by path, too.
#[inline(always)]
pub const fn has_path(method: u32) -> bool {
    let protocol = (method >> PROTOCOL_SHIFT) as u8;
    let has_paths = protocol == crate::protocol::HTTP || protocol == crate::protocol::GRPC;
    (has_paths || is_peer(method)) && !is_others(method)
}

/// Whether it is what is asked of one address, or of all further ones.
#[inline(always)]
pub const fn is_peer(method: u32) -> bool {
    (method >> PROTOCOL_SHIFT) as u8 == crate::protocol::TCP
}

/// The path that a route was taken for.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// The bytes.
    pub bytes: [u8; PATH_LEN_MAX],
    /// Valid bytes; the query string is not among them.
    pub len: u32,
    /// 1 if the path ends there, 0 if it was cut.
    pub is_whole: u32,
}

/// One route as the kernel knows it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// What the slot was taken for.
    pub key: RouteKey,
    /// Row by status class, 0 until the first response.
    pub rows: [u32; STATUS_CLASSES],
    /// A path of it.
    pub path: Path,
}

/// Lessons about paths the kernel holds memory for.
pub const LESSONS_MAX: u32 = 8192;
/// Service of a lesson that is for all of them.
pub const EVERY_SERVICE: u32 = u32::MAX;
/// Anything may follow the path.
pub const TAKES_ANY: u32 = 1;
/// The last segment of the path is spelled out.
pub const IS_LITERAL: u32 = 2;

/// One thing that was learned, see [`Learned`](crate::http::Learned).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LessonKey {
    /// Hash of a path.
    pub path: u64,
    /// Index of the service it is for, or [`EVERY_SERVICE`].
    pub service: u32,
    /// [`TAKES_ANY`] or [`IS_LITERAL`].
    pub kind: u32,
}

/// The bit of [`RoutesOfService::lessons`] for lessons about a path: whether
/// there may be any is known without looking for them.
#[inline(always)]
pub const fn lesson_bit(path: u64) -> u64 {
    1 << (path >> 58)
}

/// What is kept for each service.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct RoutesOfService {
    /// Routes it has, its others not counted.
    pub routes: u64,
    /// Addresses it asks, its others not counted.
    pub peers: u64,
    /// [`lesson_bit`] of all lessons for it.
    pub lessons: u64,
}

/// Who a row belongs to; written once when the row is taken.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteRowOwner {
    /// Slot of the route; [`NO_ROUTE`] while the row is free.
    pub route: u32,
    /// First digit of the status, or 0.
    pub status_class: u32,
}

const _: () = assert!(core::mem::size_of::<RouteKey>() == 16);
const _: () = assert!(core::mem::size_of::<Path>() == 112);
const _: () = assert!(core::mem::size_of::<Route>() == 152);

#[cfg(feature = "user")]
mod user {
    use super::*;

    // SAFETY: all are `#[repr(C)]`, `Copy`, without padding and valid for any bits.
    unsafe impl aya::Pod for RouteKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Path {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Route {}
    // SAFETY: as above.
    unsafe impl aya::Pod for RouteRowOwner {}
    // SAFETY: as above.
    unsafe impl aya::Pod for LessonKey {}
}
