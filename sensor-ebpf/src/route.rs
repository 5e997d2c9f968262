//! Counting requests by route and status class.
//!
//! Routes are looked up when a request begins, and taken when the response to
//! the first of them does: what is answered with 400 or 404 is no route, so that
//! whoever tries out paths does not fill the table. Meanwhile its path waits in
//! a small map. Services have a bounded number of routes; requests of further
//! ones are counted together.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, Stack},
};
use sensor_common::{
    http::{Learned, PATH_LEN_MAX, STATUS_CLASSES},
    peer::PEERS_PER_SERVICE_MAX,
    postgresql::HEAD_LEN,
    record::{GlobalConfig, Loss, Row, SERVICES_MAX},
    route::{
        EVERY_SERVICE, IS_LITERAL, LESSONS_MAX, LessonKey, NO_ROUTE, Path, ROUTE_ROWS_MAX,
        ROUTES_MAX, Route, RouteKey, RouteRowOwner, RoutesOfService, TAKES_ANY, has_path,
        is_others, is_peer, lesson_bit, others,
    },
};

use crate::{
    config::MMAPABLE,
    histogram::{Event, add, add_u64},
    loss, scratch,
};

/// Slot of each route.
#[map]
static ROUTES_BY_KEY: HashMap<RouteKey, u32> = HashMap::with_max_entries(ROUTES_MAX, 0);
/// Routes by slot.
#[map]
static ROUTES: Array<Route> = Array::with_max_entries(ROUTES_MAX, MMAPABLE);
/// Slots nobody uses; user space fills it.
#[map]
static FREE_ROUTES: Stack<u32> = Stack::with_max_entries(ROUTES_MAX, 0);
/// Rows by number, one for all CPUs.
#[map]
static ROUTE_ROWS: Array<Row> = Array::with_max_entries(ROUTE_ROWS_MAX, MMAPABLE);
/// Who each row belongs to.
#[map]
static ROUTE_ROW_OWNERS: Array<RouteRowOwner> = Array::with_max_entries(ROUTE_ROWS_MAX, MMAPABLE);
/// Row numbers nobody uses; user space fills it.
#[map]
static FREE_ROUTE_ROWS: Stack<u32> = Stack::with_max_entries(ROUTE_ROWS_MAX, 0);
/// By index of the service. Only the kernel raises the number of routes, only
/// user space lowers it. CPUs that take one at once may exceed the bound by one
/// each; user space has the last word.
#[map]
static ROUTES_OF_SERVICE: Array<RoutesOfService> = Array::with_max_entries(SERVICES_MAX, MMAPABLE);
/// What was learned of paths; user space fills it.
#[map]
static LESSONS: HashMap<LessonKey, u8> = HashMap::with_max_entries(LESSONS_MAX, 0);

/// Requests under way whose route is not known yet, at most.
const WAITING_MAX: u32 = 1024;
#[map]
static WAITING_PATHS: LruHashMap<RouteKey, Path> = LruHashMap::with_max_entries(WAITING_MAX, 0);
/// Slots by a few bits of the key, to find most routes without a helper. What is
/// there need not be right: the key in the slot says so.
#[map]
static RECENT_ROUTES: Array<u32> = Array::with_max_entries(RECENT_MAX, 0);
const RECENT_MAX: u32 = 4096;

/// The begin of a request.
#[repr(C)]
pub struct RequestLine {
    /// A method of three letters, and the space behind it; one read gets it
    /// together with the path.
    pub method: [u8; METHOD_LEN],
    pub path: Path,
}

impl RequestLine {
    /// All of it.
    #[inline(always)]
    pub fn bytes(&self) -> &[u8; HEAD_LEN] {
        // SAFETY: method and path follow each other, see below.
        unsafe { &*(&raw const *self).cast() }
    }
}

const _: () = assert!(METHOD_LEN + PATH_LEN_MAX == HEAD_LEN);
pub const METHOD_LEN: usize = 4;
const _: () = assert!(core::mem::offset_of!(RequestLine, path) == METHOD_LEN);
const _: () = assert!(core::mem::offset_of!(Path, bytes) == 0);

/// Where a request is read to: too long for the stack.
#[map]
static LINE: PerCpuArray<RequestLine> = PerCpuArray::with_max_entries(scratch::SLOTS, 0);

/// The request that is being read on this CPU.
#[inline(always)]
pub fn line_buffer() -> Option<&'static mut RequestLine> {
    // SAFETY: a value of this CPU that no other program uses meanwhile.
    unsafe { LINE.get_ptr_mut(scratch::slot())?.as_mut() }
}

/// What was learned of the paths of a service.
pub struct Lessons {
    pub service: u32,
    /// Of [`lesson_bits`].
    pub bits: u64,
}

/// For which paths of a service lessons are looked for.
#[inline(always)]
pub fn lesson_bits(global: &GlobalConfig, service: u32) -> u64 {
    let own = ROUTES_OF_SERVICE.get(service).map_or(0, |of| of.lessons);
    global.lessons | own
}

impl Lessons {
    #[inline(always)]
    fn has(&self, path: u64, kind: u32) -> bool {
        if self.bits & lesson_bit(path) == 0 {
            return false;
        }
        has_lesson(path, self.service, kind)
    }
}

/// Not inlined: it is called in a loop, and what it calls clobbers registers.
#[inline(never)]
fn has_lesson(path: u64, service: u32, kind: u32) -> bool {
    let mut key = LessonKey {
        path,
        service,
        kind,
    };
    // SAFETY: only whether there is a value.
    unsafe {
        if LESSONS.get(&key).is_some() {
            return true;
        }
        key.service = EVERY_SERVICE;
        LESSONS.get(&key).is_some()
    }
}

impl Learned for Lessons {
    #[inline(always)]
    fn takes_any(&self, path: u64) -> bool {
        self.has(path, TAKES_ANY)
    }

    #[inline(always)]
    fn is_literal(&self, path: u64) -> bool {
        self.has(path, IS_LITERAL)
    }
}

/// The slot of `key`, [`NO_ROUTE`] if it has none yet; `path` waits then.
#[inline(always)]
pub fn find(global: &GlobalConfig, key: &RouteKey, path: &Path) -> u32 {
    let recent = RECENT_ROUTES.get_ptr_mut((key.shape as u32 ^ key.service) % RECENT_MAX);
    // SAFETY: live map values; plain numbers.
    unsafe {
        if let Some(recent) = recent
            && at(*recent, key).is_some()
        {
            return *recent;
        }
        if let Some(slot) = ROUTES_BY_KEY.get(key) {
            if let Some(recent) = recent {
                *recent = *slot;
            }
            return *slot;
        }
    }
    if has_room(global, key) && WAITING_PATHS.insert(key, path, 0).is_err() {
        loss::count(Loss::StateFull);
    }
    NO_ROUTE
}

/// The slot of `key`, [`NO_ROUTE`] if it has none.
#[inline(always)]
pub fn existing(key: &RouteKey) -> u32 {
    // SAFETY: a plain number.
    unsafe { ROUTES_BY_KEY.get(key) }.map_or(NO_ROUTE, |slot| *slot)
}

#[inline(always)]
fn has_room(global: &GlobalConfig, key: &RouteKey) -> bool {
    match ROUTES_OF_SERVICE.get(key.service) {
        Some(of) if is_peer(key.method) => of.peers < PEERS_PER_SERVICE_MAX,
        Some(of) => of.routes < global.routes_per_service,
        None => false,
    }
}

/// How a request ended.
#[derive(Clone, Copy)]
pub struct Outcome {
    /// Status class.
    pub class: u32,
    /// Whether it was for something that the service has.
    pub is_known: bool,
}

impl Outcome {
    /// By the status of an HTTP response, 0 if it is not known.
    #[inline(always)]
    pub fn of_status(status: u32) -> Outcome {
        Outcome {
            class: status / 100,
            is_known: status >= 100 && status != 400 && status != 404,
        }
    }

    /// Of a protocol whose requests have no paths to try out.
    #[inline(always)]
    pub fn of_class(class: u32) -> Outcome {
        Outcome {
            class,
            is_known: true,
        }
    }
}

/// Counts a request of the route `key`, which was in `slot` when it began.
#[inline(always)]
pub fn record(global: &GlobalConfig, key: &RouteKey, slot: u32, outcome: Outcome, event: Event) {
    let Some(route) = route(global, key, slot, outcome) else {
        loss::count(Loss::RoutesFull);
        return;
    };
    let Some(row) = row(route, outcome.class) else {
        loss::count(Loss::RoutesFull);
        return;
    };
    add(global, row, event);
}

/// The route in `slot` if it is the one of `key`.
#[inline(always)]
fn at(slot: u32, key: &RouteKey) -> Option<(u32, *mut Route)> {
    let route = ROUTES.get_ptr_mut(slot)?;
    // SAFETY: a live map value.
    (unsafe { (*route).key } == *key).then_some((slot, route))
}

#[inline(always)]
fn route(
    global: &GlobalConfig,
    key: &RouteKey,
    slot: u32,
    outcome: Outcome,
) -> Option<(u32, *mut Route)> {
    if slot != NO_ROUTE
        && let Some(found) = at(slot, key)
    {
        return Some(found);
    }
    // SAFETY: a plain number.
    if let Some(slot) = unsafe { ROUTES_BY_KEY.get(key) } {
        return at(*slot, key);
    }
    if outcome.is_known && !is_others(key.method) && has_room(global, key) {
        if !has_path(key.method) {
            return take(key, &NO_PATH);
        }
        // SAFETY: copied at once; a path that is replaced meanwhile is one of
        // the same route.
        if let Some(path) = unsafe { WAITING_PATHS.get(key) } {
            return take(key, path);
        }
    }
    let others = RouteKey {
        shape: 0,
        service: key.service,
        method: others(key.method),
    };
    // SAFETY: a plain number.
    if let Some(slot) = unsafe { ROUTES_BY_KEY.get(&others) } {
        return at(*slot, &others);
    }
    take(&others, &NO_PATH)
}

static NO_PATH: Path = Path {
    len: 0,
    is_whole: 1,
    bytes: [0; PATH_LEN_MAX],
};

/// A free slot for `key`, which has none.
#[inline(always)]
fn take(key: &RouteKey, path: &Path) -> Option<(u32, *mut Route)> {
    let slot = FREE_ROUTES.pop().ok()??;
    let route = ROUTES.get_ptr_mut(slot)?;
    // SAFETY: a live map value that no key leads to yet.
    unsafe {
        (*route).path = *path;
        (*route).key = *key;
    }
    if ROUTES_BY_KEY
        .insert(key, slot, u64::from(BPF_NOEXIST))
        .is_ok()
    {
        if !is_others(key.method)
            && let Some(of) = ROUTES_OF_SERVICE.get_ptr_mut(key.service)
        {
            // SAFETY: a live map value.
            unsafe {
                if is_peer(key.method) {
                    add_u64(&raw mut (*of).peers, 1);
                } else {
                    add_u64(&raw mut (*of).routes, 1);
                }
            }
        }
        return Some((slot, route));
    }
    // Another CPU was first, or the map is full.
    // SAFETY: as above.
    unsafe { (*route).key.method = 0 };
    let _ = FREE_ROUTES.push(slot, 0);
    // SAFETY: a plain number.
    let slot = unsafe { ROUTES_BY_KEY.get(key) }?;
    at(*slot, key)
}

/// The row of a status class, taken from the free rows on its first response.
/// Where two CPUs both take one, user space merges them by owner.
#[inline(always)]
fn row((slot, route): (u32, *mut Route), status_class: u32) -> Option<*mut Row> {
    let class = status_class as usize;
    if class >= STATUS_CLASSES {
        return None;
    }
    // SAFETY: a live map value.
    let row = unsafe { (*route).rows[class] };
    if row != 0 {
        return ROUTE_ROWS.get_ptr_mut(row);
    }
    let row = FREE_ROUTE_ROWS.pop().ok()??;
    let owner = ROUTE_ROW_OWNERS.get_ptr_mut(row)?;
    // SAFETY: live map values.
    unsafe {
        (*owner).status_class = status_class;
        (*owner).route = slot;
        (*route).rows[class] = row;
    }
    ROUTE_ROWS.get_ptr_mut(row)
}
