//! How a vCPU translates addresses, as the properties of its node.

use super::{Error, Generation, TreeSpec};
use fdt::Node;

/// How vCPUs translate addresses. The tree offers one; there is nobody to negotiate with.
#[derive(Debug, Clone, Copy)]
pub enum Mmu<'a> {
    /// Through a hashed page table that the hypervisor keeps.
    Hash(HashMmu<'a>),
    /// Through radix trees in guest memory (ISA 3.0).
    Radix {
        /// The page sizes: `ap << 29 | shift`, as KVM_PPC_GET_RMMU_INFO gives them. Zeros are skipped.
        ap_encodings: &'a [u32],
        /// Whether the guest may run tlbie; if not it needs H_RPT_INVALIDATE.
        gtse: bool,
    },
}

/// Hash translation, as KVM_PPC_GET_SMMU_INFO and KVM_PPC_ALLOCATE_HTAB give it.
#[derive(Debug, Clone, Copy)]
pub struct HashMmu<'a> {
    /// log2 of the hashed page table's bytes.
    pub htab_order: u32,
    /// Entries of the segment lookaside buffer.
    pub slb_size: u32,
    /// Whether segments of 1 TiB exist beside those of 256 MiB.
    pub one_tib_segments: bool,
    /// The page sizes of each segment kind.
    pub segments: &'a [Segment<'a>],
    /// The largest page shift that may be used, when the hypervisor asks that a guest page be contiguous in
    /// host memory (KVM_PPC_PAGE_SIZES_REAL).
    pub page_shift_max: Option<u32>,
}

/// The pages that a segment with this base page size can hold.
#[derive(Debug, Clone, Copy)]
pub struct Segment<'a> {
    /// log2 of the base page size.
    pub shift: u32,
    /// Its encoding in an SLB entry.
    pub slb_encoding: u32,
    /// The actual page sizes, the base page size first.
    pub pages: &'a [Page],
}

/// An actual page size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// log2 of its size.
    pub shift: u32,
    /// Its encoding in a page table entry.
    pub pte_encoding: u32,
}

/// log2 of the segment sizes: 256 MiB and 1 TiB; all ones where PAPR has sizes that no processor offers.
const SEGMENT_SIZES: [u32; 4] = [28, 40, u32::MAX, u32::MAX];

impl Mmu<'_> {
    pub(super) fn check(&self, spec: &TreeSpec) -> Result<(), Error> {
        let generation = spec.cpu.generation;
        match self {
            Mmu::Radix { .. } if generation < Generation::Power9 => {
                Err(Error::NotOnThisProcessor { generation: generation.name(), what: "radix translation" })
            }
            Mmu::Radix { gtse: false, .. } if !spec.rtas.has_hypercalls("hcall-rpt-invalidate") => {
                Err(Error::NoInvalidation)
            }
            Mmu::Hash(hash) if hash.segment_page_sizes().is_empty() => {
                let shifts = hash.segments.iter().flat_map(|s| s.pages.iter().map(|p| p.shift));
                Err(Error::NoPageSizes {
                    least: 1u64.checked_shl(shifts.min().unwrap_or(12)).unwrap_or(u64::MAX),
                })
            }
            Mmu::Radix { .. } | Mmu::Hash(_) => Ok(()),
        }
    }

    pub(super) fn cpu_properties(&self, node: Node) -> Node {
        match self {
            Mmu::Radix { ap_encodings, .. } => {
                let encodings = ap_encodings.iter().copied().filter(|ap| *ap != 0);
                node.cells("ibm,processor-radix-AP-encodings", encodings)
            }
            Mmu::Hash(hash) => node
                // <0: the table is the hypervisor's, log2 of its bytes>. Linux stops early without it.
                .cells("ibm,pft-size", [0, hash.htab_order])
                .cells("ibm,segment-page-sizes", hash.segment_page_sizes())
                .when(hash.one_tib_segments, |node| node.cells("ibm,processor-segment-sizes", SEGMENT_SIZES))
                // The name of IEEE 1275's PowerPC binding, and PAPR's.
                .u32("slb-size", hash.slb_size)
                .u32("ibm,slb-size", hash.slb_size),
        }
    }
}

impl HashMmu<'_> {
    /// For each segment kind <base shift, SLB encoding, pages, <shift, PTE encoding>...>, without the pages that
    /// are too large, and without the segments whose base page is.
    fn segment_page_sizes(&self) -> Vec<u32> {
        let fits = |shift| self.page_shift_max.is_none_or(|max| shift <= max);
        let mut cells = Vec::new();
        for segment in self.segments.iter().filter(|s| fits(s.shift)) {
            let pages: Vec<_> = segment.pages.iter().filter(|p| fits(p.shift)).collect();
            if !pages.is_empty() {
                cells.extend([segment.shift, segment.slb_encoding, pages.len() as u32]);
                cells.extend(pages.iter().flat_map(|p| [p.shift, p.pte_encoding]));
            }
        }
        cells
    }
}
