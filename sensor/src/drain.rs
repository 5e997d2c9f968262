//! Kernel counters → histograms of one window.
//!
//! Counters are cumulative; the difference from the last snapshot is the
//! window. Only rows whose sample count moved are read.

use std::collections::BTreeMap;

use honeyguide_proto::ServiceId;
use sensor_common::{
    Histogram, Signal,
    histogram::Totals,
    record::{FIRST_SERVICE, Loss, RowOwner},
};

use crate::{
    identity::Names,
    program::{
        Kernel, KernelError,
        tables::{Cumulative, Tables},
    },
};

/// What one window held.
#[derive(Debug, Default)]
pub struct Drained {
    /// Histograms by service and signal; none is empty.
    pub series: BTreeMap<(ServiceId, Signal), Histogram>,
    /// Losses by reason, of this window.
    pub losses: Vec<(Loss, u64)>,
}

/// Remembers the last snapshot, and who each row belongs to.
#[derive(Debug)]
pub struct Drain {
    snapshots: Vec<Option<Box<Cumulative>>>,
    names: Names,
    services: BTreeMap<u32, KnownService>,
    losses: [u64; Loss::ALL.len()],
    /// Windows without events after which a service is retired.
    idle_windows_max: u32,
    /// Retired in the last window; recycled after this one.
    retired: Vec<u32>,
    scratch: Box<Cumulative>,
}

#[derive(Debug)]
struct KnownService {
    generation: u32,
    id: ServiceId,
    rows: Vec<u32>,
    idle_windows: u32,
}

impl Drain {
    /// Starts from zero: what the kernel counted before is the first window's.
    pub fn new(rows: u32, names: Names, idle_windows_max: u32) -> Self {
        Self {
            snapshots: (0..rows).map(|_| None).collect(),
            names,
            services: BTreeMap::new(),
            losses: [0; Loss::ALL.len()],
            idle_windows_max,
            retired: Vec::new(),
            scratch: Box::default(),
        }
    }

    /// Number of services that own rows.
    pub fn services(&self) -> usize {
        self.services.len()
    }

    /// Ends the window and takes what it held.
    ///
    /// # Errors
    /// [`KernelError`] if the loss counters cannot be read; no event is lost then.
    pub fn drain(&mut self, kernel: &mut Kernel) -> Result<Drained, KernelError> {
        let losses = kernel.losses()?;
        let mut drained = Drained {
            losses: self.lost_since(losses),
            ..Drained::default()
        };
        let tables = kernel.tables();
        let epoch = tables.next_epoch();
        for service in self.services.values_mut() {
            service.idle_windows = service.idle_windows.saturating_add(1);
        }
        let mut scanned = false;
        for row in 1..tables.rows() {
            let Some(owner) = tables.owner(row) else {
                continue;
            };
            let samples = tables.samples(row);
            let known = self.snapshots[row as usize]
                .as_deref()
                .map_or(0, |last| last.samples);
            if samples == known {
                continue;
            }
            self.know(tables, owner, row, &mut scanned);
            self.take_row(tables, row, owner, epoch, &mut drained);
        }
        self.retire_and_recycle(kernel);
        Ok(drained)
    }

    fn take_row(
        &mut self,
        tables: &Tables,
        row: u32,
        owner: RowOwner,
        epoch: u32,
        drained: &mut Drained,
    ) {
        let Some(signal) = u8::try_from(owner.signal_plus_one - 1)
            .ok()
            .and_then(Signal::from_number)
        else {
            return;
        };
        let Some(service) = self.services.get_mut(&owner.service) else {
            return;
        };
        service.idle_windows = 0;
        tables.read(row, &mut self.scratch);
        let last = self.snapshots[row as usize].get_or_insert_default();
        let key = (service.id.clone(), signal);
        let histogram = drained.series.entry(key).or_default();
        for (position, (now, before)) in self.scratch.buckets.iter().zip(&last.buckets).enumerate()
        {
            let count = now.wrapping_sub(*before);
            if count != 0 {
                histogram.add(position, u64::from(count));
            }
        }
        histogram.add_totals(Totals {
            samples: self.scratch.samples.wrapping_sub(last.samples),
            sum_ns: self.scratch.sum_ns.wrapping_sub(last.sum_ns),
            max_ns: tables.take_max_ns(row, epoch),
        });
        std::mem::swap(last, &mut self.scratch);
    }

    /// Learns the name of the row's service, and that the row is its.
    fn know(&mut self, tables: &Tables, owner: RowOwner, row: u32, scanned: &mut bool) {
        let record = tables.service(owner.service);
        let known = self.services.get_mut(&owner.service);
        if let Some(known) = known.filter(|known| known.generation == record.generation) {
            if !known.rows.contains(&row) {
                known.rows.push(row);
            }
            return;
        }
        let unknown_group =
            owner.service >= FIRST_SERVICE && !self.names.knows(record.key.cgroup_id);
        if unknown_group && !*scanned {
            *scanned = true;
            self.names.scan();
        }
        let service = KnownService {
            generation: record.generation,
            id: self.names.name(owner.service, &record.key, record.tgid),
            rows: vec![row],
            idle_windows: 0,
        };
        self.services.insert(owner.service, service);
    }

    fn lost_since(&mut self, losses: [u64; Loss::ALL.len()]) -> Vec<(Loss, u64)> {
        let before = std::mem::replace(&mut self.losses, losses);
        let lost = Loss::ALL.into_iter().zip(losses.into_iter().zip(before));
        lost.map(|(reason, (now, before))| (reason, now.wrapping_sub(before)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// A service retired one window ago had its last drain now.
    fn retire_and_recycle(&mut self, kernel: &mut Kernel) {
        for index in std::mem::take(&mut self.retired) {
            if let Some(service) = self.services.remove(&index) {
                kernel.recycle(index, &service.rows);
            }
        }
        let idle = self.services.iter().filter(|(index, service)| {
            **index >= FIRST_SERVICE && service.idle_windows >= self.idle_windows_max
        });
        let idle: Vec<u32> = idle.map(|(index, _)| *index).collect();
        for index in idle {
            kernel.retire(index);
            if let Some(service) = self.services.get_mut(&index) {
                // The row of a last event must still find its service.
                service.generation = service.generation.wrapping_add(1);
            }
            self.retired.push(index);
        }
    }
}
