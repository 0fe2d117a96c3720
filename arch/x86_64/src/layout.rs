//! What is where: guest physical memory, I/O ports, interrupt pins.
//!
//! ```text
//!         0   RAM: descriptors, start info, zero page, command line below 640 KiB
//!   0xe0000   ACPI tables
//!     1 MiB   RAM: kernel, initrd
//!     3 GiB   PCI
//! 0xfec00000  I/O APIC, local APIC (0xfee00000), pages of KVM's own (0xfffbc000), the reset vector
//!     4 GiB   RAM: what did not fit below 3 GiB
//! ```

use std::ops::Range;

/// The first address after the RAM that real mode and old firmware tables know.
pub const LOW_END: u64 = 0x9_fc00;

/// Descriptors for the first instructions.
pub const GDT: u64 = 0x500;
/// PVH's start info, with the map of memory and the list of modules behind it.
pub const START_INFO: u64 = 0x6000;
/// Linux's zero page (`struct boot_params`).
pub const ZERO_PAGE: u64 = 0x7000;
/// The kernel's command line.
pub const CMDLINE: u64 = 0x2_0000;
/// Bytes of a command line at most, the final zero not counted (Linux's `COMMAND_LINE_SIZE`).
pub const MAX_CMDLINE: usize = 2047;

/// The ACPI tables: in what was the BIOS's area, where those look who were not told.
pub const ACPI: Range<u64> = 0xe_0000..0x10_0000;

/// Where a kernel is loaded that does not say where.
pub const KERNEL: u64 = 0x10_0000;

/// Where RAM below 4 GiB ends at the latest, and PCI's window begins.
pub const PCI_WINDOW: Range<u64> = 0xc000_0000..0xf000_0000;

/// The I/O APIC's registers, which are the hypervisor's.
pub const IO_APIC: u32 = 0xfec0_0000;
/// The local APIC's.
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// Messages of functions are stores to here: 1 MiB, of which the address bits say where a message goes.
pub const MESSAGES: u64 = 0xfee0_0000;

/// Where RAM goes on.
pub const HIGH_RAM: u64 = 1 << 32;

/// The first serial port.
pub const COM1: u16 = 0x3f8;
/// Its registers.
pub const COM1_SIZE: u16 = 8;
/// The keyboard controller's command and status.
pub const KEYBOARD: u16 = 0x64;
/// ACPI's sleep control register. The three are hardware-reduced ACPI's, of which the guest learns from the FADT.
pub const SLEEP_CONTROL: u16 = 0x600;
/// ACPI's sleep status register.
pub const SLEEP_STATUS: u16 = 0x601;
/// ACPI's reset register.
pub const RESET: u16 = 0x602;
/// What resets when it is written there.
pub const RESET_VALUE: u8 = 1;
/// PCI's address register (configuration mechanism 1).
pub const PCI_ADDRESS: u16 = 0xcf8;
/// PCI's data register, four bytes.
pub const PCI_DATA: u16 = 0xcfc;

/// Pin of the serial port; an edge.
pub const PIN_COM1: u32 = 4;
/// Pin of ACPI's events; an edge.
pub const PIN_EVENTS: u32 = 5;
/// The first of the pins that PCI's slots share; levels.
pub const PIN_PCI: u32 = 16;
/// How many those are: up to the I/O APIC's last.
pub const PIN_PCI_COUNT: u32 = 8;

/// RAM of so many bytes, as it lies.
#[must_use]
pub fn ram(bytes: u64) -> Vec<Range<u64>> {
    let low = bytes.min(PCI_WINDOW.start);
    let high = HIGH_RAM..HIGH_RAM + (bytes - low);
    [0..low, high].into_iter().filter(|range| !range.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_leaves_room_for_devices() {
        let ends =
            |bytes| ram(bytes).iter().map(|range| (range.start >> 30, range.end >> 30)).collect::<Vec<_>>();
        assert_eq!(ends(1 << 30), [(0, 1)]);
        assert_eq!(ends(3 << 30), [(0, 3)]);
        assert_eq!(ends(5 << 30), [(0, 3), (4, 6)]);
    }
}
