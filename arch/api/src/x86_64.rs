//! What x86_64's code asks of the hypervisor.

use crate::{Bind, HvError};
use std::os::fd::AsRawFd;
use vm_memory::GuestMemoryMmap;

/// General registers that an entry sets, and that tell where a vCPU is (`struct kvm_regs`). Those that are not here are 0 at an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Regs {
    /// Program counter.
    pub rip: u64,
    /// Flags. Bit 1 is always set.
    pub rflags: u64,
    /// RAX.
    pub rax: u64,
    /// RBX.
    pub rbx: u64,
    /// RCX.
    pub rcx: u64,
    /// RDX.
    pub rdx: u64,
    /// RSI.
    pub rsi: u64,
    /// RDI.
    pub rdi: u64,
    /// RSP.
    pub rsp: u64,
}

/// A segment register with its descriptor, of 4 GiB from 0, 32 bits wide, of ring 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlatSegment {
    /// Its place in the table of descriptors.
    pub selector: u16,
    /// The type field of its descriptor.
    pub kind: u8,
}

/// Protected mode without paging: what PVH and the 32-bit entry of Linux's boot protocol ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProtectedMode {
    /// CS.
    pub code: FlatSegment,
    /// DS, ES, FS, GS and SS.
    pub data: FlatSegment,
    /// The task register: a TSS of 0x68 bytes at 0.
    pub task: FlatSegment,
    /// Guest physical address of the table of descriptors.
    pub gdt: u64,
    /// Its limit: bytes less 1.
    pub gdt_limit: u16,
}

/// What CPUID answers for a leaf (`struct kvm_cpuid_entry2`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuidLeaf {
    /// EAX on entry.
    pub function: u32,
    /// ECX on entry, where that matters.
    pub index: Option<u32>,
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

/// An x86 host with KVM.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Host {
    /// What KVM can show of the processor (KVM_GET_SUPPORTED_CPUID).
    pub cpuid: Vec<CpuidLeaf>,
    /// KVM_CAP_MAX_VCPUS.
    pub max_vcpus: u32,
    /// KVM_CAP_TSC_DEADLINE_TIMER, which the CPUID that KVM offers does not always say.
    pub tsc_deadline: bool,
    /// What KVM lacks of what this backend needs, by the capabilities' names.
    pub missing: Vec<&'static str>,
    /// KVM_CAP_HALT_POLL: a VM can have its own limit of halt polling.
    pub halt_poll: bool,
}

/// Registers of an x86 vCPU, for its own thread.
///
/// Its power-on state is what [`configure`](Vcpu::configure) leaves: with KVM's local APIC the first vCPU is at the reset vector and
/// the others wait in the hypervisor for the boot CPU's messages (INIT, SIPI).
pub trait Vcpu: crate::Vcpu {
    /// Sets what the guest sees of the processor, and model specific registers. Called once, before the vCPU first runs.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    fn configure(&mut self, cpuid: &[CpuidLeaf], msrs: &[(u32, u64)]) -> Result<(), HvError>;

    /// Reads the registers.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    fn regs(&mut self) -> Result<Regs, HvError>;

    /// Writes the registers.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    fn set_regs(&mut self, regs: &Regs) -> Result<(), HvError>;

    /// Puts the vCPU into protected mode.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    fn set_mode(&mut self, mode: &ProtectedMode) -> Result<(), HvError>;

    /// Puts it into its power-on state, whatever an exit that was not answered had in mind.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    fn reset(&mut self) -> Result<(), HvError>;
}

/// What devices ask of the virtual machine, from any thread.
pub trait Partition: Send + Sync {
    /// Sets the level of an I/O APIC's pin.
    ///
    /// # Errors
    /// When there is no such pin.
    fn set_irq(&self, pin: u32, level: bool) -> Result<(), HvError>;

    /// Sends a message-signalled interrupt.
    ///
    /// # Errors
    /// When the hypervisor refuses. A message that reaches nobody is no error.
    fn signal_msi(&self, address: u64, data: u32) -> Result<(), HvError>;

    /// Lets a guest's store to guest physical `address` signal `event` instead of leaving the guest with an exit
    /// (KVM_IOEVENTFD), whatever is stored. `length` is the store's: 1, 2, 4 or 8 bytes, or 0 for any. A removal names the same three.
    ///
    /// # Errors
    /// When another is bound there, or a removal finds none.
    fn ioeventfd(&self, address: u64, length: u32, event: &dyn AsRawFd, bind: Bind) -> Result<(), HvError>;
}

/// An x86 virtual machine, as the machine that is built on it sees it.
pub trait Vm: Partition + 'static {
    /// Its vCPUs.
    type Vcpu: Vcpu + 'static;

    /// Backs guest RAM. Called once.
    ///
    /// # Errors
    /// When the hypervisor refuses a slot.
    fn set_memory(&self, memory: &GuestMemoryMmap) -> Result<(), HvError>;

    /// Makes the vCPU with this APIC id.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    fn create_vcpu(&self, id: u32) -> Result<Self::Vcpu, HvError>;

    /// Puts the interrupt controllers and the timer outside the vCPUs into their power-on state. No vCPU runs.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    fn reset(&self) -> Result<(), HvError>;
}
