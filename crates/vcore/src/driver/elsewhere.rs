//! Idle periods of a vCPU whose sleep is somebody else's: the hypervisor keeps the interrupt controller and the wait, and
//! only the poll before it is ours.
//!
//! ```text
//!   host ──cede──▶ polls ──arrived, deadline, exit request──▶ host: enters the guest      (period closed: success)
//!                    │ interval over, another task, a sibling runs
//!                    ▼
//!                  host: enters the guest, which cedes again and sleeps in the hypervisor (period open)
//!                    └──────────────woken: `slept`──────────────▶ host                    (period closed: waited)
//! ```
//!
//! What must hold: such a vCPU is the only thread of its vcore here (on POWER9 and later the hypervisor runs each by itself too),
//! so the fields of the idle period have one writer, its own thread, and its state in the word stays "host" while it polls. An
//! exit request to a thread in the host sets its bit and kicks nobody, and the poller looks at the word each turn. A period
//! that nobody closes (the guest found something to do instead of its sleep) is forgotten: the next one writes the fields anew.

use super::{Opening, Vcore, WrongState};
use crate::port::Port;
use crate::sync::{Ordering, Orderings};
use crate::trace;
use crate::word::{Causes, Thread, ThreadState};

/// What a poller sees of the world that the vcore's word does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing has come.
    Nothing,
    /// Something has, which the hypervisor delivers when the guest is entered.
    Arrived,
    /// It is not worth polling on.
    GiveUp,
}

/// What came of a poll before somebody else's sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a guest that is to sleep must be let to"]
pub enum Polled {
    /// There is something to do.
    Awake,
    /// There is not: let the hypervisor sleep, and call [`Vcore::slept`] after it has.
    Asleep,
}

impl<P: Port, O: Orderings> Vcore<P, O> {
    /// Opens an idle period of a thread that is in the host, and polls while `look` finds nothing. Returns at once where the
    /// interval is 0 or another task wants the CPU.
    ///
    /// # Errors
    /// When the thread is not in the host.
    pub fn poll_before_sleep(
        &self,
        thread: Thread,
        deadline: Option<u64>,
        mut look: impl FnMut() -> Look,
    ) -> Result<Polled, WrongState> {
        if self.word().thread_state(thread) != ThreadState::Host {
            return Err(self.wrong_state(thread, "poll before a sleep"));
        }
        let start = self.port.now();
        let interval = self.next_interval();
        self.open_period(Opening { now: start, halt_poll_ns: interval });
        if interval == 0 || !self.port.may_poll(thread, start) {
            return Ok(Polled::Asleep);
        }
        self.port.stats(thread).poll_attempted();
        let stop = start.saturating_add(u64::from(interval));
        let mut before = start;
        loop {
            let seen = look();
            let now = self.port.now();
            let undisturbed = self.port.keep_polling(thread, before, now);
            before = now;
            let causes = self.word().causes(thread);
            let expired = deadline.is_some_and(|deadline| deadline <= now);
            if seen == Look::Arrived || expired || !causes.is_empty() {
                self.account(
                    Some(thread),
                    false,
                    seen == Look::Arrived || expired || causes.concerns_guest(),
                );
                return Ok(Polled::Awake);
            }
            if now >= stop || !undisturbed || seen == Look::GiveUp {
                break;
            }
            core::hint::spin_loop();
        }
        self.poll_end.store(before, Ordering::Relaxed);
        self.port.stats(thread).poll_failed(before.saturating_sub(start));
        trace::vcore_blocked(1, self.port.vcpu_id(thread), trace::Where::Enter);
        Ok(Polled::Asleep)
    }

    /// The sleep that followed [`Polled::Asleep`] is over; learns from it. An exit request that waits for the thread is what
    /// ended it.
    pub fn slept(&self, thread: Thread) {
        let causes = self.word().causes(thread);
        self.account(Some(thread), true, causes == Causes::NONE || causes.concerns_guest());
        self.port.stats(thread).woken();
    }
}
