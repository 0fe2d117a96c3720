//! The one door to what threads share here. Built with `--cfg loom` it leads to the model checker, and nobody else notices.

#[cfg(not(loom))]
pub use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
#[cfg(not(loom))]
pub use std::thread::{JoinHandle, Thread, park};

#[cfg(loom)]
pub use loom::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
#[cfg(loom)]
pub use loom::thread::{JoinHandle, Thread, park};

use std::io;

/// Starts a thread.
#[cfg(not(loom))]
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body)
}

#[cfg(loom)]
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    loom::thread::Builder::new().name(name.to_owned()).spawn(body)
}

/// Lets some time pass in turn `turn` of a wait for another thread's few instructions. That thread may have lost its CPU, and
/// the waiter may have a real-time priority, so the CPU is given up in earnest before long.
#[cfg(not(loom))]
pub fn pause(turn: u32) {
    const SPINS: u32 = 64;
    const YIELDS: u32 = SPINS + 16;
    const NAP: std::time::Duration = std::time::Duration::from_micros(50);
    match turn {
        0..SPINS => std::hint::spin_loop(),
        SPINS..YIELDS => std::thread::yield_now(),
        _ => std::thread::sleep(NAP),
    }
}

#[cfg(loom)]
pub fn pause(_turn: u32) {
    loom::thread::yield_now();
}

/// Replaces the word by what `change` makes of it, and returns what it was. Turns again only where another thread changed the
/// word meanwhile.
///
/// Release, so that whoever reads the new word sees what its writer saw and did before; Acquire, which is that reader's half. A
/// word that stays the same is written all the same: the next change of it then comes after what this thread did before.
pub fn update(word: &AtomicU64, change: impl Fn(u64) -> u64) -> u64 {
    let mut old = word.load(Ordering::Relaxed);
    loop {
        match word.compare_exchange_weak(old, change(old), Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => return old,
            Err(actual) => old = actual,
        }
    }
}
