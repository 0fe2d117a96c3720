//! Interrupt sources, their routes, and the lines that devices pull.
//!
//! ```text
//!  device thread ──▶ Vector (MSI) ──resolved route──▶ Sink                  no lock, no other thread
//!  eventfd ──poll──▶ Irqfd ──▶ Vector                                       for who cannot call: a kernel, another process
//!  device thread ──▶ input of Levels (LSI) ──▶ worker ──▶ Line ──▶ Sink     one writer for each level
//! ```
//!
//! What a [`Line`] leads to (KVM's interrupt controller, or one of our own) is decided once, when the machine is
//! built, by whoever implements [`Sink`]; where a message leads is the architecture's to say, by [`Messages`].

#![forbid(unsafe_code)]

mod guarded;
mod irqfd;
mod level;
mod msi;
mod sync;

pub use irqfd::Irqfd;
pub use level::Levels;
pub use msi::{Message, Messages, Vector};

use std::fmt;
use std::io;
use std::sync::Arc;

/// An interrupt controller's input side.
pub trait Sink: Send + Sync {
    /// Sets the level of source `gsi`. For an edge source (an MSI) `true` is one event and `false` nothing.
    /// Never waits, and calls nothing of this crate.
    ///
    /// # Errors
    /// When there is no such source.
    fn set(&self, gsi: u32, level: bool) -> io::Result<()>;
}

/// One interrupt source, as its device holds it.
#[derive(Clone)]
pub struct Line {
    sink: Arc<dyn Sink>,
    gsi: u32,
}

impl Line {
    /// The line of source `gsi` of `sink`.
    #[must_use]
    pub fn new(sink: Arc<dyn Sink>, gsi: u32) -> Self {
        Self { sink, gsi }
    }

    /// Raises one event on an edge source.
    ///
    /// # Errors
    /// When the controller has no such source.
    pub fn trigger(&self) -> io::Result<()> {
        self.sink.set(self.gsi, true)
    }

    /// Sets the level of a level source.
    ///
    /// # Errors
    /// When the controller has no such source.
    pub fn set(&self, level: bool) -> io::Result<()> {
        self.sink.set(self.gsi, level)
    }

    /// The source's number.
    #[must_use]
    pub fn gsi(&self) -> u32 {
        self.gsi
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("gsi", &self.gsi).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Mutex, PoisonError};
    use std::time::{Duration, Instant};

    /// A sink that writes down what it is told.
    #[derive(Debug, Default)]
    pub struct Recorder {
        told: Mutex<Vec<(u32, bool)>>,
        refuses: AtomicBool,
    }

    impl Recorder {
        pub fn line(self: &Arc<Self>, gsi: u32) -> Line {
            Line::new(Arc::clone(self) as _, gsi)
        }

        /// Everything told since the last time.
        pub fn taken(&self) -> Vec<(u32, bool)> {
            std::mem::take(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner))
        }

        /// Waits until it was told just this.
        pub fn wait_for(&self, expected: &[(u32, bool)]) {
            let end = Instant::now() + Duration::from_secs(60);
            while *self.told.lock().unwrap() != expected {
                assert!(Instant::now() < end, "{:?} instead of {expected:?}", self.told);
                std::thread::yield_now();
            }
        }

        /// From now on it is told, and refuses.
        pub fn refuse(&self) {
            self.refuses.store(true, Ordering::Relaxed);
        }
    }

    impl Sink for Recorder {
        fn set(&self, gsi: u32, level: bool) -> io::Result<()> {
            self.told.lock().unwrap_or_else(PoisonError::into_inner).push((gsi, level));
            if self.refuses.load(Ordering::Relaxed) { Err(io::ErrorKind::NotFound.into()) } else { Ok(()) }
        }
    }
}
