//! `ibm,pa-features` and `ibm,pi-features`: which optional processor facilities the partition has.
//!
//! A header of two bytes, <number of attribute bytes, attribute type 0>, then attribute bits, bit 0 being the most
//! significant of its byte. Linux reads few of them (`ibm_pa_features[]` in kernel/prom.c). Short names in the comments
//! are those that PAPR's implementers use.

use super::{Generation, Mmu, TreeSpec};

/// Facilities that depend on the host as well as on the generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Facilities {
    /// Large pages may be mapped cache inhibited.
    pub cache_inhibited_large_pages: bool,
    /// Transactional memory (POWER8, and POWER9 where KVM can emulate it).
    pub transactional_memory: bool,
    /// A second data watchpoint (POWER10, KVM_CAP_PPC_DAWR1).
    pub second_dawr: bool,
}

/// Attribute bits that go together: <byte, bits>.
type Bits = (usize, u8);

/// What ISA 2.07 gives.
const ISA_2_07: &[Bits] = &[
    (0, 0xf6),  // MMU, FPU, SLB, RUN, DABR, NX
    (1, 0x1f),  // fri[nzpm], DABRX, SPRG3, SLB0, PP110
    (2, 0xc7),  // VPM, DS205, PPR, DS202, DS206
    (3, 0xc0),  // LSD, URG
    (5, 0xf0),  // LE, CFAR, EB, LSQ
    (6, 0x80),  // DS207
    (16, 0x80), // vector
    (18, 0x80), // vector-scalar
    (20, 0x80), // vector exclusive-or
];

/// What ISA 3.0 adds. Byte 40 is apart: it says radix.
const ISA_3_0: &[Bits] = &[
    (24, 0x80), // extended decrementer
    (26, 0x80), // 64-bit features
    (28, 0x80), // performance monitor features
    (32, 0x80), // little-endian atomics
    (34, 0xc0), // event-based branches and their extension
    (42, 0x80), // performance monitor
    (44, 0x80), // PC RA
    (46, 0x80), // system call vectored
    (48, 0x80), // SIMD
    (50, 0x80), // quad-precision binary floating point
    (52, 0x80), // string operations
    (54, 0x80), // decimal floating point
    (56, 0x80), // decimal integers
    (58, 0x80), // SHA
    (60, 0x80), // NM atomics
    (62, 0x80), // random numbers
];

/// What ISA 3.1 adds.
const ISA_3_1: &[Bits] = &[
    (68, 0xce), // DEXCR: SBHE, IBRTPDUS, SRAPD, NPHIE, PHIE
    (72, 0x80), // hash store and check
];

const CACHE_INHIBITED_LARGE_PAGES: Bits = (1, 0x20);
const TRANSACTIONAL_MEMORY: Bits = (22, 0x80);
const RADIX: Bits = (40, 0x80);
const SECOND_DAWR: Bits = (64, 0x80);

/// The whole property, header included.
pub(super) fn bytes(spec: &TreeSpec) -> Vec<u8> {
    let (count, layers): (u8, &[&[Bits]]) = match spec.cpu.generation {
        Generation::Power8 => (24, &[ISA_2_07]),
        Generation::Power9 => (66, &[ISA_2_07, ISA_3_0]),
        Generation::Power10 => (74, &[ISA_2_07, ISA_3_0, ISA_3_1]),
    };
    let facilities = &spec.cpu.facilities;
    let optional = [
        (CACHE_INHIBITED_LARGE_PAGES, facilities.cache_inhibited_large_pages),
        (TRANSACTIONAL_MEMORY, facilities.transactional_memory),
        (RADIX, matches!(spec.mmu, Mmu::Radix { .. })),
        (SECOND_DAWR, facilities.second_dawr),
    ];
    let mut bytes = vec![0; 2 + usize::from(count)];
    bytes[0] = count;
    let chosen = optional.iter().filter(|(_, has)| *has).map(|(bits, _)| bits);
    for (byte, bits) in layers.iter().copied().flatten().chain(chosen) {
        // A facility that is newer than the generation has no byte to be in.
        if let Some(b) = bytes.get_mut(2 + byte) {
            *b |= bits;
        }
    }
    bytes
}

/// `ibm,pi-features`, what depends on the implementation: byte 0, bit 4 says "no msgsndp". From POWER9 on KVM runs
/// threads apart from each other, so a doorbell between them is a trap that KVM emulates: worse than an IPI.
pub(super) fn implementation(generation: Generation) -> [u8; 3] {
    let no_msgsndp = if generation >= Generation::Power9 { 0x08 } else { 0 };
    [1, 0, no_msgsndp]
}
