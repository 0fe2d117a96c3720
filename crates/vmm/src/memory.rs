//! Guest RAM: private anonymous memory, zero at each boot, given back to the host at a reboot.

use arch_api::RamRegion;
use std::io;
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

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

fn advise(memory: &GuestMemoryMmap, advice: libc::c_int) -> io::Result<()> {
    for region in memory.iter() {
        let length = region.len() as usize;
        // SAFETY: `as_ptr` and `len` are this region's own private anonymous mapping, which lives as long as
        // `region`. Neither advice unmaps anything; a zeroed page is as valid guest content as any, and no
        // Rust reference points into guest memory, only volatile accesses do.
        let result = unsafe { libc::madvise(region.as_ptr().cast(), length, advice) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
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
    fn too_much_memory_is_an_error_that_says_so() {
        let regions = [RamRegion { start: GuestAddress(0), size: 1 << 62 }];
        let error = map(&regions).unwrap_err().to_string();
        assert!(error.contains("4611686018427387904 bytes"), "{error}");
    }
}
