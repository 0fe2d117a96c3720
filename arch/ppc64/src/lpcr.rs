//! Bits of the Logical Partitioning Control Register that a guest chooses (Power ISA 3.0B, Book III 2.2).

/// Interrupt Little Endian: interrupts are taken in little-endian mode.
pub const ILE: u64 = 0x0200_0000;
/// Alternate Interrupt Location.
pub const AIL: u64 = 0x0180_0000;
/// Interrupts are taken with relocation on, at 0xc000_0000_0000_4000 and up.
pub const AIL_3: u64 = 0x0180_0000;
/// What H_SET_MODE can change.
pub const GUEST: u64 = ILE | AIL;
