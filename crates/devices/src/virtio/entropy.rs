//! Entropy source (5.4): one queue, whose buffers are filled with random bytes from the host's kernel.
//!
//! ```text
//!              ┌────────────── kick ───────────────┐
//!              ▼                                   │
//!  kick ──▶ filling ──── no chain is left ──▶ waits for a kick
//!            │  │ ▲
//!            │  │ └── the others on the thread had their turn ── a turn's bytes are used up
//!            │  └────────────────────────────────────────────────────────┘
//!            └─ the host has none yet ──▶ waits for the alarm ──▶ filling
//! ```
//!
//! What must hold: nothing here waits for the host's pool, which may take more than a minute after the host's boot to be ready; and
//! a driver can have a bounded number of bytes made in one turn, whatever its chains promise.

#[cfg(test)]
mod tests;

use super::alarm::Alarm;
use super::{Activation, Backend, Buffers, Device, Kind, NeedsReset, Outline, Ring};
use crate::dma::Memory;
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// Entries of the queue. Linux has one request at a time.
const QUEUES: [u16; 1] = [64];

/// Bytes for one chain at most: a device may give less than a buffer has room for (5.4.6.2).
const CHAIN_BYTES: usize = 4096;

/// Chains of one turn at most, and so 64 KiB of random numbers.
const TURN: usize = 16;

/// How long until a host without random numbers is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// Fills a buffer with random bytes, from its beginning on, or says [`io::ErrorKind::WouldBlock`]. Never waits.
pub type Source = fn(&mut [u8]) -> io::Result<usize>;

/// The host's kernel as a source.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] while its pool is not ready.
pub fn host(bytes: &mut [u8]) -> io::Result<usize> {
    loop {
        match getrandom(&mut *bytes, GetRandomFlags::NONBLOCK) {
            Err(Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// What a bus shows of it.
#[must_use]
pub fn outline() -> Outline {
    Outline::new(Kind::Entropy, QUEUES)
}

/// An entropy source.
#[derive(Debug)]
pub struct Entropy {
    source: Source,
}

impl Entropy {
    /// Random numbers from `source`, as [`host`].
    #[must_use]
    pub fn new(source: Source) -> Self {
        Self { source }
    }
}

impl Device for Entropy {
    fn kind(&self) -> Kind {
        Kind::Entropy
    }

    fn name(&self) -> &str {
        "rng"
    }

    fn features(&self) -> u64 {
        0
    }

    fn queues(&self) -> &[u16] {
        &QUEUES
    }

    /// It has none.
    fn config(&self, _: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn activate(&self, activation: Activation) -> io::Result<Box<dyn Backend>> {
        let Activation { memory, rings, .. } = activation;
        Ok(Box::new(Filling {
            source: self.source,
            memory,
            ring: rings.into_iter().next().flatten(),
            buffers: Buffers::default(),
            bytes: vec![0; CHAIN_BYTES],
            ready: 0,
            alarm: Alarm::new()?,
            is_asleep: false,
            is_unfinished: false,
        }))
    }
}

/// The device at work.
struct Filling {
    source: Source,
    memory: Memory,
    ring: Option<Ring>,
    buffers: Buffers,
    /// The first `ready` are random and nobody's yet.
    bytes: Vec<u8>,
    ready: usize,
    alarm: Alarm,
    /// The host has no random numbers yet; the alarm is set.
    is_asleep: bool,
    is_unfinished: bool,
}

impl Filling {
    /// One turn.
    fn fill(&mut self) -> Result<(), NeedsReset> {
        self.is_unfinished = false;
        if self.is_asleep {
            return Ok(());
        }
        let Some(mut ring) = self.ring.take() else { return Ok(()) };
        let filled = self.fill_from(&mut ring);
        self.ring = Some(ring);
        filled
    }

    fn fill_from(&mut self, ring: &mut Ring) -> Result<(), NeedsReset> {
        ring.disable_notification()?;
        for _ in 0..TURN {
            // A chain that was taken could not be put back, so the bytes come first.
            if !self.gather()? {
                break;
            }
            let Some(head) = ring.pop_buffers(&mut self.buffers)? else {
                if ring.enable_notification()? {
                    continue;
                }
                return ring.signal();
            };
            if self.buffers.readable.length() > 0 || self.buffers.writable.length() == 0 {
                return Err(ring.broken(&"a request has no room for random bytes, or brings some"));
            }
            let put = self.buffers.writable.put(&self.memory, &self.bytes[..self.ready]);
            let written = put.map_err(|missing| ring.broken(&missing))?;
            // No byte is given out twice: those that the chain had no room for stay at the front.
            self.bytes.copy_within(written..self.ready, 0);
            self.ready -= written;
            ring.push(head, written as u32)?;
        }
        self.is_unfinished = !self.is_asleep;
        ring.signal()
    }

    /// Has random bytes ready. `false` if the host has none: the alarm is set then.
    fn gather(&mut self) -> Result<bool, NeedsReset> {
        while self.ready < CHAIN_BYTES {
            match (self.source)(&mut self.bytes[self.ready..]) {
                Ok(count @ 1..) => self.ready += count.min(CHAIN_BYTES - self.ready),
                none => {
                    tracing::debug!(?none, "the host has no random bytes for the guest's rng yet");
                    self.is_asleep = true;
                    self.alarm.set(AGAIN)?;
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

impl Backend for Filling {
    fn notified(&mut self, _: u16) -> Result<(), NeedsReset> {
        self.fill()
    }

    fn sources(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.alarm.fd()]
    }

    fn ready(&mut self, _: usize) -> Result<(), NeedsReset> {
        self.alarm.clear()?;
        self.is_asleep = false;
        self.fill()
    }

    fn unfinished(&self) -> bool {
        self.is_unfinished
    }
}
