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
        let unmapped = |_| Error::CannotResolve {
            iova_range: vm_memory::iommu::IovaRange { base: iova, length },
            reason: "not mapped".into(),
        };
        let mut entries = Iotlb::new();
        let size = 1 << self.0.page_shift();
        let end = iova.0.saturating_add(length as u64);
        let mut at = iova.0 & !(size - 1);
        while at < end {
            if let Some((page, permissions)) = self.0.page(at) {
                entries.set_mapping(GuestAddress(at), GuestAddress(page), size as usize, permissions)?;
            }
            at = match at.checked_add(size) {
                Some(next) => next,
                None => break,
            };
        }
        Iotlb::lookup(Access(entries), iova, length, access).map_err(unmapped)
    }
}

/// Guest memory as a device sees it.
pub type Memory = IommuMemory<GuestMemoryMmap, Bridge>;

/// `memory` by guest physical addresses; through `bridge` after [`Memory::set_iommu_enabled`].
#[must_use]
pub fn memory(memory: GuestMemoryMmap, bridge: Arc<dyn Translate>) -> Memory {
    Memory::new(memory, Bridge(bridge), false, ())
}
