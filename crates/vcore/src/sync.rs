//! The one door to atomics whose interleavings matter, so that the model checker can stand behind
//! it, and the table of the orderings they are used with.
//!
//! Built with `--cfg loom` the atomics are loom's; `driver` does not notice.

#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Every ordering of the driver that correctness rests on, each with what it pairs with. A type
/// parameter of [`crate::Vcore`] only so that a test can weaken one and show that the model checker
/// notices; everybody else uses [`Sound`].
pub trait Orderings {
    /// A waker's `fetch_or` on the word. Release, paired with [`Orderings::TAKE`]: what the waker
    /// wrote before (a device's used ring, the interrupt controller's state) is seen by whoever
    /// takes the cause.
    const POST: Ordering;
    /// A thread's compare-and-swap on the word. Acquire, paired with [`Orderings::POST`] and with
    /// the release of a sibling's; release, so that the fields of the idle period go from the
    /// thread that opened it to the one that closes it.
    const TAKE: Ordering;
    /// A waker's increment of the futex word. Release, paired with [`Orderings::TICKET`]: a
    /// sleeper that sees the new count also sees the cause that was posted before it.
    const BUMP: Ordering;
    /// A sleeper's load of the futex word, before it looks at the word for the last time. Acquire,
    /// paired with [`Orderings::BUMP`].
    const TICKET: Ordering;
}

/// The orderings that the argument in docs/vcore.md is made for.
#[derive(Debug)]
pub enum Sound {}

impl Orderings for Sound {
    const POST: Ordering = Ordering::Release;
    const TAKE: Ordering = Ordering::AcqRel;
    const BUMP: Ordering = Ordering::Release;
    const TICKET: Ordering = Ordering::Acquire;
}
