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
/// The first PCI LSI, level triggered: slot `n` of the host bridge has `IRQ_PCI_LSI + n` for itself. (QEMU's slots share four.)
pub const IRQ_PCI_LSI: u32 = 0x1200;
/// How many PCI LSIs there are: a slot each.
pub const IRQ_PCI_LSI_COUNT: u32 = PCI_SLOTS;
/// The first MSI: last, because their number depends on the devices.
pub const IRQ_MSI: u32 = 0x1300;
/// How many MSIs there are: up to 0x2000, where XICS source numbers of a pseries machine end in QEMU.
pub const IRQ_MSI_COUNT: u32 = 0xd00;

/// The unit address of the first virtual I/O device, which is its terminal number in hcalls: far from zero,
/// so that a guest that calls with an uninitialised number is told so.
pub const VIO_REG: u32 = 0x7100_0000;

/// Slots of the host bridge's one bus: a device number has five bits.
pub const PCI_SLOTS: u32 = 32;
/// The host bridge's unit ID, by which RTAS calls name it.
pub const PCI_BUID: u64 = 0x0800_0000_2000_0000;
/// Where the PCI windows begin: RAM ends below.
pub const PCI_WINDOWS: u64 = 0x2000_0000_0000;
/// 32-bit memory space as CPUs see it, which see bus address [`PCI_MEM32_BUS`] here.
pub const PCI_MEM32: u64 = 0x2000_8000_0000;
/// 32-bit memory space as devices see it: the upper half, so that no address in it is one of low RAM too.
pub const PCI_MEM32_BUS: u64 = 0x8000_0000;
/// Bytes of 32-bit memory space.
pub const PCI_MEM32_SIZE: u64 = 0x8000_0000;
/// 64-bit memory space, at the same addresses for CPUs and devices.
pub const PCI_MEM64: u64 = 0x2100_0000_0000;
/// Bytes of 64-bit memory space.
pub const PCI_MEM64_SIZE: u64 = 0x100_0000_0000;
/// Where devices write their messages. No window decodes it, and guests do not look at it.
pub const PCI_MSI: u64 = 0x400_0000_0000;
/// The logical I/O bus number of the host bridge's DMA window, by which hypercalls name it.
pub const PCI_LIOBN: u32 = 0x8000_0000;
/// Bytes of the DMA window, which begins at bus address 0. QEMU's has 1 GiB; a guest clears all of it when it boots.
pub const PCI_DMA_SIZE: u64 = 256 << 20;

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
        let ends = [
            IRQ_IPI + IRQ_IPI_COUNT,
            IRQ_EPOW + 1,
            IRQ_HOTPLUG + 1,
            IRQ_PCI_LSI,
            IRQ_PCI_LSI + IRQ_PCI_LSI_COUNT,
        ];
        let starts = [IRQ_EPOW, IRQ_HOTPLUG, IRQ_VIO, IRQ_PCI_LSI, IRQ_MSI];
        assert!(ends.iter().zip(starts).all(|(end, start)| *end <= start));
    }

    const _: () = assert!(PCI_MEM32_BUS + PCI_MEM32_SIZE <= 1 << 32 && PCI_DMA_SIZE <= PCI_MEM32_BUS);

    #[test]
    fn windows_do_not_meet() {
        let mem32 = PCI_MEM32 + PCI_MEM32_SIZE;
        let mem64 = PCI_MEM64 + PCI_MEM64_SIZE;
        assert!(PCI_WINDOWS <= PCI_MEM32 && mem32 <= PCI_MEM64 && mem64 <= XIVE_ESB);
        let memory = [PCI_DMA_SIZE..PCI_MEM32_BUS + PCI_MEM32_SIZE, PCI_MEM64..mem64];
        assert!(memory.iter().all(|space| !space.contains(&PCI_MSI)));
    }

    #[test]
    fn event_state_buffers_end_below_the_tima() {
        let sources = u64::from(IRQ_MSI + IRQ_MSI_COUNT);
        assert!(XIVE_ESB + sources * XIVE_ESB_STRIDE <= XIVE_TIMA);
    }
}
