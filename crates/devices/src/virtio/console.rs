//! Console (5.3) with one port, over the host side that every guest console has ([`console::Console`]).
//!
//! ```text
//!  transmit queue ──▶ going out (4 KiB) ──▶ Console::write ── busy ──▶ alarm ──▶ again
//!  receive queue  ◀── come in (512 B)   ◀── Console::read  ◀── Console::pump ◀── poll_fd
//! ```
//!
//! What must hold: no byte of output is dropped because the host is busy, and none of input because the driver has no buffer yet:
//! it waits in the console, which stops reading when it is full. Nobody waits: a host that takes nothing is asked again by a timer.

#[cfg(test)]
mod tests;

use super::alarm::Alarm;
use super::{Activation, Backend, Buffers, Device, Kind, NeedsReset, Outline, Ring};
use crate::console;
use crate::dma::Memory;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

/// Entries of each queue.
const QUEUES: [u16; 2] = [128; 2];

/// The queues (5.3.2).
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;

/// What wakes it.
const INPUT: usize = 0;

/// Bytes of output in one piece.
const OUT: usize = 4096;

/// Bytes of input in one piece.
const IN: usize = 512;

/// Pieces and chains of one turn at most.
const TURN: usize = 64;

/// How long until a busy host is offered output again.
const AGAIN: Duration = Duration::from_millis(10);

/// What a bus shows of a console.
#[must_use]
pub fn outline() -> Outline {
    Outline::new(Kind::Console, QUEUES)
}

/// A console.
#[derive(Debug)]
pub struct Console {
    console: Arc<console::Console>,
    name: String,
}

impl Console {
    /// A console whose host side is `console`, which is nobody else's; `name` is for logs.
    #[must_use]
    pub fn new(console: console::Console, name: String) -> Self {
        Self { console: Arc::new(console), name }
    }
}

impl Device for Console {
    fn kind(&self) -> Kind {
        Kind::Console
    }

    fn name(&self) -> &str {
        &self.name
    }

    /// Neither a size, which a pty would have to tell, nor further ports.
    fn features(&self) -> u64 {
        0
    }

    fn queues(&self) -> &[u16] {
        &QUEUES
    }

    /// What is there belongs to features that are not offered.
    fn config(&self, _: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn activate(&self, activation: Activation) -> io::Result<Box<dyn Backend>> {
        let Activation { memory, mut rings, .. } = activation;
        let mut ring = |index: u16| rings.get_mut(usize::from(index)).and_then(Option::take);
        Ok(Box::new(Working {
            console: Arc::clone(&self.console),
            memory,
            input: Input { ring: ring(RECEIVE), bytes: Vec::new(), buffers: Buffers::default() },
            output: Output {
                ring: ring(TRANSMIT),
                bytes: Vec::new(),
                chain: None,
                buffers: Buffers::default(),
                alarm: Alarm::new()?,
                is_busy: false,
                is_unfinished: false,
            },
        }))
    }
}

/// The device at work.
struct Working {
    console: Arc<console::Console>,
    memory: Memory,
    input: Input,
    output: Output,
}

/// From the host to the driver.
struct Input {
    ring: Option<Ring>,
    /// Bytes that came in, and for which there was no buffer yet.
    bytes: Vec<u8>,
    buffers: Buffers,
}

/// From the driver to the host.
struct Output {
    ring: Option<Ring>,
    /// Bytes on their way out.
    bytes: Vec<u8>,
    /// The head of the chain they are from; its buffers are what follows.
    chain: Option<u16>,
    buffers: Buffers,
    alarm: Alarm,
    /// The host took nothing; the alarm is set.
    is_busy: bool,
    is_unfinished: bool,
}

impl Input {
    /// Moves what there is into the driver's buffers. It is bounded by what the console holds.
    fn deliver(&mut self, console: &console::Console, memory: &Memory) -> Result<(), NeedsReset> {
        let Some(ring) = &mut self.ring else { return Ok(()) };
        loop {
            if self.bytes.is_empty() {
                let mut bytes = [0; IN];
                let count = console.read(&mut bytes);
                self.bytes.extend_from_slice(&bytes[..count]);
            }
            if self.bytes.is_empty() {
                return ring.signal();
            }
            let Some(head) = ring.pop_buffers(&mut self.buffers)? else {
                return ring.signal();
            };
            let put = self.buffers.writable.put(memory, &self.bytes);
            let written = put.map_err(|missing| ring.broken(&missing))?;
            if written == 0 {
                return Err(ring.broken(&"a buffer for input has no room"));
            }
            self.bytes.drain(..written);
            ring.push(head, written as u32)?;
        }
    }
}

impl Output {
    /// One turn.
    fn send(&mut self, console: &console::Console, memory: &Memory) -> Result<(), NeedsReset> {
        self.is_unfinished = false;
        let Some(ring) = self.ring.as_mut().filter(|_| !self.is_busy) else { return Ok(()) };
        ring.disable_notification()?;
        for _ in 0..TURN {
            if !self.bytes.is_empty() {
                let taken = console.write(&self.bytes);
                self.bytes.drain(..taken);
                if taken == 0 {
                    self.is_busy = true;
                    self.alarm.set(AGAIN)?;
                    return ring.signal();
                }
                continue;
            }
            let left = self.buffers.readable.length().min(OUT);
            match self.chain {
                Some(_) if left > 0 => {
                    self.bytes.resize(left, 0);
                    let taken = self.buffers.readable.take(memory, &mut self.bytes);
                    taken.map_err(|missing| ring.broken(&missing))?;
                }
                Some(head) => {
                    self.chain = None;
                    ring.push(head, 0)?;
                }
                None => {
                    self.chain = ring.pop_buffers(&mut self.buffers)?;
                    if self.chain.is_none() && !ring.enable_notification()? {
                        return ring.signal();
                    }
                }
            }
        }
        self.is_unfinished = true;
        ring.signal()
    }
}

impl Backend for Working {
    fn notified(&mut self, queue: u16) -> Result<(), NeedsReset> {
        match queue {
            RECEIVE => self.input.deliver(&self.console, &self.memory),
            TRANSMIT => self.output.send(&self.console, &self.memory),
            _ => Ok(()),
        }
    }

    fn sources(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.console.poll_fd(), self.output.alarm.fd()]
    }

    fn ready(&mut self, source: usize) -> Result<(), NeedsReset> {
        if source == INPUT {
            let pumped = self.console.pump();
            pumped.map_err(|source| NeedsReset::Host { what: "its console failed", source })?;
            return self.input.deliver(&self.console, &self.memory);
        }
        self.output.alarm.clear()?;
        self.output.is_busy = false;
        self.output.send(&self.console, &self.memory)
    }

    fn unfinished(&self) -> bool {
        self.output.is_unfinished
    }
}
