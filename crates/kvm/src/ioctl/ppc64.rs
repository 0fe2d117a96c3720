//! KVM's ioctl numbers on powerpc.
//!
//! Powerpc encodes a number unlike most architectures (arch/powerpc/include/uapi/asm/ioctl.h): three direction bits
//! from bit 29 and thirteen size bits from bit 16, where x86 and arm64 have two and fourteen. They are therefore
//! computed here and not by the host's macros, from the sizes of [`crate::bindings::ppc64`].

use core::mem::size_of;

use crate::bindings::ppc64::*;

const NONE: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;

const DIR_SHIFT: u32 = 29;
const SIZE_SHIFT: u32 = 16;
const TYPE_SHIFT: u32 = 8;
const SIZE_BITS: u32 = DIR_SHIFT - SIZE_SHIFT;

/// The type byte of every KVM ioctl.
const KVMIO: u32 = 0xae;

const fn encode(dir: u32, nr: u32, size: usize) -> u32 {
    assert!(size < 1 << SIZE_BITS && nr < 1 << TYPE_SHIFT);
    dir << DIR_SHIFT | (size as u32) << SIZE_SHIFT | KVMIO << TYPE_SHIFT | nr
}

const fn io(nr: u32) -> u32 {
    encode(NONE, nr, 0)
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

/// Declares each number and enters it in [`ALL`].
macro_rules! ioctls {
    ($($(#[$doc:meta])* $name:ident = $number:expr;)*) => {
        $($(#[$doc])* pub const $name: u32 = $number;)*

        /// Every number with its name, for messages and for the comparison with the kernel's headers.
        pub const ALL: &[(&str, u32)] = &[$((stringify!($name), $name)),*];
    };
}

ioctls! {
    /// System: the API version, 12.
    KVM_GET_API_VERSION = io(0x00);
    /// System: a new VM; the argument is its type.
    KVM_CREATE_VM = io(0x01);
    /// System or VM: the value of a capability.
    KVM_CHECK_EXTENSION = io(0x03);
    /// System: the length of a vCPU's shared `kvm_run` mapping.
    KVM_GET_VCPU_MMAP_SIZE = io(0x04);

    /// VM: a new vCPU; the argument is its id.
    KVM_CREATE_VCPU = io(0x41);
    /// VM: which pages of a slot were written.
    KVM_GET_DIRTY_LOG = iow::<kvm_dirty_log>(0x42);
    /// VM: maps, changes or removes a memory slot.
    KVM_SET_USER_MEMORY_REGION = iow::<kvm_userspace_memory_region>(0x46);
    /// VM: sets the level of a source of the in-kernel interrupt controller.
    KVM_IRQ_LINE = iow::<kvm_irq_level>(0x61);
    /// VM: binds an eventfd to an interrupt source.
    KVM_IRQFD = iow::<kvm_irqfd>(0x76);
    /// VM: binds an eventfd to a guest write.
    KVM_IOEVENTFD = iow::<kvm_ioeventfd>(0x79);

    /// vCPU: runs it until an exit.
    KVM_RUN = io(0x80);
    /// vCPU: reads the general registers.
    KVM_GET_REGS = ior::<kvm_regs>(0x81);
    /// vCPU: writes the general registers.
    KVM_SET_REGS = iow::<kvm_regs>(0x82);
    /// vCPU: reads the PVR and the SLB.
    KVM_GET_SREGS = ior::<kvm_sregs>(0x83);
    /// vCPU: writes the SLB; the PVR must be the host's.
    KVM_SET_SREGS = iow::<kvm_sregs>(0x84);
    /// vCPU: raises or lowers the external interrupt when no controller is in the kernel.
    KVM_INTERRUPT = iow::<kvm_interrupt>(0x86);
    /// vCPU: the signals that are blocked while the vCPU runs.
    KVM_SET_SIGNAL_MASK = iow::<kvm_signal_mask>(0x8b);
    /// vCPU: reads the floating-point registers.
    KVM_GET_FPU = ior::<kvm_fpu>(0x8c);
    /// vCPU: writes the floating-point registers.
    KVM_SET_FPU = iow::<kvm_fpu>(0x8d);
    /// VM or vCPU: turns a capability on.
    KVM_ENABLE_CAP = iow::<kvm_enable_cap>(0xa3);
    /// vCPU: reads a register by its id.
    KVM_GET_ONE_REG = iow::<kvm_one_reg>(0xab);
    /// vCPU: writes a register by its id.
    KVM_SET_ONE_REG = iow::<kvm_one_reg>(0xac);

    /// VM: the page and segment sizes of the hash MMU.
    KVM_PPC_GET_SMMU_INFO = ior::<kvm_ppc_smmu_info>(0xa6);
    /// VM: allocates the hashed page table; in and out is the log2 of its size.
    KVM_PPC_ALLOCATE_HTAB = iowr::<u32>(0xa7);
    /// VM: makes a TCE table that the kernel handles; returns its file descriptor.
    KVM_CREATE_SPAPR_TCE_64 = iow::<kvm_create_spapr_tce_64>(0xa8);
    /// VM: a file descriptor that streams the hashed page table.
    KVM_PPC_GET_HTAB_FD = iow::<kvm_get_htab_fd>(0xaa);
    /// VM: gives an RTAS call that the kernel handles its token.
    KVM_PPC_RTAS_DEFINE_TOKEN = iow::<kvm_rtas_token_args>(0xac);
    /// VM: prepares a hashed page table of another size.
    KVM_PPC_RESIZE_HPT_PREPARE = ior::<kvm_ppc_resize_hpt>(0xad);
    /// VM: takes the prepared hashed page table into use.
    KVM_PPC_RESIZE_HPT_COMMIT = ior::<kvm_ppc_resize_hpt>(0xae);
    /// VM: chooses radix or hash on POWER9 and later, and sets the process table.
    KVM_PPC_CONFIGURE_V3_MMU = iow::<kvm_ppc_mmuv3_cfg>(0xaf);
    /// VM: the page sizes and tree geometries of the radix MMU. Declared as a write though the kernel fills it.
    KVM_PPC_GET_RMMU_INFO = iow::<kvm_ppc_rmmu_info>(0xb0);
    /// System: what the CPU needs against speculation.
    KVM_PPC_GET_CPU_CHAR = ior::<kvm_ppc_cpu_char>(0xb1);

    /// VM: makes an in-kernel device; returns its file descriptor.
    KVM_CREATE_DEVICE = iowr::<kvm_create_device>(0xe0);
    /// Device: sets an attribute.
    KVM_SET_DEVICE_ATTR = iow::<kvm_device_attr>(0xe1);
    /// Device: reads an attribute.
    KVM_GET_DEVICE_ATTR = iow::<kvm_device_attr>(0xe2);
    /// Device: says whether it has an attribute.
    KVM_HAS_DEVICE_ATTR = iow::<kvm_device_attr>(0xe3);

    /// VM or vCPU: a file descriptor for its binary statistics.
    KVM_GET_STATS_FD = io(0xce);
}
