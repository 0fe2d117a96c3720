//! Interrupt sources, their routes, and the lines that devices pull.
//!
//! ```text
//!  device thread ──▶ Vector (MSI) ──resolved route──▶ Sink                  no lock, no other thread
//!  eventfd ──poll──▶ Irqfd ──▶ Vector                                       for who cannot call: a kernel, another process
//!          └─Shortcut──▶ the controller itself                              where it can hear an eventfd
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
mod shortcut;
mod sync;

pub use irqfd::Irqfd;
pub use level::Levels;
pub use msi::{Message, Messages, Vector};
pub use shortcut::Shortcut;

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// An interrupt controller's input side.
pub trait Sink: Send + Sync {
    /// Sets the level of source `gsi`. For an edge source (an MSI) `true` is one event and `false` nothing.
    /// Never waits, and calls nothing of this crate.
    ///
    /// # Errors
    /// When there is no such source.
    fn set(&self, gsi: u32, level: bool) -> io::Result<()>;

    /// From now on a write to `event`, an eventfd, is one event of edge source `gsi`, taken by the controller in the writer's context
    /// (KVM_IRQFD), and so is what was written before and is still there to be read. An eventfd has one source at a time, a
    /// source as many eventfds as it likes.
    ///
    /// # Errors
    /// [`Unsupported`](io::ErrorKind::Unsupported) where the controller hears no eventfds; anything else is the
    /// controller's refusal.
    fn bind(&self, _gsi: u32, _event: BorrowedFd<'_>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Takes back what [`bind`](Sink::bind) did with the same arguments. What was written before has reached the source when it
    /// returns, and nothing more will. Waits for nobody but the controller.
    ///
    /// # Errors
    /// When they were not bound.
    fn unbind(&self, _gsi: u32, _event: BorrowedFd<'_>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
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

    /// Has a write to `event` trigger it, without a call ([`Sink::bind`]).
    ///
    /// # Errors
    /// As [`Sink::bind`].
    pub fn bind(&self, event: BorrowedFd<'_>) -> io::Result<()> {
        self.sink.bind(self.gsi, event)
    }

    /// Ends that ([`Sink::unbind`]).
    ///
    /// # Errors
    /// As [`Sink::unbind`].
    pub fn unbind(&self, event: BorrowedFd<'_>) -> io::Result<()> {
        self.sink.unbind(self.gsi, event)
    }

    /// The source's number.
    #[must_use]
    pub fn gsi(&self) -> u32 {
        self.gsi
    }
}

/// The same source of the same controller.
impl PartialEq for Line {
    fn eq(&self, other: &Self) -> bool {
        self.gsi == other.gsi && Arc::ptr_eq(&self.sink, &other.sink)
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
    use std::collections::BTreeMap;
    use std::os::fd::{AsRawFd, RawFd};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Mutex, PoisonError};
    use std::time::{Duration, Instant};

    /// A sink that writes down what it is told.
    #[derive(Debug, Default)]
    pub struct Recorder {
        told: Mutex<Vec<(u32, bool)>>,
        refuses: AtomicBool,
        /// What is bound, by the eventfd's number.
        bound: Mutex<BTreeMap<RawFd, u32>>,
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

        /// The source that `event` is bound to.
        pub fn bound(&self, event: BorrowedFd<'_>) -> Option<u32> {
            self.bound.lock().unwrap().get(&event.as_raw_fd()).copied()
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

        fn bind(&self, gsi: u32, event: BorrowedFd<'_>) -> io::Result<()> {
            if self.refuses.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::Unsupported.into());
            }
            let before = self.bound.lock().unwrap().insert(event.as_raw_fd(), gsi);
            assert_eq!(before, None, "an eventfd has one source");
            Ok(())
        }

        fn unbind(&self, gsi: u32, event: BorrowedFd<'_>) -> io::Result<()> {
            let before = self.bound.lock().unwrap().remove(&event.as_raw_fd());
            assert_eq!(before, Some(gsi), "not bound");
            Ok(())
        }
    }
}
