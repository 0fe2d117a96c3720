//! The PCI host bridge: configuration space by ports (mechanism 1), a window for memory, messages and pins.
//!
//! ```text
//!  vCPU: out 0xcf8, in or out 0xcfc ─▶ slot 0: the bridge itself
//!                                      slot n: function n - 1 of the bus
//!        load, store in the window ──▶ bus ──▶ function ──message──▶ local APIC, as the guest wrote it
//!                                                └─────pin─────────▶ I/O APIC
//! ```
//!
//! Bus addresses are guest physical addresses: there is no translation. Slot 0 has to be a host bridge, or Linux does not believe that
//! the ports are PCI's.

mod messages;

pub use messages::Wires;

use crate::layout::{PCI_ADDRESS, PCI_DATA, PCI_WINDOW, PIN_PCI, PIN_PCI_COUNT};
use arch_api::Bind;
use arch_api::x86_64::Partition;
use devices::pci::{Bus, DoorbellPort, ResetError};
use irq::{Levels, Line, Sink};
use messages::Router;
use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use vmm_sys_util::eventfd::EventFd;

/// The bridge's own header: a host bridge that does nothing. Vendor and device are those of QEMU's, which no driver takes.
const HEADER: [u8; 16] = [0x36, 0x1b, 0x08, 0x00, 0, 0, 0, 0, 0, 0x00, 0x00, 0x06, 0, 0, 0, 0];

/// How long the functions may take to stop.
const QUIESCE: Duration = Duration::from_secs(10);

/// The address register: what follows is an access to configuration space.
const ENABLE: u32 = 1 << 31;

/// The bus addresses that the bridge passes on.
#[must_use]
pub fn windows() -> Vec<Range<u64>> {
    vec![PCI_WINDOW]
}

/// The pin of a slot, as the guest counts them.
#[must_use]
pub fn pin(slot: u8) -> u32 {
    PIN_PCI + u32::from(slot) % PIN_PCI_COUNT
}

/// The bridge and its bus.
pub struct Bridge {
    bus: Bus,
    address: AtomicU32,
    /// What the pins go through, once the bridge is connected.
    pins: OnceLock<Levels>,
    /// Why the last quiesce has failed.
    stuck: Mutex<Option<ResetError>>,
}

impl Bridge {
    /// A bridge in front of `bus`, none where that is empty.
    #[must_use]
    pub fn new(bus: Bus) -> Option<Self> {
        bus.functions().next()?;
        Some(Self { bus, address: AtomicU32::new(0), pins: OnceLock::new(), stuck: Mutex::default() })
    }

    /// The slots that are taken, as the guest counts them, but for the bridge's own.
    pub fn slots(&self) -> impl Iterator<Item = u8> + '_ {
        self.bus.functions().map(|(devfn, _)| (devfn >> 3) + 1)
    }

    /// Connects the functions with the machine: their interrupts with `wires`, their doorbells with `partition`. Called once.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn connect(&self, wires: &Arc<dyn Sink>, partition: &Arc<dyn Partition>) -> io::Result<()> {
        let shared: BTreeSet<u32> = self.slots().map(pin).collect();
        let pins = Levels::start(shared.into_iter().map(|pin| Line::new(Arc::clone(wires), pin)))?;
        let messages = Arc::new(Router::new(Arc::clone(wires)));
        let doorbells = Arc::new(Doorbells(Arc::clone(partition)));
        self.bus.connect(&(messages as _), |slot| pins.input(pin(slot + 1)), doorbells);
        // Called once.
        let _ = self.pins.set(pins);
        Ok(())
    }

    /// Reads one of the ports 0xcf8 to 0xcff.
    pub fn read_port(&self, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        if port == PCI_ADDRESS && data.len() == 4 {
            data.copy_from_slice(&self.address.load(Ordering::Relaxed).to_le_bytes());
        } else if let Some((devfn, offset)) = self.place(port) {
            match devfn >> 3 {
                0 if devfn == 0 => {
                    for (at, byte) in (usize::from(offset)..).zip(data) {
                        *byte = HEADER.get(at).copied().unwrap_or(0);
                    }
                }
                0 => {}
                _ => self.bus.config(devfn - (1 << 3), offset, data),
            }
        }
    }

    /// Writes one of the ports 0xcf8 to 0xcff.
    pub fn write_port(&self, port: u16, data: &[u8]) {
        match <[u8; 4]>::try_from(data) {
            Ok(bytes) if port == PCI_ADDRESS => {
                self.address.store(u32::from_le_bytes(bytes), Ordering::Relaxed);
            }
            _ => {
                if let Some((devfn, offset)) = self.place(port).filter(|(devfn, _)| devfn >> 3 != 0) {
                    self.bus.set_config(devfn - (1 << 3), offset, data);
                }
            }
        }
    }

    /// What the address register and the data port name: a function of bus 0 and an offset in its configuration space. Guests
    /// take turns at the two ports by a lock of theirs.
    fn place(&self, port: u16) -> Option<(u8, u16)> {
        let byte = port.checked_sub(PCI_DATA)?;
        let address = self.address.load(Ordering::Relaxed);
        let is_here = address & ENABLE != 0 && address >> 16 & 0xff == 0;
        is_here.then_some(((address >> 8) as u8, (address & 0xfc) as u16 + byte))
    }

    /// Reads from the window; ones where nobody answers.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        if !self.bus.read(address, data) {
            data.fill(0xff);
        }
    }

    /// Writes to the window. Nothing happens where nobody answers.
    pub fn write(&self, address: u64, data: &[u8]) {
        if !self.bus.write(address, data) {
            tracing::trace!(address, "a store where nothing is");
        }
    }

    /// The functions' power-on state: when it returns none of them touches guest memory any more, but those that the log has
    /// named, and then there is no reset.
    pub fn quiesce(&self) {
        let stuck = self.bus.reset(QUIESCE).err();
        if let Some(error) = &stuck {
            tracing::error!("devices do not stop, and may still touch guest memory: {error}");
        }
        *self.stuck.lock().unwrap_or_else(PoisonError::into_inner) = stuck;
    }

    /// The bridge's own power-on state. The functions are in theirs.
    ///
    /// # Errors
    /// When one of them is not.
    pub fn reset(&self) -> Result<(), ResetError> {
        self.address.store(0, Ordering::Relaxed);
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }
}

/// Doorbells as the hypervisor takes them: of any width, which is the cheapest for it.
struct Doorbells(Arc<dyn Partition>);

impl DoorbellPort for Doorbells {
    fn add(&self, address: u64, event: &EventFd) -> io::Result<()> {
        self.0.ioeventfd(address, 0, event, Bind::Add).map_err(|error| error.source)
    }

    fn remove(&self, address: u64, event: &EventFd) -> io::Result<()> {
        self.0.ioeventfd(address, 0, event, Bind::Remove).map_err(|error| error.source)
    }
}

#[cfg(test)]
mod tests;
