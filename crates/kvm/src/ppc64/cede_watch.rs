//! A vCPU's cede event over its life: opened by the vCPU's thread, watched, opened again if it was lost.
//!
//! ```text
//!   closed ──open──▶ open ──lost──▶ warn, open again ──lost again──▶ KVM sleeps by itself, as on the kernel plane
//! ```
//!
//! The event is lost when somebody disables or closes it. Nothing tells of that, so it is told from what it leaves undone: a
//! thread that goes to sleep within KVM_RUN again and again, and of whose cedes none came out. Looking costs one
//! getrusage(2) in [`EXITS`] exits.

use super::cede_event::CedeEvent;
use std::io;

/// Exits without a cede among them after which it is looked whether the thread slept.
const EXITS: u32 = 128;

/// So many sleeps in that time are no accident; a page that comes from swap is one, too.
const SLEEPS: u64 = 32;

/// The watch.
#[derive(Debug)]
pub(super) struct CedeWatch {
    tracepoint: u64,
    event: Option<CedeEvent>,
    losses: u32,
    /// Exits since the last cede or look.
    exits: u32,
    /// What [`sleeps`] said at the last look; `None` when a cede has come since.
    slept: Option<u64>,
}

impl CedeWatch {
    /// Of the event on this tracepoint.
    pub fn new(tracepoint: u64) -> Self {
        Self { tracepoint, event: None, losses: 0, exits: 0, slept: None }
    }

    /// Opens the event for the calling thread, which is the vCPU's.
    pub fn open(&mut self) -> io::Result<()> {
        if self.event.is_none() {
            self.event = Some(CedeEvent::open(self.tracepoint)?);
        }
        Ok(())
    }

    /// Whether the vCPU has ceded since the last call. If so, all is well.
    pub fn ceded(&mut self) -> io::Result<bool> {
        let Some(event) = &mut self.event else { return Ok(false) };
        let ceded = event.ceded()?;
        if ceded {
            self.well();
        }
        Ok(ceded)
    }

    fn well(&mut self) {
        (self.exits, self.slept) = (0, None);
    }

    /// The vCPU has come out of the guest, for whatever reason.
    pub fn exited(&mut self) {
        self.exits += 1;
        if self.exits < EXITS || self.losses > 1 {
            return;
        }
        self.exits = 0;
        let now = sleeps();
        if self.slept.is_some_and(|before| now.saturating_sub(before) >= SLEEPS) {
            self.lost();
        }
        self.slept = Some(now);
    }

    fn lost(&mut self) {
        self.losses += 1;
        // The old one first: what is left of it must not send signals beside the new one.
        self.event = None;
        if self.losses > 1 {
            return;
        }
        let again = match self.open() {
            Ok(()) => "it was opened again".to_owned(),
            Err(error) => {
                format!("it cannot be opened again ({error}), and KVM does without polling from here on")
            }
        };
        tracing::warn!(
            "the perf event kvm_hv:kvmppc_vcore_blocked is lost, KVM sleeps by itself when the guest idles; {again}"
        );
    }
}

/// How often the calling thread has gone to sleep.
fn sleeps() -> u64 {
    // SAFETY: all zeroes is a valid rusage; the call fills it, and cannot fail for the calling thread.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &mut usage);
        usage
    };
    u64::try_from(usage.ru_nvcsw).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleep(times: u64) {
        (0..times).for_each(|_| std::thread::sleep(std::time::Duration::from_micros(10)));
    }

    fn exits(watch: &mut CedeWatch) {
        (0..EXITS).for_each(|_| watch.exited());
    }

    /// Events are not to be had in tests, so the first loss is the last as well.
    #[test]
    fn sleeping_without_a_cede_is_a_loss_and_is_told_once() {
        let mut watch = CedeWatch::new(0);
        for _ in 0..3 {
            exits(&mut watch);
        }
        assert_eq!(watch.losses, 0, "a busy guest");
        for _ in 0..3 {
            watch.well();
            sleep(2 * SLEEPS);
            exits(&mut watch);
        }
        assert_eq!(watch.losses, 0, "an idle guest whose cedes come");
        for _ in 0..4 {
            sleep(2 * SLEEPS);
            exits(&mut watch);
        }
        assert_eq!(watch.losses, 2);
        assert!(watch.event.is_none());
    }
}
