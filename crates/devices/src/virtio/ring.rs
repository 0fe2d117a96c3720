//! A queue at work: chains out of the available ring, chains into the used ring.
//!
//! What must hold: everything in guest memory may be wrong at any time; a wrong ring or chain is [`NeedsReset`], and no
//! turn of [`Ring::pop`] takes more chains than the queue has entries.

use super::device::{Interrupts, NeedsReset};
use crate::dma::Memory;
use std::sync::Arc;
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};

/// A queue that the driver has enabled.
pub struct Ring {
    index: u16,
    queue: Queue,
    memory: Memory,
    interrupts: Arc<dyn Interrupts>,
}

impl Ring {
    /// Takes over a queue that the driver has set up.
    #[must_use]
    pub fn new(index: u16, queue: Queue, memory: Memory, interrupts: Arc<dyn Interrupts>) -> Self {
        Self { index, queue, memory, interrupts }
    }

    /// The next chain, if there is one.
    ///
    /// # Errors
    /// When the available ring is broken.
    pub fn pop(&mut self) -> Result<Option<DescriptorChain<&Memory>>, NeedsReset> {
        let index = self.index;
        let broken = |error: virtio_queue::Error| NeedsReset::Queue { queue: index, what: error.to_string() };
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

    /// Tells the driver of what was pushed, if it wants to know.
    ///
    /// # Errors
    /// When the ring is broken.
    pub fn signal(&mut self) -> Result<(), NeedsReset> {
        let wanted = self.queue.needs_notification(&self.memory).map_err(|error| self.broken(&error))?;
        if wanted {
            self.interrupts.used(self.index);
        }
        Ok(())
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
