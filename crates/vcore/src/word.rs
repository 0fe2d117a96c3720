//! The state of a vcore in one 64-bit word.
//!
//! Owns the layout of the word and everything that can be read from it; it changes nothing
//! (`machine` does). Eight lanes of eight bits: a bit's place in its lane is the thread, so a
//! question about all threads is one shift and one mask.
//!
//! ```text
//!  63     56 55     48 47     40 39     32 31     24 23     16 15      8 7       0
//! +---------+---------+---------+---------+---------+---------+---------+---------+
//! | control |   S1    |   S0    |  Exit   |  Prod   |Doorbell |  Decr.  |External |
//! +---------+---------+---------+---------+---------+---------+---------+---------+
//!   |           `---------'       `------------- causes, one bit per thread ------'
//!   |           S1 S0 of a thread: 00 offline, 01 in the host, 10 running, 11 napping
//!   `- bits 56..58 poller's number, bit 59 POLLING, bit 60 SLEPT, 61..63 zero
//! ```
//!
//! Invariants (`Word::check`, held by every transition, tested in `tests/model.rs`):
//! 1. POLLING implies that every online thread naps, and that the poller is one of them: nobody
//!    polls while a sibling runs or is in the host.
//! 2. SLEPT implies that every online thread naps.
//! 3. POLLING and SLEPT exclude each other.
//! 4. The poller's number is zero when nobody polls; the three spare bits are zero.

/// The most threads a vcore has (SMT8, as POWER8 and later have it).
pub const MAX_THREADS: usize = 8;

/// A thread of a vcore, 0 to 7: its vCPU's place in the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Thread(u8);

impl Thread {
    /// The thread with that number, or `None` when a vcore has no such thread.
    pub const fn new(number: usize) -> Option<Self> {
        if number < MAX_THREADS { Some(Self(number as u8)) } else { None }
    }

    /// Its number, 0 to 7.
    pub const fn number(self) -> usize {
        self.0 as usize
    }

    /// The set with this thread alone.
    pub const fn mask(self) -> ThreadMask {
        ThreadMask(1 << self.0)
    }

    /// All threads that a vcore can have, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..MAX_THREADS as u8).map(Self)
    }
}

/// A set of threads of one vcore; bit `n` is thread `n`. Also the bit set of the futex calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ThreadMask(pub u8);

impl ThreadMask {
    /// No thread.
    pub const NONE: Self = Self(0);
    /// Every thread that a vcore can have.
    pub const ALL: Self = Self(0xff);

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `thread` is in the set.
    pub const fn contains(self, thread: Thread) -> bool {
        self.0 & thread.mask().0 != 0
    }

    /// How many threads are in the set.
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// The threads of the set, lowest first.
    pub fn iter(self) -> impl Iterator<Item = Thread> {
        Thread::all().filter(move |thread| self.contains(*thread))
    }
}

/// Why a thread must not nap, or must stop napping. The value is the cause's lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Cause {
    /// The interrupt controller presents an external interrupt (0x500).
    External = 0,
    /// The decrementer has expired (0x900); on x86 the LAPIC timer.
    Decrementer = 1,
    /// A doorbell from a sibling (msgsndp, 0xa00).
    Doorbell = 2,
    /// H_PROD. Not an interrupt: it ends or prevents a nap, and a running thread keeps it for its
    /// next H_CEDE (PAPR, H_PROD and H_CEDE).
    Prod = 3,
    /// The VMM wants the thread in the host: pause, reset, stop.
    Exit = 4,
}

impl Cause {
    /// Every cause, in the order of the lanes.
    pub const ALL: [Self; 5] = [Self::External, Self::Decrementer, Self::Doorbell, Self::Prod, Self::Exit];

    /// The bits that say this cause for every thread in `threads`.
    pub(crate) const fn bits(self, threads: ThreadMask) -> u64 {
        (threads.0 as u64) << (self as u8 * 8)
    }
}

/// One bit per cause lane, in thread 0's column.
const COLUMN: u64 = 0x01_0101_0101;

/// A set of causes of one thread, as the word keeps them: one bit per lane.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Causes(u64);

impl Causes {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Everything that stops a thread on its way into the guest: all but a prod.
    pub const INTERRUPTS_AND_EXIT: Self = Self(COLUMN & !(1 << (Cause::Prod as u8 * 8)));

    /// Everything but the VMM's own exit request.
    pub const ALL_OF_GUEST: Self = Self(COLUMN & !(1 << (Cause::Exit as u8 * 8)));

    /// The set with one cause.
    pub const fn only(cause: Cause) -> Self {
        Self(1 << (cause as u8 * 8))
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `cause` is in the set.
    pub const fn contains(self, cause: Cause) -> bool {
        self.0 & Self::only(cause).0 != 0
    }

    /// Causes that are in either set.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Causes that are in both sets.
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether the guest sees anything of it: any cause but the VMM's own exit request.
    pub const fn concerns_guest(self) -> bool {
        self.0 & Self::ALL_OF_GUEST.0 != 0
    }

    /// The causes of the set, in the order of the lanes.
    pub fn iter(self) -> impl Iterator<Item = Cause> {
        Cause::ALL.into_iter().filter(move |cause| self.contains(*cause))
    }
}

impl core::fmt::Debug for Causes {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl FromIterator<Cause> for Causes {
    fn from_iter<I: IntoIterator<Item = Cause>>(causes: I) -> Self {
        causes.into_iter().fold(Self::NONE, |set, cause| set.union(Self::only(cause)))
    }
}

/// Where a thread is. The value is its S1 S0 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ThreadState {
    /// Not started, or stopped (RTAS stop-self): it takes no part in the vcore.
    Offline = 0,
    /// In the VMM: handling an exit, or about to enter the guest.
    Host = 1,
    /// In the guest.
    Running = 2,
    /// Ceded: asleep on the vcore's wait queue, or polling for it.
    Napping = 3,
}

/// What the vcore as a whole is doing (the kernel's VCORE_* states).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VcoreState {
    /// No thread is in the guest, and not all of the online ones have ceded.
    Inactive,
    /// At least one thread is in the guest.
    Running,
    /// Every online thread has ceded, and one of them polls.
    Polling,
    /// Every online thread has ceded, and nobody polls.
    Sleeping,
    /// An exit request has not yet reached every thread that runs or naps.
    Exiting,
}

const S0: u32 = 40;
const S1: u32 = 48;
const POLLER: u32 = 56;
pub(crate) const POLLER_MASK: u64 = 7 << POLLER;
pub(crate) const POLLING: u64 = 1 << 59;
pub(crate) const SLEPT: u64 = 1 << 60;
const SPARE: u64 = 7 << 61;

/// The word itself. `Word::default()` is a vcore with all threads offline.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Word(pub(crate) u64);

impl Word {
    /// A vcore whose threads 0 to `threads - 1` are in the host and whose others are offline.
    pub const fn with_threads(threads: usize) -> Self {
        assert!(threads <= MAX_THREADS, "a vcore has at most 8 threads");
        Self(((1u64 << threads) - 1) << S0)
    }

    /// The word with those bits, as they came from [`Word::bits`].
    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The raw bits, for a trace or a dump.
    pub const fn bits(self) -> u64 {
        self.0
    }

    const fn lane(self, shift: u32) -> u8 {
        (self.0 >> shift) as u8
    }

    /// Threads that have been started.
    pub const fn online(self) -> ThreadMask {
        ThreadMask(self.lane(S0) | self.lane(S1))
    }

    /// Threads in the guest.
    pub const fn running(self) -> ThreadMask {
        ThreadMask(self.lane(S1) & !self.lane(S0))
    }

    /// Threads that have ceded, the poller included.
    pub const fn napping(self) -> ThreadMask {
        ThreadMask(self.lane(S1) & self.lane(S0))
    }

    /// Threads for which something waits, whatever it is.
    pub const fn pending(self) -> ThreadMask {
        let half = self.0 | (self.0 >> 8);
        ThreadMask((half | (half >> 16) | (self.0 >> 32)) as u8)
    }

    /// What waits for `thread`.
    pub const fn causes(self, thread: Thread) -> Causes {
        Causes((self.0 >> thread.0) & COLUMN)
    }

    /// Where `thread` is.
    pub const fn thread_state(self, thread: Thread) -> ThreadState {
        match ((self.0 >> (S1 + thread.0 as u32)) & 1, (self.0 >> (S0 + thread.0 as u32)) & 1) {
            (0, 0) => ThreadState::Offline,
            (0, _) => ThreadState::Host,
            (_, 0) => ThreadState::Running,
            _ => ThreadState::Napping,
        }
    }

    /// Whether the vcore is idle: some thread is online, and every online thread has ceded.
    pub const fn is_idle(self) -> bool {
        let online = self.online().0;
        online != 0 && self.napping().0 == online
    }

    /// The thread that polls for the vcore.
    pub const fn poller(self) -> Option<Thread> {
        if self.0 & POLLING == 0 { None } else { Some(Thread(((self.0 & POLLER_MASK) >> POLLER) as u8)) }
    }

    /// Whether this idle period has got as far as sleep: nobody polled, or the poll failed.
    pub const fn has_slept(self) -> bool {
        self.0 & SLEPT != 0
    }

    /// Napping threads for which something waits: they are on their way up.
    pub const fn woken(self) -> ThreadMask {
        ThreadMask(self.pending().0 & self.napping().0)
    }

    /// Whether `thread` is the poller and nothing waits for any napping thread: the condition of
    /// the poll loop (the kernel's `kvmppc_vcore_check_block`, negated).
    pub const fn keeps_polling(self, thread: Thread) -> bool {
        let mine = POLLING | ((thread.0 as u64) << POLLER);
        self.0 & (POLLING | POLLER_MASK) == mine && self.woken().is_empty()
    }

    /// What the vcore as a whole is doing.
    pub const fn vcore_state(self) -> VcoreState {
        let leaving = self.lane(Cause::Exit as u32 * 8) & self.lane(S1);
        if leaving != 0 {
            VcoreState::Exiting
        } else if !self.running().is_empty() {
            VcoreState::Running
        } else if self.0 & POLLING != 0 {
            VcoreState::Polling
        } else if self.is_idle() {
            VcoreState::Sleeping
        } else {
            VcoreState::Inactive
        }
    }

    /// Whether the invariants of the module's head hold.
    pub fn check(self) -> bool {
        let poller_naps = self.poller().is_none_or(|poller| self.napping().contains(poller));
        let quiet = self.0 & POLLING != 0 || self.0 & POLLER_MASK == 0;
        let idle = self.is_idle() || self.0 & (POLLING | SLEPT) == 0;
        let one = self.0 & (POLLING | SLEPT) != POLLING | SLEPT;
        poller_naps && quiet && idle && one && self.0 & SPARE == 0
    }

    pub(crate) const fn with_state(self, thread: Thread, state: ThreadState) -> Self {
        let column = ((1u64 << S0) | (1u64 << S1)) << thread.0;
        let bits = match state {
            ThreadState::Offline => 0,
            ThreadState::Host => 1u64 << S0,
            ThreadState::Running => 1u64 << S1,
            ThreadState::Napping => (1u64 << S0) | (1u64 << S1),
        } << thread.0;
        Self((self.0 & !column) | bits)
    }

    pub(crate) const fn without(self, thread: Thread, causes: Causes) -> Self {
        Self(self.0 & !(causes.0 << thread.0))
    }

    pub(crate) const fn with_cause(self, threads: ThreadMask, cause: Cause) -> Self {
        Self(self.0 | cause.bits(threads))
    }

    pub(crate) const fn with_poller(self, thread: Thread) -> Self {
        Self(self.0 | POLLING | ((thread.0 as u64) << POLLER))
    }

    pub(crate) const fn without_poller(self) -> Self {
        Self(self.0 & !(POLLING | POLLER_MASK))
    }

    pub(crate) const fn with_slept(self) -> Self {
        Self(self.0 | SLEPT)
    }

    /// The idle period is over, whoever polled or slept in it.
    pub(crate) const fn without_period(self) -> Self {
        Self(self.0 & !(POLLING | POLLER_MASK | SLEPT))
    }
}

impl core::fmt::Debug for Word {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:?}", self.vcore_state())?;
        for thread in self.online().iter() {
            write!(f, " {}:{:?}{:?}", thread.0, self.thread_state(thread), self.causes(thread))?;
        }
        if let Some(poller) = self.poller() {
            write!(f, " poller {}", poller.0)?;
        }
        if self.has_slept() { write!(f, " slept") } else { Ok(()) }
    }
}
