//! Traditional memory balloon (5.5): memory that the guest gives back to the host, for as long as it is asked to (the balloon), or until
//! it touches it again (free page reporting).
//!
//! ```text
//!  host: set_target ──▶ config space: num_pages ──▶ driver: takes pages from its allocator
//!                                                       │ inflate: page numbers       ▲ deflate: page numbers
//!                                                       ▼                             │
//!                                     Release: the host's pages are gone; the next touch brings zeroes
//! ```
//!
//! What must hold: only whole pages of the host that the driver named, each of them in guest RAM, are released. A page of the balloon
//! has 4 KiB whatever guest and host have, and a host with larger ones keeps what it cannot release whole: a guest with pages as large
//! names all parts of one together, so nothing of it is kept.
//!
//! Which queue is which: the specification counts all five, whether the features of the optional ones are negotiated or not; Linux counts
//! only those that are. The n-th queue that the driver enabled has therefore the n-th role that was negotiated, which is
//! right by either count.

mod ranges;
#[cfg(test)]
mod tests;
mod work;

use super::{Activation, Backend, Device, Interrupts, Kind, Outline};
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use virtio_bindings::virtio_config::VIRTIO_F_ACCESS_PLATFORM;
use vm_memory::{GuestAddress, GuestMemoryMmap};
use work::{Role, Working};

/// Bytes of a page of the balloon.
pub const PAGE: u64 = 4096;

/// Features (5.5.3): bits.
const STATS_VQ: u32 = 1;
const DEFLATE_ON_OOM: u32 = 2;
const FREE_PAGE_HINT: u32 = 3;
const PAGE_REPORTING: u32 = 5;

/// Entries of each queue. Linux has one request at a time in each.
const QUEUES: [u16; Role::ALL.len()] = [128; Role::ALL.len()];

/// Offset of the pages that the driver has given, in configuration space; those it is asked for are at 0.
const ACTUAL: u64 = 4;

/// Gives guest RAM back to the host.
pub trait Release: Send + Sync {
    /// Bytes of the host's page: what is released are multiples of it. A power of 2.
    fn page_size(&self) -> u64;

    /// Gives back these pages of `memory`, all of them there: they read as zero from now on, and cost the host nothing until they
    /// are touched.
    ///
    /// # Errors
    /// As madvise(2).
    fn release(&self, memory: &GuestMemoryMmap, address: GuestAddress, length: u64) -> io::Result<()>;
}

/// What the driver may be offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// It may take pages back before it runs out of memory (VIRTIO_BALLOON_F_DEFLATE_ON_OOM).
    pub deflate_on_oom: bool,
    /// It may say which pages it does not use (VIRTIO_BALLOON_F_REPORTING).
    pub reporting: bool,
}

/// What both sides share.
struct Shared {
    /// Pages that the driver is asked for. Relaxed, as `actual`: each is a number for itself.
    target: AtomicU32,
    /// Pages that the driver says it has given.
    actual: AtomicU32,
    /// How the driver is told, while there is one. Held while it is told: nothing may be called after the backend has gone.
    interrupts: Mutex<Option<Arc<dyn Interrupts>>>,
}

impl Shared {
    fn tell_by(&self, interrupts: Option<Arc<dyn Interrupts>>) {
        *self.interrupts.lock().unwrap_or_else(PoisonError::into_inner) = interrupts;
    }
}

/// What a bus shows of a balloon.
#[must_use]
pub fn outline() -> Outline {
    Outline::new(Kind::Balloon, QUEUES)
}

/// A balloon.
pub struct Balloon {
    shared: Arc<Shared>,
    host: Arc<dyn Release>,
    features: u64,
}

impl Balloon {
    /// A balloon that gives memory back to `host` and asks for `bytes` at first.
    #[must_use]
    pub fn new(host: Arc<dyn Release>, offer: Offer, bytes: u64) -> Self {
        let bits = [(offer.deflate_on_oom, DEFLATE_ON_OOM), (offer.reporting, PAGE_REPORTING)];
        let features = bits.iter().filter(|(on, _)| *on).fold(0, |features, (_, bit)| features | 1 << bit);
        let shared = Shared {
            target: AtomicU32::new(pages(bytes)),
            actual: AtomicU32::new(0),
            interrupts: Mutex::default(),
        };
        Self { shared: Arc::new(shared), host, features }
    }

    /// Asks the driver for so many bytes, rounded down to pages of the balloon. It gives what it can, when it can.
    pub fn set_target(&self, bytes: u64) {
        self.shared.target.store(pages(bytes), Ordering::Relaxed);
        if let Some(interrupts) = &*self.shared.interrupts.lock().unwrap_or_else(PoisonError::into_inner) {
            interrupts.config_changed();
        }
    }

    /// The bytes that the driver is asked for.
    #[must_use]
    pub fn target(&self) -> u64 {
        u64::from(self.shared.target.load(Ordering::Relaxed)) * PAGE
    }

    /// The bytes that the driver says it has given.
    #[must_use]
    pub fn actual(&self) -> u64 {
        u64::from(self.shared.actual.load(Ordering::Relaxed)) * PAGE
    }
}

fn pages(bytes: u64) -> u32 {
    u32::try_from(bytes / PAGE).unwrap_or(u32::MAX)
}

impl Device for Balloon {
    fn kind(&self) -> Kind {
        Kind::Balloon
    }

    fn name(&self) -> &str {
        "balloon"
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queues(&self) -> &[u16] {
        &QUEUES
    }

    fn config(&self, offset: u64, data: &mut [u8]) {
        let numbers =
            [&self.shared.target, &self.shared.actual].map(|n| n.load(Ordering::Relaxed).to_le_bytes());
        let bytes = numbers.as_flattened().iter().copied().chain(std::iter::repeat(0));
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        for (to, from) in data.iter_mut().zip(bytes.skip(offset)) {
            *to = from;
        }
    }

    /// The driver may write `actual`, whole.
    fn set_config(&self, offset: u64, data: &[u8]) {
        if let (ACTUAL, Ok(bytes)) = (offset, data.try_into()) {
            self.shared.actual.store(u32::from_le_bytes(bytes), Ordering::Relaxed);
        }
    }

    fn activate(&self, activation: Activation) -> io::Result<Box<dyn Backend>> {
        // Pages of the balloon are guest physical ones, so a driver that wants them translated means something else.
        if activation.features & 1 << VIRTIO_F_ACCESS_PLATFORM != 0 {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "a balloon's pages cannot be translated"));
        }
        // The driver has forgotten what it gave before.
        self.shared.actual.store(0, Ordering::Relaxed);
        self.shared.tell_by(Some(Arc::clone(&activation.interrupts)));
        let working = Working::new(activation, Arc::clone(&self.host), Arc::clone(&self.shared));
        Ok(Box::new(working))
    }
}
