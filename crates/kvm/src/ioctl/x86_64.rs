//! KVM's ioctl numbers on x86_64, which encodes them in the generic way (include/uapi/asm-generic/ioctl.h).

use core::mem::size_of;

use kvm_bindings::*;

const WRITE: u32 = 1;
const READ: u32 = 2;

/// The type byte of every KVM ioctl.
const KVMIO: u32 = 0xae;

const fn encode(dir: u32, nr: u32, size: usize) -> u32 {
    assert!(size < 1 << 13 && nr < 1 << 8);
    dir << 30 | (size as u32) << 16 | KVMIO << 8 | nr
}

const fn io(nr: u32) -> u32 {
    encode(0, nr, 0)
}

const fn ior<T>(nr: u32) -> u32 {
    encode(READ, nr, size_of::<T>())
}

const fn iow<T>(nr: u32) -> u32 {
    encode(WRITE, nr, size_of::<T>())
}

const fn iowr<T>(nr: u32) -> u32 {
    encode(READ | WRITE, nr, size_of::<T>())
}

/// System: the API version, 12.
pub const KVM_GET_API_VERSION: u32 = io(0x00);
/// System: a new VM; the argument is its type.
pub const KVM_CREATE_VM: u32 = io(0x01);
/// System: the model specific registers that a vCPU's state has.
pub const KVM_GET_MSR_INDEX_LIST: u32 = iowr::<kvm_msr_list>(0x02);
/// System or VM: the value of a capability.
pub const KVM_CHECK_EXTENSION: u32 = io(0x03);
/// System: the length of a vCPU's shared `kvm_run` mapping.
pub const KVM_GET_VCPU_MMAP_SIZE: u32 = io(0x04);
/// System: what CPUID can show of this host.
pub const KVM_GET_SUPPORTED_CPUID: u32 = iowr::<kvm_cpuid2>(0x05);

/// VM: a new vCPU; the argument is its APIC id.
pub const KVM_CREATE_VCPU: u32 = io(0x41);
/// VM: maps, changes or removes a memory slot.
pub const KVM_SET_USER_MEMORY_REGION: u32 = iow::<kvm_userspace_memory_region>(0x46);
/// VM: where three pages are that KVM needs for itself on some Intel processors.
pub const KVM_SET_TSS_ADDR: u32 = io(0x47);
/// VM: where one more is.
pub const KVM_SET_IDENTITY_MAP_ADDR: u32 = iow::<u64>(0x48);
/// VM: makes PIC, I/O APIC and local APICs.
pub const KVM_CREATE_IRQCHIP: u32 = io(0x60);
/// VM: sets the level of a pin.
pub const KVM_IRQ_LINE: u32 = iow::<kvm_irq_level>(0x61);
/// VM: reads the state of PIC or I/O APIC.
pub const KVM_GET_IRQCHIP: u32 = iowr::<kvm_irqchip>(0x62);
/// VM: writes it. Declared as a read though the kernel takes it.
pub const KVM_SET_IRQCHIP: u32 = ior::<kvm_irqchip>(0x63);
/// VM: makes the interval timer.
pub const KVM_CREATE_PIT2: u32 = iow::<kvm_pit_config>(0x77);
/// VM: binds an eventfd to a guest write.
pub const KVM_IOEVENTFD: u32 = iow::<kvm_ioeventfd>(0x79);
/// VM: reads the interval timer's state.
pub const KVM_GET_PIT2: u32 = ior::<kvm_pit_state2>(0x9f);
/// VM: writes it.
pub const KVM_SET_PIT2: u32 = iow::<kvm_pit_state2>(0xa0);
/// VM: sends a message-signalled interrupt.
pub const KVM_SIGNAL_MSI: u32 = iow::<kvm_msi>(0xa5);

/// vCPU: runs it until an exit.
pub const KVM_RUN: u32 = io(0x80);
/// vCPU: reads the general registers.
pub const KVM_GET_REGS: u32 = ior::<kvm_regs>(0x81);
/// vCPU: writes the general registers.
pub const KVM_SET_REGS: u32 = iow::<kvm_regs>(0x82);
/// vCPU: reads the segment and control registers.
pub const KVM_GET_SREGS: u32 = ior::<kvm_sregs>(0x83);
/// vCPU: writes the segment and control registers.
pub const KVM_SET_SREGS: u32 = iow::<kvm_sregs>(0x84);
/// vCPU: reads model specific registers, until one cannot be read.
pub const KVM_GET_MSRS: u32 = iowr::<kvm_msrs>(0x88);
/// vCPU: writes model specific registers, until one cannot be written.
pub const KVM_SET_MSRS: u32 = iow::<kvm_msrs>(0x89);
/// vCPU: the signals that are blocked while the vCPU runs.
pub const KVM_SET_SIGNAL_MASK: u32 = iow::<kvm_signal_mask>(0x8b);
/// vCPU: reads the local APIC.
pub const KVM_GET_LAPIC: u32 = ior::<kvm_lapic_state>(0x8e);
/// vCPU: writes the local APIC.
pub const KVM_SET_LAPIC: u32 = iow::<kvm_lapic_state>(0x8f);
/// vCPU: what CPUID shows.
pub const KVM_SET_CPUID2: u32 = iow::<kvm_cpuid2>(0x90);
/// vCPU: whether it runs, halts or waits for the boot CPU.
pub const KVM_GET_MP_STATE: u32 = ior::<kvm_mp_state>(0x98);
/// vCPU: sets that.
pub const KVM_SET_MP_STATE: u32 = iow::<kvm_mp_state>(0x99);
/// vCPU: exceptions and interrupts that are under way.
pub const KVM_GET_VCPU_EVENTS: u32 = ior::<kvm_vcpu_events>(0x9f);
/// vCPU: sets those.
pub const KVM_SET_VCPU_EVENTS: u32 = iow::<kvm_vcpu_events>(0xa0);
/// vCPU: reads the debug registers.
pub const KVM_GET_DEBUGREGS: u32 = ior::<kvm_debugregs>(0xa1);
/// vCPU: writes the debug registers.
pub const KVM_SET_DEBUGREGS: u32 = iow::<kvm_debugregs>(0xa2);
/// VM or vCPU: turns a capability on.
pub const KVM_ENABLE_CAP: u32 = iow::<kvm_enable_cap>(0xa3);
/// vCPU: reads the floating-point and vector registers.
pub const KVM_GET_XSAVE: u32 = ior::<kvm_xsave>(0xa4);
/// vCPU: writes the floating-point and vector registers.
pub const KVM_SET_XSAVE: u32 = iow::<kvm_xsave>(0xa5);
/// vCPU: reads the extended control registers.
pub const KVM_GET_XCRS: u32 = ior::<kvm_xcrs>(0xa6);
/// vCPU: writes the extended control registers.
pub const KVM_SET_XCRS: u32 = iow::<kvm_xcrs>(0xa7);

/// VM or vCPU: a file descriptor for its binary statistics.
pub const KVM_GET_STATS_FD: u32 = io(0xce);

#[cfg(test)]
mod tests {
    use super::*;

    /// As a C compiler has them from Linux's headers.
    #[test]
    fn numbers_are_the_kernels() {
        assert_eq!((KVM_RUN, KVM_GET_STATS_FD, KVM_CREATE_IRQCHIP), (0xae80, 0xaece, 0xae60));
        assert_eq!((KVM_GET_REGS, KVM_SET_REGS), (0x8090_ae81, 0x4090_ae82));
        assert_eq!((KVM_GET_SREGS, KVM_SET_SREGS), (0x8138_ae83, 0x4138_ae84));
        assert_eq!((KVM_GET_MSRS, KVM_SET_CPUID2), (0xc008_ae88, 0x4008_ae90));
        assert_eq!((KVM_GET_IRQCHIP, KVM_SET_IRQCHIP), (0xc208_ae62, 0x8208_ae63));
        assert_eq!((KVM_SIGNAL_MSI, KVM_IOEVENTFD), (0x4020_aea5, 0x4040_ae79));
    }
}
