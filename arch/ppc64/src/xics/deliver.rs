//! How an event gets from its source to its server, with no lock between the two.
//!
//! An event is in one place at a time: pending in its source's word, carried by the one thread that took it, in its server's
//! XISR, or with the guest. Each step is one compare-and-swap, so two senders never carry the same event.
//!
//! ```text
//!                     refuse: bit, then NR            take            present
//!   turned away ◀──────────────────────── pending ────────▶ carried ──────────▶ in XISR
//!        │                                 ▲  ▲               │                  │
//!        └── limit grows: take_refused ────┘  └───────────────┴──────────────────┘
//!                                                put back: limit fell;   rejected
//! ```
//!
//! **Nothing is lost**, because somebody always answers for a deliverable source:
//! - whoever makes it so, or moves it, calls [`Xics::deliver`] afterwards;
//! - that call ends when the event is in XISR, when another thread took it or made it undeliverable (and answers for it
//!   now), or when its server turned it away while NR was set, in one compare-and-swap with the look at the limit;
//! - from then on it is the server's: its vCPU, when it makes the limit grow, clears NR in the same compare-and-swap, and
//!   then delivers every source in the bitmap. The bit was set before NR, so it is there.
//!
//! A source that was moved to another server meanwhile was moved by a thread that saw it pending, and delivers it there.
//!
//! **Work is bounded.** A call tries the source that it is about, each source of the bitmap once, and each source that lost
//! its place on the way. To take a place makes a server's PPRI more favoured, so a call does it at most 255 times per server
//! however the guest changed priorities before; with priorities left alone, as often as there are different ones. A step is
//! repeated only where another thread's operation on the same word came between, so a guest makes a call longer only by as
//! many exits of its other vCPUs.

use super::Xics;
use super::icp::Change;

impl Xics {
    /// Takes the event of the source at `place` to its server, if it has one to take.
    pub(super) fn deliver(&self, place: usize, notify: &impl Fn(usize)) {
        let mut next = Some(place);
        while let Some(place) = next {
            next = self.send(place, notify);
        }
    }

    /// One source's way; the source that it displaced, which is deliverable again.
    fn send(&self, place: usize, notify: &impl Fn(usize)) -> Option<usize> {
        loop {
            let source = self.ics.source(place);
            if !source.is_deliverable() {
                return None;
            }
            let (server, priority) = (source.server(), source.priority());
            let icp = &self.icps[server];
            if !icp.registers().accepts(priority) {
                if icp.refuse(place, priority) {
                    return None;
                }
                continue;
            }
            if !self.ics.take(place, source) {
                continue;
            }
            match icp.present(self.ics.number(place), priority) {
                Some(change) => return self.presented(server, change, notify),
                None => self.ics.put_back(place),
            }
        }
    }

    /// After every change of a server's registers that may have put something into XISR: tells, and hands back the place of
    /// the source that lost its place there.
    ///
    /// The registers were written with Release before `notify` is called. Whatever tells the server's thread orders that
    /// thread's next load after this call, and the load is Acquire: it sees XISR.
    fn presented(&self, server: usize, change: Change, notify: &impl Fn(usize)) -> Option<usize> {
        if change.presented {
            notify(server);
        }
        let place = self.ics.find(change.rejected?)?;
        self.ics.put_back(place);
        Some(place)
    }

    /// Does everything that a change of `server`'s registers asks for.
    pub(super) fn follow_up(&self, server: usize, change: Change, notify: &impl Fn(usize)) {
        if let Some(place) = self.presented(server, change, notify) {
            self.deliver(place, notify);
        }
        if change.resend {
            self.icps[server].take_refused(|place| self.deliver(place, notify));
        }
    }
}
