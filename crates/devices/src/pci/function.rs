//! What a bus asks of a function on it.

use irq::{Line, Messages};
use std::sync::Arc;
use std::time::Instant;
use vmm_sys_util::eventfd::EventFd;

/// What a base address register decodes. I/O space is not offered: nothing modern needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BarKind {
    /// 32-bit memory.
    Memory32,
    /// 64-bit prefetchable memory: it takes the next register too.
    Memory64,
}

/// A base address register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    /// Its number, 0 to 5.
    pub index: u8,
    /// What it decodes.
    pub kind: BarKind,
    /// Bytes: a power of 2, at least 4 KiB.
    pub size: u64,
}

/// Numbers in the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision ID.
    pub revision: u8,
    /// Class code: base class, sub-class, interface (24 bits).
    pub class: u32,
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
}

/// A register that only tells: a write of any value, 2 or 4 bytes wide, is one event. The hypervisor may be asked to take
/// such writes without an exit (KVM_IOEVENTFD).
#[derive(Debug, Clone)]
pub struct Doorbell {
    /// The base address register that it is behind.
    pub bar: u8,
    /// Bytes from where that decodes.
    pub offset: u64,
    /// What is told.
    pub event: Arc<EventFd>,
}

/// A function. Every method can be called from any thread at any time, and none blocks.
pub trait Function: Send + Sync {
    /// Its numbers.
    fn identity(&self) -> Identity;

    /// Its base address registers, ascending.
    fn bars(&self) -> &[Bar];

    /// How many MSI-X vectors it has.
    fn vectors(&self) -> u16;

    /// Gives it its interrupts, once, before the guest first runs.
    fn connect(&self, messages: Arc<dyn Messages>, intx: Line);

    /// Reads configuration space: `data` has 1, 2 or 4 bytes, little-endian, and `offset` below 4096 is a multiple of that.
    fn config(&self, offset: u16, data: &mut [u8]);

    /// Writes configuration space, likewise. Says whether what the function decodes has changed.
    fn set_config(&self, offset: u16, data: &[u8]) -> bool;

    /// Where register `bar` decodes now: a bus address; `None` while memory decoding is off.
    fn address(&self, bar: u8) -> Option<u64>;

    /// Registers that only tell.
    fn doorbells(&self) -> &[Doorbell];

    /// Reads behind a base address register. 1, 2, 4 or 8 bytes; what is not there reads as ones.
    fn read(&self, bar: u8, offset: u64, data: &mut [u8]);

    /// Writes behind a base address register.
    fn write(&self, bar: u8, offset: u64, data: &[u8]);

    /// Sets MSI-X vector `vector`'s message, as the guest's firmware does (`ibm,change-msi`): the guest's driver never
    /// does on POWER.
    fn set_message(&self, vector: u16, message: irq::Message);

    /// Turns MSI-X on or off, as `ibm,change-msi` does.
    fn enable_messages(&self, enabled: bool);

    /// Has its work end, and does not wait for that: all functions of a bus end theirs at the same time. Called while no vCPU
    /// runs, before [`reset`](Function::reset).
    fn stop(&self) {}

    /// Its power-on state. When it returns nothing of the function touches guest memory any more. Called while no vCPU
    /// runs, so it may wait for a worker, until `deadline`.
    ///
    /// # Errors
    /// When its work has not ended by then. It is as it was, and may still touch guest memory.
    fn reset(&self, deadline: Instant) -> Result<(), Stuck>;
}

/// The name of a device whose work does not end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck(pub String);
