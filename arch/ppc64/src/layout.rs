//! The pseries machine as the guest sees it: interrupt numbers and guest-physical addresses.
//!
//! None of these is fixed by PAPR; a guest reads them from the device tree. They are those of QEMU's pseries
//! machine where it has them, so that traces of the two read alike.

/// The first interrupt for IPIs. XIVE guests allocate theirs from here; XICS guests have IPIs of their own.
pub const IRQ_IPI: u32 = 0;
/// How many numbers IPIs may take: one per vCPU, so this bounds the vCPUs of a XIVE guest.
pub const IRQ_IPI_COUNT: u32 = 0x1000;
/// Environmental and power warnings: above the IPIs, and above 15, below which KVM's XICS has no sources.
pub const IRQ_EPOW: u32 = 0x1000;
/// Hot-plug events: beside EPOW, the other of the two `/event-sources`.
pub const IRQ_HOTPLUG: u32 = 0x1001;
/// The first virtual I/O device's interrupt; device `VIO_REG + n` has `IRQ_VIO + n`.
pub const IRQ_VIO: u32 = 0x1100;
/// The first PCI LSI: four per host bridge, level triggered.
pub const IRQ_PCI_LSI: u32 = 0x1200;
/// The first MSI: last, because their number depends on the devices.
pub const IRQ_MSI: u32 = 0x1300;
/// How many MSIs there are: up to 0x2000, where XICS source numbers of a pseries machine end in QEMU.
pub const IRQ_MSI_COUNT: u32 = 0xd00;

/// The unit address of the first virtual I/O device, which is its terminal number in hcalls: far from zero,
/// so that a guest that calls with an uninitialised number is told so.
pub const VIO_REG: u32 = 0x7100_0000;

/// A page of XIVE registers: fixed at 64 KiB by the hardware, whatever the guest's page size.
pub const XIVE_PAGE: u64 = 0x1_0000;
/// Event state buffers: a trigger page and a management page per source, above all RAM and PCI windows.
pub const XIVE_ESB: u64 = 0x6_0100_0000_0000;
/// Distance from one source's trigger page to the next one's.
pub const XIVE_ESB_STRIDE: u64 = 2 * XIVE_PAGE;
/// Thread interrupt management area: four pages, one per privilege ring, above the event state buffers.
pub const XIVE_TIMA: u64 = 0x6_0302_0318_0000;
/// The TIMA page of the guest's kernel: the third ring, after the hardware's and the hypervisor's.
pub const XIVE_TIMA_OS: u64 = XIVE_TIMA + 2 * XIVE_PAGE;
/// The TIMA page of the guest's user programs: the fourth ring.
pub const XIVE_TIMA_USER: u64 = XIVE_TIMA + 3 * XIVE_PAGE;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupt_ranges_do_not_meet() {
        let ends = [IRQ_IPI + IRQ_IPI_COUNT, IRQ_EPOW + 1, IRQ_HOTPLUG + 1, IRQ_PCI_LSI, IRQ_MSI];
        let starts = [IRQ_EPOW, IRQ_HOTPLUG, IRQ_VIO, IRQ_PCI_LSI, IRQ_MSI];
        assert!(ends.iter().zip(starts).all(|(end, start)| *end <= start));
    }

    #[test]
    fn event_state_buffers_end_below_the_tima() {
        let sources = u64::from(IRQ_MSI + IRQ_MSI_COUNT);
        assert!(XIVE_ESB + sources * XIVE_ESB_STRIDE <= XIVE_TIMA);
    }
}
