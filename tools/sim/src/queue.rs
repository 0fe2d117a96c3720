//! The future: events in the order of their time.
//!
//! A calendar of [`DAYS`] days of [`DAY_NS`] nanoseconds, one unsorted list per day; a day is
//! sorted when it begins. What lies beyond the calendar waits in a heap and is moved over when its
//! day comes into view. With many vcores a day holds some dozens of events, so a push and a pop
//! cost a few nanoseconds each, where one heap of all events would cost some twenty cache misses.
//!
//! What always holds: nothing is ever due before `now`; events of one time come out in the order
//! in which they were pushed, so a run is the same each time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The length of a day in nanoseconds, a power of two.
const DAY_NS: u64 = 1 << 10;
/// The days of the calendar, a power of two: 8.4 ms.
const DAYS: usize = 1 << 13;

/// Something that will happen to a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// When, in nanoseconds.
    pub time: u64,
    /// Breaks ties: the order of pushing.
    order: u32,
    /// The vcore.
    pub vcore: u32,
    /// What, in the engine's terms.
    pub what: u16,
}

/// The queue of events.
pub struct Queue {
    days: Vec<Vec<Entry>>,
    /// The present day, sorted backwards: the next event is the last.
    today: Vec<Entry>,
    /// When the present day ends.
    end_of_today: u64,
    /// How many events are in `days`.
    booked: usize,
    later: BinaryHeap<Reverse<Entry>>,
    order: u32,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            days: vec![Vec::new(); DAYS],
            today: Vec::new(),
            end_of_today: DAY_NS,
            booked: 0,
            later: BinaryHeap::new(),
            order: 0,
        }
    }
}

impl Queue {
    /// Adds an event. `time` must not lie before the last one popped.
    pub fn push(&mut self, time: u64, vcore: u32, what: u16) {
        self.order = self.order.wrapping_add(1);
        let entry = Entry { time, order: self.order, vcore, what };
        if time < self.end_of_today {
            let at = self.today.partition_point(|other| *other > entry);
            self.today.insert(at, entry);
        } else if time < self.end_of_today + DAY_NS * (DAYS as u64 - 1) {
            self.days[Self::day(time)].push(entry);
            self.booked += 1;
        } else {
            self.later.push(Reverse(entry));
        }
    }

    /// Takes the next event.
    pub fn pop(&mut self) -> Option<Entry> {
        loop {
            if let Some(entry) = self.today.pop() {
                return Some(entry);
            }
            self.turn_page()?;
        }
    }

    /// Goes to the next day that may have events.
    fn turn_page(&mut self) -> Option<()> {
        if self.booked == 0 {
            // Nothing in view: go straight to the day of the first event beyond.
            let Reverse(first) = self.later.peek()?;
            self.end_of_today = first.time & !(DAY_NS - 1);
        }
        let day = Self::day(self.end_of_today);
        self.end_of_today += DAY_NS;
        self.booked -= self.days[day].len();
        std::mem::swap(&mut self.today, &mut self.days[day]);
        while self.later.peek().is_some_and(|Reverse(entry)| entry.time < self.end_of_today) {
            self.today.extend(self.later.pop().map(|Reverse(entry)| entry));
        }
        self.today.sort_unstable_by(|a, b| b.cmp(a));
        Some(())
    }

    fn day(time: u64) -> usize {
        (time / DAY_NS) as usize % DAYS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a plain heap, with times near and far.
    #[test]
    fn keeps_the_order_of_time() {
        let (mut queue, mut heap) = (Queue::default(), BinaryHeap::new());
        let (mut now, mut seed) = (0u64, 1u64);
        for turn in 0..200_000u32 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let reach = [1, 900, 50_000, 9_000_000, 400_000_000][(seed >> 60) as usize % 5];
            if turn < 50_000 || seed >> 40 & 1 == 0 {
                let time = now + (seed >> 20) % reach;
                queue.push(time, turn, 0);
                heap.push(Reverse((time, turn)));
            } else if let Some(Reverse((time, vcore))) = heap.pop() {
                let entry = queue.pop().expect("as many as in the heap");
                assert_eq!((entry.time, entry.vcore), (time, vcore));
                now = time;
            }
        }
        while let Some(Reverse((time, vcore))) = heap.pop() {
            let entry = queue.pop().expect("as many as in the heap");
            assert_eq!((entry.time, entry.vcore), (time, vcore));
        }
        assert_eq!(queue.pop(), None);
    }
}
