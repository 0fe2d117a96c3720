//! Guest memory as devices see it: by guest physical addresses or, where the driver asks for it
//! (VIRTIO_F_ACCESS_PLATFORM), through the host bridge's translation.

use std::fmt::Debug;
use std::ops::Deref;
use std::sync::Arc;
use vm_memory::iommu::{Error, Iommu, IotlbIterator};
use vm_memory::{GuestAddress, GuestMemoryMmap, IommuMemory, Iotlb, Permissions};

/// A host bridge's translation of bus addresses.
pub trait Translate: Debug + Send + Sync {
    /// log2 of a page's size in bytes.
    fn page_shift(&self) -> u32;

    /// The guest physical address of the page that holds bus address `address`, and what the device may do there.
    fn page(&self, address: u64) -> Option<(u64, Permissions)>;
}

/// No translation: nothing is mapped. For buses that have none, whose devices do not offer it.
#[derive(Debug)]
pub struct Untranslated;

impl Translate for Untranslated {
    fn page_shift(&self) -> u32 {
        12
    }

    fn page(&self, _: u64) -> Option<(u64, Permissions)> {
        None
    }
}

/// [`Translate`] as vm-memory wants it. It keeps no translation from one access to the next, so none is ever stale:
/// only devices that were asked to go through the bridge pay for the look-up.
#[derive(Debug, Clone)]
pub struct Bridge(Arc<dyn Translate>);

/// The translations of one access.
#[derive(Debug)]
pub struct Access(Iotlb);

impl Deref for Access {
    type Target = Iotlb;

    fn deref(&self) -> &Iotlb {
        &self.0
    }
}

impl Iommu for Bridge {
    type IotlbGuard<'a> = Access;

    fn translate(
        &self,
        iova: GuestAddress,
        length: usize,
        access: Permissions,
    ) -> Result<IotlbIterator<Access>, Error> {
        let unmapped = || Error::CannotResolve {
            iova_range: vm_memory::iommu::IovaRange { base: iova, length },
            reason: "not mapped".into(),
        };
        let mut entries = Iotlb::new();
        let size = 1 << self.0.page_shift();
        // vm-memory adds these up without looking, for the pages as for the range.
        let end = iova.0.checked_add(length as u64).ok_or_else(unmapped)?;
        let pages = end.checked_next_multiple_of(size).ok_or_else(unmapped)?;
        let mut at = iova.0 & !(size - 1);
        while at < pages {
            // The first page that is not there ends it: a long range costs no more than what is mapped of it.
            let (page, permissions) = self.0.page(at).ok_or_else(unmapped)?;
            entries.set_mapping(GuestAddress(at), GuestAddress(page), size as usize, permissions)?;
            at += size;
        }
        Iotlb::lookup(Access(entries), iova, length, access).map_err(|_| unmapped())
    }
}

/// Guest memory as a device sees it.
pub type Memory = IommuMemory<GuestMemoryMmap, Bridge>;

/// `memory` by guest physical addresses; through `bridge` after [`Memory::set_iommu_enabled`].
#[must_use]
pub fn memory(memory: GuestMemoryMmap, bridge: Arc<dyn Translate>) -> Memory {
    Memory::new(memory, Bridge(bridge), false, ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::{Bytes, GuestMemory};

    /// Pages 0x10000 and 0x11000 lie in reverse order; 0x12000 may only be read.
    #[derive(Debug)]
    struct Window;

    impl Translate for Window {
        fn page_shift(&self) -> u32 {
            12
        }

        fn page(&self, address: u64) -> Option<(u64, Permissions)> {
            match address {
                0x1_0000 => Some((0x3000, Permissions::ReadWrite)),
                0x1_1000 => Some((0x2000, Permissions::ReadWrite)),
                0x1_2000 => Some((0x1000, Permissions::Read)),
                0xffff_ffff_ffff_f000 => Some((0, Permissions::ReadWrite)),
                _ => None,
            }
        }
    }

    fn translated() -> Memory {
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x4000)]).unwrap();
        let mut memory = memory(ram, Arc::new(Window));
        memory.set_iommu_enabled(true);
        memory
    }

    #[test]
    fn a_range_follows_its_pages() {
        let memory = translated();
        memory.write_slice(&[1, 2, 3, 4], GuestAddress(0x1_0ffe)).unwrap();
        let ram = memory.get_backend();
        assert_eq!(ram.read_obj::<[u8; 2]>(GuestAddress(0x3ffe)).unwrap(), [1, 2]);
        assert_eq!(ram.read_obj::<[u8; 2]>(GuestAddress(0x2000)).unwrap(), [3, 4]);
    }

    #[test]
    fn what_is_not_mapped_is_an_error() {
        let memory = translated();
        let may = |address, length, access| memory.check_range(GuestAddress(address), length, access);
        assert!(may(0x1_0000, 0x3000, Permissions::Read));
        assert!(!may(0x1_0000, 0x3000, Permissions::Write));
        assert!(!may(0x1_0000, 0x3001, Permissions::Read));
        assert!(!may(0xffff, 2, Permissions::Read));
        assert!(!may(0, 1, Permissions::Read));
        assert!(!may(u64::MAX - 1, 1, Permissions::Read));
        assert!(!may(u64::MAX, 1, Permissions::Read));
        assert!(!may(u64::MAX, usize::MAX, Permissions::Read));
        assert!(may(0x1_0000, 0, Permissions::Read));
    }
}
