//! The contract between the run loop and an architecture.

use crate::{Exit, HvError, Nap, Raise, Reply, Scheduler};
use std::sync::Arc;
use vm_memory::{GuestAddress, GuestMemoryMmap};

/// One vCPU as the run loop sees it. It belongs to its thread; nobody else touches it.
pub trait Vcpu: Send {
    /// Enters the guest with `reply` and returns when it comes out again.
    ///
    /// # Errors
    /// When the hypervisor refuses to run the vCPU. A signal is no error: it is [`Exit::Interrupted`].
    fn run(&mut self, reply: Reply) -> Result<Exit, HvError>;
}

/// A stretch of guest physical memory that is RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RamRegion {
    /// Where it begins.
    pub start: GuestAddress,
    /// Bytes.
    pub size: u64,
}

/// Why the guest came to its end by its own will.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It powered off.
    PowerOff,
    /// It asked for a reboot.
    Reboot,
    /// It told us that it panicked.
    Panic,
}

/// What the run loop does after an exit.
#[derive(Debug)]
pub enum Action<E> {
    /// Go back into the guest with this.
    Resume(Reply),
    /// Go back with this, and have every other vCPU pass [`Arch::prepare`] before it next runs guest code.
    ResumeAndSync(Reply),
    /// Hand `entry` to vCPU `vcpu`, which is parked, then go back with `reply`.
    Start {
        /// The vCPU's index.
        vcpu: usize,
        /// Where it begins.
        entry: E,
        /// The caller's own reply.
        reply: Reply,
    },
    /// Let the vCPU nap, then go back with `reply`.
    Nap {
        /// What it waits for.
        nap: Nap,
        /// What it takes back.
        reply: Reply,
    },
    /// This vCPU stops until somebody starts it.
    Park,
    /// The whole guest stops.
    Stop(Stop),
}

/// A vCPU cannot go on, and the VM with it.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// The hypervisor refused.
    #[error(transparent)]
    Hv(#[from] HvError),
    /// The guest did what nobody can carry on from.
    #[error("vCPU {vcpu} cannot continue: {what}")]
    Guest {
        /// The vCPU's index.
        vcpu: usize,
        /// What happened, with the registers that tell where.
        what: String,
    },
    /// The machine could not be put into its first state.
    #[error("the machine could not be reset")]
    Reset(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// An architecture: exits in, actions out.
///
/// The run loop calls [`ram`](Arch::ram) and [`attach`](Arch::attach) once, [`create_vcpu`](Arch::create_vcpu)
/// once a vCPU, then [`reset`](Arch::reset) at each boot. Every other method can be called from any vCPU's
/// thread at any time between two resets; none of them may block, and none is called with a lock held.
pub trait Arch: Send + Sync + 'static {
    /// The hypervisor's vCPU.
    type Vcpu: Vcpu + 'static;
    /// Where a vCPU begins: registers, in whatever form the architecture likes.
    type Entry: Send + std::fmt::Debug;

    /// How many vCPUs there are.
    fn vcpu_count(&self) -> usize;

    /// Where RAM is in the guest's physical address space. Regions are ascending and do not overlap.
    fn ram(&self) -> Vec<RamRegion>;

    /// How many vCPUs share a virtual core: those with indices `n * threads` to `n * threads + threads - 1`. It
    /// divides [`vcpu_count`](Arch::vcpu_count).
    fn threads(&self) -> usize;

    /// Takes the mapped RAM and gives it to the hypervisor, and keeps `scheduler` for interrupts between vCPUs and from
    /// devices. Called once, before any vCPU exists.
    ///
    /// # Errors
    /// When the hypervisor refuses the memory.
    fn attach(&mut self, memory: GuestMemoryMmap, scheduler: Arc<dyn Scheduler>) -> Result<(), HvError>;

    /// Makes vCPU `index`. Called once an index, in ascending order, before the first reset.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    fn create_vcpu(&self, index: usize) -> Result<Self::Vcpu, HvError>;

    /// How others raise an interrupt on vCPU `index` while it is in the guest. `None` where nobody but its own thread
    /// can, so that it has to be brought out. Called once an index, after [`create_vcpu`](Arch::create_vcpu).
    fn raiser(&self, index: usize) -> Option<Arc<dyn Raise>>;

    /// Puts the machine into its power-on state and loads what it boots. Every vCPU is parked and none of
    /// their threads is in the hypervisor. Returns the vCPUs that begin, each with its entry: the boot CPU, and
    /// those others that the hypervisor lets wait until the boot CPU starts them.
    ///
    /// # Errors
    /// When an image cannot be read or the hypervisor refuses.
    fn reset(&self) -> Result<Vec<(usize, Self::Entry)>, Fatal>;

    /// Puts a vCPU at its entry. Called on its own thread, after a reset or an [`Action::Start`].
    ///
    /// # Errors
    /// When the hypervisor refuses a register.
    fn enter(&self, index: usize, vcpu: &mut Self::Vcpu, entry: Self::Entry) -> Result<(), Fatal>;

    /// Takes a vCPU offline. Called on its own thread when it parks.
    ///
    /// # Errors
    /// When the hypervisor refuses a register.
    fn leave(&self, index: usize, vcpu: &mut Self::Vcpu) -> Result<(), Fatal>;

    /// Brings a vCPU up to date with what other vCPUs decided for it. Called on its own thread before every
    /// run, so the case that nothing changed has to be one load.
    ///
    /// # Errors
    /// When the hypervisor refuses a register.
    fn prepare(&self, index: usize, vcpu: &mut Self::Vcpu) -> Result<(), Fatal>;

    /// Handles an exit. Called on the vCPU's own thread.
    ///
    /// # Errors
    /// When nobody can carry on; never for what a guest asked wrongly.
    fn handle(&self, index: usize, vcpu: &mut Self::Vcpu, exit: Exit) -> Result<Action<Self::Entry>, Fatal>;

    /// Stops every device: when it returns none touches guest memory any more, and what a guest was told is on disk, is.
    /// Devices are in their power-on state then. Every vCPU is parked. Called before RAM is discarded for a reboot, and when
    /// the VM has come to its end; the one method that may block, and not without end: a device that hangs is an error in the log, and
    /// the next [`reset`](Arch::reset) fails.
    fn quiesce(&self);

    /// Asks the guest to power off, as a power button does. Can be called from any thread.
    ///
    /// # Errors
    /// When the event cannot be raised.
    fn power_button(&self) -> Result<(), HvError>;
}
