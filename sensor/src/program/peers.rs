//! What the kernel noted of who answers at which address.

use std::{collections::BTreeMap, sync::atomic::AtomicU64, sync::atomic::Ordering::Relaxed};

use aya::{
    Ebpf, Pod,
    maps::{HashMap, MapData},
};
use memmap2::MmapRaw;
use sensor_common::{
    peer::{Endpoint, ServiceRef},
    route::RouteKey,
};

use super::{KernelError, tables::share, typed};

/// The maps of it.
pub(in crate::program) struct Peers {
    listeners: HashMap<MapData, Endpoint, ServiceRef>,
    answerers: HashMap<MapData, RouteKey, ServiceRef>,
    changes: MmapRaw,
    seen_changes: u64,
}

/// Who answers where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answering {
    /// Who accepts connections at an address.
    pub listeners: BTreeMap<Endpoint, ServiceRef>,
    /// Who answers what a service asks, where both are on this machine.
    pub answerers: BTreeMap<RouteKey, ServiceRef>,
}

impl Peers {
    pub fn of(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            changes: share::<u64>(ebpf, "PEER_CHANGES", 1)?,
            listeners: typed(ebpf, "LISTENERS", HashMap::try_from)?,
            answerers: typed(ebpf, "ANSWERERS", HashMap::try_from)?,
            seen_changes: 0,
        })
    }

    /// All of it if something changed since the last time.
    pub fn changed(&mut self) -> Option<Answering> {
        // SAFETY: the mapping holds one; the kernel adds to it atomically.
        let changes =
            unsafe { AtomicU64::from_ptr(self.changes.as_mut_ptr().cast()) }.load(Relaxed);
        if changes == self.seen_changes {
            return None;
        }
        self.seen_changes = changes;
        Some(Answering {
            listeners: entries(&self.listeners),
            answerers: entries(&self.answerers),
        })
    }
}

/// An entry that goes while they are read may be missed; its change was noted.
fn entries<K: Pod + Ord, V: Pod>(map: &HashMap<MapData, K, V>) -> BTreeMap<K, V> {
    map.iter().filter_map(Result::ok).collect()
}
