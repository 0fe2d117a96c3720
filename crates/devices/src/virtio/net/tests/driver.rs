//! A driver of two queues: it lays chains out in guest memory, and looks at what came back.

use crate::dma::{Memory, Untranslated, memory};
use crate::virtio::{Activation, Interrupts, Ring};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Guest memory, in two regions with nothing between them.
pub const RAM: [(u64, usize); 2] = [(0, 0x20_0000), (0x40_0000, 0x20_0000)];

/// Where buffers may lie.
pub const BUFFERS: u64 = 0x10_0000;

/// One buffer of a chain.
#[derive(Debug, Clone, Copy)]
pub struct Buffer {
    pub address: u64,
    pub length: u32,
    pub writable: bool,
}

pub fn readable(address: u64, length: u32) -> Buffer {
    Buffer { address, length, writable: false }
}

pub fn writable(address: u64, length: u32) -> Buffer {
    Buffer { address, length, writable: true }
}

/// What the driver was told, and how often.
#[derive(Debug, Default)]
pub struct Told {
    pub used: [AtomicUsize; 2],
    pub config: AtomicUsize,
}

impl Interrupts for Told {
    fn used(&self, queue: u16) {
        self.used[usize::from(queue)].fetch_add(1, Ordering::Relaxed);
    }

    fn config_changed(&self) {
        self.config.fetch_add(1, Ordering::Relaxed);
    }

    fn needs_reset(&self) {}
}

/// One queue of the driver.
pub struct Half {
    base: u64,
    size: u16,
    next_descriptor: u16,
    available: u16,
    seen: u16,
}

impl Half {
    fn descriptors(&self) -> u64 {
        self.base
    }

    pub fn available_ring(&self) -> u64 {
        self.base + 0x4000
    }

    fn used_ring(&self) -> u64 {
        self.base + 0x8000
    }
}

pub struct Driver {
    pub memory: Memory,
    pub told: Arc<Told>,
    pub queues: [Half; 2],
}

impl Driver {
    /// Queues of `size` entries.
    pub fn new(size: u16) -> Self {
        let ram = GuestMemoryMmap::from_ranges(&RAM.map(|(at, size)| (GuestAddress(at), size))).unwrap();
        let memory = memory(ram, Arc::new(Untranslated));
        let half = |index: u64| Half {
            base: 0x1_0000 * (index + 1),
            size,
            next_descriptor: 0,
            available: 0,
            seen: 0,
        };
        Self { memory, told: Arc::default(), queues: [half(0), half(1)] }
    }

    /// What a device gets from this driver.
    pub fn activation(&self, features: u64) -> Activation {
        let rings = [0, 1].map(|index| {
            let half = &self.queues[usize::from(index)];
            let mut queue = Queue::new(half.size).unwrap();
            queue.set_desc_table_address(Some(half.descriptors() as u32), None);
            queue.set_avail_ring_address(Some(half.available_ring() as u32), None);
            queue.set_used_ring_address(Some(half.used_ring() as u32), None);
            queue.set_ready(true);
            Some(Ring::new(index, queue, self.memory.clone(), self.told.clone()))
        });
        let interrupts = self.told.clone();
        Activation { memory: self.memory.clone(), features, rings: rings.into(), interrupts }
    }

    /// Makes a chain available, and says its head. Descriptors are used in turn, whether they came back or not.
    pub fn add(&mut self, queue: usize, chain: &[Buffer]) -> u16 {
        let half = &mut self.queues[queue];
        let head = half.next_descriptor;
        for (n, buffer) in chain.iter().enumerate() {
            let slot = half.next_descriptor;
            half.next_descriptor = (slot + 1) % half.size;
            let next = u16::from(n + 1 < chain.len());
            let flags = next | if buffer.writable { 2 } else { 0 };
            let words =
                u64::from(buffer.length) | u64::from(flags) << 32 | u64::from(half.next_descriptor) << 48;
            let at = GuestAddress(half.base + 16 * u64::from(slot));
            self.memory.write_obj([buffer.address.to_le(), words.to_le()], at).unwrap();
        }
        let entry = half.available_ring() + 4 + 2 * u64::from(half.available % half.size);
        self.memory.write_obj(head.to_le(), GuestAddress(entry)).unwrap();
        half.available = half.available.wrapping_add(1);
        let index = GuestAddress(half.available_ring() + 2);
        self.memory.store(half.available.to_le(), index, Ordering::Release).unwrap();
        head
    }

    /// What came back since the last time: heads and lengths.
    pub fn used(&mut self, queue: usize) -> Vec<(u32, u32)> {
        let half = &mut self.queues[queue];
        let index = self.memory.load::<u16>(GuestAddress(half.used_ring() + 2), Ordering::Acquire).unwrap();
        let mut used = Vec::new();
        while half.seen != u16::from_le(index) {
            let at = half.used_ring() + 4 + 8 * u64::from(half.seen % half.size);
            let [head, length] = self.memory.read_obj::<[u32; 2]>(GuestAddress(at)).unwrap();
            used.push((u32::from_le(head), u32::from_le(length)));
            half.seen = half.seen.wrapping_add(1);
        }
        used
    }

    /// Whether the driver is asked to notify of new chains.
    pub fn is_asked_to_notify(&self, queue: usize) -> bool {
        let flags = GuestAddress(self.queues[queue].used_ring());
        u16::from_le(self.memory.read_obj(flags).unwrap()) & 1 == 0
    }

    pub fn write(&self, address: u64, data: &[u8]) {
        self.memory.write_slice(data, GuestAddress(address)).unwrap();
    }

    pub fn read(&self, address: u64, length: usize) -> Vec<u8> {
        let mut data = vec![0; length];
        self.memory.read_slice(&mut data, GuestAddress(address)).unwrap();
        data
    }
}
