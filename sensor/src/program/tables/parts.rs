//! An array of the kernel programs, mapped a part at a time.
//!
//! Memory that is mapped counts as the sensor's, used or not. Where numbers are
//! given out from the lowest on, most of a large array is never needed.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::OnceLock,
};

use aya::{Ebpf, maps::Map};
use memmap2::{MmapOptions, MmapRaw};

use super::{KernelError, page_size};

/// Entries of a part at least. The kernel maps all of a part at once.
const PART_LEN_MIN: usize = 256;

/// Values of type `T` by number, see the module.
pub(super) struct Parts<T> {
    map: OwnedFd,
    parts: Vec<OnceLock<MmapRaw>>,
    entries: usize,
    of: PhantomData<T>,
}

impl<T> Parts<T> {
    /// Nothing is mapped yet.
    pub fn new(ebpf: &Ebpf, name: &'static str, entries: usize) -> Result<Self, KernelError> {
        let Some(Map::Array(data)) = ebpf.map(name) else {
            return Err(KernelError::NoObject);
        };
        let map = data.fd().as_fd().try_clone_to_owned();
        let map = map.map_err(|source| KernelError::Io {
            action: "share memory with the kernel programs",
            source,
        })?;
        Ok(Self {
            map,
            parts: (0..entries.div_ceil(Self::part_len()))
                .map(|_| OnceLock::new())
                .collect(),
            entries,
            of: PhantomData,
        })
    }

    /// Entries of a part, which fill whole pages: those of a page have the greatest
    /// power of two in common with an entry.
    fn part_len() -> usize {
        let in_common = 1 << size_of::<T>().trailing_zeros();
        (page_size() / in_common).max(PART_LEN_MIN)
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// The entry `index`, mapped now if it was not yet.
    ///
    /// # Errors
    /// The kernel's, if memory is short; another time it may work.
    pub fn get(&self, index: usize) -> io::Result<*mut T> {
        assert!(index < self.entries);
        let (part, place) = (index / Self::part_len(), index % Self::part_len());
        let mapped = match self.parts[part].get() {
            Some(mapped) => mapped,
            None => {
                let mapped = self.map_part(part)?;
                self.parts[part].get_or_init(|| mapped)
            }
        };
        // SAFETY: within the part, which has as many entries as were mapped.
        Ok(unsafe { mapped.as_mut_ptr().cast::<T>().add(place) })
    }

    fn map_part(&self, part: usize) -> io::Result<MmapRaw> {
        let first = part * Self::part_len();
        let entries = (self.entries - first).min(Self::part_len());
        MmapOptions::new()
            .offset((first * size_of::<T>()) as u64)
            .len((entries * size_of::<T>()).next_multiple_of(page_size()))
            .map_raw(self.map.as_raw_fd())
    }
}
