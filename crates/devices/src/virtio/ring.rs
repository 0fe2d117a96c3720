//! A queue at work: chains out of the available ring, chains into the used ring.
//!
//! What must hold: everything in guest memory may be wrong at any time, and may change while it is looked at. A wrong ring
//! or chain is [`NeedsReset`]; no chain has more descriptors than the queue has entries (or [`CHAIN`], if that is more);
//! and no kick is lost by a turn of this shape, whose work is bounded by the queue's size:
//!
//! ```text
//!  disable_notification ─▶ pop, push … (at most size() chains) ─▶ signal ─▶ enable_notification ─▶ false: wait for a kick
//!           ▲                                                                     │ true: there are chains already
//!           └─────────── once more, or Backend::unfinished ◀──────────────────────┘
//! ```

use super::chain::{Buffers, Malformed, walk};
use super::device::{Interrupts, NeedsReset};
use crate::dma::Memory;
use std::num::Wrapping;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

/// How many descriptors a chain may have at least. Drivers put longer chains than the queue into indirect tables, since all
/// device models let them.
const CHAIN: usize = 1024;

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

    /// The queue alone, for somebody else to run.
    #[must_use]
    pub fn into_queue(self) -> Queue {
        self.queue
    }

    /// The next chain, if there is one. It is well formed now; the driver can break it later, and then it is shorter.
    ///
    /// # Errors
    /// When the available ring or the chain is broken.
    pub fn pop(&mut self) -> Result<Option<DescriptorChain<&Memory>>, NeedsReset> {
        let (index, limit) = (self.index, self.limit());
        let Some(chain) = self.next()? else { return Ok(None) };
        walk(chain.clone(), limit, |_| ()).map_err(|what| malformed(index, &what))?;
        Ok(Some(chain))
    }

    /// The next chain's buffers, if there is one, and its head.
    ///
    /// # Errors
    /// When the available ring or the chain is broken.
    pub fn pop_buffers(&mut self, buffers: &mut Buffers) -> Result<Option<u16>, NeedsReset> {
        let (index, limit) = (self.index, self.limit());
        let Some(chain) = self.next()? else { return Ok(None) };
        let head = chain.head_index();
        buffers.fill(chain, limit).map_err(|what| malformed(index, &what))?;
        Ok(Some(head))
    }

    fn limit(&self) -> usize {
        CHAIN.max(self.queue.size().into())
    }

    fn next(&mut self) -> Result<Option<DescriptorChain<&Memory>>, NeedsReset> {
        let index = self.index;
        let broken = |error: virtio_queue::Error| malformed(index, &error);
        if let Some(chain) = self.queue.iter(&self.memory).map_err(broken)?.next() {
            return Ok(Some(chain));
        }
        // None is also what comes of an entry that cannot be read, and whoever waits for the next one would wait for ever.
        let available = self.queue.avail_idx(&self.memory, Ordering::Acquire).map_err(broken)?;
        if available.0 == self.queue.next_avail() {
            return Ok(None);
        }
        match self.queue.iter(&self.memory).map_err(broken)?.next() {
            Some(chain) => Ok(Some(chain)),
            None => Err(malformed(index, &Malformed::Unreadable)),
        }
    }

    /// Gives chain `head` back with `written` bytes in it.
    ///
    /// # Errors
    /// When the used ring is broken.
    pub fn push(&mut self, head: u16, written: u32) -> Result<(), NeedsReset> {
        self.queue.add_used(&self.memory, head, written).map_err(|error| self.broken(&error))
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

    /// Tells the driver of what was pushed, if there is something and it wants to know.
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

    /// Whether there are chains that were not taken.
    ///
    /// # Errors
    /// When the ring is broken.
    pub fn has_more(&self) -> Result<bool, NeedsReset> {
        let available = self.queue.avail_idx(&self.memory, Ordering::Acquire);
        available.map(|index| index.0 != self.queue.next_avail()).map_err(|error| self.broken(&error))
    }

    /// Entries, and so the most chains that a driver that keeps to the rules can have in it.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.queue.size()
    }

    /// Guest memory as the queue sees it.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// What is wrong with this queue, as an error.
    pub fn broken(&self, what: &dyn std::fmt::Display) -> NeedsReset {
        malformed(self.index, what)
    }
}

fn malformed(queue: u16, what: &dyn std::fmt::Display) -> NeedsReset {
    NeedsReset::Queue { queue, what: what.to_string() }
}

#[cfg(test)]
mod tests;
