//! What the device tells its driver: MSI-X vectors, or the interrupt status register and the pin.
//!
//! ```text
//!  Backend ──used──▶ the queue's vector ──▶ Msix                        MSI-X on: no lock
//!                    └─▶ ISR ──▶ pin, under a lock that keeps level and cause in step      MSI-X off
//!  vhost ──an eventfd──▶ Calls ──▶ where the queue's vector leads, without a thread        MSI-X on, on KVM's controller
//! ```
//!
//! Always true after any call: the pin is high exactly if the interrupt status register is not 0, MSI-X is off and the
//! driver has not switched the pin off.

use super::calls::Calls;
use crate::pci::Msix;
use crate::virtio::Interrupts;
use irq::{Line, Messages};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A vector that is none (VIRTIO_MSI_NO_VECTOR).
pub const NO_VECTOR: u16 = 0xffff;

/// In the interrupt status register.
const ISR_QUEUE: u8 = 1;
const ISR_CONFIG: u8 = 2;

/// A function's ways to its driver.
pub struct Signals {
    /// Changed by [`Signals::change_messages`] alone.
    pub msix: Msix,
    isr: AtomicU8,
    /// Vectors are set by the driver and read by those who raise; nothing else is told by them, so all accesses to them are
    /// relaxed.
    config_vector: AtomicU16,
    queue_vectors: Box<[AtomicU16]>,
    generation: AtomicU8,
    needs_reset: AtomicBool,
    pin: Mutex<Pin>,
    calls: Calls,
}

#[derive(Default)]
struct Pin {
    line: Option<Line>,
    disabled: bool,
    level: bool,
}

impl Signals {
    /// One vector for each queue, and one for the configuration.
    pub fn new(queues: usize) -> Self {
        Self {
            msix: Msix::new(queues as u16 + 1),
            isr: AtomicU8::new(0),
            config_vector: AtomicU16::new(NO_VECTOR),
            queue_vectors: (0..queues).map(|_| AtomicU16::new(NO_VECTOR)).collect(),
            generation: AtomicU8::new(0),
            needs_reset: AtomicBool::new(false),
            pin: Mutex::default(),
            calls: Calls::default(),
        }
    }

    /// Changes the messages. Nothing goes the way of before when this returns.
    pub fn change_messages(&self, change: impl FnOnce(&Msix)) {
        change(&self.msix);
        self.update_calls();
    }

    fn update_calls(&self) {
        self.calls.update(|queue| self.line(queue));
    }

    /// Where the interrupt of `queue` leads now, if it is a message.
    fn line(&self, queue: u16) -> Option<Line> {
        self.msix.line(self.queue_vector(queue.into()))
    }

    pub fn connect(&self, messages: Arc<dyn Messages>, line: Line) {
        self.msix.connect(messages);
        self.update_pin(|pin| pin.line = Some(line));
    }

    /// Changes with the device's configuration, so that a driver notices that it read half of each.
    pub fn generation(&self) -> u8 {
        self.generation.load(Ordering::Acquire)
    }

    pub fn config_vector(&self) -> u16 {
        self.config_vector.load(Ordering::Relaxed)
    }

    /// A vector that does not exist becomes none, which the driver reads back.
    pub fn set_config_vector(&self, vector: u16) {
        self.config_vector.store(self.existing(vector), Ordering::Relaxed);
    }

    pub fn queue_vector(&self, queue: usize) -> u16 {
        self.queue_vectors.get(queue).map_or(NO_VECTOR, |vector| vector.load(Ordering::Relaxed))
    }

    pub fn set_queue_vector(&self, queue: usize, vector: u16) {
        if let Some(held) = self.queue_vectors.get(queue) {
            held.store(self.existing(vector), Ordering::Relaxed);
            self.update_calls();
        }
    }

    fn existing(&self, vector: u16) -> u16 {
        if vector < self.msix.count() { vector } else { NO_VECTOR }
    }

    /// Whether the device is broken until its reset.
    pub fn broken(&self) -> bool {
        self.needs_reset.load(Ordering::Acquire)
    }

    /// Makes it so, without a word to a driver that is not ready for one.
    pub fn set_broken(&self) {
        self.needs_reset.store(true, Ordering::Release);
    }

    /// Reads the interrupt status register, which clears it.
    pub fn take_isr(&self) -> u8 {
        let isr = self.isr.swap(0, Ordering::AcqRel);
        self.update_pin(|_| {});
        isr
    }

    /// The interrupt status bit of the PCI status register.
    pub fn pending(&self) -> bool {
        self.isr.load(Ordering::Acquire) != 0 && !self.msix.enabled()
    }

    /// Takes over message control, and whether the pin is switched off.
    pub fn configure(&self, control: u16, pin_disabled: bool) {
        self.change_messages(|msix| msix.set_control(control));
        self.update_pin(|pin| pin.disabled = pin_disabled);
    }

    /// The state after a reset of the device. MSI-X is PCI's and stays.
    pub fn reset(&self) {
        self.config_vector.store(NO_VECTOR, Ordering::Relaxed);
        for vector in &self.queue_vectors {
            vector.store(NO_VECTOR, Ordering::Relaxed);
        }
        self.update_calls();
        self.needs_reset.store(false, Ordering::Release);
        self.take_isr();
    }

    fn raise_isr(&self, bits: u8) {
        self.isr.fetch_or(bits, Ordering::AcqRel);
        self.update_pin(|_| {});
    }

    /// Brings the pin up to what it depends on. Whoever changes that comes here afterwards, so the last one in sees it all.
    fn update_pin(&self, change: impl FnOnce(&mut Pin)) {
        let mut pin = self.pin.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut pin);
        let level = self.pending() && !pin.disabled;
        let Some(line) = pin.line.as_ref().filter(|_| pin.level != level) else { return };
        if let Err(error) = line.set(level) {
            tracing::debug!(%error, "the interrupt pin leads to no source");
        }
        pin.level = level;
    }
}

impl Interrupts for Signals {
    fn used(&self, queue: u16) {
        if self.msix.enabled() {
            self.msix.raise(self.queue_vector(usize::from(queue)));
        } else {
            self.raise_isr(ISR_QUEUE);
        }
    }

    fn lead(&self, queue: u16, call: Option<Arc<OwnedFd>>) {
        self.calls.set(queue, call, |queue| self.line(queue));
    }

    fn config_changed(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        // Said in the register with MSI-X too (4.1.4.5.1).
        self.raise_isr(ISR_CONFIG);
        if self.msix.enabled() {
            self.msix.raise(self.config_vector());
        }
    }

    fn needs_reset(&self) {
        self.set_broken();
        self.config_changed();
    }
}
