//! A vCPU's external interrupt pin, as the hypervisor holds it for us.
//!
//! The ICP says whether the pin has to be high; each write of the pin is a system call. So a flag beside it says what the pin is
//! or is about to be, and only who changes the flag writes the pin.
//!
//! ```text
//!            raise, by anybody: flag, pin, flag again
//!    low ◀─────────────────────────────────────────────▶ high
//!            lower, by the vCPU's own thread in the host: flag, pin, flag again
//! ```
//!
//! What holds:
//! 1. When all calls have returned, the pin is what the flag says. Nobody's interrupt stays behind, and no pin
//!    stays high with nobody to lower it.
//! 2. If a raiser found the flag set and did nothing, the owner's [`Line::lower`] that clears the flag happens after what the
//!    raiser did before: a look at the ICP that follows the call sees the raiser's interrupt. This is why [`Line::settle`] looks again.

use super::sync::{AtomicBool, Ordering, fence};
use arch_api::HvError;
use arch_api::ppc64::ExternalPin;

/// The pin and its flag.
#[derive(Debug)]
pub struct Line<P> {
    level: AtomicBool,
    pin: P,
}

impl<P: ExternalPin> Line<P> {
    /// A pin that is low.
    pub fn new(pin: P) -> Self {
        Self { level: AtomicBool::new(false), pin }
    }

    /// Makes the pin high, if it is not. From any thread.
    ///
    /// The vCPU's thread may lower the pin while this runs, on account of an earlier interrupt. Then the flag is
    /// clear after our write of the pin, and which of the two writes came last is unknown: both are done again. Each
    /// such turn is paid for by an exit of that vCPU.
    ///
    /// # Errors
    /// When the hypervisor refuses. The pin is then unknown and the vCPU is not to be relied on.
    pub fn raise(&self) -> Result<(), HvError> {
        // Release and Acquire: pairs with the swap in `lower`, for 2.
        let mut was_high = self.level.swap(true, Ordering::AcqRel);
        while !was_high {
            // Pairs with the fence in `lower`: of a raise and a lower that run at once, either this write of the pin comes
            // after the other's, or the other sees the flag that was set above.
            fence(Ordering::SeqCst);
            self.pin.set(true)?;
            was_high = self.level.swap(true, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Makes the pin low, unless somebody raises it meanwhile. For the vCPU's own thread, while the vCPU is in the host.
    ///
    /// # Errors
    /// As [`raise`](Self::raise).
    pub fn lower(&self) -> Result<(), HvError> {
        if !self.level.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.level.swap(false, Ordering::AcqRel);
        self.pin.set(false)?;
        fence(Ordering::SeqCst);
        // Set since: that raiser's write of the pin may have come before ours.
        if self.level.load(Ordering::Acquire) { self.pin.set(true) } else { Ok(()) }
    }

    /// Makes the pin what the ICP asks for, as `pending` says. For the vCPU's own thread, after each operation on its ICP and
    /// in any case before it enters the guest.
    ///
    /// # Errors
    /// As [`raise`](Self::raise).
    pub fn settle(&self, pending: impl Fn() -> bool) -> Result<(), HvError> {
        if !pending() {
            self.lower()?;
            if !pending() {
                return Ok(());
            }
        }
        self.raise()
    }
}
