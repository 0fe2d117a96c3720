//! The vcore that real threads use: the transitions of `machine`, applied to shared memory.
//!
//! Owns the vcore's word, the futex word of its wait queue and the fields of its idle period.
//! Holds no lock and allocates nothing; a thread that cedes touches nothing but these words and its
//! own statistics.
//!
//! Two kinds of callers:
//! - The vcore's own threads ([`Vcore::enter`], [`Vcore::leave`], [`Vcore::cede`] …), each for
//!   itself. They apply a transition by compare-and-swap. A swap fails only when another thread's
//!   change went through meanwhile, so this side is lock-free.
//! - Anybody, signal handlers and the vcore's own threads included ([`Vcore::wake`],
//!   [`Vcore::prod`], [`Vcore::request_exit`]). One `fetch_or` sets the cause and one load tells
//!   whom the word alone does not reach; no loop, so this side is wait-free. (The result of the
//!   `fetch_or` is not used on purpose: then it is one `lock or` on x86, where asking for the old
//!   value would make it a loop.) No waker relies on another one to finish: each makes its own
//!   system call if the target may be asleep.
//!
//! Sleep is an event count. The sleeper loads the futex word (its ticket), looks at the word, and
//! sleeps only if the futex word still is its ticket. The waker changes the word, then the futex
//! word, then wakes. So either the sleeper sees the cause, or the ticket is stale, or the sleeper
//! is on the queue before the wake. The futex word counts to 2^32 and wraps; a ticket would have
//! to stay unused for that many wakes to be mistaken.
//!
//! The fields of the idle period (`start`, `poll_end`, `halt_poll_ns`) have one writer at a time:
//! a thread writes them only when the word says that every other online thread naps, just before the
//! swap that opens the period; until that swap it counts as busy, so no period is open. The closer
//! reads and writes them after the swap that closed it, and is busy itself until it cedes again.

mod elsewhere;

pub use elsewhere::{Look, Polled};

use core::marker::PhantomData;

use crate::machine::{Delivery, Event, Outcome, PeriodChange, delivery, transition};
use crate::poll::{self, Block};
use crate::port::{Port, Waited};
use crate::sync::{AtomicU32, AtomicU64, Ordering, Orderings, Sound};
use crate::trace;
use crate::word::{Cause, Causes, Thread, ThreadMask, ThreadState, Word};

/// What came of a wish to enter the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "causes that are taken and not delivered are lost"]
pub enum Entry {
    /// Run the guest, and call [`Vcore::leave`] or [`Vcore::cede`] when it comes back.
    Guest,
    /// The thread stays in the host: these causes are for the caller to deliver, exactly once.
    Host(Causes),
}

/// What came of an H_CONFER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conferred {
    /// The caller had been prodded; the prod is consumed.
    Prodded,
    /// The target no longer waits for cycles; nothing was given.
    NotNeeded,
    /// The CPU was offered to other tasks.
    Yielded,
}

/// A thread asked for something that its state does not allow, for example to enter the guest
/// while it is offline. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("thread {} of the vcore is {state:?}: it cannot {wish}; each thread may only call for itself", .thread.number())]
pub struct WrongState {
    /// The thread.
    pub thread: Thread,
    /// Where it is.
    pub state: ThreadState,
    /// What it wanted.
    pub wish: &'static str,
}

/// What an idle period starts with, should the caller's transition open one.
#[derive(Clone, Copy)]
struct Opening {
    now: u64,
    halt_poll_ns: u32,
}

impl Opening {
    /// For transitions that cannot open a period.
    const NEVER: Self = Self { now: 0, halt_poll_ns: 0 };
}

/// A virtual core, shared by its threads and by whoever wakes them. Aligned to its own cache lines
/// (128 bytes on POWER): what one vcore does costs its neighbours nothing.
#[repr(align(128))]
pub struct Vcore<P, O = Sound> {
    word: AtomicU64,
    futex: AtomicU32,
    halt_poll_ns: AtomicU32,
    start: AtomicU64,
    poll_end: AtomicU64,
    port: P,
    orderings: PhantomData<fn() -> O>,
}

impl<P: Port, O: Orderings> Vcore<P, O> {
    /// A vcore with threads 0 to `threads - 1` in the host and the others offline.
    ///
    /// # Panics
    /// If `threads` is more than 8.
    pub fn new(threads: usize, port: P) -> Self {
        Self {
            word: AtomicU64::new(Word::with_threads(threads).bits()),
            futex: AtomicU32::new(0),
            halt_poll_ns: AtomicU32::new(0),
            start: AtomicU64::new(0),
            poll_end: AtomicU64::new(0),
            port,
            orderings: PhantomData,
        }
    }

    /// The same vcore, starting with a polling interval that was learnt before (a restored VM)
    /// instead of 0.
    pub fn starting_with(self, halt_poll_ns: u32) -> Self {
        self.halt_poll_ns.store(halt_poll_ns, Ordering::Relaxed);
        self
    }

    /// The port it was made with.
    pub fn port(&self) -> &P {
        &self.port
    }

    /// The state at this moment.
    pub fn word(&self) -> Word {
        Word::from_bits(self.word.load(Ordering::Relaxed))
    }

    /// The present polling interval in nanoseconds.
    pub fn halt_poll_ns(&self) -> u32 {
        self.halt_poll_ns.load(Ordering::Relaxed)
    }

    // Wakers.

    /// Makes `cause` pending for `thread`, and reaches it wherever it is. Async-signal-safe. One
    /// system call if the thread may be asleep, a kick if it is in the guest, else none.
    pub fn wake(&self, thread: Thread, cause: Cause) {
        self.post(thread.mask(), cause);
    }

    /// H_PROD: ends the target's nap, or makes its next H_CEDE return at once. A thread in the
    /// guest is not disturbed. Async-signal-safe.
    pub fn prod(&self, target: Thread) {
        self.post(target.mask(), Cause::Prod);
    }

    /// Calls `threads` into the host: running ones by a kick, napping ones by a wake, for a nap
    /// hears nothing else. Each finds [`Cause::Exit`] among its causes once. Async-signal-safe.
    pub fn request_exit(&self, threads: ThreadMask) {
        self.post(threads, Cause::Exit);
    }

    fn post(&self, threads: ThreadMask, cause: Cause) {
        self.word.fetch_or(cause.bits(threads), O::POST);
        // The same location, so this load cannot be older than the bits just set: a target that
        // naps in any later value has refused to take them, one that does not has seen them.
        let Delivery { wake, kick } = delivery(self.word(), threads, cause);
        if !wake.is_empty() {
            self.futex.fetch_add(1, O::BUMP);
            self.port.wake(&self.futex, wake);
        }
        if !kick.is_empty() {
            self.port.kick(kick, cause);
        }
    }

    // The vcore's own threads.

    /// Starts a vCPU: at boot if it was not among the first threads, or by RTAS start-cpu.
    pub fn online(&self, thread: Thread) -> Result<(), WrongState> {
        self.expect_done(Event::Online(thread), thread, "go online")
    }

    /// Stops a vCPU that is in the host (RTAS stop-self).
    pub fn offline(&self, thread: Thread) -> Result<(), WrongState> {
        let opening = Opening { now: self.port.now(), halt_poll_ns: self.next_interval() };
        match self.apply(Event::Offline(thread), opening).1 {
            Outcome::Done => Ok(()),
            _ => Err(self.wrong_state(thread, "go offline")),
        }
    }

    /// Before KVM_RUN. Interrupts and exit requests that came since the last time are handed out
    /// instead, and the thread stays in the host; a prod waits for the next cede.
    pub fn enter(&self, thread: Thread) -> Result<Entry, WrongState> {
        match self.apply_plain(Event::Enter(thread)).1 {
            Outcome::Entered => Ok(Entry::Guest),
            Outcome::Awake(causes) => Ok(Entry::Host(causes)),
            _ => Err(self.wrong_state(thread, "enter the guest")),
        }
    }

    /// After KVM_RUN, unless the thread cedes at once.
    pub fn leave(&self, thread: Thread) -> Result<(), WrongState> {
        self.expect_done(Event::Leave(thread), thread, "leave the guest")
    }

    /// H_CEDE or HLT: naps until a cause is pending, and takes it. Returns at once when one is
    /// pending already or when `deadline` (nanoseconds on the port's clock; the decrementer's
    /// expiry) has passed, which counts as [`Cause::Decrementer`]. The causes returned are for the
    /// caller to deliver, exactly once.
    pub fn cede(&self, thread: Thread, deadline: Option<u64>) -> Result<Causes, WrongState> {
        if !self.word().causes(thread).is_empty() {
            return self.nap(thread, Opening::NEVER, false, deadline);
        }
        let now = self.port.now();
        if deadline.is_some_and(|deadline| deadline <= now) {
            self.word.fetch_or(Cause::Decrementer.bits(thread.mask()), O::POST);
            return self.nap(thread, Opening::NEVER, false, deadline);
        }
        let opening = Opening { now, halt_poll_ns: self.next_interval() };
        let poll = opening.halt_poll_ns > 0 && self.port.may_poll(thread, now);
        self.nap(thread, opening, poll, deadline)
    }

    /// H_CONFER: offers the caller's CPU to others while `still_waiting` (the target's yield count
    /// is what the caller was told, PAPR H_CONFER) says that the target can use it. A caller that
    /// has been prodded meanwhile keeps its CPU.
    pub fn confer(&self, thread: Thread, still_waiting: impl FnOnce() -> bool) -> Conferred {
        if let (_, Outcome::Awake(Causes::NONE)) = self.apply_plain(Event::TakeProd(thread)) {
            if !still_waiting() {
                return Conferred::NotNeeded;
            }
            self.port.yield_cpu();
            return Conferred::Yielded;
        }
        Conferred::Prodded
    }

    fn nap(
        &self,
        thread: Thread,
        opening: Opening,
        poll: bool,
        deadline: Option<u64>,
    ) -> Result<Causes, WrongState> {
        let (change, outcome) = self.apply(Event::Cede { thread, poll }, opening);
        match outcome {
            Outcome::Awake(causes) => Ok(causes),
            Outcome::Poll => Ok(self.poll(thread, opening, deadline)),
            Outcome::Sleep if change == PeriodChange::Opened => Ok(self.sleep_as_runner(thread, deadline)),
            Outcome::Sleep => Ok(self.sleep(thread, deadline)),
            _ => Err(self.wrong_state(thread, "cede")),
        }
    }

    /// Polls for the whole vcore until a cause, the end of the interval or another task.
    fn poll(&self, thread: Thread, opened: Opening, deadline: Option<u64>) -> Causes {
        let start = opened.now;
        self.port.stats(thread).poll_attempted();
        let stop = start.saturating_add(u64::from(opened.halt_poll_ns));
        let mut before = start;
        let event = loop {
            core::hint::spin_loop();
            let word = self.word();
            let now = self.port.now();
            // First, whatever else ends the poll: a poller that was switched out finds a cause and
            // the end of its time as well when it comes back.
            let undisturbed = self.port.keep_polling(thread, before, now);
            before = now;
            if !word.keeps_polling(thread) {
                break Event::PollEnd(thread);
            }
            if deadline.is_some_and(|deadline| deadline <= now) {
                break Event::Expire(thread);
            }
            if now >= stop || !undisturbed {
                break Event::PollEnd(thread);
            }
        };
        let (change, outcome) = self.apply_plain(event);
        if let Outcome::Awake(causes) = outcome {
            return causes;
        }
        if change != PeriodChange::PollFailed {
            // A sibling ended the period, or is about to: it is not for this thread to account.
            return self.sleep(thread, deadline);
        }
        // After the swap, so that a late store is recognised: it is older than any later period's
        // start (see `close_period`).
        self.poll_end.store(before, Ordering::Relaxed);
        self.port.stats(thread).poll_failed(before.saturating_sub(start));
        self.sleep_as_runner(thread, deadline)
    }

    /// Sleeps as the thread that took the vcore to sleep; the trace event speaks of the vcore.
    fn sleep_as_runner(&self, thread: Thread, deadline: Option<u64>) -> Causes {
        let n_runnable = self.word().online().len();
        trace::vcore_blocked(n_runnable, self.port.vcpu_id(thread), trace::Where::Enter);
        let causes = self.sleep(thread, deadline);
        trace::vcore_blocked(n_runnable, self.port.vcpu_id(thread), trace::Where::Exit);
        causes
    }

    /// Sleeps on the vcore's wait queue until there is a cause for this thread.
    fn sleep(&self, thread: Thread, deadline: Option<u64>) -> Causes {
        loop {
            let ticket = self.futex.load(O::TICKET);
            if let (_, Outcome::Awake(causes)) = self.apply_plain(Event::Unnap(thread)) {
                return causes;
            }
            match self.port.wait(&self.futex, ticket, thread, deadline) {
                Waited::Woken => self.port.stats(thread).woken(),
                Waited::Retry => {}
                Waited::TimedOut => {
                    if let (_, Outcome::Awake(causes)) = self.apply_plain(Event::Expire(thread)) {
                        return causes;
                    }
                }
            }
        }
    }

    /// Applies a transition of the calling thread that cannot open an idle period.
    fn apply_plain(&self, event: Event) -> (PeriodChange, Outcome) {
        self.apply(event, Opening::NEVER)
    }

    /// Applies a transition of the calling thread. Where nothing changes (a nap goes on) the
    /// caller's ticket orders the load; the loads acquire so that the period's fields may be
    /// written once the word says that their last reader naps.
    fn apply(&self, event: Event, opening: Opening) -> (PeriodChange, Outcome) {
        let mut bits = self.word.load(Ordering::Acquire);
        loop {
            let before = Word::from_bits(bits);
            let (after, outcome) = transition(before, event);
            if after == before {
                return (PeriodChange::None, outcome);
            }
            let change = PeriodChange::between(before, after);
            if change == PeriodChange::Opened {
                self.open_period(opening);
            }
            match self.word.compare_exchange_weak(bits, after.bits(), O::TAKE, Ordering::Acquire) {
                Ok(_) => {
                    if let PeriodChange::Closed { waited } = change {
                        self.close_period(event, outcome, waited);
                    }
                    return (change, outcome);
                }
                Err(newer) => bits = newer,
            }
        }
    }

    /// The interval of an idle period that would open now: the learnt one, cut to the maximum.
    pub fn next_interval(&self) -> u32 {
        self.halt_poll_ns().min(self.port.tunables().halt_poll_ns())
    }

    /// Writes the fields of the period that the caller's swap would open. Relaxed: that swap
    /// publishes them, and should it fail they belong to nobody.
    fn open_period(&self, opening: Opening) {
        self.start.store(opening.now, Ordering::Relaxed);
        self.poll_end.store(opening.now, Ordering::Relaxed);
        self.halt_poll_ns.store(opening.halt_poll_ns, Ordering::Relaxed);
    }

    /// Accounts the period that the caller has just closed, and learns from it.
    fn close_period(&self, event: Event, outcome: Outcome, waited: bool) {
        let valid = matches!(outcome, Outcome::Awake(causes) if causes.concerns_guest());
        self.account(event.thread(), waited, valid);
    }

    /// The period is over for `thread`, after a sleep if it `waited`; `valid` if that brought the guest something.
    fn account(&self, thread: Option<Thread>, waited: bool, valid: bool) {
        let start = self.start.load(Ordering::Relaxed);
        // A poller preempted before its store leaves an older period's time behind.
        let poll_end = self.poll_end.load(Ordering::Relaxed).max(start);
        let block = Block { start, poll_end, end: self.port.now(), waited, valid };
        let next = poll::adjust(self.halt_poll_ns(), &block, &self.port.tunables().get());
        self.halt_poll_ns.store(next, Ordering::Relaxed);
        if let Some(thread) = thread {
            self.port.stats(thread).block_ended(&block);
        }
        trace::vcore_wakeup(block.block_ns(), waited);
    }

    fn expect_done(&self, event: Event, thread: Thread, wish: &'static str) -> Result<(), WrongState> {
        match self.apply_plain(event).1 {
            Outcome::Done => Ok(()),
            _ => Err(self.wrong_state(thread, wish)),
        }
    }

    fn wrong_state(&self, thread: Thread, wish: &'static str) -> WrongState {
        WrongState { thread, state: self.word().thread_state(thread), wish }
    }
}
