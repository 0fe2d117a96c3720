//! A machine with one virtio device, and a driver for it: by configuration space and MMIO on a bus, in the order that Linux'
//! `virtio_pci_modern` has. For the tests of the transport and of the devices.

mod driver;

pub use driver::*;

use super::{Host, VirtioPci};
use crate::dma::{self, Translate};
use crate::pci::{Bus, DoorbellPort};
use crate::virtio::{Device, Running, Work, Workers};
use irq::{Line, Message, Messages, Sink};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use vm_memory::{GuestAddress, GuestMemoryMmap, Permissions};
use vmm_sys_util::eventfd::EventFd;

/// Bytes of guest memory, from address 0.
pub const MEMORY: u64 = 16 << 20;

/// Where the bridge has memory for devices that go through it.
pub const WINDOW: u64 = 0x800_0000_0000_0000;

/// Source of the interrupt pin. The vectors' sources follow it.
pub const PIN: u32 = 100;

/// How long a test waits for something that has to happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `what` says so.
pub fn eventually(what: impl Fn() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < PATIENCE, "it never happened");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// An interrupt controller that counts.
#[derive(Default)]
pub struct Controller {
    /// By source: how often it was raised, and its level.
    sources: Mutex<BTreeMap<u32, (usize, bool)>>,
}

impl Controller {
    /// How often the source was raised.
    pub fn raised(&self, gsi: u32) -> usize {
        self.sources.lock().unwrap().get(&gsi).map_or(0, |source| source.0)
    }

    /// The level that the source was set to last.
    pub fn level(&self, gsi: u32) -> bool {
        self.sources.lock().unwrap().get(&gsi).is_some_and(|source| source.1)
    }
}

impl Sink for Controller {
    fn set(&self, gsi: u32, level: bool) -> io::Result<()> {
        let mut sources = self.sources.lock().unwrap();
        let source = sources.entry(gsi).or_default();
        *source = (source.0 + usize::from(level), level);
        Ok(())
    }
}

/// The bridge's translation.
#[derive(Debug)]
struct Window;

impl Translate for Window {
    fn page_shift(&self) -> u32 {
        12
    }

    fn page(&self, address: u64) -> Option<(u64, Permissions)> {
        let page = address.checked_sub(WINDOW)?;
        (page < MEMORY).then_some((page, Permissions::ReadWrite))
    }
}

/// Messages whose data is the source.
struct Router(Arc<Controller>);

impl Messages for Router {
    fn route(&self, message: Message) -> Option<Line> {
        (message.data != 0).then(|| Line::new(self.0.clone(), message.data))
    }
}

/// The addresses of the doorbells that are registered.
#[derive(Default)]
pub struct Port {
    pub doorbells: Mutex<BTreeSet<u64>>,
    /// Refuses what comes.
    pub full: AtomicBool,
}

impl DoorbellPort for Port {
    fn add(&self, address: u64, _: &EventFd) -> io::Result<()> {
        if self.full.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        assert!(self.doorbells.lock().unwrap().insert(address), "{address:#x} is there already");
        Ok(())
    }

    fn remove(&self, address: u64, _: &EventFd) -> io::Result<()> {
        assert!(self.doorbells.lock().unwrap().remove(&address), "{address:#x} is not there");
        Ok(())
    }
}

/// Workers that work when the test says so, on its thread.
#[derive(Default)]
pub struct ByHand {
    work: Mutex<Option<Work>>,
    /// Refuses what comes.
    pub refuse: AtomicBool,
    /// Keeps what has to stop, until [`let_go`](ByHand::let_go).
    pub hold: AtomicBool,
    held: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
}

impl ByHand {
    /// Whether a backend is at work.
    pub fn busy(&self) -> bool {
        self.work.lock().unwrap().is_some()
    }

    /// The backend's turn at each queue whose doorbell rang.
    pub fn turn(&self) {
        let mut work = self.work.lock().unwrap();
        let Some(running) = work.as_mut() else { return };
        let rang = |(_, event): &&(u16, Arc<EventFd>)| event.read().is_ok();
        let rang: Vec<_> = running.doorbells.iter().filter(rang).map(|(queue, _)| *queue).collect();
        for queue in rang {
            if running.backend.notified(queue).is_err() {
                let broken = work.take().unwrap();
                return broken.interrupts.needs_reset();
            }
        }
    }

    /// Drops what was held.
    pub fn let_go(&self) {
        let held = std::mem::take(&mut *self.held.lock().unwrap());
        held.into_iter().for_each(|done| done());
    }
}

/// [`ByHand`], as a transport has it.
pub struct Hand(pub Arc<ByHand>);

impl Workers for Hand {
    fn start(&self, mut work: Work) -> io::Result<Box<dyn Running>> {
        if self.0.refuse.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let queues: Vec<_> = work.doorbells.iter().map(|(queue, _)| *queue).collect();
        for queue in queues {
            if work.backend.notified(queue).is_err() {
                work.interrupts.needs_reset();
            }
        }
        assert!(self.0.work.lock().unwrap().replace(work).is_none(), "two backends at once");
        Ok(Box::new(Self(self.0.clone())))
    }
}

impl Running for Hand {
    fn stop(self: Box<Self>, done: Box<dyn FnOnce() + Send>) {
        let hand = self.0.clone();
        let end = move || {
            hand.work.lock().unwrap().take();
            done();
        };
        match self.0.hold.load(Ordering::Relaxed) {
            true => self.0.held.lock().unwrap().push(Box::new(end)),
            false => end(),
        }
    }
}

/// A machine with one device, in slot 0.
pub struct Machine {
    pub bus: Arc<Bus>,
    pub function: Arc<VirtioPci>,
    pub memory: GuestMemoryMmap,
    pub controller: Arc<Controller>,
    pub port: Arc<Port>,
}

impl Machine {
    /// The machine's reset, which waits for the worker.
    pub fn reset(&self) {
        self.bus.reset(PATIENCE).unwrap();
    }

    /// A machine whose devices are run by `workers`.
    pub fn new(device: Arc<dyn Device>, workers: Arc<dyn Workers>) -> Self {
        Self::with(device, workers, false)
    }

    /// Likewise; the device is [`translated`](Host::translated), by a bridge that has memory at [`WINDOW`].
    pub fn translated(device: Arc<dyn Device>, workers: Arc<dyn Workers>) -> Self {
        Self::with(device, workers, true)
    }

    fn with(device: Arc<dyn Device>, workers: Arc<dyn Workers>, translated: bool) -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).unwrap();
        let host = Host { memory: dma::memory(memory.clone(), Arc::new(Window)), workers, translated };
        let function = Arc::new(VirtioPci::new(device, host).unwrap());
        let mut bus = Bus::new(vec![0x8000_0000..0x1_0000_0000, 0x2100_0000_0000..0x2200_0000_0000]);
        bus.add(function.clone()).unwrap();
        let controller = Arc::<Controller>::default();
        let port = Arc::<Port>::default();
        let messages: Arc<dyn Messages> = Arc::new(Router(controller.clone()));
        bus.connect(&messages, |_| Line::new(controller.clone(), PIN), port.clone());
        Self { bus: Arc::new(bus), function, memory, controller, port }
    }
}
