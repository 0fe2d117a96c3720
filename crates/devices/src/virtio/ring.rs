//! A queue at work: chains out of the available ring, chains into the used ring.
//!
//! What must hold: everything in guest memory may be wrong at any time; a wrong ring or chain is [`NeedsReset`], and no
//! turn of [`Ring::pop`] takes more chains than the queue has entries.

use super::device::{Interrupts, NeedsReset};
use crate::dma::Memory;
use std::num::Wrapping;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{DescriptorChain, Error, Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

/// A queue that the driver has enabled.
pub struct Ring {
    index: u16,
    queue: Queue,
    memory: Memory,
    interrupts: Arc<dyn Interrupts>,
    /// The used ring's index at the last [`Ring::signal`].
    signalled: Wrapping<u16>,
}

impl Ring {
    /// Takes over a queue that the driver has set up.
    #[must_use]
    pub fn new(index: u16, queue: Queue, memory: Memory, interrupts: Arc<dyn Interrupts>) -> Self {
        let signalled = Wrapping(queue.next_used());
        Self { index, queue, memory, interrupts, signalled }
    }

    /// How many entries it has.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.queue.size()
    }

    /// The next chain, if there is one.
    ///
    /// # Errors
    /// When the available ring is broken.
    pub fn pop(&mut self) -> Result<Option<DescriptorChain<&Memory>>, NeedsReset> {
        let index = self.index;
        let broken = |error: Error| NeedsReset::Queue { queue: index, what: error.to_string() };
        Ok(self.queue.iter(&self.memory).map_err(broken)?.next())
    }

    /// Gives chain `head` back with `written` bytes in it.
    ///
    /// # Errors
    /// When the used ring is broken.
    pub fn push(&mut self, head: u16, written: u32) -> Result<(), NeedsReset> {
        let pushed = self.queue.add_used(&self.memory, head, written);
        pushed.map_err(|error| self.broken(&error))
    }

    /// Gives several chains back, each with the bytes written into it. The driver sees all of them at once, or none:
    /// it may take them for parts of one packet.
    ///
    /// # Errors
    /// When the used ring is broken, or these are more chains than it has entries.
    pub fn push_all(&mut self, used: &[(u16, u32)]) -> Result<(), NeedsReset> {
        let Some((&(last, written), others)) = used.split_last() else { return Ok(()) };
        let size = self.queue.size();
        if others.len() >= usize::from(size) {
            return Err(self.broken(&"more chains are given back than it has entries"));
        }
        let mut next = self.queue.next_used();
        for &(head, written) in others {
            // Behind flags and index, an element for each entry: the chain's head and its length, 32 bits each.
            let element = self.queue.used_ring().saturating_add(4 + 8 * u64::from(next % size));
            let value = (u64::from(head) | u64::from(written) << 32).to_le();
            let stored = self.memory.write_obj(value, GuestAddress(element));
            stored.map_err(|error| self.broken(&error))?;
            next = next.wrapping_add(1);
        }
        // The last one brings the index, which publishes the others too.
        self.queue.set_next_used(next);
        self.push(last, written)
    }

    /// Tells the driver of what was pushed, if it wants to know.
    ///
    /// # Errors
    /// When the ring is broken.
    pub fn signal(&mut self) -> Result<(), NeedsReset> {
        let used = Wrapping(self.queue.next_used());
        let before = std::mem::replace(&mut self.signalled, used);
        if used != before && self.wants_signal(before, used).map_err(|error| self.broken(&error))? {
            self.interrupts.used(self.index);
        }
        Ok(())
    }

    /// Whether the driver wants to know that the used ring's index went from `before` to `used` (2.7.7.2, 2.7.10). The
    /// queue's own answer counts [`Ring::push_all`] as one chain, and knows no VRING_AVAIL_F_NO_INTERRUPT.
    fn wants_signal(&self, before: Wrapping<u16>, used: Wrapping<u16>) -> Result<bool, GuestMemoryError> {
        let load = |offset: u64| {
            let address = GuestAddress(self.queue.avail_ring().saturating_add(offset));
            self.memory.load(address, Ordering::Relaxed).map(u16::from_le)
        };
        // The index is visible before the driver's wish is read; the driver does it the other way round.
        fence(Ordering::SeqCst);
        if self.queue.event_idx_enabled() {
            // used_event lies behind the available ring's entries.
            let event = Wrapping(load(4 + 2 * u64::from(self.queue.size()))?);
            return Ok(used - event - Wrapping(1) < used - before);
        }
        Ok(u32::from(load(0)?) & VRING_AVAIL_F_NO_INTERRUPT == 0)
    }

    /// Asks the driver not to notify, while the queue is looked at anyway.
    ///
    /// # Errors
    /// When the ring is broken.
    pub fn disable_notification(&mut self) -> Result<(), NeedsReset> {
        self.queue.disable_notification(&self.memory).map_err(|error| self.broken(&error))
    }

    /// Asks the driver to notify again. `true` if there are chains already: they have to be looked at.
    ///
    /// # Errors
    /// When the ring is broken.
    pub fn enable_notification(&mut self) -> Result<bool, NeedsReset> {
        self.queue.enable_notification(&self.memory).map_err(|error| self.broken(&error))
    }

    /// Guest memory as the queue sees it.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// What is wrong with this queue, as an error.
    pub fn broken(&self, what: &dyn std::fmt::Display) -> NeedsReset {
        NeedsReset::Queue { queue: self.index, what: what.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dma::{Untranslated, memory};
    use std::sync::atomic::AtomicUsize;
    use vm_memory::GuestMemoryMmap;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Interrupts for Count {
        fn used(&self, _: u16) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn config_changed(&self) {}

        fn needs_reset(&self) {}
    }

    const AVAILABLE: u64 = 0x2000;
    const USED: u64 = 0x3000;

    /// A ring of 8 entries, guest memory, and how often the driver was told.
    fn with_ring(event_idx: bool, test: impl FnOnce(&mut Ring, &Memory, &Count)) {
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap();
        let memory = memory(ram, Arc::new(Untranslated));
        let mut queue = Queue::new(8).unwrap();
        queue.set_desc_table_address(Some(0x1000), None);
        queue.set_avail_ring_address(Some(AVAILABLE as u32), None);
        queue.set_used_ring_address(Some(USED as u32), None);
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        let count = Arc::new(Count::default());
        let mut ring = Ring::new(0, queue, memory.clone(), count.clone());
        test(&mut ring, &memory, &count);
    }

    #[test]
    fn several_chains_are_given_back_at_once_around_the_rings_end() {
        with_ring(false, |ring, memory, count| {
            for head in 0..6 {
                ring.push(head, 0).unwrap();
            }
            ring.push_all(&[(6, 60), (7, 70), (0, 80)]).unwrap();
            assert_eq!(memory.read_obj::<u16>(GuestAddress(USED + 2)).unwrap(), 9);
            let element = |slot: u64| memory.read_obj::<[u32; 2]>(GuestAddress(USED + 4 + 8 * slot)).unwrap();
            assert_eq!([6, 7, 0].map(element), [[6, 60], [7, 70], [0, 80]]);
            ring.signal().unwrap();
            ring.signal().unwrap();
            assert_eq!(count.0.load(Ordering::Relaxed), 1, "nothing new, nothing to tell");
            assert!(ring.push_all(&[(0, 0); 9]).is_err());
            ring.push_all(&[]).unwrap();
        });
    }

    #[test]
    fn the_driver_is_told_when_it_asked_for_one_of_several() {
        with_ring(true, |ring, memory, count| {
            let mut told = |event: u16, used: &[(u16, u32)]| {
                memory.write_obj(event, GuestAddress(AVAILABLE + 4 + 2 * 8)).unwrap();
                ring.push_all(used).unwrap();
                ring.signal().unwrap();
                count.0.swap(0, Ordering::Relaxed)
            };
            assert_eq!(told(0, &[(0, 1), (1, 1), (2, 1)]), 1, "of the first");
            assert_eq!(told(0, &[(3, 1), (4, 1)]), 0, "it has been told");
            assert_eq!(told(6, &[(5, 1), (6, 1), (7, 1)]), 1, "of one in the middle");
            assert_eq!(told(9, &[(0, 1), (1, 1)]), 1, "of the last");
            assert_eq!(told(11, &[(2, 1)]), 0, "not yet");
        });
    }

    #[test]
    fn a_driver_that_polls_is_not_told() {
        with_ring(false, |ring, memory, count| {
            memory.write_obj(VRING_AVAIL_F_NO_INTERRUPT as u16, GuestAddress(AVAILABLE)).unwrap();
            ring.push(0, 0).unwrap();
            ring.signal().unwrap();
            assert_eq!(count.0.load(Ordering::Relaxed), 0);
        });
    }
}
