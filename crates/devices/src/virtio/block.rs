//! Block device (5.2): a raw image file or a block device of the host.
//!
//! ```text
//!  chain ──parse──▶ Operation ──▶ transfer, flush: io_uring, many at a time ──▶ completion ─┐
//!            │          │          (where the host has none: at once)                       ├─▶ status ─▶ used ring
//!            │          └───────▶ discard, zeroes, identity: at once ────────────────────────┤
//!            └─ wrong ─────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! What must hold: no transfer touches what lies beyond the disk or outside guest memory; a flush covers every write that the driver was
//! told of before it; a backend that is dropped has waited for everything in flight.

mod backend;
mod image;
mod request;
#[cfg(test)]
mod tests;
mod uring;

pub use image::{OpenError, Options, check};

use super::{Activation, Backend, Device, Kind, Outline};
use backend::{Queues, Shared};
use image::{Image, SECTOR};
use request::{DISCARD, ID, SEGMENT, SEGMENTS, ZEROES};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use uring::Uring;
use virtio_bindings::virtio_blk;

/// Entries of a queue.
const QUEUE: u16 = 256;

/// Offset of `writeback` in the configuration.
const WRITE_BACK: u64 = 32;

/// How transfers reach the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Engine {
    /// io_uring where the host has it, else at once.
    #[default]
    Auto,
    /// One after the other, on the device's thread.
    Sync,
    /// io_uring, or an error.
    Uring,
}

/// What a bus shows of a disk with so many queues.
#[must_use]
pub fn outline(queues: u16) -> Outline {
    Outline::new(Kind::Block, sizes(queues))
}

fn sizes(queues: u16) -> Vec<u16> {
    vec![QUEUE; queues.max(1).into()]
}

/// A disk, as its driver negotiates with it.
pub struct Disk {
    shared: Arc<Shared>,
    name: String,
    queues: Vec<u16>,
    engine: Engine,
}

impl Disk {
    /// Opens the image. `id` is what the guest finds as the disk's serial number, of which 20 bytes count; `queues` is at least 1.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(options: &Options, id: &str, queues: u16, engine: Engine) -> Result<Self, OpenError> {
        let image = Image::open(options)?;
        let file = options.path.file_name().unwrap_or(options.path.as_os_str());
        let name = format!("disk {}", file.to_string_lossy());
        let mut serial = [0; ID];
        let length = id.len().min(ID);
        serial[..length].copy_from_slice(&id.as_bytes()[..length]);
        let shared = Shared::new(image, name.clone(), serial, !options.write_through);
        Ok(Self { shared: Arc::new(shared), name, queues: sizes(queues), engine })
    }

    /// `struct virtio_blk_config`.
    fn configuration(&self) -> [u8; 60] {
        let image = &self.shared.image;
        let mut config = [0; 60];
        let mut put = |at: usize, value: &[u8]| config[at..at + value.len()].copy_from_slice(value);
        put(0, &image.sectors().to_le_bytes());
        put(8, &SEGMENT.to_le_bytes());
        put(12, &SEGMENTS.to_le_bytes());
        put(20, &image.logical_block().to_le_bytes());
        let physical = image.physical_block() / image.logical_block();
        put(24, &[physical.trailing_zeros() as u8]);
        put(26, &(physical as u16).to_le_bytes());
        put(WRITE_BACK as usize, &[self.shared.is_write_back().into()]);
        put(34, &(self.queues.len() as u16).to_le_bytes());
        let granule = (image.physical_block() / SECTOR as u32).to_le_bytes();
        if image.discards() {
            put(36, &DISCARD.to_le_bytes());
            put(40, &1_u32.to_le_bytes());
            put(44, &granule);
        }
        put(48, &ZEROES.to_le_bytes());
        put(52, &1_u32.to_le_bytes());
        put(56, &[image.discards().into()]);
        config
    }
}

impl Device for Disk {
    fn kind(&self) -> Kind {
        Kind::Block
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn features(&self) -> u64 {
        let image = &self.shared.image;
        let always = [
            virtio_blk::VIRTIO_BLK_F_SIZE_MAX,
            virtio_blk::VIRTIO_BLK_F_SEG_MAX,
            virtio_blk::VIRTIO_BLK_F_BLK_SIZE,
            virtio_blk::VIRTIO_BLK_F_FLUSH,
            virtio_blk::VIRTIO_BLK_F_TOPOLOGY,
        ];
        let sometimes = [
            (virtio_blk::VIRTIO_BLK_F_RO, image.is_read_only()),
            (virtio_blk::VIRTIO_BLK_F_CONFIG_WCE, !image.is_read_only()),
            (virtio_blk::VIRTIO_BLK_F_MQ, self.queues.len() > 1),
            (virtio_blk::VIRTIO_BLK_F_DISCARD, image.discards()),
            (virtio_blk::VIRTIO_BLK_F_WRITE_ZEROES, !image.is_read_only()),
        ];
        let sometimes = sometimes.iter().filter_map(|(bit, offered)| offered.then_some(bit));
        always.iter().chain(sometimes).fold(0, |bits, bit| bits | 1 << bit)
    }

    fn queues(&self) -> &[u16] {
        &self.queues
    }

    fn config(&self, offset: u64, data: &mut [u8]) {
        let config = self.configuration();
        let rest = usize::try_from(offset).ok().and_then(|offset| config.get(offset..)).unwrap_or_default();
        data.fill(0);
        let length = rest.len().min(data.len());
        data[..length].copy_from_slice(&rest[..length]);
    }

    /// The driver may write one field, whether there is a cache.
    fn set_config(&self, offset: u64, data: &[u8]) {
        if let (WRITE_BACK, [choice @ (0 | 1)]) = (offset, data) {
            self.shared.set_write_back(*choice == 1);
        }
    }

    fn activate(&self, activation: Activation) -> io::Result<Box<dyn Backend>> {
        let uring = match self.engine {
            Engine::Sync => None,
            Engine::Uring => Some(Uring::new(&self.shared.image)?),
            Engine::Auto => Uring::new(&self.shared.image).inspect_err(|error| self.without(error)).ok(),
        };
        Ok(Box::new(Queues::new(Arc::clone(&self.shared), activation, uring)))
    }
}

impl Disk {
    fn without(&self, error: &io::Error) {
        static TOLD: AtomicBool = AtomicBool::new(false);
        if !TOLD.swap(true, Ordering::Relaxed) {
            tracing::info!(%error, "{}: no io_uring here, one transfer at a time", self.name);
        }
    }
}
