//! A network card (VIRTIO 1.2, 5.1) whose other end is a tap of the host.
//!
//! ```text
//!  tap ──readv──▶ receive buffers      Receiver, while the driver has buffers in its ring
//!  tap ◀─writev── packets to send      Sender
//! ```
//!
//! One pair of queues and no control queue. What the two ends know of checksums and segmentation in the header in
//! front of each packet is theirs; nothing here looks into a packet.

mod counters;
mod gather;
mod rx;
mod tap;
#[cfg(test)]
mod tests;
mod tx;

pub use counters::Counters;
pub use tap::{Tap, TapError};

use super::{Activation, Backend, Device, Interrupts, Kind, NeedsReset, Outline};
use rx::{Receiver, Turn};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tx::Sender;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6, VIRTIO_NET_F_HOST_ECN,
    VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_HOST_USO, VIRTIO_NET_F_MAC,
    VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS, VIRTIO_NET_S_LINK_UP,
};

/// Entries of each queue at most.
const QUEUES: [u16; 2] = [256, 256];

/// The queues' indices.
const RX: u16 = 0;
const TX: u16 = 1;

/// What a tap does, and the features that it stands for: packets that the guest may get so, and those that it may
/// send so.
const OFFLOADS: [(u32, u32, u32); 6] = [
    (libc::TUN_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_CSUM),
    (libc::TUN_F_TSO4, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_HOST_TSO4),
    (libc::TUN_F_TSO6, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_HOST_TSO6),
    (libc::TUN_F_TSO_ECN, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_HOST_ECN),
    (libc::TUN_F_USO4, VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_HOST_USO),
    (libc::TUN_F_USO6, VIRTIO_NET_F_GUEST_USO6, VIRTIO_NET_F_HOST_USO),
];

/// The smallest MTU that a card may tell of (5.1.4.1).
const SMALLEST_MTU: u16 = 68;

/// What a bus shows of a card.
#[must_use]
pub fn outline() -> Outline {
    Outline::new(Kind::Net, QUEUES)
}

/// A network card.
pub struct Net {
    name: String,
    mac: [u8; 6],
    shared: Arc<Shared>,
}

/// What the card and its queues at work both need.
struct Shared {
    tap: Tap,
    /// The tap cannot be used any more; the link is down.
    gone: AtomicBool,
    counters: Counters,
}

impl Net {
    /// A card with address `mac` at the tap of this name. Nobody looks whether the address can be a card's.
    #[must_use]
    pub fn new(name: &str, tap: Tap, mac: [u8; 6]) -> Self {
        let shared = Shared { tap, gone: AtomicBool::new(false), counters: Counters::default() };
        Self { name: format!("net {name}"), mac, shared: Arc::new(shared) }
    }

    /// What went through it.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// `struct virtio_net_config`, up to the MTU.
    fn config_space(&self) -> [u8; 12] {
        let up = if self.shared.gone.load(Ordering::Acquire) { 0 } else { VIRTIO_NET_S_LINK_UP as u16 };
        let mut space = [0; 12];
        space[..6].copy_from_slice(&self.mac);
        space[6..8].copy_from_slice(&up.to_le_bytes());
        // max_virtqueue_pairs, which means nothing without VIRTIO_NET_F_MQ.
        space[8..10].copy_from_slice(&1u16.to_le_bytes());
        space[10..].copy_from_slice(&self.shared.tap.mtu().to_le_bytes());
        space
    }
}

/// Feature `number` as a bit.
const fn bit(number: u32) -> u64 {
    1 << number
}

impl Device for Net {
    fn kind(&self) -> Kind {
        Kind::Net
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn features(&self) -> u64 {
        let tap = &self.shared.tap;
        let always = bit(VIRTIO_NET_F_MAC) | bit(VIRTIO_NET_F_STATUS) | bit(VIRTIO_NET_F_MRG_RXBUF);
        let mtu = if tap.mtu() >= SMALLEST_MTU { bit(VIRTIO_NET_F_MTU) } else { 0 };
        let offloads = OFFLOADS.iter().filter(|(tun, ..)| tap.offloads() & tun != 0);
        offloads.fold(always | mtu, |all, (_, guest, host)| all | bit(*guest) | bit(*host))
    }

    fn queues(&self) -> &[u16] {
        &QUEUES
    }

    fn config(&self, offset: u64, data: &mut [u8]) {
        let space = self.config_space();
        let rest = usize::try_from(offset).ok().and_then(|offset| space.get(offset..)).unwrap_or_default();
        data.fill(0);
        data.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    }

    fn activate(&self, activation: Activation) -> io::Result<Box<dyn Backend>> {
        self.shared.tap.begin(offloads(activation.features))?;
        Ok(Box::new(Queues::new(self.shared.clone(), activation)))
    }
}

/// What the tap may do to packets for a driver with these features. Nothing goes without checksums (5.1.3.1), nor does
/// USO for one version of IP alone (the kernel's rule).
fn offloads(features: u64) -> u32 {
    if features & bit(VIRTIO_NET_F_GUEST_CSUM) == 0 {
        return 0;
    }
    let accepted = OFFLOADS.iter().filter(|(_, guest, _)| features & bit(*guest) != 0);
    let mut offloads = accepted.fold(0, |all, (tun, ..)| all | tun);
    let uso = libc::TUN_F_USO4 | libc::TUN_F_USO6;
    if offloads & uso != uso {
        offloads &= !uso;
    }
    if offloads & (libc::TUN_F_TSO4 | libc::TUN_F_TSO6) == 0 {
        offloads &= !libc::TUN_F_TSO_ECN;
    }
    offloads
}

/// The card at work.
struct Queues {
    shared: Arc<Shared>,
    interrupts: Arc<dyn Interrupts>,
    receiver: Option<Receiver>,
    sender: Option<Sender>,
}

impl Queues {
    fn new(shared: Arc<Shared>, activation: Activation) -> Self {
        let merges = activation.features & bit(VIRTIO_NET_F_MRG_RXBUF) != 0;
        let mut rings = activation.rings.into_iter();
        let receiver = rings.next().flatten().map(|ring| Receiver::new(ring, merges));
        let sender = rings.next().flatten().map(Sender::new);
        Self { shared, interrupts: activation.interrupts, receiver, sender }
    }

    fn receive(&mut self) -> Result<(), NeedsReset> {
        let Some(receiver) = &mut self.receiver else { return Ok(()) };
        if let Turn::Gone(error) = receiver.turn(&self.shared.tap, &self.shared.counters)? {
            tracing::warn!(%error, "a tap cannot be read any more; the guest's link is down");
            self.shared.gone.store(true, Ordering::Release);
            self.interrupts.config_changed();
        }
        Ok(())
    }
}

impl Backend for Queues {
    fn notified(&mut self, queue: u16) -> Result<(), NeedsReset> {
        match queue {
            // While there are buffers it is the tap that says when there is something to do.
            RX if self.listens(0) => Ok(()),
            RX if self.shared.gone.load(Ordering::Relaxed) => Ok(()),
            RX => self.receive(),
            TX => {
                let Some(sender) = &mut self.sender else { return Ok(()) };
                sender.turn(&self.shared.tap, &self.shared.counters)
            }
            _ => Ok(()),
        }
    }

    fn sources(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.shared.tap.as_fd()]
    }

    fn ready(&mut self, _source: usize) -> Result<(), NeedsReset> {
        if self.listens(0) { self.receive() } else { Ok(()) }
    }

    fn listens(&self, _source: usize) -> bool {
        let starved = self.receiver.as_ref().is_none_or(Receiver::is_starved);
        !starved && !self.shared.gone.load(Ordering::Relaxed)
    }

    fn unfinished(&self) -> bool {
        self.sender.as_ref().is_some_and(Sender::is_unfinished)
    }
}
