//! What POWER's code asks of the hypervisor.

mod host;

pub use host::{CpuCharacteristics, Generation, HashInfo, Host, SegmentPageSize};

pub use crate::Bind;
use crate::HvError;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use vm_memory::GuestMemoryMmap;

/// The registers of a vCPU that cede reads and writes (`struct kvm_regs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Regs {
    /// Program counter.
    pub pc: u64,
    /// Machine state register.
    pub msr: u64,
    /// Link register.
    pub lr: u64,
    /// Save/restore register 0: the interrupted PC.
    pub srr0: u64,
    /// Save/restore register 1: the interrupted MSR.
    pub srr1: u64,
    /// General purpose registers.
    pub gpr: [u64; 32],
}

/// How a guest translates addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mmu {
    /// Hashed page table of 2^`htab_order` bytes, kept by the hypervisor.
    Hash {
        /// log2 of the table's size in bytes.
        htab_order: u32,
    },
    /// Radix trees in guest memory (ISA 3.0).
    Radix,
}

/// Which interrupt controller the guest has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Irqchip {
    /// XICS: hcalls and RTAS calls.
    Xics,
    /// XIVE in exploitation mode: the guest's pages are the hardware's.
    Xive,
}

/// How a guest's H_CEDE comes out of KVM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CedeRoute {
    /// As a hypercall: KVM_CAP_PPC_ENABLE_HCALL turns KVM's own H_CEDE off (POWER8).
    Hcall,
    /// By a perf event on the tracepoint `kvm_hv:kvmppc_vcore_blocked` with this number, which KVM hits just before
    /// it would sleep (POWER9 and later, whose KVM handles H_CEDE whatever it is told).
    Event(u64),
}

/// Who handles H_CEDE and owns the interrupt controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plane {
    /// KVM does both.
    Kernel,
    /// KVM does both, and cede polls before KVM sleeps. The tracepoint with this number tells of a cede, as in
    /// [`CedeRoute::Event`], and the guest's XIVE queues of interrupts.
    Assist(u64),
    /// cede does both.
    Vmm(CedeRoute),
}

impl Plane {
    /// Whether the interrupt controller is cede's.
    #[must_use]
    pub fn owns_interrupts(self) -> bool {
        matches!(self, Self::Vmm(_))
    }
}

/// What of a vCPU's idling in the hypervisor brings its thread out, on the assist plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// Nothing. Costs nothing.
    Off,
    /// Every cede that would sleep, as [`Exit::Ceded`](crate::Exit::Ceded), after so many that pass unseen.
    Cedes {
        /// How many.
        unseen: u32,
    },
    /// The end of the next sleep, as [`Exit::Woken`](crate::Exit::Woken).
    Wake,
}

/// What a virtual machine is made of. Everything in it was decided and checked before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmSpec {
    /// Threads of a vcore: 1, 2, 4 or 8.
    pub threads: u32,
    /// Interrupt server numbers, which are KVM's vCPU ids.
    pub servers: Vec<u32>,
    /// Address translation.
    pub mmu: Mmu,
    /// Who handles H_CEDE and owns the interrupt controller. On the VMM's plane KVM has no controller.
    pub plane: Plane,
    /// Interrupt controller that the guest sees.
    pub irqchip: Irqchip,
    /// Logical PVR that the guest is held to; `None` for the host's own.
    pub compat: Option<u32>,
    /// Hypercalls that KVM should handle beside those it does by itself.
    pub hcalls: Vec<u64>,
    /// RTAS calls that KVM's XICS answers, with their tokens.
    pub rtas: Vec<(&'static str, u32)>,
    /// Where a XIVE's pages are in guest physical memory.
    pub xive: XivePages,
}

/// A XIVE's windows in guest physical memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XivePages {
    /// Thread interrupt management area: four pages.
    pub tima: u64,
    /// Event state buffers: two pages a source.
    pub esb: u64,
    /// How many sources the ESB window covers, from LISN 0.
    pub sources: u32,
}

/// How an interrupt source tells of an interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// By an event (an MSI, a virtual device).
    Edge,
    /// By a line that stays asserted until the device was served (an LSI).
    Level,
}

/// The external interrupt's input of a vCPU, where KVM has no interrupt controller (KVM_INTERRUPT). Level triggered: as
/// long as it is high the vCPU takes the interrupt (0x500) whenever MSR\[EE\] is 1.
pub trait ExternalPin: Send + Sync {
    /// Sets the level. From any thread; a vCPU that is in the guest notices at once and stays there.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    fn set(&self, level: bool) -> Result<(), HvError>;
}

impl<P: ExternalPin + ?Sized> ExternalPin for Arc<P> {
    fn set(&self, level: bool) -> Result<(), HvError> {
        P::set(self, level)
    }
}

/// Registers of a POWER vCPU, for its own thread.
pub trait Vcpu: crate::Vcpu {
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

    /// Sets the bits of LPCR that `mask` names to those of `value`.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    fn set_lpcr(&mut self, mask: u64, value: u64) -> Result<(), HvError>;

    /// Tells the hypervisor whether the guest counts this thread as online.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    fn set_online(&mut self, online: bool) -> Result<(), HvError>;

    /// How long until the decrementer expires, in nanoseconds; 0 or less when it has. Works out what the hypervisor
    /// keeps while the vCPU is not in the guest.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    fn decrementer_ns(&mut self) -> Result<i64, HvError>;

    /// Whether a doorbell (msgsndp) is pending that a sibling rang, which KVM keeps to itself.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    fn doorbell(&mut self) -> Result<bool, HvError>;

    /// Makes [`Exit::Ceded`](crate::Exit::Ceded) come where [`CedeRoute::Event`] is the route; nothing otherwise, nor
    /// a second time. Called on the vCPU's own thread, before it first runs.
    ///
    /// # Errors
    /// When the event cannot be opened.
    fn watch_cede(&mut self) -> Result<(), HvError>;

    /// On the assist plane: what brings the vCPU's thread out of its idling from here on. Called on that thread.
    ///
    /// # Errors
    /// When the events cannot be opened or set. What brought it out before may do so or not.
    fn watch(&mut self, watch: Watch) -> Result<(), HvError>;

    /// Guest physical address of the virtual processor area that the guest has registered; 0 when it has none.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    fn vpa(&mut self) -> Result<u64, HvError>;

    /// The external interrupt's input.
    fn external_pin(&self) -> Arc<dyn ExternalPin>;

    /// Drops what an earlier boot left behind: VPA, SLB shadow, dispatch trace log, pending interrupts.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    fn reset(&mut self) -> Result<(), HvError>;
}

/// What hcalls and RTAS calls ask of the virtual machine, from any vCPU's thread.
pub trait Partition: Send + Sync {
    /// Sets the process table (`H_REGISTER_PROC_TBL`): `table` as KVM_PPC_CONFIGURE_V3_MMU takes it.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    fn configure_mmu(&self, radix: bool, gtse: bool, table: u64) -> Result<(), HvError>;

    /// Triggers an edge source, or sets the level of a level source.
    ///
    /// # Errors
    /// When there is no such source.
    fn set_irq(&self, source: u32, level: bool) -> Result<(), HvError>;

    /// Lets a write to `event` trigger edge source `source` of KVM's controller (KVM_IRQFD). When a removal returns, what
    /// was written before has reached the source and nothing more will. Closing the eventfd removes it too.
    ///
    /// # Errors
    /// When KVM has no controller, or the eventfd is bound already.
    fn irqfd(&self, source: u32, event: &dyn AsRawFd, bind: Bind) -> Result<(), HvError>;

    /// Lets a guest's store to guest physical `address` signal `event` instead of leaving the guest with an exit
    /// (KVM_IOEVENTFD), whatever is stored. `length` is the store's: 1, 2, 4 or 8 bytes, or 0 for any, which KVM finds
    /// without reading the guest's instruction. A removal names the same three.
    ///
    /// # Errors
    /// When another is bound there, or a removal finds none.
    fn ioeventfd(&self, address: u64, length: u32, event: &dyn AsRawFd, bind: Bind) -> Result<(), HvError>;

    /// The timebase at this moment, which is the guest's too.
    fn timebase(&self) -> u64;

    /// KVM's XIVE, when the guest has one.
    fn xive(&self) -> Option<&dyn Xive>;
}

/// A POWER virtual machine, as the machine that is built on it sees it.
pub trait Vm: Partition + 'static {
    /// Its vCPUs.
    type Vcpu: Vcpu + 'static;

    /// Backs guest RAM. Called once.
    ///
    /// # Errors
    /// When the hypervisor refuses a slot.
    fn set_memory(&self, memory: &GuestMemoryMmap) -> Result<(), HvError>;

    /// Makes a vCPU with this interrupt server number and connects it to the interrupt controller.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    fn create_vcpu(&self, server: u32) -> Result<Self::Vcpu, HvError>;

    /// Makes the interrupt sources, by number and in ascending order. Called once, after the last vCPU was made.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    fn create_sources(&self, sources: &[(u32, Trigger)]) -> Result<(), HvError>;

    /// Puts the MMU and the interrupt controller into their power-on state. No vCPU runs.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    fn reset(&self) -> Result<(), HvError>;
}

/// Where a XIVE source's events go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XiveRoute {
    /// Interrupt server number of the vCPU.
    pub server: u32,
    /// 0 (most favoured) to 7.
    pub priority: u8,
    /// Effective interrupt source number: what the queue entry carries (31 bits).
    pub eisn: u32,
    /// No events at all.
    pub masked: bool,
}

/// An event queue of a vCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct XiveQueue {
    /// Guest physical address.
    pub address: u64,
    /// log2 of its bytes; 0 is no queue.
    pub shift: u32,
    /// The generation bit of the entry that comes next.
    pub toggle: u32,
    /// The index of the entry that comes next.
    pub index: u32,
}

/// KVM's XIVE device, for the H_INT_* hcalls. Arguments were checked by the caller.
pub trait Xive: Send + Sync {
    /// Routes a source.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    fn set_source(&self, lisn: u32, route: XiveRoute) -> Result<(), HvError>;

    /// Sets or, with shift 0, disables a queue.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    fn set_queue(&self, server: u32, priority: u8, queue: XiveQueue) -> Result<(), HvError>;

    /// Reads a queue's state.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    fn queue(&self, server: u32, priority: u8) -> Result<XiveQueue, HvError>;

    /// Waits until all events of a source have reached their queues.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    fn sync(&self, lisn: u32) -> Result<(), HvError>;

    /// Loads from, or with `store` stores to, a source's ESB management page at `offset` (8-byte aligned,
    /// within the page). A load returns what it read. A level source that is still asserted when a load ends its interrupt or
    /// opens it sends the next one.
    fn esb(&self, lisn: u32, offset: u64, store: Option<u64>) -> u64;

    /// H_INT_RESET: every source masked, every queue off.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    fn reset(&self) -> Result<(), HvError>;
}
