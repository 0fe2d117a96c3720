//! The card's queues run by the kernel (vhost-net): packets go between tap and guest memory with no thread of ours in
//! between, and no notification and no interrupt comes past here.
//!
//! ```text
//!  driver ──notify──▶ doorbell (KVM_IOEVENTFD) ──▶ vhost ◀──▶ tap
//!                                                  │  │
//!  driver ◀── interrupt controller ◀──KVM_IRQFD── call │ error
//!               ▲ Interrupts::used ◀── readable: not bound ▼ readable: the driver broke a ring
//!               └───────────────────── the card's thread ──▶ NeedsReset
//!
//!  DRIVER_OK ──▶ begin: features, memory ──▶ start each ring ──▶ at work ──drop: at the reset──▶ stop each ring
//! ```
//!
//! What must hold: a ring is started at most once between two stops, and after the drop the kernel touches nothing of guest memory
//! and holds no eventfd of the card. vhost takes guest physical addresses: a card that goes through the host bridge's translation
//! cannot have it.

mod kernel;
#[cfg(test)]
mod tests;

pub use kernel::VhostNet;

use super::Shared;
use crate::virtio::{Activation, Backend, Interrupts, NeedsReset};
use nix::sys::eventfd::{self, EfdFlags};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use virtio_bindings::virtio_config::{VIRTIO_F_ACCESS_PLATFORM, VIRTIO_F_VERSION_1};
use virtio_bindings::virtio_net::VIRTIO_NET_F_MRG_RXBUF;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

/// Features that concern vhost; the others are between driver and tap. The card and its transport always offer them.
const FEATURES: u64 = 1 << VIRTIO_F_VERSION_1
    | 1 << VIRTIO_RING_F_EVENT_IDX
    | 1 << VIRTIO_RING_F_INDIRECT_DESC
    | 1 << VIRTIO_NET_F_MRG_RXBUF;

/// A call that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{call}")]
pub struct Refused {
    /// The ioctl, or what comes before it.
    call: &'static str,
    #[source]
    source: io::Error,
}

impl From<Refused> for io::Error {
    /// As the transport has it in the log, in one piece.
    fn from(refused: Refused) -> Self {
        Self::new(refused.source.kind(), format!("vhost: {}: {}", refused.call, refused.source))
    }
}

/// Why vhost-net cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum VhostError {
    /// No `/dev/vhost-net`.
    #[error("this host has no /dev/vhost-net; as root: modprobe vhost_net, or leave vhost out")]
    Missing(#[source] io::Error),
    /// It may not be opened.
    #[error(
        "/dev/vhost-net may not be opened by this user; run as root, join the group that owns it (usually kvm), or leave \
         vhost out"
    )]
    Permission(#[source] io::Error),
    /// The kernel does not want to.
    #[error("the kernel's vhost_net does not work; leave vhost out")]
    Refused(#[from] Refused),
    /// It is older than virtio 1.0.
    #[error("the kernel's vhost_net lacks features {0:#x}; leave vhost out")]
    Features(u64),
}

/// A ring, as vhost is to run it.
pub(super) struct Vring<'a> {
    /// Which.
    pub queue: u16,
    /// Its size and where it is.
    pub ring: &'a Queue,
    /// Written by the driver.
    pub kick: &'a EventFd,
    /// Written by vhost: descriptors are used.
    pub call: BorrowedFd<'a>,
    /// Written by vhost: the ring or a chain is broken.
    pub error: BorrowedFd<'a>,
}

/// What is asked of the kernel, which a test's stands in for.
pub(super) trait Kernel: Send + Sync {
    /// Takes up what was negotiated, and guest memory, which stays where it is until the next time. No ring runs.
    fn begin(&self, features: u64, memory: &GuestMemoryMmap) -> Result<(), Refused>;

    /// Has a ring run, with `tap` at the other end.
    fn start(&self, vring: &Vring<'_>, tap: BorrowedFd<'_>) -> Result<(), Refused>;

    /// Stops a ring, also one whose start was refused, and says which descriptor would come next. Nothing is touched and
    /// no eventfd is held any more.
    fn stop(&self, queue: u16) -> Result<u16, Refused>;
}

/// The card at work. Dropped, it has stopped.
pub(super) struct KernelRings {
    shared: Arc<Shared>,
    kernel: Arc<dyn Kernel>,
    interrupts: Arc<dyn Interrupts>,
    rings: Vec<KernelRing>,
}

struct KernelRing {
    queue: u16,
    ring: Queue,
    call: Arc<OwnedFd>,
    error: OwnedFd,
    /// Whether the kernel was asked to run it.
    begun: bool,
}

/// What a ring's sources are, in their order.
const SOURCES: usize = 2;
const CALL: usize = 0;

impl KernelRings {
    pub(super) fn new(
        shared: Arc<Shared>,
        kernel: Arc<dyn Kernel>,
        activation: Activation,
    ) -> io::Result<Self> {
        if activation.features & (1 << VIRTIO_F_ACCESS_PLATFORM) != 0 {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "vhost knows no translated addresses"));
        }
        kernel.begin(activation.features & FEATURES, activation.memory.get_backend())?;
        let enabled =
            (0..).zip(activation.rings).filter_map(|(queue, ring)| Some((queue, ring?.into_queue())));
        let rings = enabled.map(|(queue, ring)| {
            let event = || {
                eventfd::EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)
                    .map(OwnedFd::from)
            };
            Ok(KernelRing { queue, ring, call: Arc::new(event()?), error: event()?, begun: false })
        });
        let rings = rings.collect::<io::Result<_>>()?;
        Ok(Self { shared, kernel, interrupts: activation.interrupts, rings })
    }
}

impl Backend for KernelRings {
    fn notified(&mut self, _queue: u16) -> Result<(), NeedsReset> {
        // The kernel is.
        Ok(())
    }

    fn take_doorbells(&mut self, doorbells: &[(u16, Arc<EventFd>)]) -> io::Result<bool> {
        for ring in &mut self.rings {
            let Some((_, kick)) = doorbells.iter().find(|(queue, _)| *queue == ring.queue) else { continue };
            ring.begun = true;
            self.interrupts.lead(ring.queue, Some(Arc::clone(&ring.call)));
            let (call, error) = (ring.call.as_fd(), ring.error.as_fd());
            let vring = Vring { queue: ring.queue, ring: &ring.ring, kick, call, error };
            self.kernel.start(&vring, self.shared.tap.as_fd())?;
            // What rang before the ring could be looked at. It fails where the count is at its limit, and then it rings anyway.
            let _ = kick.write(1);
        }
        Ok(true)
    }

    fn sources(&self) -> Vec<BorrowedFd<'_>> {
        self.rings.iter().flat_map(|ring| [ring.call.as_fd(), ring.error.as_fd()]).collect()
    }

    fn ready(&mut self, source: usize) -> Result<(), NeedsReset> {
        let Some(ring) = self.rings.get(source / SOURCES) else { return Ok(()) };
        if source % SOURCES != CALL {
            let what = "the kernel's vhost found the ring or a chain broken".into();
            return Err(NeedsReset::Queue { queue: ring.queue, what });
        }
        // The interrupt controller may have taken it meanwhile.
        if rustix::io::read(&ring.call, &mut [0; 8]).is_ok() {
            self.interrupts.used(ring.queue);
        }
        Ok(())
    }
}

impl Drop for KernelRings {
    fn drop(&mut self) {
        for ring in self.rings.iter().filter(|ring| ring.begun) {
            match self.kernel.stop(ring.queue) {
                Ok(next) => {
                    tracing::debug!(queue = ring.queue, next, size = ring.ring.size(), "vhost has stopped")
                }
                Err(refused) => {
                    tracing::error!(queue = ring.queue, "vhost does not stop: {}", io::Error::from(refused));
                }
            }
            self.interrupts.lead(ring.queue, None);
        }
    }
}
