//! The source side: what every interrupt source is routed to, and where its event is.
//!
//! Owns one word per source:
//!
//! ```text
//!  63   35 34  33  32 31      24 23      16 15             0
//! +-------+---+---+---+----------+----------+----------------+
//! |   0   | L | T | P |  saved   | priority |     server     |
//! +-------+---+---+---+----------+----------+----------------+
//!           |   |   `- pending: an event that nobody took yet; of an LSI, its line is asserted
//!           |   `- presented: taken to a server, until the guest's EOI
//!           `- level sensitive (LSI); never changes
//!
//!            trigger                  take: one sender, to present it
//!   (idle) ──────────▶ P ─────────────────────────────────▶ T ◀─┐ trigger: P T
//!      ▲               ▲                                    │   │
//!      │ EOI of T      │ EOI of P T; rejected; not taken    │   │ (an LSI keeps P while its line is asserted)
//!      └───────────────┴────────────────────────────────────┴───┘
//! ```
//!
//! A source is *deliverable* when it is P, not T, and not masked. Whatever makes it deliverable, or moves it while it is,
//! also tries to deliver it. Events that come while P is set are one event, as the handler has not run yet.

use super::icp::{IPI, LEAST_FAVOURED};
use super::sync::{AtomicU64, Ordering, update};
use arch_api::ppc64::Trigger;

/// The first number that a source may have. Those below are reserved: 0 is no interrupt, 2 an IPI.
pub const FIRST_SOURCE: u32 = 16;

/// Sources are below this, as XISR has 24 bits.
pub const END_OF_SOURCES: u32 = 1 << 24;

const _: () = assert!(IPI < FIRST_SOURCE);

const PRIORITY_SHIFT: u32 = 16;
const SAVED_SHIFT: u32 = 24;
const PENDING: u64 = 1 << 32;
const PRESENTED: u64 = 1 << 33;
const LEVEL: u64 = 1 << 34;

/// A source's word, as one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source(u64);

impl Source {
    /// At boot: masked, nothing pending.
    pub const fn new(trigger: Trigger) -> Self {
        let level = match trigger {
            Trigger::Edge => 0,
            Trigger::Level => LEVEL,
        };
        Self(level).routed(0, LEAST_FAVOURED, LEAST_FAVOURED)
    }

    /// The index of the server that it is routed to.
    pub const fn server(self) -> usize {
        (self.0 & 0xffff) as usize
    }

    /// 0xff is masked.
    pub const fn priority(self) -> u8 {
        (self.0 >> PRIORITY_SHIFT) as u8
    }

    /// What int-on sets the priority to.
    pub const fn saved(self) -> u8 {
        (self.0 >> SAVED_SHIFT) as u8
    }

    /// Whether it tells by level.
    pub const fn is_level(self) -> bool {
        self.0 & LEVEL != 0
    }

    /// Whether somebody has to take it to its server.
    pub const fn is_deliverable(self) -> bool {
        self.0 & (PENDING | PRESENTED) == PENDING && self.priority() != LEAST_FAVOURED
    }

    /// With a new route.
    pub const fn routed(self, server: u16, priority: u8, saved: u8) -> Self {
        let route = server as u64 | (priority as u64) << PRIORITY_SHIFT | (saved as u64) << SAVED_SHIFT;
        Self(self.0 & !0xffff_ffff | route)
    }

    /// `ibm,int-off`. The saved priority of a source that is off already becomes 0xff: KVM and QEMU have it so.
    pub const fn off(self) -> Self {
        self.routed(self.server() as u16, LEAST_FAVOURED, self.priority())
    }

    /// `ibm,int-on`.
    pub const fn on(self) -> Self {
        self.routed(self.server() as u16, self.saved(), self.saved())
    }

    /// The device sets its line: of an edge source `true` is an event and `false` is nothing.
    pub const fn driven(self, level: bool) -> Self {
        match (level, self.is_level()) {
            (true, _) => Self(self.0 | PENDING),
            (false, true) => Self(self.0 & !PENDING),
            (false, false) => self,
        }
    }

    /// Its event leaves for the server. An LSI's line stays as it is.
    const fn taken(self) -> Self {
        let event = if self.is_level() { 0 } else { PENDING };
        Self(self.0 & !event | PRESENTED)
    }

    /// Its event comes back from the server, unseen by the guest.
    const fn returned(self) -> Self {
        let event = if self.is_level() { 0 } else { PENDING };
        Self(self.0 & !PRESENTED | event)
    }

    /// The guest's EOI.
    const fn ended(self) -> Self {
        Self(self.0 & !PRESENTED)
    }

    /// As at boot. An LSI's line is its device's, not ours.
    const fn reset(self) -> Self {
        let kept = if self.is_level() { LEVEL | PENDING } else { 0 };
        Self(self.0 & kept).routed(0, LEAST_FAVOURED, LEAST_FAVOURED)
    }
}

/// All sources of a machine. Which there are is fixed; a *place* is a source's rank among them.
#[derive(Debug)]
pub struct Ics {
    /// Ascending.
    numbers: Box<[u32]>,
    words: Box<[AtomicU64]>,
}

impl Ics {
    /// These sources, masked.
    ///
    /// # Panics
    /// When a number is there twice, or out of [`FIRST_SOURCE`]..[`END_OF_SOURCES`]: the machine's layout is wrong.
    pub fn new(sources: &[(u32, Trigger)]) -> Self {
        let mut sources = sources.to_vec();
        sources.sort_by_key(|(number, _)| *number);
        assert!(sources.windows(2).all(|pair| pair[0].0 < pair[1].0), "a source is there twice");
        let range = FIRST_SOURCE..END_OF_SOURCES;
        assert!(sources.iter().all(|(number, _)| range.contains(number)), "a source is out of range");
        Self {
            numbers: sources.iter().map(|(number, _)| *number).collect(),
            words: sources.iter().map(|(_, trigger)| AtomicU64::new(Source::new(*trigger).0)).collect(),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// The place of a source, if there is such a source.
    pub fn find(&self, number: u32) -> Option<usize> {
        self.numbers.binary_search(&number).ok()
    }

    /// The number of the source at `place`.
    pub fn number(&self, place: usize) -> u32 {
        self.numbers[place]
    }

    /// What the source at `place` is.
    pub fn source(&self, place: usize) -> Source {
        // Acquire: pairs with `update`'s Release.
        Source(self.words[place].load(Ordering::Acquire))
    }

    /// Changes the source at `place` and returns what it became.
    pub fn change(&self, place: usize, change: impl Fn(Source) -> Source) -> Source {
        change(Source(update(&self.words[place], |word| change(Source(word)).0)))
    }

    /// Takes the event of the source at `place` if it still is just `seen`. Of several who try, one gets it.
    pub fn take(&self, place: usize, seen: Source) -> bool {
        let (old, new) = (seen.0, seen.taken().0);
        self.words[place].compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Puts back what [`take`](Self::take) took, or what a server rejected.
    pub fn put_back(&self, place: usize) {
        self.change(place, Source::returned);
    }

    /// The guest is done with the source at `place`; what it became.
    pub fn end(&self, place: usize) -> Source {
        self.change(place, Source::ended)
    }

    /// All as at boot.
    pub fn reset(&self) {
        for place in 0..self.len() {
            self.change(place, Source::reset);
        }
    }
}
