//! Where the registers are, and the capabilities that say so (4.1.4).
//!
//! ```text
//!  BAR 0   0000 common configuration   1000 ISR   2000 device configuration   4000 notify, 4 bytes a queue
//!  BAR 2   MSI-X table and pending bits
//! ```

use crate::pci::{Bar, BarKind, Config, Doorbell, MSIX, Msix};
use std::ops::Range;
use std::sync::Arc;
use vmm_sys_util::eventfd::EventFd;

/// The base address register of virtio's registers.
pub const BAR: Bar = Bar { index: 0, kind: BarKind::Memory64, size: 0x8000 };

/// The number of the one for MSI-X.
pub const MSIX_BAR: u8 = 2;

/// Most queues that have room to be notified.
pub const MOST_QUEUES: usize = ((NOTIFY.end - NOTIFY.start) / NOTIFY_MULTIPLIER as u64) as usize;

const COMMON: Range<u64> = 0x0000..0x0040;
const ISR: Range<u64> = 0x1000..0x1004;
const DEVICE: Range<u64> = 0x2000..0x3000;
const NOTIFY: Range<u64> = 0x4000..0x8000;

/// Bytes from one queue's notify register to the next one's.
const NOTIFY_MULTIPLIER: u32 = 4;

/// Type of the capabilities: vendor-specific.
const VENDOR: u8 = 9;

/// What a capability points to (`cfg_type`).
const COMMON_CFG: u8 = 1;
const NOTIFY_CFG: u8 = 2;
const ISR_CFG: u8 = 3;
const DEVICE_CFG: u8 = 4;
const PCI_CFG: u8 = 5;

/// A register block behind [`BAR`], and an offset into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Common configuration.
    Common(u64),
    /// Interrupt status.
    Isr,
    /// The device's own configuration.
    Device(u64),
    /// The notify register of a queue.
    Notify(usize),
}

/// What an access behind [`BAR`] is to; all of it.
#[must_use]
pub fn place(offset: u64, length: usize) -> Option<Place> {
    let length = length as u64;
    let within = |block: &Range<u64>| block.contains(&offset) && length <= block.end - offset;
    if within(&COMMON) {
        Some(Place::Common(offset - COMMON.start))
    } else if offset == ISR.start && within(&ISR) {
        Some(Place::Isr)
    } else if within(&DEVICE) {
        Some(Place::Device(offset - DEVICE.start))
    } else if within(&NOTIFY) && offset % u64::from(NOTIFY_MULTIPLIER) == 0 && matches!(length, 2 | 4) {
        Some(Place::Notify(((offset - NOTIFY.start) / u64::from(NOTIFY_MULTIPLIER)) as usize))
    } else {
        None
    }
}

/// The doorbell of queue `queue`.
#[must_use]
pub fn doorbell(queue: u16, event: Arc<EventFd>) -> Doorbell {
    let offset = NOTIFY.start + u64::from(NOTIFY_MULTIPLIER) * u64::from(queue);
    Doorbell { bar: BAR.index, offset, event }
}

/// Where in configuration space the capabilities are that do something.
#[derive(Debug, Clone, Copy)]
pub struct Capabilities {
    /// MSI-X.
    pub msix: u16,
    /// The window to the registers.
    pub window: u16,
}

/// In the window's capability: where it points to, and the bytes that are there.
pub const WINDOW_BAR: u16 = 4;
/// Offset behind the base address register.
pub const WINDOW_OFFSET: u16 = 8;
/// Bytes of an access.
pub const WINDOW_LENGTH: u16 = 12;
/// The bytes.
pub const WINDOW_DATA: u16 = 16;

/// Adds the capabilities of a function with `queues` queues.
pub fn add_capabilities(config: &mut Config, queues: usize, msix: &Msix) -> Capabilities {
    let notify = NOTIFY.start..NOTIFY.start + u64::from(NOTIFY_MULTIPLIER) * queues as u64;
    config.add_capability(VENDOR, &capability(COMMON_CFG, &COMMON, &[]), &[]);
    config.add_capability(VENDOR, &capability(NOTIFY_CFG, &notify, &NOTIFY_MULTIPLIER.to_le_bytes()), &[]);
    config.add_capability(VENDOR, &capability(ISR_CFG, &ISR, &[]), &[]);
    config.add_capability(VENDOR, &capability(DEVICE_CFG, &DEVICE, &[]), &[]);
    // The driver says where the window points to: bar, offset, length, and the bytes to write there.
    let mut writable = [0; 18];
    writable[2] = 0xff;
    writable[6..].fill(0xff);
    let window = config.add_capability(VENDOR, &capability(PCI_CFG, &(0..0), &[0; 4]), &writable);
    let (body, writable) = msix.capability(MSIX_BAR);
    Capabilities { msix: config.add_capability(MSIX, &body, &writable), window }
}

/// `struct virtio_pci_cap` after the pointer to the next capability, with what a type has beyond it.
fn capability(kind: u8, block: &Range<u64>, more: &[u8]) -> Vec<u8> {
    let mut body = vec![(16 + more.len()) as u8, kind, BAR.index, 0, 0, 0];
    body.extend((block.start as u32).to_le_bytes());
    body.extend(((block.end - block.start) as u32).to_le_bytes());
    body.extend(more);
    body
}
