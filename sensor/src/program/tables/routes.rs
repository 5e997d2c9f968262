//! The part of the shared memory that requests are counted in by route.

use std::{
    ptr,
    sync::atomic::{
        AtomicU32, AtomicU64,
        Ordering::{Acquire, Relaxed},
    },
};

use aya::Ebpf;
use memmap2::MmapRaw;
use sensor_common::{
    histogram::BUCKETS,
    http::STATUS_CLASSES,
    record::{Row, SERVICES_MAX},
    route::{
        NO_ROUTE, Path, RETIRED, Route, RouteKey, RouteRowOwner, RoutesOfService, is_others,
        is_peer,
    },
};

use super::{
    KernelError, Sizes,
    cumulative::{Counters, Cumulative},
    parts::Parts,
    share,
};

/// Typed views of the shared arrays.
pub struct RouteTables {
    routes: Parts<Route>,
    rows: Parts<Row>,
    owners: MmapRaw,
    of_service: MmapRaw,
}

impl RouteTables {
    pub(super) fn map(ebpf: &mut Ebpf, sizes: &Sizes) -> Result<Self, KernelError> {
        Ok(Self {
            routes: Parts::new(ebpf, "ROUTES", sizes.routes as usize)?,
            rows: Parts::new(ebpf, "ROUTE_ROWS", sizes.route_rows as usize)?,
            owners: share::<RouteRowOwner>(ebpf, "ROUTE_ROW_OWNERS", sizes.route_rows as usize)?,
            of_service: share::<RoutesOfService>(ebpf, "ROUTES_OF_SERVICE", SERVICES_MAX as usize)?,
        })
    }

    /// Number of rows, the unused row 0 included.
    pub fn rows(&self) -> u32 {
        self.rows.len() as u32
    }

    /// Who row `row` belongs to; `None` while it is free.
    pub fn owner(&self, row: u32) -> Option<RouteRowOwner> {
        let owner = self.owner_ptr(row);
        // SAFETY: in bounds; the kernel writes the route last, once.
        let route = unsafe { AtomicU32::from_ptr(&raw mut (*owner).route) }.load(Acquire);
        // SAFETY: as above.
        let owner = unsafe { ptr::read_volatile(owner) };
        (route != NO_ROUTE).then_some(owner)
    }

    /// What the route in `slot` was taken for, and a path of it; `None` if its
    /// memory cannot be shared just now.
    pub fn route(&self, slot: u32) -> Option<(RouteKey, Path)> {
        let route = self.routes.get(slot as usize).ok()?;
        // SAFETY: in bounds; plain numbers, written before a row is.
        Some(unsafe {
            (
                ptr::read_volatile(&raw const (*route).key),
                ptr::read_volatile(&raw const (*route).path),
            )
        })
    }

    /// Events observed in `row`; `None` if its memory cannot be shared just now.
    pub fn samples(&self, row: u32) -> Option<u64> {
        let row = self.rows.get(row as usize).ok()?;
        // SAFETY: a live row; the kernel adds to it atomically.
        Some(unsafe { AtomicU64::from_ptr(&raw mut (*row).samples) }.load(Relaxed))
    }

    /// As [`Tables::advance`](super::Tables::advance), of one row for all CPUs.
    pub fn advance(
        &self,
        row: u32,
        last: &mut Cumulative,
        mut moved: impl FnMut(u8, u32),
    ) -> Option<(u64, u64)> {
        let row = self.rows.get(row as usize).ok()?;
        // SAFETY: a live row; the kernel adds to it atomically.
        let (samples, sum_ns, buckets) = unsafe {
            (
                AtomicU64::from_ptr(&raw mut (*row).samples).load(Relaxed),
                AtomicU64::from_ptr(&raw mut (*row).sum_ns).load(Relaxed),
                &*(&raw const (*row).buckets).cast::<[AtomicU32; BUCKETS]>(),
            )
        };
        let buckets = buckets.each_ref().map(|bucket| bucket.load(Relaxed));
        let now = Counters {
            samples,
            sum_ns,
            buckets: &buckets,
        };
        Some(last.advance(&now, &mut moved))
    }

    /// Takes the maximum of the windows with the parity of `epoch`.
    pub fn take_max_ns(&self, row: u32, epoch: u32) -> Option<u64> {
        let row = self.rows.get(row as usize).ok()?;
        // SAFETY: a live row; the kernel writes the other parity now.
        Some(unsafe {
            AtomicU64::from_ptr(&raw mut (*row).max_ns[(epoch & 1) as usize]).swap(0, Relaxed)
        })
    }

    /// Lets no request count in the route of `slot` any more, which was taken
    /// for `key`.
    pub(in crate::program) fn retire(&self, slot: u32, key: RouteKey) {
        // A route that is known is mapped.
        if let Ok(route) = self.routes.get(slot as usize) {
            // SAFETY: in bounds; the kernel only compares it.
            unsafe { AtomicU32::from_ptr(&raw mut (*route).key.method) }
                .store(key.method | RETIRED, Relaxed);
        }
        if !is_others(key.method) && key.service < SERVICES_MAX {
            let of_service = self.of_service_ptr(key.service);
            // SAFETY: in bounds; the kernel adds to it atomically.
            unsafe {
                let count = if is_peer(key.method) {
                    &raw mut (*of_service).peers
                } else {
                    &raw mut (*of_service).routes
                };
                AtomicU64::from_ptr(count).fetch_sub(1, Relaxed);
            }
        }
    }

    /// Sets for which paths lessons of a service are looked for.
    pub(in crate::program) fn set_lessons(&self, service: u32, bits: u64) {
        let of_service = self.of_service_ptr(service);
        // SAFETY: in bounds; only this process writes it.
        unsafe { AtomicU64::from_ptr(&raw mut (*of_service).lessons) }.store(bits, Relaxed);
    }

    pub(in crate::program) fn clear(&self, slot: u32) {
        let Ok(route) = self.routes.get(slot as usize) else {
            return;
        };
        // SAFETY: in bounds; the route is retired, so no program uses it.
        unsafe {
            ptr::write_volatile(&raw mut (*route).rows, [0; STATUS_CLASSES]);
            ptr::write_volatile(&raw mut (*route).key, RouteKey::default());
        }
    }

    pub(in crate::program) fn clear_owner(&self, row: u32) {
        let free = RouteRowOwner {
            route: NO_ROUTE,
            status_class: 0,
        };
        // SAFETY: in bounds; the row's route is retired.
        unsafe { ptr::write_volatile(self.owner_ptr(row), free) };
    }

    fn of_service_ptr(&self, service: u32) -> *mut RoutesOfService {
        assert!(service < SERVICES_MAX);
        // SAFETY: in bounds.
        unsafe {
            self.of_service
                .as_mut_ptr()
                .cast::<RoutesOfService>()
                .add(service as usize)
        }
    }

    fn owner_ptr(&self, row: u32) -> *mut RouteRowOwner {
        assert!(row < self.rows());
        // SAFETY: in bounds.
        unsafe {
            self.owners
                .as_mut_ptr()
                .cast::<RouteRowOwner>()
                .add(row as usize)
        }
    }
}
