//! An eventfd that raises a vector, for who cannot call: the kernel's vhost, another process. Where KVM has the interrupt
//! controller it can be given to KVM (KVM_IRQFD); else a poll loop owns it, and this is what the loop calls.
//!
//! ```text
//!            closed by whoever takes the source away
//!   open ────────────────────────────────────────────▶ closed
//!    │ readable: take the count, raise                   │ readable: nothing
//! ```
//!
//! What holds: when [`Irqfd::close`] returns, no raise on account of the eventfd is under way and none will come. It may be called
//! from any thread, the poll loop's too (between two events), while others write the eventfd and raise the vector: it waits for
//! one call of [`Irqfd::ready`] at most, which waits for nobody. The loop finds out later and drops its share.

use crate::Vector;
use crate::guarded::{Guarded, Step};
use std::io;
use std::sync::Arc;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const OPEN: u64 = 0;
const CLOSED: u64 = 1;

/// The eventfd, and what it raises.
#[derive(Debug)]
pub struct Irqfd {
    event: EventFd,
    vector: Arc<Vector>,
    state: Guarded,
}

impl Irqfd {
    /// A new eventfd that raises `vector`.
    ///
    /// # Errors
    /// When there can be no more descriptors.
    pub fn new(vector: Arc<Vector>) -> io::Result<Self> {
        Ok(Self { event: EventFd::new(EFD_NONBLOCK)?, vector, state: Guarded::new(OPEN) })
    }

    /// What is polled, and what others write.
    #[must_use]
    pub fn event(&self) -> &EventFd {
        &self.event
    }

    /// The eventfd is readable: takes what was written, which is one event, and raises the vector. Says whether the poll loop
    /// is to go on with it; it is not once this was closed.
    ///
    /// # Errors
    /// When the controller has no such source as the vector leads to.
    pub fn ready(&self) -> io::Result<bool> {
        let (_, Some(_user)) = self.state.step(|value| Step { value, uses: value == OPEN }) else {
            return Ok(false);
        };
        match self.event.read() {
            Ok(_) => self.vector.raise()?,
            // Somebody else took it.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Ends it. No raise on its account is under way when this returns, and none will come.
    pub fn close(&self) {
        self.state.change(|_| CLOSED);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::tests::Recorder;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    #[test]
    fn what_is_written_is_one_event() {
        let (recorder, vector) = (Arc::new(Recorder::default()), Arc::new(Vector::default()));
        vector.set_route(Some(recorder.line(5)));
        let irqfd = Irqfd::new(vector).unwrap();
        irqfd.event().write(1).unwrap();
        irqfd.event().write(1).unwrap();
        assert!(irqfd.ready().unwrap());
        assert!(irqfd.ready().unwrap(), "readable, and taken meanwhile");
        assert_eq!(recorder.taken(), [(5, true)]);
        irqfd.close();
        irqfd.event().write(1).unwrap();
        assert!(!irqfd.ready().unwrap());
        assert_eq!(recorder.taken(), []);
    }

    /// Writers and two poll loops against a teardown that takes the source away right after.
    #[test]
    fn a_source_goes_away_while_others_raise_it() {
        for _ in 0..200 {
            let (recorder, vector) = (Arc::new(Recorder::default()), Arc::new(Vector::default()));
            vector.set_route(Some(recorder.line(5)));
            let (irqfd, gone) = (Irqfd::new(Arc::clone(&vector)).unwrap(), AtomicBool::new(false));
            thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        while irqfd.ready().unwrap() {
                            irqfd.event().write(1).unwrap();
                        }
                    });
                }
                scope.spawn(|| {
                    while !gone.load(Ordering::Acquire) {
                        vector.raise().unwrap();
                    }
                });
                irqfd.close();
                vector.set_route(None);
                recorder.taken();
                gone.store(true, Ordering::Release);
            });
            assert_eq!(recorder.taken(), [], "raised after the source went away");
        }
    }
}
