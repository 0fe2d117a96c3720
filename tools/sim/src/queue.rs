//! The future: events in the order of their time.
//!
//! A calendar of [`DAYS`] days, one unsorted list per day; a day is sorted when it begins. What
//! lies beyond the calendar waits in a heap and is moved over when its day comes. The length of a
//! day is chosen so that it holds some dozens of events: then a push and a pop cost a few
//! nanoseconds each, where one heap of all events would cost some twenty cache misses.
//!
//! What always holds: nothing is due before the last event that came out, and events of one time
//! come out in the order of their vcores, so a run is the same each time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The days of the calendar, a power of two.
const DAYS: usize = 1 << 16;

/// Something that will happen to a vcore. Sixteen bytes, and compared as one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry(u128);

impl Entry {
    fn new(time: u64, vcore: u32, what: u16) -> Self {
        Self(u128::from(time) << 64 | u128::from(vcore) << 32 | u128::from(what))
    }

    /// When, in nanoseconds.
    pub fn time(self) -> u64 {
        (self.0 >> 64) as u64
    }

    /// The vcore.
    pub fn vcore(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// What, in the engine's terms.
    pub fn what(self) -> u16 {
        self.0 as u16
    }
}

/// The queue of events.
pub struct Queue {
    /// The logarithm of a day's length in nanoseconds.
    day_shift: u32,
    days: Vec<Vec<Entry>>,
    /// The present day, sorted backwards: the next event is the last.
    today: Vec<Entry>,
    /// When the present day ends.
    end_of_today: u64,
    /// How many events are in `days`.
    booked: usize,
    later: BinaryHeap<Reverse<Entry>>,
}

impl Queue {
    /// A queue for about `threads` threads, each with an event every ten microseconds or so.
    pub fn new(threads: usize) -> Self {
        let day_shift = 19u32.saturating_sub(threads.max(1).ilog2()).clamp(5, 12);
        Self {
            day_shift,
            days: vec![Vec::new(); DAYS],
            today: Vec::new(),
            end_of_today: 1 << day_shift,
            booked: 0,
            later: BinaryHeap::new(),
        }
    }

    /// Adds an event. `time` must not lie before the last one popped.
    pub fn push(&mut self, time: u64, vcore: u32, what: u16) {
        let entry = Entry::new(time, vcore, what);
        if time < self.end_of_today {
            let at = self.today.partition_point(|other| *other > entry);
            self.today.insert(at, entry);
        } else if (time - self.end_of_today) >> self.day_shift < DAYS as u64 - 1 {
            let day = self.day(time);
            self.days[day].push(entry);
            self.booked += 1;
        } else {
            self.later.push(Reverse(entry));
        }
    }

    /// Takes the next event. When that begins a day, `ahead` is told all its events first: a chance
    /// to bring their vcores into the cache at once instead of one after the other.
    pub fn pop(&mut self, mut ahead: impl FnMut(Entry)) -> Option<Entry> {
        loop {
            if let Some(entry) = self.today.pop() {
                return Some(entry);
            }
            self.turn_page()?;
            self.today.iter().for_each(|entry| ahead(*entry));
        }
    }

    /// Goes to the next day that may have events.
    fn turn_page(&mut self) -> Option<()> {
        if self.booked == 0 {
            // Nothing in view: go straight to the day of the first event beyond.
            let Reverse(first) = self.later.peek()?;
            self.end_of_today = first.time() >> self.day_shift << self.day_shift;
        }
        let day = self.day(self.end_of_today);
        self.end_of_today += 1 << self.day_shift;
        self.booked -= self.days[day].len();
        std::mem::swap(&mut self.today, &mut self.days[day]);
        while self.later.peek().is_some_and(|Reverse(entry)| entry.time() < self.end_of_today) {
            self.today.extend(self.later.pop().map(|Reverse(entry)| entry));
        }
        self.today.sort_unstable_by(|a, b| b.cmp(a));
        Some(())
    }

    fn day(&self, time: u64) -> usize {
        (time >> self.day_shift) as usize % DAYS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a plain heap, with times near and far.
    #[test]
    fn keeps_the_order_of_time() {
        let (mut queue, mut heap) = (Queue::new(1_000), BinaryHeap::new());
        let (mut now, mut seed) = (0u64, 1u64);
        for turn in 0..200_000u32 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let reach = [1, 900, 50_000, 9_000_000, 400_000_000][(seed >> 60) as usize % 5];
            if turn < 50_000 || seed >> 40 & 1 == 0 {
                let time = now + (seed >> 20) % reach;
                queue.push(time, turn, 0);
                heap.push(Reverse((time, turn)));
            } else if let Some(Reverse((time, vcore))) = heap.pop() {
                let entry = queue.pop(|_| ()).expect("as many as in the heap");
                assert_eq!((entry.time(), entry.vcore()), (time, vcore));
                now = time;
            }
        }
        while let Some(Reverse((time, vcore))) = heap.pop() {
            let entry = queue.pop(|_| ()).expect("as many as in the heap");
            assert_eq!((entry.time(), entry.vcore()), (time, vcore));
        }
        assert_eq!(queue.pop(|_| ()), None);
    }
}
