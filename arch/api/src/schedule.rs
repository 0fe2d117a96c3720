//! What an architecture says to the scheduler of vCPUs, and what the scheduler asks back.

pub use vcore::{Look, Polled};

/// How an architecture reaches vCPUs other than the one whose exit it handles. Implemented by the run loop's side.
///
/// Every method can be called from any thread at any time, takes no lock, allocates nothing and does not block.
pub trait Scheduler: Send + Sync {
    /// An interrupt has become pending for `vcpu`, and whoever looks at the interrupt controller sees it. Ends its
    /// nap, or keeps it from starting one; a vCPU in the guest is told by its [`Raise`], or brought out.
    fn interrupt(&self, vcpu: usize);

    /// Ends the nap of `vcpu`, or makes its next one end at once (H_PROD).
    fn prod(&self, vcpu: usize);

    /// `vcpu` offers its CPU to others: to `target`, or to anybody (H_CONFER).
    fn confer(&self, vcpu: usize, target: Option<usize>);

    /// Whether idle vCPUs poll at all (`halt_poll_ns` is not 0).
    fn polls(&self) -> bool;

    /// How long the next poll of `vcpu` is at most, in nanoseconds.
    fn interval(&self, vcpu: usize) -> u32;

    /// `vcpu`, whose thread calls and whose timer expires in `timeout` nanoseconds, has ceded, and the hypervisor would put
    /// it to sleep: polls while `look` finds nothing. Lasts no longer than [`interval`](Scheduler::interval); does not sleep.
    fn poll(&self, vcpu: usize, timeout: u64, look: &mut dyn FnMut() -> Look) -> Polled;

    /// The sleep in the hypervisor that followed [`Polled::Asleep`] is over; `vcpu`'s thread calls.
    fn slept(&self, vcpu: usize);
}

/// How another thread makes a vCPU that is in the guest take an interrupt that is pending for it, without bringing
/// it out. Can be called from any thread and at any time; a call that comes too late does no harm.
pub trait Raise: Send + Sync {
    /// Raises.
    fn raise(&self);
}

/// What a vCPU that has nothing to do waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nap {
    /// Nanoseconds until its own timer expires; `None` when it has none. 0 or less to go is `Some(0)`.
    pub timeout: Option<u64>,
    /// What ends it.
    pub until: Until,
}

/// What ends a nap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// An interrupt, a prod or the timeout.
    Event,
    /// The same, but the timeout means only that the architecture is to be asked again, with
    /// [`Exit::Ceded`](crate::Exit::Ceded), whether the vCPU has something to do, and answers with
    /// another nap or [`Action::Resume`](crate::Action::Resume): not everything that ends the nap can be told to the scheduler.
    EventOrAskAgain,
    /// A prod, and nothing else (H_JOIN).
    Prod,
}
