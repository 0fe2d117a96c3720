//! The one door to the atomics of this controller. Built with `--cfg loom` they are the model checker's, and nobody else notices.

#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

/// Replaces the word by what `change` makes of it, and returns what it was. Turns again only where another thread
/// changed the word meanwhile.
///
/// Every change of a word goes through here or through one compare-and-swap, with these orderings: Release, so that
/// whoever reads the new word sees what its writer saw and did before; Acquire, which is that reader's half.
pub fn update(word: &AtomicU64, change: impl Fn(u64) -> u64) -> u64 {
    let mut old = word.load(Ordering::Acquire);
    loop {
        match word.compare_exchange(old, change(old), Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return old,
            Err(actual) => old = actual,
        }
    }
}
