//! The device at work: packets between its queues and the connections.

use super::packet::{HEADER, Header, LARGEST};
use super::table::Table;
use crate::dma::Memory;
use crate::virtio::{Backend, Buffers, NeedsReset, Ring, Span, Vectors};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use vm_memory::Permissions;

/// The queues at work. The third has nothing to tell: it is for guests that move to another host.
pub(super) struct Queues {
    table: Table,
    memory: Memory,
    rx: Ring,
    tx: Ring,
    /// A receive buffer that is not filled yet: its head.
    hand: Option<u16>,
    given: Buffers,
    vectors: Vectors,
    taken: Buffers,
    data: Vec<u8>,
    unfinished: bool,
}

impl Queues {
    pub(super) fn new(table: Table, memory: Memory, rx: Ring, tx: Ring) -> Self {
        Self {
            table,
            vectors: Vectors::new(memory.clone()),
            memory,
            rx,
            tx,
            hand: None,
            given: Buffers::default(),
            taken: Buffers::default(),
            data: Vec::with_capacity(LARGEST),
            unfinished: false,
        }
    }

    /// Takes what the guest sends, then gives it what there is for it; each as far as one turn goes.
    fn turn(&mut self) -> Result<(), NeedsReset> {
        let more_to_take = self.take()?;
        let more_to_give = self.give()?;
        // What was too full before has room now, perhaps.
        self.unfinished = more_to_give || more_to_take && !self.table.is_full();
        Ok(())
    }

    /// Packets from the guest. `true` if there may be more.
    fn take(&mut self) -> Result<bool, NeedsReset> {
        self.tx.disable_notification()?;
        let mut left = self.tx.size();
        let more = loop {
            // Too full to take any: the guest gives receive buffers first, and that notifies.
            if left == 0 || self.table.is_full() {
                break true;
            }
            let Some(head) = self.tx.pop_buffers(&mut self.taken)? else {
                if self.tx.enable_notification()? {
                    self.tx.disable_notification()?;
                    continue;
                }
                break false;
            };
            self.receive()?;
            self.tx.push(head, 0)?;
            left -= 1;
        };
        self.tx.signal()?;
        Ok(more)
    }

    /// The packet in `taken`.
    fn receive(&mut self) -> Result<(), NeedsReset> {
        let mut bytes = [0; HEADER];
        let read = self.taken.readable.take(&self.memory, &mut bytes);
        read.map_err(|missing| self.tx.broken(&missing))?;
        let header = Header::from_bytes(&bytes);
        let length = header.length as usize;
        if length > LARGEST || length > self.taken.readable.length() {
            return Err(self.tx.broken(&"a packet is shorter than it says, or longer than 64 KiB"));
        }
        self.data.resize(length, 0);
        let read = self.taken.readable.take(&self.memory, &mut self.data);
        read.map_err(|missing| self.tx.broken(&missing))?;
        self.table.receive(&header, &self.data);
        Ok(())
    }

    /// Packets to the guest. `true` if there may be more, and buffers for them.
    fn give(&mut self) -> Result<bool, NeedsReset> {
        self.rx.disable_notification()?;
        let mut left = self.rx.size();
        let more = loop {
            if !self.table.has_packets() {
                break false;
            }
            if left == 0 {
                break true;
            }
            let Some(head) = self.buffer()? else {
                if self.rx.enable_notification()? {
                    self.rx.disable_notification()?;
                    continue;
                }
                break false;
            };
            let room = self.given.writable.length() - HEADER;
            let (given, vectors) = (&self.given, &mut self.vectors);
            let packet = self.table.next(room, |stream, most| {
                let spans = window(given.writable.iter(), HEADER, most);
                vectors.fill(spans, Permissions::Write).map_err(io::Error::other)?;
                vectors.read(stream.as_fd(), None)
            });
            // The buffer is for the next one then.
            let Some(header) = packet else { continue };
            let put = self.given.writable.put(&self.memory, &header.to_bytes());
            put.map_err(|missing| self.rx.broken(&missing))?;
            self.hand = None;
            self.rx.push(head, HEADER as u32 + header.length)?;
            left -= 1;
        };
        self.rx.signal()?;
        Ok(more)
    }

    /// A buffer to fill, if the guest has given one.
    fn buffer(&mut self) -> Result<Option<u16>, NeedsReset> {
        if self.hand.is_none() {
            self.hand = self.rx.pop_buffers(&mut self.given)?;
            if self.hand.is_some() {
                if self.given.writable.length() <= HEADER {
                    return Err(self.rx.broken(&"a receive buffer has no room for a packet"));
                }
                let spans = window(self.given.writable.iter(), 0, HEADER + LARGEST);
                let filled = self.vectors.fill(spans, Permissions::Write);
                filled.map_err(|missing| self.rx.broken(&missing))?;
            }
        }
        Ok(self.hand)
    }
}

/// `length` bytes of `spans`, without the first `skip`.
fn window(
    spans: impl Iterator<Item = Span>,
    mut skip: usize,
    mut length: usize,
) -> impl Iterator<Item = Span> {
    spans.filter_map(move |span| {
        let before = skip.min(span.length);
        let inside = length.min(span.length - before);
        skip -= before;
        length -= inside;
        // An end beyond the address space is found where the span is looked up.
        let address = vm_memory::GuestAddress(span.address.0.wrapping_add(before as u64));
        (inside > 0).then_some(Span { address, length: inside })
    })
}

impl Backend for Queues {
    fn notified(&mut self, _queue: u16) -> Result<(), NeedsReset> {
        self.turn()
    }

    fn sources(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.table.source()]
    }

    fn ready(&mut self, _source: usize) -> Result<(), NeedsReset> {
        self.table.events()?;
        self.turn()
    }

    /// What changes at sockets may call for another answer.
    fn listens(&self, _source: usize) -> bool {
        !self.table.is_full()
    }

    fn unfinished(&self) -> bool {
        self.unfinished
    }
}
