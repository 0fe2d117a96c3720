//! What the machine owns on the VMM's plane and KVM on the kernel's: the interrupt controller, and the way to the
//! scheduler that handles H_CEDE.
//!
//! ```text
//!  device, hcall, RTAS ──▶ XICS ──pending──▶ scheduler ──napping──▶ wakes it
//!                                              ├─in the guest──▶ line (KVM_INTERRUPT)
//!                                              └─in the host───▶ it looks before it enters (`settle`)
//! ```
//!
//! What must hold:
//! 1. While a vCPU is in the guest and its ICP has an interrupt pending, its line is high, or a thread is just about to make it
//!    so. Whoever makes an interrupt pending tells the scheduler afterwards; the scheduler knows whether the vCPU is in the
//!    guest, and if it is not, it will not enter before it has come through [`Own::settle`] again.
//! 2. A vCPU whose ICP has an interrupt pending does not nap. A thread that is about to make the line high has told the
//!    scheduler before, and does not tell it again: if the vCPU has been out and in since, and cedes while the line is
//!    still low, only the ICP knows. So [`Own::nap`] looks there.

use crate::xics::{Line, Xics};
use arch_api::ppc64::{ExternalPin, Trigger};
use arch_api::{HvError, Nap, Raise, Scheduler, Until};
use irq::Sink;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

type VcpuLine = Line<Arc<dyn ExternalPin>>;

/// The interrupt controller and the scheduler.
pub struct Own {
    /// The controller.
    pub xics: Xics,
    /// Naps and wakes vCPUs.
    pub scheduler: Arc<dyn Scheduler>,
    lines: Box<[OnceLock<Arc<VcpuLine>>]>,
    doorbells: Doorbells,
}

impl Own {
    /// For so many vCPUs, `threads` to a vcore, and these sources.
    pub fn new(
        vcpus: usize,
        threads: u32,
        sources: &[(u32, Trigger)],
        scheduler: Arc<dyn Scheduler>,
    ) -> Self {
        Self {
            xics: Xics::new(vcpus, sources),
            scheduler,
            lines: (0..vcpus).map(|_| OnceLock::new()).collect(),
            doorbells: Doorbells { siblings: threads > 1, rung: AtomicBool::new(false) },
        }
    }

    /// Takes a vCPU's pin.
    pub fn connect(&self, index: usize, pin: Arc<dyn ExternalPin>) {
        // A vCPU is made once.
        let _ = self.lines[index].set(Arc::new(Line::new(pin)));
    }

    /// How others raise vCPU `index`'s interrupt while it is in the guest.
    pub fn raiser(&self, index: usize) -> Option<Arc<dyn Raise>> {
        self.lines[index].get().map(|line| Arc::clone(line) as _)
    }

    /// Makes the line say what the ICP says. By the vCPU's own thread, before it enters the guest.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    pub fn settle(&self, index: usize) -> Result<(), HvError> {
        match self.lines[index].get() {
            Some(line) => line.settle(|| self.xics.pending(index)),
            None => Ok(()),
        }
    }

    /// Tells the scheduler that vCPU `index` has an interrupt.
    pub fn notify(&self, index: usize) {
        self.scheduler.interrupt(index);
    }

    /// What vCPU `index` waits for, which has ceded, with its decrementer to expire in `timeout` nanoseconds. `None` if it
    /// has something to do: an interrupt, or what `doorbell` says.
    ///
    /// # Errors
    /// Those of `doorbell`.
    pub fn nap(
        &self,
        index: usize,
        timeout: u64,
        doorbell: impl FnOnce() -> Result<bool, HvError>,
    ) -> Result<Option<Nap>, HvError> {
        if self.xics.pending(index) {
            return Ok(None);
        }
        self.doorbells.nap(timeout, doorbell)
    }
}

impl Sink for Own {
    fn set(&self, gsi: u32, level: bool) -> io::Result<()> {
        let set = self.xics.set(gsi, level, |index| self.notify(index));
        set.map_err(|error| io::Error::new(io::ErrorKind::NotFound, error))
    }
}

impl<P: ExternalPin> Raise for Line<P> {
    fn raise(&self) {
        if let Err(error) = Line::raise(self) {
            tracing::error!(error = %error.source, "a vCPU's interrupt could not be raised: {error}");
        }
    }
}

/// Doorbells between the threads of a vcore (msgsndp). KVM emulates them on POWER9 and later and wakes only those that
/// sleep within it; a vCPU that naps here does not hear them. Linux rings none where the tree has `/hypervisor`, but
/// another guest may: so where there are siblings no nap is longer than a bound, and after it KVM is asked.
#[derive(Debug)]
struct Doorbells {
    siblings: bool,
    /// One was found: this guest uses them.
    rung: AtomicBool,
}

impl Doorbells {
    /// While none was ever seen: ten looks a second.
    const UNUSED_NS: u64 = 100_000_000;
    /// Once one was.
    const USED_NS: u64 = 1_000_000;

    fn nap(
        &self,
        timeout: u64,
        doorbell: impl FnOnce() -> Result<bool, HvError>,
    ) -> Result<Option<Nap>, HvError> {
        if timeout == 0 {
            return Ok(None);
        }
        if !self.siblings {
            return Ok(Some(Nap { timeout: Some(timeout), until: Until::Event }));
        }
        if doorbell()? {
            if !self.rung.swap(true, Ordering::Relaxed) {
                tracing::info!(
                    "the guest rings doorbells between the threads of a core; naps are bounded by 1 ms"
                );
            }
            return Ok(None);
        }
        let bound = if self.rung.load(Ordering::Relaxed) { Self::USED_NS } else { Self::UNUSED_NS };
        let until = if timeout <= bound { Until::Event } else { Until::EventOrAskAgain };
        Ok(Some(Nap { timeout: Some(timeout.min(bound)), until }))
    }
}
