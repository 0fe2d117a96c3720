//! Packets to the guest.
//!
//! Receive buffers are taken out of the ring ahead of the packets, so many that the largest packet fits, and one
//! system call reads a packet into as many as it needs. What does not fit goes into a spill of our own:
//!
//! ```text
//!             ┌── posted: chains of the ring, in order ──┐┌── spill ──┐
//!  tap ─readv─▶ chain │ chain │ chain                     │            ─▶ held, until there are chains for it
//! ```
//!
//! What must hold: the driver sees all chains of a packet at once; and while there are no buffers
//! ([`Receiver::is_starved`]), or a packet is held, nobody looks at the tap, and the driver's next buffers notify
//! us.

use super::counters::{Counters, count};
use super::gather::{Added, Gather};
use super::tap::{HEADER, Tap};
use crate::virtio::{NeedsReset, Ring};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use vm_memory::Permissions;

/// The largest packet: header, Ethernet with a VLAN tag, and what IP can say.
const LARGEST: usize = HEADER + 18 + 65535;

/// Where the number of buffers is in the header, 16 bits.
const NUM_BUFFERS: usize = 10;

/// Packets in one turn.
const TURN: usize = 64;

/// The receive queue at work.
pub(super) struct Receiver {
    ring: Ring,
    /// A packet may have several chains (VIRTIO_NET_F_MRG_RXBUF).
    merges: bool,
    posted: Gather,
    /// What is in `posted`: heads and what each added.
    chains: VecDeque<(u16, Added)>,
    spill: Box<[u8]>,
    /// The packet whose end is in the spill.
    held: Option<Held>,
    starved: bool,
    /// Chains of the packet that is given back.
    used: Vec<(u16, u32)>,
}

/// A packet for which there were too few chains.
#[derive(Debug, Clone, Copy)]
struct Held {
    /// Bytes in all.
    length: usize,
    /// Those that are in the chains.
    placed: usize,
}

/// How a turn ended.
#[derive(Debug)]
pub(super) enum Turn {
    /// The tap is empty, or there are no buffers, or others have their turn; whoever looks at the tap again knows.
    Over,
    /// The tap cannot be read any more.
    Gone(io::Error),
}

impl Receiver {
    pub(super) fn new(ring: Ring, merges: bool) -> Self {
        let posted = Gather::new(ring.memory().clone());
        let chains = VecDeque::with_capacity(ring.size().into());
        let used = Vec::with_capacity(ring.size().into());
        // Also what is larger than a packet should be has room in it, so that it is seen.
        let spill = vec![0; 2 * LARGEST].into_boxed_slice();
        Self { ring, merges, posted, chains, spill, held: None, starved: true, used }
    }

    /// No packet can be received until the driver gives buffers.
    pub(super) fn is_starved(&self) -> bool {
        self.starved
    }

    /// Receives what is there, within a turn's limits.
    pub(super) fn turn(&mut self, tap: &Tap, counters: &Counters) -> Result<Turn, NeedsReset> {
        self.ring.disable_notification()?;
        let mut turn = Turn::Over;
        for packet in 0..TURN {
            self.starved = !self.prepare(counters)?;
            if self.starved {
                break;
            }
            match self.posted.read(tap, &mut self.spill) {
                Ok(length) => self.received(length, counters)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    turn = Turn::Gone(error);
                    break;
                }
            }
            // The guest begins with the first while the others are read.
            if packet == 0 {
                self.ring.signal()?;
            }
        }
        self.ring.signal()?;
        Ok(turn)
    }

    /// Gets buffers for the next packet, and finishes one that is held. `false` if there are too few: the driver
    /// notifies of more.
    fn prepare(&mut self, counters: &Counters) -> Result<bool, NeedsReset> {
        loop {
            let full = self.refill()?;
            match self.held {
                None if !self.chains.is_empty() => return Ok(true),
                Some(held) if held.length <= self.posted.bytes() => {
                    self.posted.put(held.placed, &self.spill[..held.length - held.placed]);
                    self.held = None;
                    self.deliver(held.length, counters)?;
                    continue;
                }
                Some(_) if full => {
                    // All that the driver has given is too little. Its chains wait for the next packet.
                    self.held = None;
                    count(&counters.rx_dropped, 1);
                    continue;
                }
                _ => {}
            }
            if !self.ring.enable_notification()? {
                return Ok(false);
            }
            self.ring.disable_notification()?;
        }
    }

    /// Takes chains out of the ring until there are enough for a packet. `true` if no more can be taken.
    fn refill(&mut self) -> Result<bool, NeedsReset> {
        let wanted = match self.held {
            Some(held) => held.length,
            None if self.merges => LARGEST,
            None => 1,
        };
        while self.posted.bytes() < wanted {
            if self.chains.len() >= usize::from(self.ring.size()) || !self.posted.has_room() {
                return Ok(true);
            }
            let Some(chain) = self.ring.pop()? else { return Ok(false) };
            let head = chain.head_index();
            let added = self.posted.add(chain, Permissions::Write, LARGEST);
            let added = added.map_err(|unusable| self.ring.broken(&unusable))?;
            if added.bytes < HEADER {
                return Err(self.ring.broken(&"a receive buffer is shorter than a packet's header"));
            }
            self.chains.push_back((head, added));
        }
        Ok(false)
    }

    /// A packet has been read, header included.
    fn received(&mut self, length: usize, counters: &Counters) -> Result<(), NeedsReset> {
        let room = self.posted.bytes();
        if length <= HEADER || length == room + self.spill.len() {
            // Nothing, or more than anything can be.
            count(&counters.rx_dropped, 1);
        } else if length <= room {
            self.deliver(length, counters)?;
        } else if self.merges {
            self.held = Some(Held { length, placed: room });
        } else {
            count(&counters.rx_dropped, 1);
        }
        Ok(())
    }

    /// Gives the chains that hold a packet of `length` bytes back.
    fn deliver(&mut self, length: usize, counters: &Counters) -> Result<(), NeedsReset> {
        self.used.clear();
        let mut left = length;
        for &(head, added) in &self.chains {
            let here = left.min(added.bytes);
            self.used.push((head, here as u32));
            left -= here;
            if left == 0 {
                break;
            }
        }
        self.posted.put(NUM_BUFFERS, &(self.used.len() as u16).to_le_bytes());
        for (_, added) in self.chains.drain(..self.used.len()) {
            self.posted.take(added);
        }
        count(&counters.rx_packets, 1);
        count(&counters.rx_bytes, (length - HEADER) as u64);
        self.ring.push_all(&self.used)
    }
}
