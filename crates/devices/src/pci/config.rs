//! Configuration space of a function: a type 0 header and its capabilities, 256 bytes; the rest of the 4 KiB is zero, which
//! is an extended space without capabilities.
//!
//! ```text
//!  00 header   10 base address registers   34 ─▶ 40 capability ─▶ capability ─▶ …
//! ```
//!
//! Always true: a bit that its mask does not name keeps the value it was made with, whatever is written. Sizing a base
//! address register needs nothing else: its low bits are such bits.
//! Source: PCI Local Bus Specification 3.0, chapter 6.

use super::{Bar, BarKind, Identity};

/// Bytes that can hold anything.
const SIZE: usize = 256;

const STATUS: usize = 0x06;
const CACHE_LINE_SIZE: usize = 0x0c;
const LATENCY_TIMER: usize = 0x0d;
const BARS: usize = 0x10;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;
const INTERRUPT_PIN: usize = 0x3d;
/// Where the first capability goes.
const FIRST: usize = 0x40;

const COMMAND_MEMORY: u16 = 1 << 1;
/// Kept, and of no effect: virtio's drivers stop a device by its own status.
const COMMAND_MASTER: u16 = 1 << 2;
const COMMAND_INTX_DISABLE: u16 = 1 << 10;
const STATUS_INTERRUPT: u16 = 1 << 3;
const STATUS_CAPABILITIES: u16 = 1 << 4;

/// In a base address register: 64 bits wide, and prefetchable.
const BAR_64: u32 = 0b100;
const BAR_PREFETCHABLE: u32 = 0b1000;

/// A function's configuration space.
pub struct Config {
    bytes: [u8; SIZE],
    /// The bits that a write sets.
    mask: [u8; SIZE],
    /// The power-on state.
    initial: [u8; SIZE],
    bars: Vec<Bar>,
    /// Where the next capability goes, and where the pointer to it is.
    end: usize,
    link: usize,
}

impl Config {
    /// Offset of the command register.
    pub const COMMAND: u16 = 4;

    /// A header with interrupt pin A and no capabilities.
    ///
    /// # Panics
    /// When a base address register is not what [`Bar`] says: that is its device's mistake.
    #[must_use]
    pub fn new(identity: &Identity, bars: &[Bar]) -> Self {
        let mut config = Self {
            bytes: [0; SIZE],
            mask: [0; SIZE],
            initial: [0; SIZE],
            bars: bars.to_vec(),
            end: FIRST,
            link: CAPABILITIES,
        };
        config.put(0x00, &identity.vendor.to_le_bytes());
        config.put(0x02, &identity.device.to_le_bytes());
        config.put(0x08, &((identity.class << 8) | u32::from(identity.revision)).to_le_bytes());
        config.put(0x2c, &identity.subsystem_vendor.to_le_bytes());
        config.put(0x2e, &identity.subsystem.to_le_bytes());
        config.put(INTERRUPT_PIN, &[1]);
        config.allow(
            Self::COMMAND.into(),
            &(COMMAND_MEMORY | COMMAND_MASTER | COMMAND_INTX_DISABLE).to_le_bytes(),
        );
        for register in [CACHE_LINE_SIZE, LATENCY_TIMER, INTERRUPT_LINE] {
            config.allow(register, &[0xff]);
        }
        for bar in bars {
            config.add_bar(bar);
        }
        config
    }

    fn add_bar(&mut self, bar: &Bar) {
        assert!(bar.size.is_power_of_two() && bar.size >= 4096 && bar.index < 6, "{bar:?}");
        let at = BARS + 4 * usize::from(bar.index);
        let mask = !(bar.size - 1);
        self.allow(at, &(mask as u32).to_le_bytes());
        if bar.kind == BarKind::Memory64 {
            assert!(bar.index < 5, "{bar:?} has no room for its upper half");
            self.put(at, &(BAR_64 | BAR_PREFETCHABLE).to_le_bytes());
            self.allow(at + 4, &((mask >> 32) as u32).to_le_bytes());
        }
    }

    /// Adds a capability of type `id` whose bytes after the pointer to the next one are `body`, the bits in `writable` set
    /// by writes. Returns where it is. For the function's construction.
    ///
    /// # Panics
    /// When there is no room left: that is the device's mistake.
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> u16 {
        let at = self.end;
        assert!(at + 2 + body.len() <= SIZE && writable.len() <= body.len(), "capability {id:#x}");
        self.put(self.link, &[at as u8]);
        self.put(at, &[id, 0]);
        self.put(at + 2, body);
        self.allow(at + 2, writable);
        self.put(STATUS, &STATUS_CAPABILITIES.to_le_bytes());
        self.link = at + 1;
        self.end = (at + 2 + body.len()).next_multiple_of(4);
        at as u16
    }

    /// Reads; beyond the header and the capabilities there are zeros.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        for (at, byte) in (usize::from(offset)..).zip(data) {
            *byte = self.bytes.get(at).copied().unwrap_or(0);
        }
    }

    /// Writes what can be written, and says whether what is decoded has changed.
    pub fn write(&mut self, offset: u16, data: &[u8]) -> bool {
        let before = self.decoded();
        for (at, byte) in (usize::from(offset)..SIZE).zip(data) {
            self.bytes[at] = (self.bytes[at] & !self.mask[at]) | (byte & self.mask[at]);
        }
        self.decoded() != before
    }

    /// Sets bytes whatever the mask says: what the function itself or the guest's firmware changes.
    pub fn set(&mut self, offset: u16, data: &[u8]) {
        let at = usize::from(offset);
        self.bytes[at..at + data.len()].copy_from_slice(data);
    }

    /// The `N` bytes at `offset`.
    #[must_use]
    pub fn get<const N: usize>(&self, offset: u16) -> [u8; N] {
        let mut data = [0; N];
        self.read(offset, &mut data);
        data
    }

    /// Where register `bar` decodes; `None` while memory decoding is off.
    #[must_use]
    pub fn address(&self, bar: u8) -> Option<u64> {
        let bar = self.bars.iter().find(|found| found.index == bar)?;
        let at = BARS as u16 + 4 * u16::from(bar.index);
        let low = u64::from(u32::from_le_bytes(self.get(at)) & !0xf);
        let high = match bar.kind {
            BarKind::Memory32 => 0,
            BarKind::Memory64 => u64::from(u32::from_le_bytes(self.get(at + 4))) << 32,
        };
        (self.command() & COMMAND_MEMORY != 0).then_some(high | low)
    }

    /// Whether the driver has switched the interrupt pin off.
    #[must_use]
    pub fn intx_disabled(&self) -> bool {
        self.command() & COMMAND_INTX_DISABLE != 0
    }

    /// Sets the status register's word on whether an interrupt is pending on the pin.
    pub fn set_interrupt_status(&mut self, pending: bool) {
        let status = u16::from_le_bytes(self.get(STATUS as u16)) & !STATUS_INTERRUPT;
        let status = if pending { status | STATUS_INTERRUPT } else { status };
        self.set(STATUS as u16, &status.to_le_bytes());
    }

    /// The power-on state.
    pub fn reset(&mut self) {
        self.bytes = self.initial;
    }

    fn command(&self) -> u16 {
        u16::from_le_bytes(self.get(Self::COMMAND))
    }

    fn decoded(&self) -> [Option<u64>; 6] {
        std::array::from_fn(|bar| self.address(bar as u8))
    }

    fn put(&mut self, at: usize, data: &[u8]) {
        self.bytes[at..at + data.len()].copy_from_slice(data);
        self.initial[at..at + data.len()].copy_from_slice(data);
    }

    fn allow(&mut self, at: usize, mask: &[u8]) {
        self.mask[at..at + mask.len()].copy_from_slice(mask);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: Identity = Identity {
        vendor: 0x1af4,
        device: 0x1042,
        revision: 1,
        class: 0x01_00_00,
        subsystem_vendor: 0x1af4,
        subsystem: 0x40,
    };
    const SMALL: Bar = Bar { index: 2, kind: BarKind::Memory32, size: 0x1000 };
    const LARGE: Bar = Bar { index: 0, kind: BarKind::Memory64, size: 1 << 33 };

    fn word(config: &Config, offset: u16) -> u32 {
        u32::from_le_bytes(config.get(offset))
    }

    #[test]
    fn the_header_says_what_the_function_is() {
        let config = Config::new(&IDENTITY, &[]);
        assert_eq!(word(&config, 0), 0x1042_1af4);
        assert_eq!(word(&config, 8), 0x0100_0001);
        assert_eq!(word(&config, 0x2c), 0x0040_1af4);
        assert_eq!(word(&config, 0x3c), 0x0100);
        assert_eq!(word(&config, 0x34), 0);
    }

    #[test]
    fn nothing_but_the_mask_can_be_written() {
        let mut config = Config::new(&IDENTITY, &[SMALL]);
        for offset in (0..4096).step_by(4) {
            config.write(offset, &[0xff; 4]);
        }
        assert_eq!(word(&config, 0), 0x1042_1af4);
        assert_eq!(word(&config, 4), 0x0406);
        assert_eq!(word(&config, 0x0c), 0xffff);
        assert_eq!(word(&config, 0x3c), 0x01ff);
        assert_eq!(word(&config, 0xffc), 0);
        config.reset();
        assert_eq!(word(&config, 4), 0);
    }

    #[test]
    fn base_address_registers_tell_their_size() {
        let mut config = Config::new(&IDENTITY, &[LARGE, SMALL]);
        for register in 0..6 {
            config.write(0x10 + 4 * register, &[0xff; 4]);
        }
        let found: Vec<_> = (0..6).map(|register| word(&config, 0x10 + 4 * register)).collect();
        assert_eq!(found, [0xc, 0xffff_fffe, 0xffff_f000, 0, 0, 0]);
    }

    #[test]
    fn what_is_decoded_follows_the_command_register() {
        let mut config = Config::new(&IDENTITY, &[LARGE, SMALL]);
        assert!(!config.write(0x18, &0x8000_1000u32.to_le_bytes()), "decoding is off");
        assert_eq!(config.address(2), None);
        assert!(config.write(4, &[2, 0]));
        assert_eq!(config.address(2), Some(0x8000_1000));
        assert_eq!(config.address(1), None, "the upper half is no register of its own");
        assert!(!config.write(4, &[6, 0]), "the bus master bit decodes nothing");
        assert!(config.write(0x14, &0x20_0002u32.to_le_bytes()));
        assert_eq!(config.address(0), Some(0x20_0002_0000_0000));
    }

    #[test]
    fn capabilities_are_a_list() {
        let mut config = Config::new(&IDENTITY, &[]);
        let first = config.add_capability(9, &[1, 2, 3], &[0, 0xf0]);
        let second = config.add_capability(0x11, &[4; 10], &[]);
        assert_eq!((first, second), (0x40, 0x48));
        assert_eq!(word(&config, 4) >> 16, 0x10);
        assert_eq!(config.get::<1>(0x34), [0x40]);
        assert_eq!(config.get::<5>(0x40), [9, 0x48, 1, 2, 3]);
        assert_eq!(config.get::<2>(0x48), [0x11, 0]);
        config.write(0x42, &[0xff, 0xff]);
        assert_eq!(config.get::<3>(0x42), [1, 0xf2, 3]);
    }

    #[test]
    fn interrupt_status_is_one_bit() {
        let mut config = Config::new(&IDENTITY, &[]);
        config.add_capability(9, &[0; 2], &[]);
        config.set_interrupt_status(true);
        assert_eq!(config.get::<2>(6), [0x18, 0]);
        config.set_interrupt_status(false);
        assert_eq!(config.get::<2>(6), [0x10, 0]);
    }
}
