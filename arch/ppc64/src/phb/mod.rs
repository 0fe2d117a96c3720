//! The PCI host bridge: what of it the machine answers for, in front of the bus and its functions.
//!
//! ```text
//!  vCPU: load, store ──window──▶ bus ──▶ function ──message──▶ router ──▶ interrupt source (MSI)
//!        RTAS ──config──▶ bus               │ └────pin──────────────────▶ interrupt source (LSI)
//!             ──change-msi──▶ function      ▼
//!        H_PUT_TCE ──▶ table of entries ◀── guest memory by bus addresses
//! ```
//!
//! What must hold: a guest reaches a function by its configuration space and its base address registers alone, and
//! interrupts by messages only those sources that are the bridge's own.

mod messages;
mod mmio;
pub mod tce;
pub mod window;

pub use messages::{MessageSources, Router};
pub use mmio::Mmio;

use crate::layout::{IRQ_PCI_LSI, PCI_BUID};
use crate::tree::PciFunction;
use arch_api::ppc64::{Bind, Partition, Trigger};
use devices::pci::{Bus, DoorbellPort, ResetError};
use irq::{Levels, Line, Sink};
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tce::TceTable;
use vmm_sys_util::eventfd::EventFd;

/// The host bridge, its bus and its DMA window.
pub struct Phb {
    bus: Bus,
    messages: MessageSources,
    /// What the pins go through, once the bridge is connected.
    pins: OnceLock<Levels>,
    tces: Arc<TceTable>,
    /// Functions that could not be quiesced.
    stuck: Mutex<Option<ResetError>>,
}

/// How long devices have to stop. What they wait for is the host's storage, which takes seconds when it is busy.
const QUIESCE: Duration = Duration::from_secs(10);

impl Phb {
    /// A bridge in front of `bus`, none where that is empty; `tces` is what its functions go through.
    #[must_use]
    pub fn new(bus: Bus, tces: Arc<TceTable>) -> Option<Self> {
        bus.functions().next()?;
        let messages = MessageSources::new(&bus);
        Some(Self { bus, messages, pins: OnceLock::new(), tces, stuck: Mutex::default() })
    }

    /// Its interrupt sources, ascending.
    pub fn sources(&self) -> impl Iterator<Item = (u32, Trigger)> {
        let pins = self.bus.functions().map(|(devfn, _)| (lsi(devfn >> 3), Trigger::Level));
        pins.chain(self.messages.all().map(|source| (source, Trigger::Edge)))
    }

    /// Its functions, as the tree shows them.
    #[must_use]
    pub fn functions(&self) -> Vec<PciFunction> {
        let describe = |(devfn, function): (u8, &Arc<dyn devices::pci::Function>)| PciFunction {
            devfn,
            identity: function.identity(),
            bars: function.bars().to_vec(),
            messages: self.messages.of(devfn).map_or(0, |sources| sources.len() as u16),
            lsi: lsi(devfn >> 3),
        };
        self.bus.functions().map(describe).collect()
    }

    /// Connects the functions with the machine: their interrupts with `sink`, their doorbells with `partition`. Called once.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn connect(&self, sink: &Arc<dyn Sink>, partition: &Arc<dyn Partition>) -> io::Result<()> {
        let router = Router::new(Arc::clone(sink), self.messages.all());
        let lines = self.bus.functions().map(|(devfn, _)| Line::new(Arc::clone(sink), lsi(devfn >> 3)));
        let pins = Levels::start(lines)?;
        let intx = |slot| pins.input(lsi(slot));
        self.bus.connect(&(Arc::new(router) as _), intx, Arc::new(Doorbells(Arc::clone(partition))));
        // Called once.
        let _ = self.pins.set(pins);
        Ok(())
    }

    /// The bus that `buid` names.
    #[must_use]
    pub fn bus(&self, buid: u64) -> Option<&Bus> {
        (buid == PCI_BUID).then_some(&self.bus)
    }

    /// The interrupt sources of messages.
    #[must_use]
    pub fn messages(&self) -> &MessageSources {
        &self.messages
    }

    /// The DMA window's table.
    #[must_use]
    pub fn tces(&self) -> &TceTable {
        &self.tces
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
    /// When some were not when they were last [quiesced](Phb::quiesce): what they do late would be done to the next guest.
    pub fn reset(&self) -> Result<(), ResetError> {
        self.messages.reset();
        self.tces.reset();
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }
}

/// The interrupt source of a slot's pin.
fn lsi(slot: u8) -> u32 {
    IRQ_PCI_LSI + u32::from(slot)
}

/// Doorbells as the hypervisor takes them: by guest physical address, and any width, which is the cheapest for it.
struct Doorbells(Arc<dyn Partition>);

impl Doorbells {
    fn bind(&self, address: u64, event: &EventFd, bind: Bind) -> io::Result<()> {
        let address = window::to_cpu(address).ok_or(io::ErrorKind::NotFound)?;
        self.0.ioeventfd(address, 0, event, bind).map_err(|error| error.source)
    }
}

impl DoorbellPort for Doorbells {
    fn add(&self, address: u64, event: &EventFd) -> io::Result<()> {
        self.bind(address, event, Bind::Add)
    }

    fn remove(&self, address: u64, event: &EventFd) -> io::Result<()> {
        self.bind(address, event, Bind::Remove)
    }
}
