//! A value that many use and few change, in one word: a change is there for every use that begins after it, and waits out the
//! uses that began before. It is what the kernel does with an RCU pointer and synchronise_rcu(); the value fits in the word,
//! so there is no pointer, and nothing to free.
//!
//! ```text
//!  63       50 49       36  35  34                     0
//! +-----------+-----------+---+-------------------------+
//! |  users 1  |  users 0  | G |          value          |
//! +-----------+-----------+---+-------------------------+
//!
//!  use:     users[G] += 1, with a look at the value ─▶ … ─▶ users[that G] -= 1        one step each, any thread
//!  change:  value := new, G := !G ─▶ wait until users[the old G] is 0                 one thread at a time
//! ```
//!
//! Why it holds:
//! 1. **A use has one value.** The step that counts the use is the step that looks at the value.
//! 2. **A change leaves no use of the old value behind.** A use with an older value was counted before the change's step: with
//!    the generation that this change ends, or with one before. The latter are gone, since the change that ended theirs has
//!    waited for them, and changes are made one after another. The former are what it waits for.
//! 3. **It ends.** Uses that begin after the step count with the other generation, so only those that had begun are waited for,
//!    however many come. A use must not wait for anything that the changing thread holds.
//! 4. **What a use did has happened before the change returns.** A use ends with Release, and the wait's last look is Acquire.
//!    Steps in between are read-modify-writes, which carry the Release on. What the changing thread did before has in turn
//!    happened before each use of its value: the change's step is Release, each use's Acquire.

use crate::sync::{AtomicU64, Mutex, Ordering, pause, update};
use std::sync::PoisonError;

/// How many bits a value has.
pub const VALUE_BITS: u32 = 35;
const VALUE: u64 = (1 << VALUE_BITS) - 1;
const GENERATION: u64 = 1 << VALUE_BITS;
const USERS_BITS: u32 = 14;
const USERS: u64 = (1 << USERS_BITS) - 1;

/// Where the users of a word's generation are counted.
fn shift(word: u64) -> u32 {
    if word & GENERATION == 0 { VALUE_BITS + 1 } else { VALUE_BITS + 1 + USERS_BITS }
}

fn users(word: u64, shift: u32) -> u64 {
    word >> shift & USERS
}

/// What a thread makes of the value that it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The value from now on.
    pub value: u64,
    /// Whether the thread uses it: changes wait until it is done.
    pub uses: bool,
}

/// The value, its users, and who changes it.
#[derive(Debug)]
pub struct Guarded {
    word: AtomicU64,
    changing: Mutex<()>,
}

impl Guarded {
    pub fn new(value: u64) -> Self {
        Self { word: AtomicU64::new(value & VALUE), changing: Mutex::new(()) }
    }

    /// The value at this moment.
    pub fn value(&self) -> u64 {
        self.word.load(Ordering::Acquire) & VALUE
    }

    /// Makes one step, never waits. The value that was there, and the use, if `step` said so.
    pub fn step(&self, step: impl Fn(u64) -> Step) -> (u64, Option<User<'_>>) {
        let count = |word: u64| {
            debug_assert!(users(word, shift(word)) < USERS, "more threads than there can be");
            1 << shift(word)
        };
        let old = update(&self.word, |word| {
            let Step { value, uses } = step(word & VALUE);
            (word & !VALUE | value & VALUE) + if uses { count(word) } else { 0 }
        });
        let uses = step(old & VALUE).uses;
        (old & VALUE, uses.then(|| User { word: &self.word, unit: 1 << shift(old) }))
    }

    /// Changes the value, and waits until nobody uses what was there before, which is returned. Not by a thread that uses it.
    pub fn change(&self, change: impl Fn(u64) -> u64) -> u64 {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = update(&self.word, |word| (word & !VALUE | change(word & VALUE) & VALUE) ^ GENERATION);
        let mut turn = 0;
        while users(self.word.load(Ordering::Acquire), shift(old)) != 0 {
            pause(turn);
            turn = turn.saturating_add(1);
        }
        old & VALUE
    }
}

/// A use. It ends when this is dropped.
#[derive(Debug)]
pub struct User<'a> {
    word: &'a AtomicU64,
    unit: u64,
}

impl Drop for User<'_> {
    fn drop(&mut self) {
        // Release: pairs with the wait in `change`.
        self.word.fetch_sub(self.unit, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::thread;
    use std::time::Duration;

    const USE: fn(u64) -> Step = |value| Step { value, uses: true };

    #[test]
    fn a_change_waits_for_those_who_use_the_old_value_only() {
        let guarded = Guarded::new(1);
        let changed = AtomicBool::new(false);
        thread::scope(|scope| {
            let (value, old_use) = guarded.step(USE);
            assert_eq!(value, 1);
            scope.spawn(|| {
                assert_eq!(guarded.change(|_| VALUE), 1);
                changed.store(true, Ordering::Release);
            });
            while guarded.value() == 1 {
                thread::yield_now();
            }
            let (value, new_use) = guarded.step(USE);
            assert_eq!(value, VALUE, "whoever comes after the step has the new one");
            thread::sleep(Duration::from_millis(5));
            assert!(!changed.load(Ordering::Acquire));
            drop(old_use);
            while !changed.load(Ordering::Acquire) {
                thread::yield_now();
            }
            drop(new_use);
        });
        assert_eq!(guarded.change(|value| value - 1), VALUE);
        assert_eq!(guarded.value(), VALUE - 1);
    }

    #[test]
    fn fields_do_not_meet() {
        let guarded = Guarded::new(0);
        for turn in 0..4u64 {
            let uses: Vec<_> = (0..100).map(|_| guarded.step(USE).1).collect();
            let word = guarded.word.load(Ordering::Relaxed);
            assert_eq!((users(word, shift(word)), word & VALUE), (100, turn));
            drop(uses);
            let word = guarded.word.load(Ordering::Relaxed);
            assert_eq!(word & !GENERATION, turn);
            guarded.change(|value| value + 1);
        }
    }

    #[test]
    fn a_use_ends_when_its_thread_panics() {
        let guarded = Guarded::new(0);
        let panics = std::panic::AssertUnwindSafe(|| {
            let _use = guarded.step(USE).1;
            panic!("a sink's mistake");
        });
        assert!(std::panic::catch_unwind(panics).is_err());
        assert_eq!(guarded.change(|_| 1), 0);
    }
}
