//! What the driver needs from the world: a clock, a futex, a way to kick, and what belongs to the
//! VM. `futex` implements it with Linux, the tests with their own.

use crate::stats::Stats;
use crate::sync::AtomicU32;
use crate::tunables::SharedTunables;
use crate::word::{Cause, Thread, ThreadMask};

/// How a wait on the futex word ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// A waker named this thread.
    Woken,
    /// The deadline has passed.
    TimedOut,
    /// The word had another value than expected, or a signal came: look again.
    Retry,
}

/// The world of one vcore.
///
/// [`Port::wake`] and [`Port::kick`] are called by wakers, so possibly from a signal handler: they
/// must be async-signal-safe, and must not allocate, lock or block. The others are called only by
/// the vcore's own threads.
pub trait Port {
    /// The time in nanoseconds, on the clock that deadlines are given in (CLOCK_MONOTONIC).
    fn now(&self) -> u64;

    /// Sleeps as `thread` while `futex` has the value `expected`, until a wake names the thread or
    /// `deadline` passes. Comparing and falling asleep must be one step with regard to
    /// [`Port::wake`], and must synchronise with it, as FUTEX_WAIT_BITSET does. May return
    /// [`Waited::Retry`] for no reason.
    fn wait(&self, futex: &AtomicU32, expected: u32, thread: Thread, deadline: Option<u64>) -> Waited;

    /// Wakes those of `threads` that sleep in [`Port::wait`]. The caller has changed `futex`.
    fn wake(&self, futex: &AtomicU32, threads: ThreadMask);

    /// Makes `threads`, which are in the guest, notice `cause`: they leave it soon, or, for an
    /// interrupt, take it there. The cause is in the word already; a kick that comes too late must
    /// do no harm.
    fn kick(&self, threads: ThreadMask, cause: Cause);

    /// Whether `thread` may begin to poll at time `now`.
    fn may_poll(&self, thread: Thread, now: u64) -> bool;

    /// Whether `thread` may poll on, called once per turn of the poll loop with the clock of the
    /// last turn and of this one. False when another task wants the CPU.
    fn keep_polling(&self, thread: Thread, before: u64, now: u64) -> bool;

    /// Gives the CPU to another task, for a confer.
    fn yield_cpu(&self);

    /// The VM's tunables.
    fn tunables(&self) -> &SharedTunables;

    /// The statistics of `thread`'s vCPU. The driver counts there as `thread` only.
    fn stats(&self, thread: Thread) -> &Stats;

    /// The number of `thread`'s vCPU, for trace events.
    fn vcpu_id(&self, thread: Thread) -> u32;
}
