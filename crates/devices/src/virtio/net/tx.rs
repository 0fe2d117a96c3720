//! Packets from the guest: each chain is one, and goes to the tap in one system call.

use super::counters::{Counters, count};
use super::gather::Gather;
use super::tap::{HEADER, Tap};
use crate::virtio::{NeedsReset, Ring};
use std::io::{self, ErrorKind};
use vm_memory::Permissions;

/// The largest packet: header, Ethernet with a VLAN tag, and what IP can say.
const LARGEST: usize = HEADER + 18 + 65535;

/// An Ethernet header, without which there is no packet.
const SHORTEST: usize = HEADER + 14;

/// The transmit queue at work.
pub(super) struct Sender {
    ring: Ring,
    packet: Gather,
    unfinished: bool,
}

impl Sender {
    pub(super) fn new(ring: Ring) -> Self {
        let packet = Gather::new(ring.memory().clone());
        Self { ring, packet, unfinished: false }
    }

    /// The last turn left packets in the ring, of which no notification tells.
    pub(super) fn is_unfinished(&self) -> bool {
        self.unfinished
    }

    /// Sends what is there, at most as many packets as the ring has entries.
    pub(super) fn turn(&mut self, tap: &Tap, counters: &Counters) -> Result<(), NeedsReset> {
        self.ring.disable_notification()?;
        let mut left = self.ring.size();
        self.unfinished = loop {
            if left == 0 {
                break true;
            }
            let Some(chain) = self.ring.pop()? else {
                if self.ring.enable_notification()? {
                    self.ring.disable_notification()?;
                    continue;
                }
                break false;
            };
            let head = chain.head_index();
            self.packet.clear();
            let added = self.packet.add(chain, Permissions::Read, LARGEST + 1);
            added.map_err(|unusable| self.ring.broken(&unusable))?;
            self.send(tap, counters);
            self.ring.push(head, 0)?;
            left -= 1;
        };
        self.ring.signal()
    }

    /// Sends the packet, or drops it: a guest's wrong header is no more than a packet that does not arrive.
    fn send(&self, tap: &Tap, counters: &Counters) {
        let length = self.packet.bytes();
        if !(SHORTEST..=LARGEST).contains(&length) {
            tracing::trace!(length, "what the guest sends is no packet");
            count(&counters.tx_dropped, 1);
            return;
        }
        match self.write(tap) {
            Ok(_) => {
                count(&counters.tx_packets, 1);
                count(&counters.tx_bytes, (length - HEADER) as u64);
            }
            // EINVAL is what the kernel says of a wrong header; EIO, that the tap is not set up; EAGAIN and
            // ENOBUFS, that it is full.
            Err(error) => {
                tracing::trace!(length, %error, "a packet from the guest is dropped");
                count(&counters.tx_dropped, 1);
            }
        }
    }

    fn write(&self, tap: &Tap) -> io::Result<usize> {
        loop {
            match self.packet.write(tap) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                written => return written,
            }
        }
    }
}
