//! `/chosen/ibm,architecture-vec-5`: what negotiation agreed on, or here, what was decided.
//!
//! Option vector 5 of `ibm,client-architecture-support` (LoPAR, appendix B). Byte 0 is the length.
//! Linux reads it in `early_check_vec5`, and takes a vector that is too short to reach byte 24 for "hash".

use super::{InterruptController, Mmu, TreeSpec};

/// Byte 0 counts the bytes after it, less one.
const LENGTH: usize = 27;

/// Byte 2: logical partitioning, splpar (virtual processor areas, H_CONFER), and messages of PCI functions.
const PARTITION: (usize, u8) = (2, 0x80);
const SHARED_PROCESSORS: (usize, u8) = (2, 0x40);
const MESSAGES: (usize, u8) = (2, 0x01);
/// Byte 23: the guest drives XIVE itself. Clear means XICS.
const XIVE_EXPLOITATION: (usize, u8) = (23, 0x40);
/// Byte 24: translation is by radix trees. Clear means hash.
const RADIX: (usize, u8) = (24, 0x40);
/// Byte 26: the guest may run tlbie itself (guest translation shootdown enable).
const RADIX_GTSE: (usize, u8) = (26, 0x40);

pub(super) fn bytes(spec: &TreeSpec) -> [u8; LENGTH] {
    let facts = [
        (PARTITION, true),
        (SHARED_PROCESSORS, spec.rtas.has_hypercalls("hcall-splpar")),
        (MESSAGES, !spec.pci.is_empty()),
        (XIVE_EXPLOITATION, matches!(spec.interrupts, InterruptController::Xive { .. })),
        (RADIX, matches!(spec.mmu, Mmu::Radix { .. })),
        (RADIX_GTSE, matches!(spec.mmu, Mmu::Radix { gtse: true, .. })),
    ];
    let mut vector = [0; LENGTH];
    vector[0] = LENGTH as u8 - 2;
    for ((byte, bits), _) in facts.iter().filter(|(_, holds)| *holds) {
        vector[*byte] |= bits;
    }
    vector
}
