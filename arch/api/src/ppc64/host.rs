//! What a POWER host can do, as plain data: the decisions that follow from it are made and tested on any machine.

use super::CedeRoute;

/// A generation of the instruction set that guests know by its logical PVR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Generation {
    /// ISA 2.07.
    Power8,
    /// ISA 3.0.
    Power9,
    /// ISA 3.1; POWER11 runs guests of this level too.
    Power10,
}

impl Generation {
    /// The generation of a processor, from its PVR.
    #[must_use]
    pub fn of_pvr(pvr: u32) -> Option<Self> {
        match pvr >> 16 {
            0x4b | 0x4c | 0x4d | 0x66 => Some(Self::Power8),
            0x4e => Some(Self::Power9),
            0x80 | 0x82 => Some(Self::Power10),
            _ => None,
        }
    }

    /// The logical PVR that KVM_REG_PPC_ARCH_COMPAT takes.
    #[must_use]
    pub fn logical_pvr(self) -> u32 {
        match self {
            Self::Power8 => 0x0f00_0004,
            Self::Power9 => 0x0f00_0005,
            Self::Power10 => 0x0f00_0006,
        }
    }

    /// As users write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Power8 => "POWER8",
            Self::Power9 => "POWER9",
            Self::Power10 => "POWER10",
        }
    }
}

/// A base page size of a hash segment, with the page sizes it can hold (KVM_PPC_GET_SMMU_INFO).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentPageSize {
    /// log2 of the base page size.
    pub shift: u32,
    /// How the SLB encodes it.
    pub slb_encoding: u32,
    /// (log2 of the actual page size, how the page table encodes it).
    pub pages: Vec<(u32, u32)>,
}

/// The hash MMU (KVM_PPC_GET_SMMU_INFO).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HashInfo {
    /// KVM_PPC_PAGE_SIZES_REAL: a guest page cannot be larger than the host's page that backs it.
    pub real_page_sizes: bool,
    /// KVM_PPC_1T_SEGMENTS.
    pub segments_1t: bool,
    /// Entries of the SLB.
    pub slb_size: u32,
    /// What segments can hold.
    pub page_sizes: Vec<SegmentPageSize>,
}

/// KVM_PPC_GET_CPU_CHAR: which speculation flaws the CPU has and what works against them. Only bits that the
/// host knows are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuCharacteristics {
    /// H_CPU_CHAR_* bits.
    pub character: u64,
    /// H_CPU_BEHAV_* bits.
    pub behaviour: u64,
}

/// A POWER host with KVM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The processor's PVR.
    pub pvr: u32,
    /// Its generation.
    pub generation: Generation,
    /// Ticks of the timebase per second.
    pub timebase_hz: u32,
    /// Bytes in a page of the host.
    pub page_size: u64,
    /// KVM_CAP_MAX_VCPUS.
    pub max_vcpus: u32,
    /// KVM_CAP_MAX_VCPU_ID: ids are below this.
    pub max_vcpu_id: u32,
    /// KVM_CAP_PPC_SMT_POSSIBLE: bit n set if 2^n threads can share a vcore.
    pub smt_possible: u32,
    /// KVM_CAP_PPC_MMU_RADIX.
    pub radix: bool,
    /// KVM_CAP_PPC_MMU_HASH_V3, or POWER8, which has nothing else.
    pub hash: bool,
    /// KVM_CAP_IRQ_XICS.
    pub xics: bool,
    /// KVM_CAP_PPC_IRQ_XIVE.
    pub xive: bool,
    /// How cede can take over H_CEDE, or why it cannot and what would help.
    pub cede: Result<CedeRoute, String>,
    /// KVM_CAP_PPC_HWRNG.
    pub hwrng: bool,
    /// KVM_CAP_PPC_AIL_MODE_3.
    pub ail_mode_3: bool,
    /// KVM_CAP_PPC_HTM.
    pub htm: bool,
    /// KVM_CAP_PPC_DAWR1.
    pub dawr1: bool,
    /// The hash MMU, where KVM has one.
    pub hash_info: Option<HashInfo>,
    /// `ibm,processor-radix-AP-encodings`: AP << 29 | log2 of the page size.
    pub radix_ap_encodings: Vec<u32>,
    /// What H_GET_CPU_CHARACTERISTICS answers.
    pub characteristics: Option<CpuCharacteristics>,
}
