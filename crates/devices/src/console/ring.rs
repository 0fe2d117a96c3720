//! Guest input that waits for the guest: a bounded queue with backpressure.
//!
//! `starved` is set when the producer found no room, and only then. The consumer that makes room clears it
//! and owes the producer one wake-up, so a producer that stopped is always told and one that did not never is.

use std::collections::VecDeque;

/// Bytes that wait at most. Linux's own line discipline buffers as many.
pub(super) const CAPACITY: usize = 4096;

/// A starved producer is woken when this many bytes are free, not at the first one: a guest that reads one
/// byte at a time would else cost a wake-up a byte.
const WAKE_ROOM: usize = CAPACITY / 4;

/// The queue. Its owner locks it.
#[derive(Debug, Default)]
pub(super) struct Ring {
    bytes: VecDeque<u8>,
    starved: bool,
}

impl Ring {
    /// Free bytes, for the producer. At 0 the producer has to stop until it is woken.
    pub(super) fn room(&mut self) -> usize {
        let room = CAPACITY - self.bytes.len();
        self.starved = room == 0;
        room
    }

    /// Adds bytes, no more than [`room`](Self::room) said. There is one producer, so the room only grows.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        debug_assert!(self.bytes.len() + bytes.len() <= CAPACITY);
        self.bytes.extend(bytes);
    }

    /// Moves bytes into `buf`; returns how many, and whether the producer has to be woken.
    pub(super) fn pop(&mut self, buf: &mut [u8]) -> (usize, bool) {
        let count = buf.len().min(self.bytes.len());
        for (to, from) in buf.iter_mut().zip(self.bytes.drain(..count)) {
            *to = from;
        }
        let wake = self.starved && CAPACITY - self.bytes.len() >= WAKE_ROOM;
        self.starved &= !wake;
        (count, wake)
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Any order of pushes and pops: no byte is lost, doubled or moved, the bound holds, and a starved
        /// producer is woken exactly once.
        #[test]
        fn order_bound_and_wake_ups(steps in prop::collection::vec((any::<bool>(), 0..2000_usize), 1..100)) {
            let mut ring = Ring::default();
            let (mut next_in, mut next_out) = (0_u32, 0_u32);
            let mut starved = false;
            for (produce, size) in steps {
                if produce {
                    let room = ring.room();
                    starved = room == 0;
                    let bytes: Vec<u8> = (next_in..).take(size.min(room)).map(|n| n as u8).collect();
                    next_in += bytes.len() as u32;
                    ring.push(&bytes);
                } else {
                    let mut buf = vec![0; size];
                    let (count, wake) = ring.pop(&mut buf);
                    for &byte in &buf[..count] {
                        prop_assert_eq!(byte, next_out as u8);
                        next_out += 1;
                    }
                    let free = CAPACITY - (next_in - next_out) as usize;
                    prop_assert_eq!(wake, starved && free >= WAKE_ROOM);
                    starved &= !wake;
                }
                prop_assert!((next_in - next_out) as usize <= CAPACITY);
                prop_assert_eq!(ring.is_empty(), next_in == next_out);
            }
        }
    }
}
