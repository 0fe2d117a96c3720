//! A driver for tests: it puts chains, right and wrong ones, into a queue in guest memory.

use super::{Interrupts, Ring};
use crate::dma::{self, Memory, Untranslated};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::{Descriptor, VirtqUsedElem};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

pub const NEXT: u16 = VRING_DESC_F_NEXT as u16;
pub const WRITE: u16 = VRING_DESC_F_WRITE as u16;
pub const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;

/// Where queue `index` lies, and what is free for buffers.
const QUEUES: u64 = 0x1_0000;
pub const BUFFERS: u64 = 0x10_0000;
pub const RAM: u64 = 0x40_0000;

/// Counts what the device tells.
#[derive(Default)]
pub struct Told {
    pub used: AtomicUsize,
    pub needs_reset: AtomicUsize,
}

impl Interrupts for Told {
    fn used(&self, _: u16) {
        self.used.fetch_add(1, Ordering::SeqCst);
    }

    fn config_changed(&self) {}

    fn needs_reset(&self) {
        self.needs_reset.fetch_add(1, Ordering::SeqCst);
    }
}

pub fn ram() -> Memory {
    let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM as usize)]).unwrap();
    dma::memory(ram, Arc::new(Untranslated))
}

/// One queue, from the driver's side.
pub struct Driver {
    pub memory: Memory,
    pub told: Arc<Told>,
    index: u16,
    size: u16,
    event_idx: bool,
    available: u16,
    seen: u16,
}

impl Driver {
    pub fn new(index: u16, size: u16, event_idx: bool, memory: Memory) -> Self {
        let driver = Self { memory, told: Arc::default(), index, size, event_idx, available: 0, seen: 0 };
        driver.memory.write_slice(&[0; 0x1_0000], GuestAddress(driver.table())).unwrap();
        driver
    }

    pub fn table(&self) -> u64 {
        QUEUES * (u64::from(self.index) + 1)
    }

    pub fn avail(&self) -> u64 {
        self.table() + 0x8000
    }

    pub fn used(&self) -> u64 {
        self.table() + 0xa000
    }

    pub fn queue(&self) -> Queue {
        let mut queue = Queue::new(self.size).unwrap();
        queue.try_set_desc_table_address(GuestAddress(self.table())).unwrap();
        queue.try_set_avail_ring_address(GuestAddress(self.avail())).unwrap();
        queue.try_set_used_ring_address(GuestAddress(self.used())).unwrap();
        queue.set_event_idx(self.event_idx);
        queue.set_ready(true);
        assert!(queue.is_valid(&self.memory));
        queue
    }

    pub fn ring(&self) -> Ring {
        Ring::new(self.index, self.queue(), self.memory.clone(), Arc::clone(&self.told) as _)
    }

    pub fn put<T: vm_memory::ByteValued>(&self, address: u64, value: T) {
        self.memory.write_obj(value, GuestAddress(address)).unwrap();
    }

    pub fn get<T: vm_memory::ByteValued>(&self, address: u64) -> T {
        self.memory.read_obj(GuestAddress(address)).unwrap()
    }

    /// Writes an entry of a table at `table`.
    pub fn describe(&self, table: u64, index: u16, (address, length, flags, next): (u64, u32, u16, u16)) {
        let descriptor = RawDescriptor::from(Descriptor::new(address, length, flags, next));
        self.put(table + 16 * u64::from(index), descriptor);
    }

    /// Makes the chain with this head available.
    pub fn offer(&mut self, head: u16) {
        self.put(self.avail() + 4 + 2 * u64::from(self.available % self.size), head.to_le());
        self.available = self.available.wrapping_add(1);
        self.put(self.avail() + 2, self.available.to_le());
    }

    /// Puts buffers (address, length, whether the device writes) into the table from `first` on, and makes the chain
    /// available.
    pub fn chain(&mut self, first: u16, buffers: &[(u64, u32, bool)]) {
        for (at, (address, length, writable)) in (first..).zip(buffers) {
            let more = usize::from(at - first) + 1 < buffers.len();
            let flags = if *writable { WRITE } else { 0 } | if more { NEXT } else { 0 };
            self.describe(self.table(), at, (*address, *length, flags, at + 1));
        }
        self.offer(first);
    }

    /// The next chain that came back: its head, and how much was written.
    pub fn take(&mut self) -> Option<(u16, u32)> {
        let index = u16::from_le(self.get(self.used() + 2));
        if index == self.seen {
            return None;
        }
        let element: VirtqUsedElem = self.get(self.used() + 4 + 8 * u64::from(self.seen % self.size));
        self.seen = self.seen.wrapping_add(1);
        Some((element.id() as u16, element.len()))
    }

    /// Where the driver says from which used index on it wants to be told.
    pub fn used_event(&self) -> u64 {
        self.avail() + 4 + 2 * u64::from(self.size)
    }

    /// Whether the device wants to hear of the chains from `from` on, as a driver decides it.
    pub fn device_wants(&self, from: u16) -> bool {
        if !self.event_idx {
            return u16::from_le(self.get(self.used())) & 1 == 0;
        }
        let event = u16::from_le(self.get(self.used() + 4 + 8 * u64::from(self.size)));
        self.available.wrapping_sub(event).wrapping_sub(1) < self.available.wrapping_sub(from)
    }

    pub fn available(&self) -> u16 {
        self.available
    }
}
