//! Translation control entries: which guest page each page of the DMA window stands for.
//!
//! A device that was asked to (VIRTIO_F_ACCESS_PLATFORM) uses bus addresses in the window; the guest maps them by
//! hypercalls, an 8-byte entry for each 4 KiB: the guest physical page, and in the low bits what the device may do there.
//! An entry that allows nothing maps nothing.
//!
//! What must hold: an entry that allows something names a page of RAM; the caller checks that before it stores one. The table
//! takes memory as it is filled, no more than the window's size says, and no lock. Source: PAPR, 14.5.4.2.

use crate::layout::PCI_DMA_SIZE;
use devices::dma::Translate;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use vm_memory::Permissions;

/// log2 of the bytes that an entry maps.
pub const PAGE_SHIFT: u32 = 12;

/// The device may read the page.
const READ: u64 = 1;
/// The device may write the page.
const WRITE: u64 = 2;

/// Entries that are allocated together: those of 16 MiB, in 32 KiB.
const CHUNK: usize = 4096;

const ENTRIES: usize = (PCI_DMA_SIZE >> PAGE_SHIFT) as usize;

/// The entries of a run of pages, or nothing where all of them are 0.
type Chunk = OnceLock<Box<[AtomicU64]>>;

/// The table of one window.
#[derive(Debug)]
pub struct TceTable {
    chunks: Box<[Chunk]>,
}

/// What an entry allows, and where it leads.
pub struct Tce(pub u64);

impl Tce {
    /// The guest physical address of its page.
    pub fn page(&self) -> u64 {
        self.0 & !((1 << PAGE_SHIFT) - 1)
    }

    /// What the device may do there; `None` if nothing.
    pub fn permissions(&self) -> Option<Permissions> {
        match self.0 & (READ | WRITE) {
            0 => None,
            READ => Some(Permissions::Read),
            WRITE => Some(Permissions::Write),
            _ => Some(Permissions::ReadWrite),
        }
    }
}

impl Default for TceTable {
    /// Nothing is mapped.
    fn default() -> Self {
        Self { chunks: (0..ENTRIES / CHUNK).map(|_| Chunk::new()).collect() }
    }
}

impl TceTable {
    /// The entries of `count` pages from bus address `ioba`; `None` where that is not wholly pages of the window.
    #[must_use]
    pub fn range(&self, ioba: u64, count: u64) -> Option<std::ops::Range<usize>> {
        let first = ioba >> PAGE_SHIFT;
        let end = first.checked_add(count)?;
        let whole = ioba % (1 << PAGE_SHIFT) == 0 && end <= ENTRIES as u64;
        whole.then_some(first as usize..end as usize)
    }

    /// An entry, as it was stored.
    ///
    /// # Panics
    /// When `index` did not come out of [`range`](Self::range), as for [`set`](Self::set).
    #[must_use]
    pub fn get(&self, index: usize) -> u64 {
        let entries = self.chunks[index / CHUNK].get();
        // Acquire: a device that finds the entry finds what the guest wrote before it was stored.
        entries.map_or(0, |entries| entries[index % CHUNK].load(Ordering::Acquire))
    }

    /// Stores an entry.
    pub fn set(&self, index: usize, tce: u64) {
        let chunk = &self.chunks[index / CHUNK];
        let entries = match chunk.get() {
            Some(entries) => entries,
            None if tce == 0 => return,
            None => chunk.get_or_init(|| (0..CHUNK).map(|_| AtomicU64::new(0)).collect()),
        };
        entries[index % CHUNK].store(tce, Ordering::Release);
    }

    /// Every entry that is not 0.
    #[cfg(test)]
    pub fn stored(&self) -> impl Iterator<Item = u64> {
        let entries = self.chunks.iter().filter_map(OnceLock::get).flatten();
        entries.map(|entry| entry.load(Ordering::Acquire)).filter(|tce| *tce != 0)
    }

    /// Maps nothing any more. No vCPU runs, and no device is at work.
    pub fn reset(&self) {
        for entry in self.chunks.iter().filter_map(OnceLock::get).flatten() {
            entry.store(0, Ordering::Relaxed);
        }
    }
}

impl Translate for TceTable {
    fn page_shift(&self) -> u32 {
        PAGE_SHIFT
    }

    fn page(&self, address: u64) -> Option<(u64, Permissions)> {
        let aligned = address & !((1 << PAGE_SHIFT) - 1);
        let tce = Tce(self.get(self.range(aligned, 1)?.start));
        Some((tce.page(), tce.permissions()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_table_costs_nothing_and_maps_nothing() {
        let table = TceTable::default();
        let all = table.range(0, ENTRIES as u64).unwrap();
        all.for_each(|index| table.set(index, 0));
        assert!(table.chunks.iter().all(|chunk| chunk.get().is_none()));
        assert_eq!((table.get(7), table.page(0x7000).is_none()), (0, true));
    }

    #[test]
    fn ranges_are_whole_pages_within_the_window() {
        let table = TceTable::default();
        let end = PCI_DMA_SIZE;
        assert_eq!(table.range(0x1000, 2), Some(1..3));
        assert_eq!(table.range(end - 0x1000, 1), Some(ENTRIES - 1..ENTRIES));
        assert_eq!(table.range(end, 0), Some(ENTRIES..ENTRIES));
        for (ioba, count) in
            [(1, 1), (0xfff, 0), (end - 0x1000, 2), (end, 1), (0, u64::MAX), (!0xfff, u64::MAX)]
        {
            assert_eq!(table.range(ioba, count), None, "{ioba:#x} {count:#x}");
        }
    }

    #[test]
    fn entries_translate_as_their_permissions_say() {
        let table = TceTable::default();
        for (index, (bits, permissions)) in [
            (0, None),
            (READ, Some(Permissions::Read)),
            (WRITE, Some(Permissions::Write)),
            (READ | WRITE, Some(Permissions::ReadWrite)),
        ]
        .into_iter()
        .enumerate()
        {
            table.set(index, 0xabc_d000 | bits);
            let page = table.page((index as u64) << PAGE_SHIFT | 0x123);
            assert_eq!(page, permissions.map(|permissions| (0xabc_d000, permissions)));
        }
        assert!(table.page(u64::MAX).is_none() && table.page(PCI_DMA_SIZE).is_none());
        table.reset();
        assert_eq!((table.get(3), table.page(0x3000).is_none()), (0, true));
    }
}
