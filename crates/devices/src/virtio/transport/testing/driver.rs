//! The driver of a machine's device, and its rings.

use super::{Machine, PIN, eventually};
use crate::pci::{BarKind, Bus, Function};
use irq::Message;
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Status bits.
pub const ACKNOWLEDGE: u8 = 1;
pub const DRIVER: u8 = 2;
pub const DRIVER_OK: u8 = 4;
pub const FEATURES_OK: u8 = 8;
pub const NEEDS_RESET: u8 = 64;

/// VIRTIO_F_VERSION_1.
pub const VERSION_1: u64 = 1 << 32;

/// Where a capability points to, as a bus address.
#[derive(Debug, Clone, Copy, Default)]
pub struct Block {
    pub address: u64,
    pub length: u32,
}

/// A driver of the device in slot 0.
pub struct Driver {
    bus: Arc<Bus>,
    pub common: Block,
    pub notify: Block,
    pub isr: Block,
    pub device: Block,
    /// Configuration space offset of the window's capability, and of MSI-X's.
    pub window: u16,
    pub msix: u16,
    multiplier: u32,
}

impl Driver {
    /// Assigns addresses to the function's registers, switches decoding on, and finds the capabilities.
    pub fn probe(machine: &Machine) -> Self {
        let (mut small, mut large) = (0x8000_0000, 0x2100_0000_0000);
        let bus = machine.bus.clone();
        let mut bars = [0; 6];
        for bar in machine.function.bars() {
            let next: &mut u64 = if bar.kind == BarKind::Memory64 { &mut large } else { &mut small };
            bars[usize::from(bar.index)] = *next;
            let register = 0x10 + 4 * u16::from(bar.index);
            bus.set_config(0, register, &(*next as u32).to_le_bytes());
            if bar.kind == BarKind::Memory64 {
                bus.set_config(0, register + 4, &((*next >> 32) as u32).to_le_bytes());
            }
            *next += bar.size;
        }
        bus.set_config(0, 4, &[6, 0]);
        let mut driver = Self {
            bus,
            common: Block::default(),
            notify: Block::default(),
            isr: Block::default(),
            device: Block::default(),
            window: 0,
            msix: 0,
            multiplier: 0,
        };
        let mut at = u16::from(driver.config::<1>(0x34)[0]);
        while at != 0 {
            let [id, next] = driver.config(at);
            match id {
                9 => driver.capability(at, &bars),
                0x11 => driver.msix = at,
                _ => panic!("capability {id:#x}"),
            }
            at = next.into();
        }
        driver
    }

    fn capability(&mut self, at: u16, bars: &[u64; 6]) {
        let [length, kind] = self.config(at + 2);
        let block = Block {
            address: bars[usize::from(self.config::<1>(at + 4)[0])] + u64::from(self.config_u32(at + 8)),
            length: self.config_u32(at + 12),
        };
        match kind {
            1 => self.common = block,
            2 => {
                self.notify = block;
                self.multiplier = self.config_u32(at + 16);
            }
            3 => self.isr = block,
            4 => self.device = block,
            5 => self.window = at,
            _ => panic!("a capability of type {kind}"),
        }
        assert!(length >= 16);
    }

    /// Reads configuration space byte by byte.
    pub fn config<const N: usize>(&self, offset: u16) -> [u8; N] {
        let mut data = [0; N];
        for (at, byte) in (offset..).zip(data.chunks_mut(1)) {
            self.bus.config(0, at, byte);
        }
        data
    }

    /// Reads a word of configuration space at once.
    pub fn config_u32(&self, offset: u16) -> u32 {
        let mut data = [0; 4];
        self.bus.config(0, offset, &mut data);
        u32::from_le_bytes(data)
    }

    /// Writes configuration space at once.
    pub fn set_config(&self, offset: u16, data: &[u8]) {
        self.bus.set_config(0, offset, data);
    }

    /// Reads memory space.
    pub fn read<const N: usize>(&self, address: u64) -> [u8; N] {
        let mut data = [0; N];
        assert!(self.bus.read(address, &mut data), "nothing answers at {address:#x}");
        data
    }

    /// Writes memory space.
    pub fn write(&self, address: u64, data: &[u8]) {
        assert!(self.bus.write(address, data), "nothing answers at {address:#x}");
    }

    /// Registers of the common configuration.
    pub fn common8(&self, offset: u64) -> u8 {
        self.read::<1>(self.common.address + offset)[0]
    }

    /// 16 bits.
    pub fn common16(&self, offset: u64) -> u16 {
        u16::from_le_bytes(self.read(self.common.address + offset))
    }

    /// 32 bits.
    pub fn common32(&self, offset: u64) -> u32 {
        u32::from_le_bytes(self.read(self.common.address + offset))
    }

    /// Writes one.
    pub fn set_common(&self, offset: u64, data: &[u8]) {
        self.write(self.common.address + offset, data);
    }

    /// The device's status.
    pub fn status(&self) -> u8 {
        self.common8(0x14)
    }

    /// Adds to it.
    pub fn add_status(&self, bits: u8) {
        self.set_common(0x14, &[self.status() | bits]);
    }

    /// Resets the device and waits for that.
    pub fn reset(&self) {
        self.set_common(0x14, &[0]);
        eventually(|| self.status() == 0);
    }

    /// What the device offers.
    pub fn offered(&self) -> u64 {
        let half = |select: u32| {
            self.set_common(0, &select.to_le_bytes());
            u64::from(self.common32(4))
        };
        half(0) | (half(1) << 32)
    }

    /// From a reset to features that are accepted, or not.
    pub fn negotiate(&self, features: u64) -> bool {
        self.reset();
        self.add_status(ACKNOWLEDGE);
        self.add_status(DRIVER);
        for select in [0u32, 1] {
            self.set_common(8, &select.to_le_bytes());
            self.set_common(0xc, &((features >> (32 * select)) as u32).to_le_bytes());
        }
        self.add_status(FEATURES_OK);
        self.status() & FEATURES_OK != 0
    }

    /// Selects a queue; its size.
    pub fn select(&self, queue: u16) -> u16 {
        self.set_common(0x16, &queue.to_le_bytes());
        self.common16(0x18)
    }

    /// Sets up and enables a queue with its rings at `base`, and says where they are. Vector `queue` + 1 is its own.
    pub fn enable(&self, machine: &Machine, queue: u16, size: u16, base: u64) -> Vring {
        self.enable_through(0, machine, queue, size, base)
    }

    /// Likewise, for a device that finds memory at `window`.
    pub fn enable_through(&self, window: u64, machine: &Machine, queue: u16, size: u16, base: u64) -> Vring {
        let vring = Vring::new(machine.memory.clone(), size, base);
        assert!(self.select(queue) >= size);
        self.set_common(0x18, &size.to_le_bytes());
        for (register, address) in [(0x20, vring.table), (0x28, vring.available), (0x30, vring.used)] {
            let address = window + address;
            self.set_common(register, &(address as u32).to_le_bytes());
            self.set_common(register + 4, &((address >> 32) as u32).to_le_bytes());
        }
        self.set_common(0x1a, &(queue + 1).to_le_bytes());
        self.set_common(0x1c, &1u16.to_le_bytes());
        vring
    }

    /// The device goes to work.
    pub fn ready(&self) {
        self.add_status(DRIVER_OK);
    }

    /// Where a queue is notified.
    pub fn doorbell(&self, queue: u16) -> u64 {
        self.select(queue);
        self.notify.address + u64::from(self.common16(0x1e)) * u64::from(self.multiplier)
    }

    /// Notifies a queue.
    pub fn kick(&self, queue: u16) {
        self.write(self.doorbell(queue), &queue.to_le_bytes());
    }

    /// Reads the device's configuration.
    pub fn device_config<const N: usize>(&self, offset: u64) -> [u8; N] {
        self.read(self.device.address + offset)
    }

    /// Turns MSI-X on, as firmware does: vector n leads to source [`PIN`] + 1 + n; vector 0 is the configuration's.
    pub fn enable_msix(&self, machine: &Machine) {
        for vector in 0..machine.function.vectors() {
            let data = PIN + 1 + u32::from(vector);
            machine.function.set_message(vector, Message { address: 0x1_0000_0000, data });
        }
        machine.function.enable_messages(true);
        self.set_common(0x10, &0u16.to_le_bytes());
    }
}

/// A split ring, from the driver's side.
pub struct Vring {
    memory: GuestMemoryMmap,
    pub size: u16,
    pub table: u64,
    pub available: u64,
    pub used: u64,
    next: u16,
    seen: u16,
}

/// A buffer of a chain: address, bytes, whether the device writes it.
pub type Buffer = (u64, u32, bool);

impl Vring {
    /// Rings one after the other from `base`, empty.
    pub fn new(memory: GuestMemoryMmap, size: u16, base: u64) -> Self {
        let available = base + 16 * u64::from(size);
        let used = (available + 6 + 2 * u64::from(size)).next_multiple_of(4);
        for address in base..used + 6 + 8 * u64::from(size) {
            memory.write_obj(0u8, GuestAddress(address)).unwrap();
        }
        Self { memory, size, table: base, available, used, next: 0, seen: 0 }
    }

    /// Writes a descriptor.
    pub fn describe(&self, index: u16, (address, length, write): Buffer, next: Option<u16>) {
        let at = self.table + 16 * u64::from(index);
        let flags = u16::from(next.is_some()) | (u16::from(write) << 1);
        self.memory.write_obj(address.to_le(), GuestAddress(at)).unwrap();
        self.memory.write_obj(length.to_le(), GuestAddress(at + 8)).unwrap();
        self.memory.write_obj(flags.to_le(), GuestAddress(at + 12)).unwrap();
        self.memory.write_obj(next.unwrap_or(0).to_le(), GuestAddress(at + 14)).unwrap();
    }

    /// Makes a chain available in the descriptors from `head` on.
    pub fn offer(&mut self, head: u16, chain: &[Buffer]) {
        for (index, buffer) in (head..).zip(chain) {
            let more = usize::from(index - head) + 1 < chain.len();
            self.describe(index, *buffer, more.then_some(index + 1));
        }
        let slot = self.available + 4 + 2 * u64::from(self.next % self.size);
        self.memory.write_obj(head.to_le(), GuestAddress(slot)).unwrap();
        self.next = self.next.wrapping_add(1);
        self.memory.write_obj(self.next.to_le(), GuestAddress(self.available + 2)).unwrap();
    }

    /// The next used chain: its head, and the bytes that were written.
    pub fn take(&mut self) -> Option<(u32, u32)> {
        let index: u16 = self.memory.read_obj(GuestAddress(self.used + 2)).unwrap();
        if u16::from_le(index) == self.seen {
            return None;
        }
        let slot = self.used + 4 + 8 * u64::from(self.seen % self.size);
        self.seen = self.seen.wrapping_add(1);
        let read = |at| u32::from_le(self.memory.read_obj(GuestAddress(at)).unwrap());
        Some((read(slot), read(slot + 4)))
    }
}
