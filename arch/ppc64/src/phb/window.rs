//! The bridge's windows: guest physical addresses, as CPUs see them, and bus addresses.

use crate::layout::{PCI_MEM32, PCI_MEM32_BUS, PCI_MEM32_SIZE, PCI_MEM64, PCI_MEM64_SIZE};
use std::ops::Range;

/// A window.
struct Window {
    cpu: u64,
    bus: u64,
    size: u64,
}

const WINDOWS: [Window; 2] = [
    Window { cpu: PCI_MEM32, bus: PCI_MEM32_BUS, size: PCI_MEM32_SIZE },
    Window { cpu: PCI_MEM64, bus: PCI_MEM64, size: PCI_MEM64_SIZE },
];

/// The bus addresses that the windows pass on.
#[must_use]
pub fn bus_ranges() -> Vec<Range<u64>> {
    WINDOWS.iter().map(|window| window.bus..window.bus + window.size).collect()
}

/// The bus address of `length` bytes at guest physical `address`; `None` if a window does not hold all of them.
#[must_use]
pub fn to_bus(address: u64, length: usize) -> Option<u64> {
    WINDOWS.iter().find_map(|window| {
        let offset = address.checked_sub(window.cpu)?;
        (offset.checked_add(length as u64)? <= window.size).then(|| window.bus + offset)
    })
}

/// The guest physical address of bus address `address`; `None` if it is in no window.
#[must_use]
pub fn to_cpu(address: u64) -> Option<u64> {
    WINDOWS.iter().find_map(|window| {
        let offset = address.checked_sub(window.bus).filter(|offset| *offset < window.size)?;
        Some(window.cpu + offset)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_windows_map_there_and_back() {
        for (cpu, bus) in [
            (PCI_MEM32, 0x8000_0000),
            (PCI_MEM32 + 0x7fff_fffc, 0xffff_fffc),
            (PCI_MEM64, PCI_MEM64),
            (PCI_MEM64 + PCI_MEM64_SIZE - 4, PCI_MEM64 + PCI_MEM64_SIZE - 4),
        ] {
            assert_eq!((to_bus(cpu, 4), to_cpu(bus)), (Some(bus), Some(cpu)));
        }
    }

    #[test]
    fn what_is_not_wholly_inside_is_nowhere() {
        let ends = [PCI_MEM32 + PCI_MEM32_SIZE, PCI_MEM64 + PCI_MEM64_SIZE];
        for address in [0, PCI_MEM32 - 1, ends[0] - 3, ends[0], PCI_MEM64 - 1, ends[1] - 1, ends[1], u64::MAX]
        {
            assert_eq!(to_bus(address, 4), None, "{address:#x}");
        }
        for address in [0, 0x7fff_ffff, 1 << 32, PCI_MEM64 - 1, ends[1], u64::MAX] {
            assert_eq!(to_cpu(address), None, "{address:#x}");
        }
    }
}
