//! COM1: a 16550 on the guest's console.
//!
//! ```text
//!  vCPU ──register──▶ Serial (vm-superio) ──byte──▶ unsent ──drain──▶ Console       no lock is held across the console's write
//!                        ▲                                               │ input has arrived
//!                        └──────────────── receive ◀─────────────────────┘ Sink::set, by the control loop
//! ```
//!
//! A console that is busy leaves bytes in `unsent`, which go at the next access of the guest's; when it is full, what the guest writes is
//! lost, as on a line without flow control. Interrupts are edges at the pin of the port.

use crate::layout::PIN_COM1;
use arch_api::x86_64::Partition;
use devices::console::Console;
use irq::Sink;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};

/// How much a busy console may keep back.
const MOST_UNSENT: usize = 64 << 10;

/// How much goes to the console at a time.
const CHUNK: usize = 256;

/// The pin of the port.
struct Pin(Arc<dyn Partition>);

impl Trigger for Pin {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        let pulse = [true, false].into_iter().try_for_each(|level| self.0.set_irq(PIN_COM1, level));
        pulse.map_err(|error| error.source)
    }
}

/// What the guest has sent and the console has not taken.
#[derive(Default)]
struct Unsent(VecDeque<u8>);

impl Write for Unsent {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = MOST_UNSENT.saturating_sub(self.0.len());
        self.0.extend(&bytes[..bytes.len().min(room)]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type Registers = Serial<Pin, NoEvents, Unsent>;

/// The port.
pub struct Uart {
    partition: Arc<dyn Partition>,
    registers: Mutex<Registers>,
    console: Arc<Console>,
    /// Somebody takes what is unsent to the console.
    draining: AtomicBool,
}

fn power_on(partition: &Arc<dyn Partition>) -> Registers {
    Serial::new(Pin(Arc::clone(partition)), Unsent::default())
}

impl Uart {
    /// A port whose interrupts go to `partition`.
    #[must_use]
    pub fn new(partition: Arc<dyn Partition>, console: Arc<Console>) -> Self {
        let registers = Mutex::new(power_on(&partition));
        Self { partition, registers, console, draining: AtomicBool::new(false) }
    }

    fn lock(&self) -> MutexGuard<'_, Registers> {
        self.registers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads register `offset`, 0 to 7.
    #[must_use]
    pub fn read(&self, offset: u8) -> u8 {
        let value = self.lock().read(offset);
        if offset == 0 {
            // There may be room again for more.
            self.receive();
        }
        self.drain();
        value
    }

    /// Writes register `offset`, 0 to 7.
    pub fn write(&self, offset: u8, value: u8) {
        let result = self.lock().write(offset, value);
        if let Err(error) = result {
            tracing::debug!(?error, "the serial port's interrupt was not taken");
        }
        self.drain();
    }

    /// Its power-on state. What the guest had sent goes to the console, if that takes it.
    pub fn reset(&self) {
        self.drain();
        *self.lock() = power_on(&self.partition);
    }

    /// Takes input from the console as far as there is room.
    fn receive(&self) {
        let mut registers = self.lock();
        let mut bytes = [0; 64];
        let room = registers.fifo_capacity().min(bytes.len());
        let count = self.console.read(&mut bytes[..room]);
        if count > 0 {
            if let Err(error) = registers.enqueue_raw_bytes(&bytes[..count]) {
                tracing::debug!(?error, "input of the serial port was lost");
            }
        }
    }

    /// Offers the console what is unsent. One thread at a time does, so that the bytes keep their order.
    fn drain(&self) {
        loop {
            // Acquire and Release: whoever comes next finds the queue as this one leaves it.
            if self.draining.swap(true, Ordering::Acquire) {
                return;
            }
            let busy = self.drain_some();
            self.draining.store(false, Ordering::Release);
            // Somebody may have queued more while this one was the drainer, and left it to it.
            if busy || self.lock().writer().0.is_empty() {
                return;
            }
        }
    }

    /// Until nothing is left, or the console takes no more; says which.
    fn drain_some(&self) -> bool {
        loop {
            let chunk: Vec<u8> = self.lock().writer().0.iter().take(CHUNK).copied().collect();
            if chunk.is_empty() {
                return false;
            }
            let taken = self.console.write(&chunk);
            let mut registers = self.lock();
            let unsent = &mut registers.writer_mut().0;
            unsent.drain(..taken.min(unsent.len()));
            if taken == 0 {
                return true;
            }
        }
    }
}

/// The console's line: input has arrived.
impl Sink for Uart {
    fn set(&self, _gsi: u32, level: bool) -> io::Result<()> {
        if level {
            self.receive();
        }
        Ok(())
    }
}
