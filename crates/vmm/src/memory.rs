//! Guest RAM: private anonymous memory, zero at each boot, given back to the host at a reboot, and in parts when the
//! guest says so (a balloon).

use arch_api::RamRegion;
use devices::virtio::balloon::Release;
use std::io;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, VolatileSlice};

/// Guest RAM cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot map {size} bytes of guest memory; give the guest less memory")]
pub struct MemoryError {
    size: u64,
    #[source]
    source: io::Error,
}

/// Maps the regions. Pages come from the host when they are first touched.
pub(crate) fn map(regions: &[RamRegion]) -> Result<GuestMemoryMmap, MemoryError> {
    let size = regions.iter().map(|r| r.size).sum();
    let fail = |source| MemoryError { size, source };
    let ranges: Option<Vec<_>> =
        regions.iter().map(|r| Some((r.start, usize::try_from(r.size).ok()?))).collect();
    let ranges = ranges.ok_or_else(|| fail(io::Error::from(io::ErrorKind::OutOfMemory)))?;
    let memory = GuestMemoryMmap::from_ranges(&ranges).map_err(|e| fail(io::Error::other(e)))?;
    // Huge pages save most of the guest's faults. A host that has none of them is no reason to fail.
    if let Err(error) = advise(&memory, libc::MADV_HUGEPAGE) {
        tracing::debug!(%error, "no transparent huge pages for guest memory");
    }
    Ok(memory)
}

/// Drops all content: every page reads as zero again and costs the host nothing until it is touched.
pub(crate) fn discard(memory: &GuestMemoryMmap) -> io::Result<()> {
    advise(memory, libc::MADV_DONTNEED)
}

/// Gives pages of guest RAM back to the host, one at a time or many.
#[derive(Debug, Clone, Copy)]
pub struct HostPages {
    size: u64,
}

impl HostPages {
    /// Pages of this host.
    #[must_use]
    pub fn new() -> Self {
        // SAFETY: sysconf takes and returns integers.
        let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        // It is known on Linux. Were it not, the largest there is would be right too.
        Self { size: u64::try_from(size).unwrap_or(64 << 10) }
    }
}

impl Default for HostPages {
    fn default() -> Self {
        Self::new()
    }
}

impl Release for HostPages {
    fn page_size(&self) -> u64 {
        self.size
    }

    fn release(&self, memory: &GuestMemoryMmap, address: GuestAddress, length: u64) -> io::Result<()> {
        let not_ram = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let length = usize::try_from(length).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        for part in memory.get_slices(address, length) {
            madvise(&part.map_err(not_ram)?, libc::MADV_DONTNEED)?;
        }
        Ok(())
    }
}

fn advise(memory: &GuestMemoryMmap, advice: libc::c_int) -> io::Result<()> {
    memory
        .iter()
        .try_for_each(|region| madvise(&region.as_volatile_slice().map_err(io::Error::other)?, advice))
}

/// madvise(2) on a part of guest RAM; `advice` is MADV_HUGEPAGE or MADV_DONTNEED.
fn madvise(part: &VolatileSlice<'_>, advice: libc::c_int) -> io::Result<()> {
    let start = part.ptr_guard_mut();
    // SAFETY: `part` is of a region's own private anonymous mapping, which outlives it. Neither advice unmaps anything; a
    // zeroed page is as valid guest content as any, and no Rust reference points into guest memory, only volatile
    // accesses do.
    match unsafe { libc::madvise(start.as_ptr().cast(), part.len(), advice) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::{Bytes, GuestAddress};

    #[test]
    fn discarded_memory_is_zero() {
        let regions = [RamRegion { start: GuestAddress(0), size: 1 << 20 }];
        let memory = map(&regions).unwrap();
        memory.write_obj(0xdead_beef_u32, GuestAddress(0x1234)).unwrap();
        discard(&memory).unwrap();
        assert_eq!(memory.read_obj::<u32>(GuestAddress(0x1234)).unwrap(), 0);
    }

    #[test]
    fn released_pages_are_zero_and_no_others() {
        let size = HostPages::new().page_size();
        let regions = [
            RamRegion { start: GuestAddress(0), size: 4 * size },
            RamRegion { start: GuestAddress(4 * size), size: 4 * size },
        ];
        let memory = map(&regions).unwrap();
        for page in 0..8 {
            memory.write_obj(page + 1, GuestAddress(page * size)).unwrap();
        }
        // Over the border of two regions.
        HostPages::new().release(&memory, GuestAddress(3 * size), 2 * size).unwrap();
        let found: Vec<u64> =
            (0..8).map(|page| memory.read_obj(GuestAddress(page * size)).unwrap()).collect();
        assert_eq!(found, [1, 2, 3, 0, 0, 6, 7, 8]);
        assert!(HostPages::new().release(&memory, GuestAddress(7 * size), 2 * size).is_err());
        assert!(HostPages::new().release(&memory, GuestAddress(1), size).is_err(), "no page begins there");
    }

    #[test]
    fn too_much_memory_is_an_error_that_says_so() {
        let regions = [RamRegion { start: GuestAddress(0), size: 1 << 62 }];
        let error = map(&regions).unwrap_err().to_string();
        assert!(error.contains("4611686018427387904 bytes"), "{error}");
    }
}
