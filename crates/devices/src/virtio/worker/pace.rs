//! How long a thread that has nothing to do looks for work before it waits to be woken.
//!
//! ```text
//!           begin, or no interval                     waits
//!  busy ───────────────────────▶ looking ──over, or in the way──▶ waiting
//!    ▲                              │ found                          │ woken, or found after all
//!    └──────────────────────────────┴────────────────────────────────┘
//! ```
//!
//! The time from one state `busy` to the next is an idle period. Its length is what the interval of the next one is made
//! of, by the arithmetic of the kernel's halt polling ([`vcore::poll`]): a thread that is woken soon after it began to
//! wait looks longer the next time, up to `poll_ns`; one that looked in vain for longer than that looks less, down to not
//! at all. One that is in another task's way does not look for some time ([`vcore::contention`]).

use vcore::Tunables;
use vcore::contention::Contention;
use vcore::poll::{Block, adjust};

/// What the interval becomes at least when it grows, in nanoseconds: less is over before a wake-up could have been slower.
const GROW_START: u32 = 4_000;

/// The pace of one thread. Times are nanoseconds of one clock, which never goes back.
pub struct Pace {
    tunables: Tunables,
    /// How long the next look takes at most, in nanoseconds.
    interval: u32,
    contention: Contention,
    idle: Option<Idle>,
}

/// An idle period that is not over.
struct Idle {
    start: u64,
    /// The clock at the last turn of the look.
    turn: u64,
    waits: bool,
}

impl Pace {
    /// Looks for `poll_ns` nanoseconds at most; 0: never.
    pub fn new(poll_ns: u32) -> Self {
        let tunables =
            Tunables { halt_poll_ns: poll_ns, halt_poll_ns_grow_start: GROW_START, ..Tunables::POWERPC };
        Self { tunables, interval: 0, contention: Contention::default(), idle: None }
    }

    /// There is nothing to do any more. Says whether to look for more.
    pub fn idle(&mut self, now: u64) -> bool {
        self.idle = Some(Idle { start: now, turn: now, waits: false });
        self.interval > 0 && self.contention.may_poll(now)
    }

    /// A look found nothing. Says whether to look once more.
    pub fn goes_on(&mut self, now: u64) -> bool {
        let Some(idle) = &mut self.idle else { return false };
        let before = std::mem::replace(&mut idle.turn, now);
        now.saturating_sub(idle.start) < u64::from(self.interval) && self.contention.keep_polling(before, now)
    }

    /// Nothing was found: from now on the thread waits.
    pub fn waits(&mut self) {
        if let Some(idle) = &mut self.idle {
            idle.waits = true;
        }
    }

    /// There is something to do.
    pub fn busy(&mut self, end: u64) {
        if let Some(Idle { start, turn, waits: waited }) = self.idle.take() {
            let period = Block { start, poll_end: turn, end, waited, valid: true };
            self.interval = adjust(self.interval, &period, &self.tunables);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u32 = 32_000;

    /// Goes through an idle period of `length` nanoseconds in turns of 100, and says how long it looked.
    fn period(pace: &mut Pace, now: &mut u64, length: u64) -> u64 {
        let start = *now;
        let mut goes_on = pace.idle(start);
        while goes_on && *now - start < length {
            *now += 100;
            goes_on = pace.goes_on(*now);
        }
        let looked = *now - start;
        if !goes_on {
            pace.waits();
            *now = start + length.max(looked);
        }
        pace.busy(*now);
        looked
    }

    #[test]
    fn looks_as_long_as_it_takes_to_be_woken_soon() {
        let (mut pace, mut now) = (Pace::new(MAX), 1_000_000);
        let looked: Vec<u64> = (0..8).map(|_| period(&mut pace, &mut now, 20_000)).collect();
        assert_eq!(looked, [0, 4_000, 8_000, 16_000, 20_000, 20_000, 20_000, 20_000]);
        // What comes at once teaches nothing.
        assert_eq!(period(&mut pace, &mut now, 0), 0);
        assert_eq!(period(&mut pace, &mut now, 20_000), 20_000);
    }

    #[test]
    fn looks_less_where_it_is_in_vain() {
        let (mut pace, mut now) = (Pace::new(MAX), 0);
        (0..9).for_each(|_| _ = period(&mut pace, &mut now, 31_000));
        let looked: Vec<u64> = (0..4).map(|_| period(&mut pace, &mut now, 1_000_000)).collect();
        assert_eq!(looked, [32_000, 16_000, 8_000, 4_000]);
        (0..20).for_each(|_| _ = period(&mut pace, &mut now, 1_000_000));
        assert_eq!(period(&mut pace, &mut now, 1_000_000), 0);
    }

    #[test]
    fn never_looks_where_that_is_off() {
        let (mut pace, mut now) = (Pace::new(0), 0);
        assert!((0..9).all(|_| period(&mut pace, &mut now, 1) == 0));
    }
}
