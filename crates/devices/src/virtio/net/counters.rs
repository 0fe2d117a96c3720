//! What went through a card, and what did not.

use std::sync::atomic::{AtomicU64, Ordering};

/// Since the VM started. Bytes are those of the packets, Ethernet header included and virtio's not.
#[derive(Debug, Default)]
pub struct Counters {
    /// Packets that the guest got.
    pub rx_packets: AtomicU64,
    /// Their bytes.
    pub rx_bytes: AtomicU64,
    /// Packets that did not fit into the guest's buffers.
    pub rx_dropped: AtomicU64,
    /// Packets that the guest sent.
    pub tx_packets: AtomicU64,
    /// Their bytes.
    pub tx_bytes: AtomicU64,
    /// Packets that the tap did not take, or that are none.
    pub tx_dropped: AtomicU64,
}

/// Adds to a counter. Its only writer is the card's thread; readers want no order.
pub(super) fn count(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}
