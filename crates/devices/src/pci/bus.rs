//! One bus: where its functions sit, and which of them answers at an address.
//!
//! ```text
//!  config write ──▶ Function ──what it decodes changed──▶ refresh: a new table, doorbells moved     (one at a time)
//!                                                           │
//!  MMIO ──▶ table (sorted, no lock) ──▶ Function::read/write ◀┘
//! ```
//!
//! Always true:
//! - Windows in the table are disjoint and lie wholly in the bridge's. Where a guest has two overlap, the lower slot
//!   answers, and the other not at all until it is alone.
//! - A doorbell is registered with the port where its window is in the table, and nowhere else; one that the port refuses
//!   works by exits.
//! - A vCPU's MMIO takes no lock. The one of `refresh` is held by vCPUs that change what is decoded, and by no handler.

use super::{Doorbell, Function, Stuck};
use arc_swap::ArcSwap;
use irq::{Line, Messages};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, Once, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use vmm_sys_util::eventfd::EventFd;

/// Device slots of a bus.
const SLOTS: usize = 32;

/// Bytes of a function's configuration space.
const CONFIG: usize = 4096;

/// Takes writes to a doorbell without an exit, where the architecture can (KVM_IOEVENTFD).
pub trait DoorbellPort: Send + Sync {
    /// From now on a write of 2 or 4 bytes to bus address `address` writes `event`.
    ///
    /// # Errors
    /// When the hypervisor refuses; such writes then come by exits.
    fn add(&self, address: u64, event: &EventFd) -> io::Result<()>;

    /// Takes back what [`add`](DoorbellPort::add) did with the same arguments.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    fn remove(&self, address: u64, event: &EventFd) -> io::Result<()>;
}

/// All slots of a bus are taken.
#[derive(Debug, thiserror::Error)]
#[error("a PCI bus has {SLOTS} slots, and all are taken; remove a device")]
pub struct BusFull;

/// Devices whose work does not end: something of the host's hangs, such as the storage behind a disk. They may still touch guest
/// memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no end within {} s of: {}", limit.as_secs(), devices.join(", "))]
pub struct ResetError {
    /// Their names.
    pub devices: Vec<String>,
    /// How long they were waited for.
    pub limit: Duration,
}

/// A bus with up to 32 devices of one function each.
pub struct Bus {
    windows: Vec<Range<u64>>,
    functions: Vec<Arc<dyn Function>>,
    /// What is decoded, by ascending address.
    table: ArcSwap<Vec<Decoded>>,
    port: OnceLock<Arc<dyn DoorbellPort>>,
    /// What the port has. Held while the table and the registrations change.
    registered: Mutex<Vec<Registered>>,
    /// Whether the log has heard of the port's refusal.
    complained: Once,
}

/// What one base address register decodes.
#[derive(Clone)]
struct Decoded {
    range: Range<u64>,
    slot: usize,
    bar: u8,
    function: Arc<dyn Function>,
}

/// A doorbell that the port has taken.
#[derive(Clone)]
struct Registered {
    address: u64,
    event: Arc<EventFd>,
}

impl PartialEq for Registered {
    fn eq(&self, other: &Self) -> bool {
        self.address == other.address && Arc::ptr_eq(&self.event, &other.event)
    }
}

impl Bus {
    /// An empty bus behind a bridge that passes on the bus addresses in `windows`.
    #[must_use]
    pub fn new(windows: Vec<Range<u64>>) -> Self {
        Self {
            windows,
            functions: Vec::new(),
            table: ArcSwap::default(),
            port: OnceLock::new(),
            registered: Mutex::default(),
            complained: Once::new(),
        }
    }

    /// Puts a function into the next slot, and says which that is.
    ///
    /// # Errors
    /// [`BusFull`].
    pub fn add(&mut self, function: Arc<dyn Function>) -> Result<u8, BusFull> {
        if self.functions.len() == SLOTS {
            return Err(BusFull);
        }
        self.functions.push(function);
        Ok((self.functions.len() - 1) as u8)
    }

    /// The functions with their device and function number (`slot << 3`), ascending.
    pub fn functions(&self) -> impl Iterator<Item = (u8, &Arc<dyn Function>)> {
        self.functions.iter().enumerate().map(|(slot, function)| ((slot << 3) as u8, function))
    }

    /// The function `devfn`.
    #[must_use]
    pub fn function(&self, devfn: u8) -> Option<&Arc<dyn Function>> {
        self.functions.get(usize::from(devfn >> 3)).filter(|_| devfn & 7 == 0)
    }

    /// Gives the functions their interrupts, and the bus its port for doorbells, once, before the guest first runs. `intx`
    /// is the line of a slot's interrupt pin (A).
    pub fn connect(
        &self,
        messages: &Arc<dyn Messages>,
        intx: impl Fn(u8) -> Line,
        port: Arc<dyn DoorbellPort>,
    ) {
        for (devfn, function) in self.functions() {
            function.connect(messages.clone(), intx(devfn >> 3));
        }
        if self.port.set(port).is_ok() {
            self.refresh();
        }
    }

    /// Reads configuration space: 1, 2 or 4 bytes, little-endian. What is not there, or not aligned, reads as ones.
    pub fn config(&self, devfn: u8, offset: u16, data: &mut [u8]) {
        match self.function(devfn).filter(|_| proper(offset, data.len())) {
            Some(function) => function.config(offset, data),
            None => data.fill(0xff),
        }
    }

    /// Writes configuration space, likewise. What is not there, or not aligned, is ignored.
    pub fn set_config(&self, devfn: u8, offset: u16, data: &[u8]) {
        let Some(function) = self.function(devfn).filter(|_| proper(offset, data.len())) else { return };
        if function.set_config(offset, data) {
            self.refresh();
        }
    }

    /// Reads from memory space. `false` if nothing answers there; `data` is then as it was.
    #[must_use]
    pub fn read(&self, address: u64, data: &mut [u8]) -> bool {
        let table = self.table.load();
        let Some((decoded, offset)) = find(&table, address, data.len()) else { return false };
        decoded.function.read(decoded.bar, offset, data);
        true
    }

    /// Writes to memory space. `false` if nothing answers there.
    #[must_use]
    pub fn write(&self, address: u64, data: &[u8]) -> bool {
        let table = self.table.load();
        let Some((decoded, offset)) = find(&table, address, data.len()) else { return false };
        decoded.function.write(decoded.bar, offset, data);
        true
    }

    /// The power-on state of all functions. When it returns none of them touches guest memory any more. Called while no
    /// vCPU runs; waits for the functions' workers, for `limit` at most.
    ///
    /// # Errors
    /// [`ResetError`]; the others have been reset.
    pub fn reset(&self, limit: Duration) -> Result<(), ResetError> {
        self.functions.iter().for_each(|function| function.stop());
        let deadline = Instant::now() + limit;
        let reset = |function: &Arc<dyn Function>| function.reset(deadline).err();
        let stuck: Vec<String> = self.functions.iter().filter_map(reset).map(|Stuck(name)| name).collect();
        self.refresh();
        if stuck.is_empty() { Ok(()) } else { Err(ResetError { devices: stuck, limit }) }
    }

    /// Brings the table and the registered doorbells up to what the functions decode now.
    fn refresh(&self) {
        // The lock comes before the look at the functions: whoever has changed one comes here after the change, so the last
        // one in sees them all.
        let mut registered = self.registered.lock().unwrap_or_else(PoisonError::into_inner);
        let table = self.decode();
        let wanted: Vec<_> = table.iter().flat_map(Decoded::doorbells).collect();
        if let Some(port) = self.port.get() {
            // What the port keeps is asked for again at the next change.
            registered
                .retain(|old| wanted.contains(old) || !self.done(old, port.remove(old.address, &old.event)));
            for new in wanted {
                if !registered.contains(&new) && self.done(&new, port.add(new.address, &new.event)) {
                    registered.push(new);
                }
            }
        }
        self.table.store(Arc::new(table));
    }

    /// Whether the port did as it was asked.
    fn done(&self, doorbell: &Registered, result: io::Result<()>) -> bool {
        if let Err(error) = &result {
            // Once: a guest can have this as often as it likes.
            self.complained.call_once(|| {
                tracing::warn!(%error, address = doorbell.address, "a doorbell could not be moved; it costs exits");
            });
        }
        result.is_ok()
    }

    /// What the functions decode now, without what overlaps or lies outside the bridge's windows.
    fn decode(&self) -> Vec<Decoded> {
        let mut table: Vec<Decoded> = Vec::new();
        for (slot, function) in self.functions.iter().enumerate() {
            for bar in function.bars() {
                let Some(start) = function.address(bar.index) else { continue };
                let Some(end) = start.checked_add(bar.size) else { continue };
                if !self.windows.iter().any(|window| window.start <= start && end <= window.end) {
                    continue;
                }
                if let Some(other) = table.iter().find(|d| start < d.range.end && d.range.start < end) {
                    tracing::debug!(slot, bar = bar.index, start, other.slot, other.bar, "windows overlap");
                    continue;
                }
                table.push(Decoded { range: start..end, slot, bar: bar.index, function: function.clone() });
            }
        }
        table.sort_unstable_by_key(|decoded| decoded.range.start);
        table
    }
}

impl Decoded {
    fn doorbells(&self) -> impl Iterator<Item = Registered> {
        let here = |doorbell: &&Doorbell| doorbell.bar == self.bar;
        self.function.doorbells().iter().filter(here).map(|doorbell| Registered {
            address: self.range.start + doorbell.offset,
            event: doorbell.event.clone(),
        })
    }
}

/// Whether an access to configuration space is one that functions know.
fn proper(offset: u16, length: usize) -> bool {
    matches!(length, 1 | 2 | 4) && usize::from(offset) % length == 0 && usize::from(offset) < CONFIG
}

/// What answers to an access, and at which offset. It has to answer to all of it.
fn find(table: &[Decoded], address: u64, length: usize) -> Option<(&Decoded, u64)> {
    let decoded = table[..table.partition_point(|decoded| decoded.range.start <= address)].last()?;
    let end = address.checked_add(length as u64)?;
    (address < decoded.range.end && end <= decoded.range.end)
        .then(|| (decoded, address - decoded.range.start))
}

#[cfg(test)]
mod tests;
