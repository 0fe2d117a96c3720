//! virtio over PCI (VIRTIO 1.2, 4.1), modern only.
//!
//! ```text
//!  configuration space ──▶ pci::Config ──capability window──┐
//!  BAR 0 ──▶ layout ──▶ common configuration ──▶ Lifecycle ─┤─▶ Device, Workers
//!                   ├─▶ notify ──▶ doorbell (eventfd) ──────┼─▶ the worker that runs the backend
//!                   ├─▶ ISR ──▶ Signals                     │
//!                   └─▶ device configuration ──▶ Device ◀───┘
//!  BAR 2 ──▶ pci::Msix
//! ```
//!
//! The status machine is drawn in `common.rs`, start and stop in `lifecycle.rs`. Always true: no access waits, and none can
//! do more than break this device, which its reset repairs.

mod common;
mod layout;
mod lifecycle;
mod signals;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use super::{Device, Kind, Workers};
use crate::dma::Memory;
use crate::pci::{Bar, Config, Doorbell, Function, Identity, Msix, Stuck};
use irq::{Line, Message, Messages};
use layout::{Capabilities, Place};
use lifecycle::Lifecycle;
use signals::Signals;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// virtio's vendor ID.
const VENDOR: u16 = 0x1af4;

/// The device ID is this plus the device's type.
const MODERN: u16 = 0x1040;

/// Where message control is in its capability.
const CONTROL: u16 = 2;

/// What the machine gives to its virtio devices.
#[derive(Clone)]
pub struct Host {
    /// Guest memory.
    pub memory: Memory,
    /// What runs the devices at work.
    pub workers: Arc<dyn Workers>,
    /// Whether they reach memory through the host bridge's translation, and through nothing else: a driver has to accept
    /// VIRTIO_F_ACCESS_PLATFORM then.
    pub translated: bool,
}

/// A virtio device as a function on a PCI bus.
pub struct VirtioPci {
    identity: Identity,
    bars: [Bar; 2],
    doorbells: Vec<Doorbell>,
    capabilities: Capabilities,
    /// Held while what follows from a write is done, so that writes take effect in their order; by no one who raises.
    config: Mutex<Config>,
    signals: Arc<Signals>,
    lifecycle: Arc<Lifecycle>,
}

impl VirtioPci {
    /// The function of `device`.
    ///
    /// # Errors
    /// When the host has no eventfd for a queue.
    ///
    /// # Panics
    /// When the device has a queue whose size is none, or too many of them: its own mistake.
    pub fn new(device: Arc<dyn Device>, host: Host) -> io::Result<Self> {
        let queues = device.queues().len();
        assert!(
            queues <= layout::MOST_QUEUES && queues < usize::from(crate::pci::MSIX_MOST),
            "{queues} queues"
        );
        assert!(device.queues().iter().all(|size| size.is_power_of_two()), "{:?}", device.queues());
        let event = |_| EventFd::new(EFD_NONBLOCK).map(Arc::new);
        let events: Vec<_> = (0..queues).map(event).collect::<io::Result<_>>()?;
        let doorbell = |(queue, event): (usize, &Arc<EventFd>)| layout::doorbell(queue as u16, event.clone());

        let identity = identity(device.kind());
        let signals = Arc::new(Signals::new(queues));
        let bars = [layout::BAR, signals.msix.bar(layout::MSIX_BAR)];
        let mut config = Config::new(&identity, &bars);
        Ok(Self {
            identity,
            bars,
            doorbells: events.iter().enumerate().map(doorbell).collect(),
            capabilities: layout::add_capabilities(&mut config, queues, &signals.msix),
            config: Mutex::new(config),
            lifecycle: Arc::new(Lifecycle::new(device, host, events, signals.clone())),
            signals,
        })
    }

    fn configuration(&self) -> MutexGuard<'_, Config> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an access to configuration space touches `length` bytes at `at`.
    fn touches(offset: u16, data: &[u8], at: u16, length: u16) -> bool {
        let end = usize::from(offset) + data.len();
        usize::from(offset) < usize::from(at + length) && usize::from(at) < end
    }

    /// What an access to configuration space does through the capability window, if it touches its bytes and they point to
    /// something: register, offset and length.
    fn through_window(&self, config: &Config, offset: u16, data: &[u8]) -> Option<(u8, u64, usize)> {
        let at = self.capabilities.window;
        let [bar] = config.get(at + layout::WINDOW_BAR);
        let place = u32::from_le_bytes(config.get(at + layout::WINDOW_OFFSET));
        let length = u32::from_le_bytes(config.get(at + layout::WINDOW_LENGTH));
        let proper = matches!(length, 1 | 2 | 4) && place % length == 0;
        (proper && Self::touches(offset, data, at + layout::WINDOW_DATA, 4)).then_some((
            bar,
            place.into(),
            length as usize,
        ))
    }

    /// Whether an access is one, and lies behind a register that the function has.
    fn behind(&self, bar: u8, offset: u64, length: usize) -> bool {
        if !matches!(length, 1 | 2 | 4 | 8) {
            return false;
        }
        let end = offset.checked_add(length as u64);
        self.bars.iter().any(|found| found.index == bar && end.is_some_and(|end| end <= found.size))
    }

    /// Takes over what the function itself reads from configuration space.
    fn reconfigure(&self, config: &Config) {
        let control = u16::from_le_bytes(config.get(self.capabilities.msix + CONTROL));
        self.signals.configure(control, config.intx_disabled());
    }
}

impl Function for VirtioPci {
    fn identity(&self) -> Identity {
        self.identity
    }

    fn bars(&self) -> &[Bar] {
        &self.bars
    }

    fn vectors(&self) -> u16 {
        self.signals.msix.count()
    }

    fn connect(&self, messages: Arc<dyn Messages>, intx: Line) {
        self.signals.connect(messages, intx);
    }

    fn config(&self, offset: u16, data: &mut [u8]) {
        let mut config = self.configuration();
        if let Some((bar, at, length)) = self.through_window(&config, offset, data) {
            drop(config);
            let mut bytes = [0; 4];
            self.read(bar, at, &mut bytes[..length]);
            config = self.configuration();
            config.set(self.capabilities.window + layout::WINDOW_DATA, &bytes[..length]);
        }
        config.set_interrupt_status(self.signals.pending());
        config.read(offset, data);
    }

    fn set_config(&self, offset: u16, data: &[u8]) -> bool {
        let mut config = self.configuration();
        let changed = config.write(offset, data);
        let control = self.capabilities.msix + CONTROL;
        if Self::touches(offset, data, control, 2) || Self::touches(offset, data, Config::COMMAND, 2) {
            self.reconfigure(&config);
        }
        if let Some((bar, at, length)) = self.through_window(&config, offset, data) {
            let bytes: [u8; 4] = config.get(self.capabilities.window + layout::WINDOW_DATA);
            drop(config);
            self.write(bar, at, &bytes[..length]);
        }
        changed
    }

    fn address(&self, bar: u8) -> Option<u64> {
        self.configuration().address(bar)
    }

    fn doorbells(&self) -> &[Doorbell] {
        &self.doorbells
    }

    fn read(&self, bar: u8, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if !self.behind(bar, offset, data.len()) {
            return;
        }
        if bar == layout::MSIX_BAR {
            return self.signals.msix.read(offset, data);
        }
        match layout::place(offset, data.len()) {
            Some(Place::Common(at)) => self.lifecycle.read(at, data),
            Some(Place::Isr) => {
                data.fill(0);
                data[0] = self.signals.take_isr();
            }
            Some(Place::Device(at)) => {
                data.fill(0);
                self.lifecycle.device.config(at, data);
            }
            // A notify register only tells.
            Some(Place::Notify(_)) | None => {}
        }
    }

    fn write(&self, bar: u8, offset: u64, data: &[u8]) {
        if !self.behind(bar, offset, data.len()) {
            return;
        }
        if bar == layout::MSIX_BAR {
            return self.signals.msix.write(offset, data);
        }
        match layout::place(offset, data.len()) {
            Some(Place::Common(at)) => self.lifecycle.write(at, data),
            Some(Place::Device(at)) => self.lifecycle.device.set_config(at, data),
            Some(Place::Notify(queue)) => {
                if let Some(doorbell) = self.doorbells.get(queue) {
                    // It fails only when the counter is about to overflow, and then the worker has been told.
                    _ = doorbell.event.write(1);
                }
            }
            Some(Place::Isr) | None => {}
        }
    }

    fn set_message(&self, vector: u16, message: Message) {
        self.signals.msix.set_message(vector, message);
    }

    fn enable_messages(&self, enabled: bool) {
        let mut config = self.configuration();
        let at = self.capabilities.msix + CONTROL;
        let control = Msix::switched(u16::from_le_bytes(config.get(at)), enabled);
        config.set(at, &control.to_le_bytes());
        self.reconfigure(&config);
    }

    fn stop(&self) {
        self.lifecycle.begin_reset();
    }

    fn reset(&self, deadline: Instant) -> Result<(), Stuck> {
        if !self.lifecycle.reset(deadline) {
            return Err(Stuck(self.lifecycle.device.name().to_owned()));
        }
        let mut config = self.configuration();
        config.reset();
        self.signals.msix.reset();
        self.reconfigure(&config);
        Ok(())
    }
}

/// The numbers of a device of kind `kind`. The class is what drivers go by that know nothing of virtio.
fn identity(kind: Kind) -> Identity {
    let class = match kind {
        Kind::Net => 0x02_00_00,
        Kind::Block => 0x01_00_00,
        Kind::Console | Kind::Socket => 0x07_80_00,
        Kind::Entropy | Kind::Balloon => 0xff_00_00,
    };
    Identity {
        vendor: VENDOR,
        device: MODERN + kind as u16,
        // 1 and a subsystem of 0x40 or more say that there is nothing before virtio 1.0 (4.1.2.1).
        revision: 1,
        class,
        subsystem_vendor: VENDOR,
        subsystem: MODERN + kind as u16,
    }
}
