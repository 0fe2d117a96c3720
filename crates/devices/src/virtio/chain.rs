//! A chain's buffers: where they lie in guest memory, those that the device reads and those that it writes.
//!
//! virtio-queue ends a chain silently where it cannot go on: an indirect table in an indirect table, a descriptor that
//! does not exist, a loop (after as many descriptors as the table has), more than 4 GiB. Here that is an error, told by the
//! last descriptor, which promised another.

use crate::dma::Memory;
use virtio_queue::DescriptorChain;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress};

/// What is wrong with a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The entry of the available ring.
    #[error("an entry of the available ring cannot be read")]
    Unreadable,
    /// It does not end where it should.
    #[error("a chain loops, leads out of its table or out of memory, or is longer than 4 GiB")]
    Open,
    /// It has more descriptors than a chain can have.
    #[error("a chain has more than {0} descriptors")]
    Long(usize),
    /// 2.7.4.2: device-readable descriptors come first.
    #[error("a chain has a device-readable descriptor after a device-writable one")]
    Order,
}

/// Visits a chain's descriptors, at most `limit`.
pub(super) fn walk(
    chain: DescriptorChain<&Memory>,
    limit: usize,
    mut visit: impl FnMut(&Descriptor),
) -> Result<(), Malformed> {
    // What ends a chain before its first descriptor is wrong too.
    let (mut open, mut writable) = (true, false);
    for (count, descriptor) in chain.enumerate() {
        if count == limit {
            return Err(Malformed::Long(limit));
        }
        if writable && !descriptor.is_write_only() {
            return Err(Malformed::Order);
        }
        writable = descriptor.is_write_only();
        open = descriptor.has_next();
        visit(&descriptor);
    }
    if open { Err(Malformed::Open) } else { Ok(()) }
}

/// A run of bytes in guest memory, which need not be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Its address, as the device sees memory.
    pub address: GuestAddress,
    /// Its bytes, at least 1.
    pub length: usize,
}

/// Some spans, one after the other. What is taken from either end is gone.
#[derive(Debug, Default)]
pub struct Spans(std::collections::VecDeque<Span>);

/// The range is not all in memory, or there are fewer bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a buffer is too short, or not in memory")]
pub struct Missing;

impl Spans {
    /// Bytes in all.
    #[must_use]
    pub fn length(&self) -> usize {
        self.0.iter().map(|span| span.length).sum()
    }

    /// The spans in their order.
    pub fn iter(&self) -> impl Iterator<Item = Span> + '_ {
        self.0.iter().copied()
    }

    /// Takes the first bytes and copies them to `data`.
    ///
    /// # Errors
    /// [`Missing`]; some may be gone then.
    pub fn take(&mut self, memory: &Memory, data: &mut [u8]) -> Result<(), Missing> {
        let mut done = 0;
        while done < data.len() {
            let span = self.0.front_mut().ok_or(Missing)?;
            let length = span.length.min(data.len() - done);
            memory.read_slice(&mut data[done..done + length], span.address).map_err(|_| Missing)?;
            done += length;
            span.length -= length;
            if span.length == 0 {
                self.0.pop_front();
            } else {
                // The chain may say that its buffer goes round the end of the address space. What follows is not in memory.
                span.address = GuestAddress(span.address.0.wrapping_add(length as u64));
            }
        }
        Ok(())
    }

    /// Takes the last byte and says where it is.
    ///
    /// # Errors
    /// [`Missing`] if there is none.
    pub fn take_last(&mut self) -> Result<GuestAddress, Missing> {
        let span = self.0.back_mut().ok_or(Missing)?;
        span.length -= 1;
        let last = span.address.0.wrapping_add(span.length as u64);
        if span.length == 0 {
            self.0.pop_back();
        }
        Ok(GuestAddress(last))
    }

    /// Copies `data` to where the spans begin, as much as fits, and says how much that was.
    ///
    /// # Errors
    /// [`Missing`] where there is no memory.
    pub fn put(&self, memory: &Memory, data: &[u8]) -> Result<usize, Missing> {
        let mut done = 0;
        for span in self.iter() {
            let length = span.length.min(data.len() - done);
            memory.write_slice(&data[done..done + length], span.address).map_err(|_| Missing)?;
            done += length;
        }
        Ok(done)
    }

    fn push(&mut self, descriptor: &Descriptor) {
        if descriptor.len() > 0 {
            self.0.push_back(Span { address: descriptor.addr(), length: descriptor.len() as usize });
        }
    }
}

/// A chain's buffers. Made once and filled often.
#[derive(Debug, Default)]
pub struct Buffers {
    /// What the driver gives.
    pub readable: Spans,
    /// What the device fills.
    pub writable: Spans,
}

impl Buffers {
    pub(super) fn fill(&mut self, chain: DescriptorChain<&Memory>, limit: usize) -> Result<(), Malformed> {
        self.readable.0.clear();
        self.writable.0.clear();
        walk(chain, limit, |descriptor| {
            let spans = if descriptor.is_write_only() { &mut self.writable } else { &mut self.readable };
            spans.push(descriptor);
        })
    }
}
