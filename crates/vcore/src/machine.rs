//! The vcore's state machine: one transition function for three drivers.
//!
//! Owns every change of a vcore's [`Word`]. [`transition`] is a pure function from a word and an
//! event to a word and an outcome; it knows no clock, no memory but its arguments, no other
//! vcore. Who moves it:
//!
//! | driver | how it applies a transition |
//! |---|---|
//! | threads and futexes (`driver`) | compare-and-swap for what a thread does to itself; `fetch_or` for what others do to it |
//! | virtual time (the `cede-sim` simulator) | [`Machine::step`], directly |
//! | model checker (`tests/loom.rs`) | the first driver on loom's atomics |
//!
//! A thread of the vcore:
//!
//! ```text
//!            Online                 Enter, nothing pending
//!  offline ---------> in the host -------------------------> running
//!     ^                |  ^   ^ |                              |  |
//!     `----------------'  |   | `-- Enter, pending: take it    |  |
//!            Offline      |   `-------------- Leave -----------'  |
//!                         |                                       |
//!    Unnap, Expire, PollEnd with                 Cede (from the host as well),
//!    something pending: take it                    nothing pending
//!                         |                                       v
//!                         `----------------------------------- napping
//! ```
//!
//! The vcore as a whole (derived from the word by [`Word::vcore_state`]):
//!
//! ```text
//!               Enter                       last Cede, may poll
//!   inactive ------------------> running ------------------------> polling
//!    ^  ^  ^                      |   |                             |   |
//!    |  |  `-- Leave of the last -'   | last Cede,          PollEnd |   |
//!    |  |                             | may not poll                v   |
//!    |  |                             `------------------------> sleeping
//!    |  |                                                           |   |
//!    |  `---------- Unnap or Expire of any thread ------------------'   |
//!    `------------- the same: the poller finds that it lost its bit ----'
//!
//!   exiting: laid over the others while an exit request has not reached every thread
//!            that runs (kicked) or naps (woken)
//! ```
//!
//! What always holds, beside the word's own invariants:
//! - A thread with a pending cause never starts to nap, and a nap that ends has taken every cause
//!   it ended for: each cause is handed out exactly once.
//! - Nobody's transition changes another thread's state; at most it ends a sibling's poll, which
//!   only happens when the vcore is no longer idle.
//! - `Post` only sets bits (`post_is_an_or` in `tests/model.rs`), so a waker needs one
//!   `fetch_or`, which cannot fail and cannot loop.
//! - A thread in the host counts as busy, so an idle period opens only when the last online thread
//!   cedes, and closes with the first that stops napping. Between the two nobody else writes the
//!   period's fields.

use crate::poll::{self, Block};
use crate::tunables::Tunables;
use crate::word::{Cause, Causes, POLLING, Thread, ThreadMask, ThreadState, Word};

/// What happens to a vcore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A vCPU is started (at boot, or RTAS start-cpu).
    Online(Thread),
    /// A vCPU in the host is stopped (RTAS stop-self). What the guest had pending is dropped; an
    /// exit request is kept.
    Offline(Thread),
    /// A thread is about to enter the guest.
    Enter(Thread),
    /// A thread has come back from the guest.
    Leave(Thread),
    /// A thread executes H_CEDE or HLT, having just left the guest; a `Leave` between is optional.
    Cede {
        /// The thread that cedes.
        thread: Thread,
        /// Whether it may poll, should it prove to be the last.
        poll: bool,
    },
    /// A cause becomes pending for threads, from anywhere.
    Post {
        /// For whom.
        threads: ThreadMask,
        /// What.
        cause: Cause,
    },
    /// A napping thread looks whether something woke it.
    Unnap(Thread),
    /// A napping thread's deadline has passed: the decrementer is pending, and it wakes by itself.
    Expire(Thread),
    /// The poller's time is over, or another task wants its CPU, or it saw a cause.
    PollEnd(Thread),
    /// A conferring thread takes its own prod, if it has one.
    TakeProd(Thread),
}

impl Event {
    /// The thread that the event happens to; a post may be for several.
    pub const fn thread(self) -> Option<Thread> {
        match self {
            Self::Post { .. } => None,
            Self::Online(thread) | Self::Offline(thread) | Self::Enter(thread) | Self::Leave(thread) => {
                Some(thread)
            }
            Self::Cede { thread, .. } | Self::Unnap(thread) | Self::Expire(thread) => Some(thread),
            Self::PollEnd(thread) | Self::TakeProd(thread) => Some(thread),
        }
    }
}

/// Whom a post must reach by other means than the word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "a thread that sleeps or runs does not read the word"]
pub struct Delivery {
    /// Threads that may be asleep on the wait queue: wake them.
    pub wake: ThreadMask,
    /// Threads in the guest: make them leave it.
    pub kick: ThreadMask,
}

/// What the driver must do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing.
    Done,
    /// Run the guest.
    Entered,
    /// The thread is in the host and owns these causes now; nobody else will see them.
    Awake(Causes),
    /// The thread naps and polls for the whole vcore.
    Poll,
    /// The thread naps: sleep on the wait queue.
    Sleep,
    /// Reach the threads named.
    Post(Delivery),
    /// The event does not fit the thread's state; nothing changed. A defect of the caller.
    Refused,
}

/// Applies one event to a word. Pure; every driver uses this function and no other.
#[inline]
pub fn transition(word: Word, event: Event) -> (Word, Outcome) {
    use ThreadState::{Host, Napping, Offline, Running};
    match event {
        Event::Post { threads, cause } => {
            let next = word.with_cause(threads, cause);
            (next, Outcome::Post(delivery(next, threads, cause)))
        }
        Event::Online(thread) => match word.thread_state(thread) {
            Offline => (word.with_state(thread, Host).without_period(), Outcome::Done),
            _ => (word, Outcome::Refused),
        },
        Event::Offline(thread) => match word.thread_state(thread) {
            Host => (offline(word, thread), Outcome::Done),
            _ => (word, Outcome::Refused),
        },
        Event::Enter(thread) => match word.thread_state(thread) {
            Host => enter(word, thread),
            _ => (word, Outcome::Refused),
        },
        Event::Leave(thread) => match word.thread_state(thread) {
            Running => (word.with_state(thread, Host), Outcome::Done),
            _ => (word, Outcome::Refused),
        },
        Event::Cede { thread, poll } => match word.thread_state(thread) {
            Host | Running => cede(word, thread, poll),
            _ => (word, Outcome::Refused),
        },
        Event::Unnap(thread) => match word.thread_state(thread) {
            Napping => unnap(word, thread, Outcome::Sleep),
            _ => (word, Outcome::Refused),
        },
        Event::Expire(thread) => match word.thread_state(thread) {
            Napping => unnap(word.with_cause(thread.mask(), Cause::Decrementer), thread, Outcome::Sleep),
            _ => (word, Outcome::Refused),
        },
        Event::PollEnd(thread) => match word.thread_state(thread) {
            Napping => poll_end(word, thread),
            _ => (word, Outcome::Refused),
        },
        Event::TakeProd(thread) => {
            let taken = word.causes(thread).intersection(Causes::only(Cause::Prod));
            (word.without(thread, taken), Outcome::Awake(taken))
        }
    }
}

/// Whom a waker must reach after its bits are in the word, judged on any later value of the word:
/// a thread that has taken the cause in between, or is awake, needs nothing.
pub(crate) fn delivery(word: Word, threads: ThreadMask, cause: Cause) -> Delivery {
    let still = ThreadMask(threads.0 & word.pending().0);
    let poller = word.poller().map_or(ThreadMask::NONE, Thread::mask);
    let wake = ThreadMask(still.0 & word.napping().0 & !poller.0);
    let kick = match cause {
        Cause::Prod => ThreadMask::NONE,
        _ => ThreadMask(still.0 & word.running().0),
    };
    Delivery { wake, kick }
}

fn enter(word: Word, thread: Thread) -> (Word, Outcome) {
    let first = word.causes(thread).intersection(Causes::INTERRUPTS_AND_EXIT);
    if first.is_empty() {
        (word.with_state(thread, ThreadState::Running), Outcome::Entered)
    } else {
        (word.without(thread, first), Outcome::Awake(first))
    }
}

fn cede(word: Word, thread: Thread, poll: bool) -> (Word, Outcome) {
    let causes = word.causes(thread);
    if !causes.is_empty() {
        let next = word.without(thread, causes).with_state(thread, ThreadState::Host);
        return (next, Outcome::Awake(causes));
    }
    let next = word.with_state(thread, ThreadState::Napping);
    match (next.is_idle(), poll) {
        (false, _) => (next, Outcome::Sleep),
        // A sibling with a pending cause is on its way up: there is nothing left to poll for.
        (true, true) if next.woken().is_empty() => (next.with_poller(thread), Outcome::Poll),
        (true, _) => (next.with_slept(), Outcome::Sleep),
    }
}

fn unnap(word: Word, thread: Thread, otherwise: Outcome) -> (Word, Outcome) {
    let causes = word.causes(thread);
    if causes.is_empty() {
        return (word, otherwise);
    }
    let next = word.without(thread, causes).with_state(thread, ThreadState::Host);
    (next.without_period(), Outcome::Awake(causes))
}

fn poll_end(word: Word, thread: Thread) -> (Word, Outcome) {
    if word.poller() != Some(thread) || !word.causes(thread).is_empty() {
        return unnap(word, thread, Outcome::Sleep);
    }
    let next = word.without_poller();
    // Not SLEPT when a sibling's cause ended the poll: the kernel counts that poll a success.
    if word.woken().is_empty() { (next.with_slept(), Outcome::Sleep) } else { (next, Outcome::Sleep) }
}

fn offline(word: Word, thread: Thread) -> Word {
    let guest = Causes::ALL_OF_GUEST.intersection(word.causes(thread));
    let next = word.without(thread, guest).with_state(thread, ThreadState::Offline);
    if next.is_idle() { next.with_slept() } else { next }
}

/// What a transition did to the vcore's idle period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeriodChange {
    /// Nothing.
    None,
    /// The last thread has ceded: the period begins.
    Opened,
    /// The poll found nothing, and the vcore goes to sleep.
    PollFailed,
    /// The first thread is awake again: the period is over.
    Closed {
        /// Whether the vcore got as far as sleep.
        waited: bool,
    },
}

impl PeriodChange {
    /// What lies between two values of a word, one transition apart.
    pub fn between(before: Word, after: Word) -> Self {
        match (before.is_idle(), after.is_idle()) {
            (false, true) => Self::Opened,
            (true, false) => Self::Closed { waited: before.has_slept() },
            (true, true) if before.bits() & POLLING != 0 && after.has_slept() => Self::PollFailed,
            _ => Self::None,
        }
    }
}

/// A vcore as a value: the word, and what the idle period needs to be accounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    word: Word,
    halt_poll_ns: u32,
    start: u64,
    poll_end: u64,
}

/// What one step asks for and tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Actions {
    /// What to do.
    pub outcome: Outcome,
    /// With [`Outcome::Poll`]: until when at the latest, in the clock of `step`'s `now`.
    pub poll_until: u64,
    /// A poll has just failed after so many nanoseconds.
    pub poll_failed_ns: Option<u64>,
    /// An idle period has just ended.
    pub block: Option<Block>,
}

impl Machine {
    /// A vcore whose threads 0 to `threads - 1` are in the host, and which starts with that
    /// polling interval.
    pub const fn new(threads: usize, halt_poll_ns: u32) -> Self {
        Self { word: Word::with_threads(threads), halt_poll_ns, start: 0, poll_end: 0 }
    }

    /// The state.
    pub const fn word(self) -> Word {
        self.word
    }

    /// The present polling interval (the kernel's `vc->halt_poll_ns`).
    pub const fn halt_poll_ns(self) -> u32 {
        self.halt_poll_ns
    }

    /// When the present idle period began, or the last one if none is open.
    pub const fn period_start(self) -> u64 {
        self.start
    }

    /// One step: the machine after `event` at time `now` (nanoseconds of any monotonic clock), and
    /// what its driver must do.
    #[must_use]
    #[inline]
    pub fn step(self, now: u64, event: Event, tunables: &Tunables) -> (Self, Actions) {
        let interval = self.halt_poll_ns.min(tunables.halt_poll_ns);
        let event = match event {
            Event::Cede { thread, poll } => Event::Cede { thread, poll: poll && interval > 0 },
            other => other,
        };
        let (word, outcome) = transition(self.word, event);
        let mut next = Self { word, ..self };
        let mut actions = Actions { outcome, poll_until: 0, poll_failed_ns: None, block: None };
        match PeriodChange::between(self.word, word) {
            PeriodChange::None => {}
            PeriodChange::Opened => {
                next.start = now;
                next.poll_end = now;
                next.halt_poll_ns = interval;
                actions.poll_until = now.saturating_add(u64::from(interval));
            }
            PeriodChange::PollFailed => {
                next.poll_end = now;
                actions.poll_failed_ns = Some(now.saturating_sub(self.start));
            }
            PeriodChange::Closed { waited } => {
                let valid = matches!(outcome, Outcome::Awake(causes) if causes.concerns_guest());
                let block = Block { start: self.start, poll_end: self.poll_end, end: now, waited, valid };
                // The learnt interval, not the cut one: the maximum may have changed meanwhile.
                next.halt_poll_ns = poll::adjust(self.halt_poll_ns, &block, tunables);
                actions.block = Some(block);
            }
        }
        (next, actions)
    }
}
