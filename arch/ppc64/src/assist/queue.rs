//! A XIVE event queue, as somebody reads it who neither fills nor empties it.
//!
//! The queue is a ring of 32-bit entries, big-endian: the generation in bit 31 (the top one), the source's number below. The
//! controller writes entry after entry, with generation 1 the first time round, 0 the second, and so on; the guest hands the
//! queue over full of zeros. So at any time the ring has at most one border:
//!
//! ```text
//!   entry     0   1   2   3   4   5  …  16383
//!             1   1   1   0   0   0  …  0        next: entry 3, which will have generation 1
//!             └ this round ┘└── the last one ─┘
//! ```
//!
//! Where the border is tells which entry comes next, whatever was known before: no index has to be followed, and a queue that
//! went round many times unseen is read as well as any other.
//!
//! What the guest writes there itself makes this wrong for the guest alone.

use std::sync::atomic::Ordering;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// log2 of a queue's bytes: the one size that the tree offers (`ibm,xive-eq-sizes`), which is KVM's only one.
pub const SHIFT: u32 = 16;

const ENTRIES: u64 = 1 << (SHIFT - 2);

const GENERATION: u32 = 1 << 31;

/// The entry that comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    index: u64,
    /// What its generation will be.
    generation: bool,
}

/// A queue in guest memory.
#[derive(Debug, Clone, Copy)]
pub struct Queue<'a> {
    memory: &'a GuestMemoryMmap,
    address: u64,
}

impl<'a> Queue<'a> {
    /// The queue at `address`.
    pub fn new(memory: &'a GuestMemoryMmap, address: u64) -> Self {
        Self { memory, address }
    }

    /// The generation of entry `index`. Acquire: what the interrupt tells of was written before.
    fn generation(&self, index: u64) -> bool {
        let entry = self.memory.load::<u32>(GuestAddress(self.address + 4 * index), Ordering::Acquire);
        // Whoever registered the queue has checked that it is in memory.
        u32::from_be(entry.unwrap_or(0)) & GENERATION != 0
    }

    /// Whether an event has come at `next`.
    pub fn arrived(&self, next: Next) -> bool {
        self.generation(next.index) == next.generation
    }

    /// Which entry comes next; `guess` is what it was, and costs two loads where it still is.
    pub fn next(&self, guess: Option<Next>) -> Next {
        guess.filter(|&guess| self.is_next(guess)).unwrap_or_else(|| self.search())
    }

    fn is_next(&self, guess: Next) -> bool {
        let (before, its) = match guess.index {
            0 => (ENTRIES - 1, !guess.generation),
            index => (index - 1, guess.generation),
        };
        !self.arrived(guess) && self.generation(before) == its
    }

    /// The border, by halves.
    fn search(&self) -> Next {
        let generation = self.generation(0);
        let (mut low, mut high) = (1, ENTRIES);
        while low < high {
            let middle = u64::midpoint(low, high);
            if self.generation(middle) == generation {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        match low {
            ENTRIES => Next { index: 0, generation: !generation },
            index => Next { index, generation },
        }
    }
}

impl Next {
    const IN_WORD: u32 = 1 << 30;

    /// In 32 bits, none of which is all zero.
    pub fn pack(self) -> u32 {
        self.index as u32 | if self.generation { GENERATION } else { 0 } | Self::IN_WORD
    }

    /// From what [`Next::pack`] made; `None` from 0.
    pub fn unpack(word: u32) -> Option<Self> {
        let index = u64::from(word & (Self::IN_WORD - 1));
        (word & Self::IN_WORD != 0).then_some(Self { index, generation: word & GENERATION != 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AT: u64 = 0x2_0000;

    fn memory() -> GuestMemoryMmap {
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x4_0000)]).unwrap()
    }

    /// A XIVE's side of a queue.
    pub struct Controller<'a> {
        memory: &'a GuestMemoryMmap,
        index: u64,
        generation: u32,
    }

    impl<'a> Controller<'a> {
        fn new(memory: &'a GuestMemoryMmap) -> Self {
            Self { memory, index: 0, generation: GENERATION }
        }

        fn trigger(&mut self) {
            let entry = (self.generation | 0x1234).to_be();
            self.memory.store(entry, GuestAddress(AT + 4 * self.index), Ordering::Release).unwrap();
            self.index = (self.index + 1) % ENTRIES;
            if self.index == 0 {
                self.generation ^= GENERATION;
            }
        }

        fn next(&self) -> Next {
            Next { index: self.index, generation: self.generation != 0 }
        }
    }

    #[test]
    fn positions_are_followed_round_and_round() {
        let memory = memory();
        let (mut controller, queue) = (Controller::new(&memory), Queue::new(&memory, AT));
        let mut known = None;
        for _ in 0..3 * ENTRIES + 5 {
            let next = queue.next(known);
            assert_eq!(next, controller.next());
            assert_eq!(next, queue.search());
            assert!(!queue.arrived(next));
            assert_eq!(Next::unpack(next.pack()), Some(next));
            controller.trigger();
            assert!(queue.arrived(next));
            known = Some(next);
        }
        assert_eq!(Next::unpack(0), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        /// However many events came unseen, and whatever was known before.
        #[test]
        fn a_queue_that_nobody_looked_at_is_read_right(before in 0..3 * ENTRIES, unseen in 0..3 * ENTRIES) {
            let memory = memory();
            let (mut controller, queue) = (Controller::new(&memory), Queue::new(&memory, AT));
            (0..before).for_each(|_| controller.trigger());
            let known = queue.next(None);
            (0..unseen).for_each(|_| controller.trigger());
            prop_assert_eq!(queue.next(Some(known)), controller.next());
        }

        /// A guest that writes there itself gets some position within its queue.
        #[test]
        fn nonsense_has_a_position(entries in proptest::collection::vec((0..ENTRIES, any::<u32>()), 0..64)) {
            let memory = memory();
            for (index, entry) in entries {
                memory.store(entry, GuestAddress(AT + 4 * index), Ordering::Relaxed).unwrap();
            }
            let next = Queue::new(&memory, AT).next(None);
            prop_assert!(next.index < ENTRIES);
            prop_assert!(!Queue::new(&memory, AT).arrived(next) || next.index == 0);
        }
    }
}
