//! The memory shared with the kernel programs.
//!
//! Counters are read while the kernel adds to them. Each is read once, whole
//! and relaxed; buckets of one row may be of slightly different instants, so
//! the count of a row is the sum of its buckets and the next drain has the rest.

use std::{
    os::fd::{AsFd, AsRawFd},
    ptr,
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

use aya::{Ebpf, maps::Map};
use memmap2::{MmapOptions, MmapRaw};
use sensor_common::{
    histogram::BUCKETS,
    record::{GlobalConfig, Row, RowOwner, SERVICES_MAX, Service, SignalConfig},
    signal::SIGNALS_MAX,
};

use self::{cumulative::Counters, parts::Parts};
use super::{KernelError, Sizes};

mod cumulative;
mod parts;
mod routes;

pub use cumulative::Cumulative;
pub use routes::RouteTables;

const _: () = assert!(std::mem::offset_of!(Row, buckets).is_multiple_of(8));

/// Typed views of the shared arrays.
pub struct Tables {
    rows: Parts<Row>,
    owners: MmapRaw,
    services: MmapRaw,
    config: MmapRaw,
    stripes: usize,
    rows_per_stripe: u32,
    routes: RouteTables,
}

impl Tables {
    pub(super) fn map(
        ebpf: &mut Ebpf,
        stripes: usize,
        sizes: &Sizes,
    ) -> Result<Tables, KernelError> {
        let rows = sizes.rows;
        let tables = Tables {
            rows: Parts::new(ebpf, "ROWS", stripes * rows as usize)?,
            owners: share::<RowOwner>(ebpf, "ROW_OWNERS", rows as usize)?,
            services: share::<Service>(ebpf, "SERVICES", SERVICES_MAX as usize)?,
            config: share::<GlobalConfig>(ebpf, "CONFIG", 1)?,
            stripes,
            rows_per_stripe: rows,
            routes: RouteTables::map(ebpf, sizes)?,
        };
        // SAFETY: the mapping holds one `GlobalConfig`; no program runs yet.
        unsafe {
            let config = tables.config.as_mut_ptr().cast::<GlobalConfig>();
            (*config).stripe_mask = stripes as u32 - 1;
        }
        Ok(tables)
    }

    /// What requests are counted in by route.
    pub fn routes(&self) -> &RouteTables {
        &self.routes
    }

    /// Sets how many routes of a service requests are told apart by at most;
    /// with 0 they are not parsed.
    pub fn set_routes_per_service(&self, routes: u32) {
        let config = self.config.as_mut_ptr().cast::<GlobalConfig>();
        // SAFETY: the mapping holds one; only this process writes it.
        unsafe { AtomicU64::from_ptr(&raw mut (*config).routes_per_service) }
            .store(u64::from(routes), Relaxed);
    }

    /// Sets whether requests are parsed on the side that makes them, too.
    pub fn set_client_routes(&self, are_wanted: bool) {
        let config = self.config.as_mut_ptr().cast::<GlobalConfig>();
        // SAFETY: the mapping holds one; only this process writes it.
        unsafe { AtomicU64::from_ptr(&raw mut (*config).client_routes) }
            .store(u64::from(are_wanted), Relaxed);
    }

    /// Sets for which paths lessons of every service are looked for.
    pub(super) fn set_lessons(&self, bits: u64) {
        let config = self.config.as_mut_ptr().cast::<GlobalConfig>();
        // SAFETY: the mapping holds one; only this process writes it.
        unsafe { AtomicU64::from_ptr(&raw mut (*config).lessons) }.store(bits, Relaxed);
    }

    /// Number of rows, the unused row 0 included.
    pub fn rows(&self) -> u32 {
        self.rows_per_stripe
    }

    /// Who row `row` belongs to; `None` while it is free.
    pub fn owner(&self, row: u32) -> Option<RowOwner> {
        assert!(row < self.rows_per_stripe);
        // SAFETY: in bounds; written once by the kernel before the row is used.
        let owner = unsafe {
            ptr::read_volatile(self.owners.as_ptr().cast::<RowOwner>().add(row as usize))
        };
        (owner.signal_plus_one != 0).then_some(owner)
    }

    /// Events observed in `row` over all stripes; `None` if its memory cannot be
    /// shared just now.
    pub fn samples(&self, row: u32) -> Option<u64> {
        self.stripes_of(row).try_fold(0, |sum: u64, row| {
            // SAFETY: a live row; the kernel adds to it atomically.
            let samples = unsafe { AtomicU64::from_ptr(&raw mut (*row?).samples) };
            Some(sum.wrapping_add(samples.load(Relaxed)))
        })
    }

    /// Reads `row` over all stripes into `last`, which holds what was read
    /// before. Calls `moved` with the position and the increase of each bucket
    /// that grew; returns the increase of samples and sum, `None` if the memory
    /// cannot be shared just now.
    ///
    /// An event may be seen in its bucket and not yet in the samples, which the
    /// kernel counts later. It is a sample of the next time then, unless that
    /// has no events: there are never more samples than events.
    pub fn advance(
        &self,
        row: u32,
        last: &mut Cumulative,
        mut moved: impl FnMut(u8, u32),
    ) -> Option<(u64, u64)> {
        let (mut samples, mut sum_ns) = (0u64, 0u64);
        // Two buckets at a time, and only those that moved are written.
        let mut pairs = [[0u32; 2]; BUCKETS / 2];
        for row in self.stripes_of(row) {
            let row = row?;
            // SAFETY: a live row; the kernel adds to it atomically, and an
            // aligned pair of counters is read at once.
            unsafe {
                let row_samples = AtomicU64::from_ptr(&raw mut (*row).samples).load(Relaxed);
                let row_sum_ns = AtomicU64::from_ptr(&raw mut (*row).sum_ns).load(Relaxed);
                samples = samples.wrapping_add(row_samples);
                sum_ns = sum_ns.wrapping_add(row_sum_ns);
                let row_pairs = &*(&raw const (*row).buckets).cast::<[AtomicU64; BUCKETS / 2]>();
                for (total, pair) in pairs.iter_mut().zip(row_pairs) {
                    let pair: [u32; 2] = bytemuck::cast(pair.load(Relaxed));
                    *total = [
                        total[0].wrapping_add(pair[0]),
                        total[1].wrapping_add(pair[1]),
                    ];
                }
            }
        }
        let now = Counters {
            samples,
            sum_ns,
            buckets: pairs.as_flattened(),
        };
        Some(last.advance(&now, &mut moved))
    }

    /// Takes the maximum of the windows with the parity of `epoch`.
    pub fn take_max_ns(&self, row: u32, epoch: u32) -> Option<u64> {
        self.stripes_of(row).try_fold(0, |longest: u64, row| {
            // SAFETY: a live row; the kernel writes the other parity now.
            let max_ns =
                unsafe { AtomicU64::from_ptr(&raw mut (*row?).max_ns[(epoch & 1) as usize]) };
            Some(longest.max(max_ns.swap(0, Relaxed)))
        })
    }

    fn stripes_of(&self, row: u32) -> impl Iterator<Item = Option<*mut Row>> {
        assert!(row < self.rows_per_stripe);
        (0..self.stripes).map(move |stripe| {
            let place = stripe * self.rows_per_stripe as usize + row as usize;
            self.rows.get(place).ok()
        })
    }

    /// The service at `index`.
    pub fn service(&self, index: u32) -> Service {
        // SAFETY: `service_ptr` is in bounds; fields are plain numbers.
        unsafe { ptr::read_volatile(self.service_ptr(index)) }
    }

    /// The generation of the service at `index`.
    pub fn generation(&self, index: u32) -> u32 {
        // SAFETY: `service_ptr` is in bounds; a plain number.
        unsafe { ptr::read_volatile(&raw const (*self.service_ptr(index)).generation) }
    }

    /// Switches a signal of one service.
    pub fn set_service_config(&self, index: u32, signal: u8, config: SignalConfig) {
        // SAFETY: in bounds (the array index is checked); a single byte.
        unsafe {
            let slot = &raw mut (*self.service_ptr(index)).config[signal as usize];
            ptr::write_volatile(slot, config);
        }
    }

    /// The switches of one service, by signal number.
    pub fn service_config(&self, index: u32) -> [SignalConfig; SIGNALS_MAX] {
        // SAFETY: `service_ptr` is in bounds; plain bytes.
        unsafe { ptr::read_volatile(&raw const (*self.service_ptr(index)).config) }
    }

    /// What began before `now_ns` of the monotonic clock counts no more.
    pub(super) fn set_resumed(&self, now_ns: u64) {
        let config = self.config.as_mut_ptr().cast::<GlobalConfig>();
        // SAFETY: the mapping holds one; only this process writes it.
        unsafe { AtomicU64::from_ptr(&raw mut (*config).resumed_ns) }.store(now_ns, Relaxed);
    }

    pub(super) fn next_generation(&self, index: u32) {
        // SAFETY: in bounds; only this process writes generations.
        let generation =
            unsafe { AtomicU32::from_ptr(&raw mut (*self.service_ptr(index)).generation) };
        generation.fetch_add(1, Relaxed);
    }

    pub(super) fn clear_service(&self, index: u32) {
        // SAFETY: in bounds; the service is retired, so no program uses it.
        unsafe { (*self.service_ptr(index)).rows = [0; SIGNALS_MAX] };
    }

    pub(super) fn clear_owner(&self, row: u32) {
        assert!(row < self.rows_per_stripe);
        let free = RowOwner {
            service: 0,
            signal_plus_one: 0,
        };
        // SAFETY: in bounds; the row's service is retired.
        unsafe {
            ptr::write_volatile(
                self.owners
                    .as_mut_ptr()
                    .cast::<RowOwner>()
                    .add(row as usize),
                free,
            )
        };
    }

    fn service_ptr(&self, index: u32) -> *mut Service {
        assert!(index < SERVICES_MAX);
        // SAFETY: in bounds.
        unsafe {
            self.services
                .as_mut_ptr()
                .cast::<Service>()
                .add(index as usize)
        }
    }

    /// The global configuration.
    pub fn config(&self) -> GlobalConfig {
        // SAFETY: the mapping holds one.
        unsafe { ptr::read_volatile(self.config.as_ptr().cast::<GlobalConfig>()) }
    }

    /// Begins a new epoch; returns the one that ends.
    pub fn next_epoch(&self) -> u32 {
        let config = self.config.as_mut_ptr().cast::<GlobalConfig>();
        // SAFETY: the mapping holds one; only this process writes it.
        unsafe { AtomicU32::from_ptr(&raw mut (*config).epoch) }.fetch_add(1, Relaxed)
    }

    /// Sets what services not seen before start with, and what is decided
    /// before a service is looked up.
    pub fn set_signal_config(&self, signal: u8, default: SignalConfig, first_stage: SignalConfig) {
        let config = self.config.as_mut_ptr().cast::<GlobalConfig>();
        // SAFETY: the mapping holds one; single bytes, indexes are checked.
        unsafe {
            ptr::write_volatile(&raw mut (*config).default[signal as usize], default);
            ptr::write_volatile(&raw mut (*config).first_stage[signal as usize], first_stage);
        }
    }
}

/// Maps the memory of an mmap-able array of `entries` values of type `T`.
pub(super) fn share<T>(
    ebpf: &mut Ebpf,
    name: &'static str,
    entries: usize,
) -> Result<MmapRaw, KernelError> {
    let Some(Map::Array(data)) = ebpf.map(name) else {
        return Err(KernelError::NoObject);
    };
    let length = entries * size_of::<T>();
    let fd = data.fd().as_fd();
    MmapOptions::new()
        .len(length.next_multiple_of(page_size()))
        .map_raw(fd.as_raw_fd())
        .map_err(|source| KernelError::Io {
            action: "share memory with the kernel programs",
            source,
        })
}

fn page_size() -> usize {
    // SAFETY: no preconditions.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}
