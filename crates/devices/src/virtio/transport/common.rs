//! The common configuration structure (4.1.4.3), and what its driver negotiates by it.
//!
//! ```text
//!  0 ─▶ ACKNOWLEDGE ─▶ DRIVER ─▶ FEATURES_OK ─▶ DRIVER_OK          by the driver, which only adds bits
//!                                    │ refused: the bit stays clear
//!  any ──0 written──▶ 0, once nothing of the device is at work any more
//!  any ──a rule broken, by the driver or the device──▶ NEEDS_RESET ──0 written──▶ 0
//! ```
//!
//! Always true: what is accepted was offered, once FEATURES_OK is set; it and an enabled queue do not change until the reset.
//! Nothing here does anything: what has to happen comes back as an [`Effect`].

use super::signals::{NO_VECTOR, Signals};
use crate::dma::Memory;
use virtio_bindings::virtio_config::{VIRTIO_F_ACCESS_PLATFORM, VIRTIO_F_VERSION_1};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestAddress;

const ACKNOWLEDGE: u8 = 1;
const DRIVER: u8 = 2;
const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;
const NEEDS_RESET: u8 = 64;
const FAILED: u8 = 128;

/// What the driver may set.
const DRIVERS: u8 = ACKNOWLEDGE | DRIVER | DRIVER_OK | FEATURES_OK | FAILED;

const VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;
const EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;
const INDIRECT_DESC: u64 = 1 << VIRTIO_RING_F_INDIRECT_DESC;
/// Guest memory is reached through the host bridge's translation.
const ACCESS_PLATFORM: u64 = 1 << VIRTIO_F_ACCESS_PLATFORM;

/// A register. Addresses are two registers each, as drivers have to access them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    DeviceFeatureSelect,
    DeviceFeature,
    DriverFeatureSelect,
    DriverFeature,
    ConfigVector,
    NumQueues,
    Status,
    Generation,
    QueueSelect,
    QueueSize,
    QueueVector,
    QueueEnable,
    QueueNotifyOff,
    QueueAddress { which: usize, high: bool },
}

/// Offset, bytes, register. An access has to be to one of them, and all of it.
const FIELDS: &[(u64, usize, Field)] = &[
    (0x00, 4, Field::DeviceFeatureSelect),
    (0x04, 4, Field::DeviceFeature),
    (0x08, 4, Field::DriverFeatureSelect),
    (0x0c, 4, Field::DriverFeature),
    (0x10, 2, Field::ConfigVector),
    (0x12, 2, Field::NumQueues),
    (0x14, 1, Field::Status),
    (0x15, 1, Field::Generation),
    (0x16, 2, Field::QueueSelect),
    (0x18, 2, Field::QueueSize),
    (0x1a, 2, Field::QueueVector),
    (0x1c, 2, Field::QueueEnable),
    (0x1e, 2, Field::QueueNotifyOff),
    (0x20, 4, Field::QueueAddress { which: TABLE, high: false }),
    (0x24, 4, Field::QueueAddress { which: TABLE, high: true }),
    (0x28, 4, Field::QueueAddress { which: AVAILABLE, high: false }),
    (0x2c, 4, Field::QueueAddress { which: AVAILABLE, high: true }),
    (0x30, 4, Field::QueueAddress { which: USED, high: false }),
    (0x34, 4, Field::QueueAddress { which: USED, high: true }),
];

/// A queue's addresses: descriptor table, available ring, used ring.
const TABLE: usize = 0;
const AVAILABLE: usize = 1;
const USED: usize = 2;

/// What has to happen after a write.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Nothing,
    /// The device goes to work.
    Activate,
    /// It stops, and then this is [`reset`](Common::reset).
    Reset,
}

/// The driver broke a rule. The device needs a reset then.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Bits of the status can only be added.
    #[error("the driver cleared bits {0:#x} of the status")]
    Cleared(u8),
    /// DRIVER_OK without FEATURES_OK.
    #[error("the driver is ready before its features are accepted")]
    NoFeatures,
    /// The size of a queue is a power of 2, up to the largest.
    #[error("queue {queue} cannot have {size} entries, but a power of 2 up to {largest}")]
    Size {
        /// The queue.
        queue: u16,
        /// What was written.
        size: u16,
        /// What the device offers.
        largest: u16,
    },
    /// The addresses of a queue.
    #[error("queue {0} is not aligned, or not in memory")]
    Address(u16),
}

/// What the driver has negotiated so far.
pub struct Common {
    offered: u64,
    /// What the driver has to accept.
    required: u64,
    accepted: u64,
    /// The driver accepted a feature beyond the 64 that there can be.
    beyond: bool,
    status: u8,
    device_feature_select: u32,
    driver_feature_select: u32,
    queue_select: u16,
    queues: Vec<Setup>,
}

/// A queue, as the driver sets it up.
struct Setup {
    largest: u16,
    size: u16,
    enabled: bool,
    addresses: [u64; 3],
}

impl Setup {
    fn new(largest: u16) -> Self {
        Self { largest, size: largest, enabled: false, addresses: [0; 3] }
    }
}

impl Common {
    /// The state after a reset of a device that offers `features` of its kind and has queues of at most `largest` entries;
    /// `translated` if it reaches memory through the host bridge alone.
    pub fn new(features: u64, largest: &[u16], translated: bool) -> Self {
        let required = if translated { VERSION_1 | ACCESS_PLATFORM } else { VERSION_1 };
        Self {
            offered: features | required | EVENT_IDX | INDIRECT_DESC,
            required,
            accepted: 0,
            beyond: false,
            status: 0,
            device_feature_select: 0,
            driver_feature_select: 0,
            queue_select: 0,
            queues: largest.iter().copied().map(Setup::new).collect(),
        }
    }

    /// Forgets what the driver has set.
    pub fn reset(&mut self) {
        self.accepted = 0;
        self.beyond = false;
        self.status = 0;
        self.device_feature_select = 0;
        self.driver_feature_select = 0;
        self.queue_select = 0;
        for queue in &mut self.queues {
            *queue = Setup::new(queue.largest);
        }
    }

    /// What was negotiated.
    pub fn features(&self) -> u64 {
        self.accepted
    }

    /// Whether guest memory is translated.
    pub fn translated(&self) -> bool {
        self.accepted & ACCESS_PLATFORM != 0
    }

    /// The queues for the device to work with; `None` where the driver enabled none.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn queues(&self, memory: &Memory) -> Result<Vec<Option<Queue>>, Violation> {
        let event_idx = self.accepted & EVENT_IDX != 0;
        let queue = |(index, setup): (usize, &Setup)| match setup.enabled {
            true => setup.queue(event_idx, memory).ok_or(Violation::Address(index as u16)).map(Some),
            false => Ok(None),
        };
        self.queues.iter().enumerate().map(queue).collect()
    }

    /// Reads; what is no register reads as ones. 8 bytes are two registers.
    pub fn read(&self, offset: u64, data: &mut [u8], signals: &Signals) {
        if data.len() == 8 {
            let (low, high) = data.split_at_mut(4);
            self.read(offset, low, signals);
            return self.read(offset.saturating_add(4), high, signals);
        }
        match field(offset, data.len()) {
            Some(field) => data.copy_from_slice(&self.get(field, signals).to_le_bytes()[..data.len()]),
            None => data.fill(0xff),
        }
    }

    fn get(&self, field: Field, signals: &Signals) -> u32 {
        let half = |features: u64, select| match select {
            0 => features as u32,
            1 => (features >> 32) as u32,
            _ => 0,
        };
        let select = usize::from(self.queue_select);
        let queue = self.queues.get(select);
        match field {
            Field::DeviceFeatureSelect => self.device_feature_select,
            Field::DeviceFeature => half(self.offered, self.device_feature_select),
            Field::DriverFeatureSelect => self.driver_feature_select,
            Field::DriverFeature => half(self.accepted, self.driver_feature_select),
            Field::ConfigVector => signals.config_vector().into(),
            Field::NumQueues => self.queues.len() as u32,
            Field::Status => self.status(signals).into(),
            Field::Generation => signals.generation().into(),
            Field::QueueSelect => self.queue_select.into(),
            // 0 says that there is no such queue.
            Field::QueueSize => queue.map_or(0, |queue| queue.size).into(),
            Field::QueueVector => queue.map_or(NO_VECTOR, |_| signals.queue_vector(select)).into(),
            Field::QueueEnable => queue.is_some_and(|queue| queue.enabled).into(),
            Field::QueueNotifyOff => queue.map_or(0, |_| self.queue_select).into(),
            Field::QueueAddress { which, high } => {
                half(queue.map_or(0, |queue| queue.addresses[which]), high.into())
            }
        }
    }

    fn status(&self, signals: &Signals) -> u8 {
        if signals.broken() { self.status | NEEDS_RESET } else { self.status }
    }

    /// Writes; what is no register, or cannot be written now, is ignored. 8 bytes are two registers.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn write(&mut self, offset: u64, data: &[u8], signals: &Signals) -> Result<Effect, Violation> {
        if data.len() == 8 {
            // No register of 4 bytes has an effect.
            self.write(offset, &data[..4], signals)?;
            return self.write(offset.saturating_add(4), &data[4..], signals);
        }
        let Some(field) = field(offset, data.len()) else { return Ok(Effect::Nothing) };
        let mut value = [0; 4];
        value[..data.len()].copy_from_slice(data);
        self.set(field, u32::from_le_bytes(value), signals)
    }

    fn set(&mut self, field: Field, value: u32, signals: &Signals) -> Result<Effect, Violation> {
        match field {
            Field::DeviceFeatureSelect => self.device_feature_select = value,
            Field::DriverFeatureSelect => self.driver_feature_select = value,
            Field::DriverFeature => self.accept(value),
            Field::ConfigVector => signals.set_config_vector(value as u16),
            Field::Status => return self.set_status(value as u8),
            Field::QueueSelect => self.queue_select = value as u16,
            Field::QueueVector => signals.set_queue_vector(usize::from(self.queue_select), value as u16),
            Field::QueueSize | Field::QueueEnable | Field::QueueAddress { .. } => {
                return self.set_queue(field, value).map(|()| Effect::Nothing);
            }
            Field::DeviceFeature | Field::NumQueues | Field::Generation | Field::QueueNotifyOff => {}
        }
        Ok(Effect::Nothing)
    }

    fn accept(&mut self, value: u32) {
        if self.status & FEATURES_OK != 0 {
            return;
        }
        let value = u64::from(value);
        match self.driver_feature_select {
            0 => self.accepted = (self.accepted & !0xffff_ffff) | value,
            1 => self.accepted = (self.accepted & 0xffff_ffff) | (value << 32),
            _ => self.beyond |= value != 0,
        }
    }

    fn set_status(&mut self, value: u8) -> Result<Effect, Violation> {
        if value == 0 {
            return Ok(Effect::Reset);
        }
        let cleared = self.status & !value;
        if cleared != 0 {
            return Err(Violation::Cleared(cleared));
        }
        let mut added = value & DRIVERS & !self.status;
        if added & FEATURES_OK != 0 && !self.acceptable() {
            tracing::debug!(
                unknown = format_args!("{:#x}", self.accepted & !self.offered),
                missing = format_args!("{:#x}", self.required & !self.accepted),
                "features refused"
            );
            added &= !FEATURES_OK;
        }
        if added & DRIVER_OK != 0 && (self.status | added) & FEATURES_OK == 0 {
            return Err(Violation::NoFeatures);
        }
        self.status |= added;
        Ok(if added & DRIVER_OK != 0 { Effect::Activate } else { Effect::Nothing })
    }

    fn acceptable(&self) -> bool {
        self.accepted & !self.offered == 0 && self.required & !self.accepted == 0 && !self.beyond
    }

    fn set_queue(&mut self, field: Field, value: u32) -> Result<(), Violation> {
        let index = self.queue_select;
        let at_work = self.status & DRIVER_OK != 0;
        let Some(queue) = self.queues.get_mut(usize::from(index)) else { return Ok(()) };
        if queue.enabled || at_work {
            return Ok(());
        }
        match field {
            Field::QueueSize => {
                let size = value as u16;
                if !size.is_power_of_two() || size > queue.largest {
                    return Err(Violation::Size { queue: index, size, largest: queue.largest });
                }
                queue.size = size;
            }
            Field::QueueAddress { which, high: false } => {
                queue.addresses[which] = (queue.addresses[which] & !0xffff_ffff) | u64::from(value);
            }
            Field::QueueAddress { which, high: true } => {
                queue.addresses[which] = (queue.addresses[which] & 0xffff_ffff) | (u64::from(value) << 32);
            }
            // A queue that is enabled stays so until the reset.
            _ => queue.enabled = value == 1,
        }
        Ok(())
    }
}

impl Setup {
    /// The queue at work; `None` if its addresses are not aligned or not in memory.
    fn queue(&self, event_idx: bool, memory: &Memory) -> Option<Queue> {
        let mut queue = Queue::new(self.largest).ok()?;
        queue.try_set_size(self.size).ok()?;
        queue.try_set_desc_table_address(GuestAddress(self.addresses[TABLE])).ok()?;
        queue.try_set_avail_ring_address(GuestAddress(self.addresses[AVAILABLE])).ok()?;
        queue.try_set_used_ring_address(GuestAddress(self.addresses[USED])).ok()?;
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        queue.is_valid(memory).then_some(queue)
    }
}

fn field(offset: u64, length: usize) -> Option<Field> {
    FIELDS.iter().find(|(at, bytes, _)| (*at, *bytes) == (offset, length)).map(|(_, _, field)| *field)
}
