//! From the devices that the configuration names to functions on a bus.
//!
//! ```text
//!  config::devices::Devices ──open──▶ OpenDevices: what the host has, locked and ours ──bus──▶ pci::Bus, once there is memory
//! ```
//!
//! Whatever a device needs of the host is had before anything of the guest runs, or is an error that names its table and flag.
//! The order on the bus is that of [`Devices`], disks first: what a guest calls a device (`vda`) stays when others come.

use crate::config::ConsoleChoice;
use crate::config::devices::{Balloon, DeviceThreads, Devices, Disk, Net, Vsock};
use crate::exit_code::Outcome;
use devices::console::{Console, ConsoleError};
use devices::dma::Memory;
use devices::pci::Bus;
use devices::virtio::balloon::{self, Offer};
use devices::virtio::block::{self, Engine};
use devices::virtio::net::{self, Tap, TapError};
use devices::virtio::transport::{Host, VirtioPci};
use devices::virtio::vsock::{self, VsockError};
use devices::virtio::{Device, Threads, Workers, console, entropy};
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;
use vmm::HostPages;

/// A device that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// A disk.
    #[error("disk {number} ([[disk]], --disk) cannot be had")]
    Disk {
        /// Which, from 1.
        number: usize,
        /// Why.
        #[source]
        source: block::OpenError,
    },
    /// A network card.
    #[error("net {number} ([[net]], --net) cannot be had")]
    Net {
        /// Which, from 1.
        number: usize,
        /// Why.
        #[source]
        source: TapError,
    },
    /// The sockets.
    #[error("the vsock ([vsock], --vsock) cannot be had")]
    Vsock(#[from] VsockError),
    /// The second console.
    #[error("the second console (virtio in [console], --virtio-console) cannot be had")]
    Console(#[source] ConsoleError),
}

impl DeviceError {
    /// How the process ends for it.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Net { source: TapError::NoTun(_), .. } => Outcome::Host,
            Self::Disk { .. } | Self::Net { .. } | Self::Vsock(_) | Self::Console(_) => Outcome::Usage,
        }
    }
}

/// Queues of a disk.
const DISK_QUEUES: u16 = 1;

/// A VM's devices, ready to be put on a bus.
pub struct OpenDevices {
    /// In the order of the bus; and whether each goes through the host bridge's translation.
    devices: Vec<(Arc<dyn Device>, bool)>,
    threads: DeviceThreads,
    balloon: Option<Arc<balloon::Balloon>>,
    cards: Vec<Arc<net::Net>>,
}

impl OpenDevices {
    /// Opens what the devices need: images, taps, a console.
    ///
    /// # Errors
    /// The first that cannot be had.
    pub fn open(config: &Devices) -> Result<Self, DeviceError> {
        let Devices { disks, nets, vsock, rng, balloon, console, threads } = config;
        let mut devices: Vec<(Arc<dyn Device>, bool)> = Vec::new();
        let mut cards = Vec::new();
        for (number, disk) in (1..).zip(disks) {
            let opened = open_disk(disk).map_err(|source| DeviceError::Disk { number, source })?;
            devices.push((Arc::new(opened), disk.iommu));
        }
        for (number, net) in (1..).zip(nets) {
            let opened = Arc::new(open_net(net).map_err(|source| DeviceError::Net { number, source })?);
            cards.push(Arc::clone(&opened));
            devices.push((opened, net.iommu));
        }
        if let Some(vsock) = vsock {
            devices.push((Arc::new(open_vsock(vsock)?), vsock.iommu));
        }
        if let Some(rng) = rng {
            devices.push((Arc::new(entropy::Entropy::new(entropy::host)), rng.iommu));
        }
        let balloon = balloon.map(|said| Arc::new(new_balloon(said)));
        if let Some(balloon) = &balloon {
            devices.push((Arc::clone(balloon) as _, false));
        }
        if let Some(choice) = console {
            let opened = open_console(choice).map_err(DeviceError::Console)?;
            devices.push((Arc::new(opened), false));
        }
        Ok(Self { devices, threads: *threads, balloon, cards })
    }

    /// The bus that [`open`](Self::open) and [`bus`](Self::bus) give, to be looked at: nothing of the host's is opened.
    ///
    /// # Errors
    /// When the host has no eventfd, or the bus no slot.
    pub fn outline(config: &Devices, windows: Vec<Range<u64>>) -> io::Result<Bus> {
        let Devices { disks, nets, vsock, rng, balloon, console, .. } = config;
        let mut outlines = vec![block::outline(DISK_QUEUES); disks.len()];
        outlines.extend(vec![net::outline(); nets.len()]);
        outlines.extend(vsock.as_ref().map(|_| vsock::outline()));
        outlines.extend(rng.as_ref().map(|_| entropy::outline()));
        outlines.extend(balloon.as_ref().map(|_| balloon::outline()));
        outlines.extend(console.as_ref().map(|_| console::outline()));
        let mut bus = Bus::new(windows);
        for outline in outlines {
            bus.add(Arc::new(outline.function()?)).map_err(io::Error::other)?;
        }
        Ok(bus)
    }

    /// The balloon, whose target can change while the VM runs.
    #[must_use]
    pub fn balloon(&self) -> Option<Arc<balloon::Balloon>> {
        self.balloon.clone()
    }

    /// The network cards, which count.
    #[must_use]
    pub fn cards(&self) -> Vec<Arc<net::Net>> {
        self.cards.clone()
    }

    /// The devices as functions on a bus behind a bridge that passes on the bus addresses in `windows`, and their threads. To be
    /// called when the VM's signals are blocked, since the threads must not get them.
    ///
    /// # Errors
    /// When the host has no thread or eventfd, or the bus no slot.
    pub fn bus(self, windows: Vec<Range<u64>>, memory: &Memory) -> io::Result<Bus> {
        let mut bus = Bus::new(windows);
        if self.devices.is_empty() {
            return Ok(bus);
        }
        let workers = workers(self.threads)?;
        for (device, translated) in self.devices {
            let host = Host { memory: memory.clone(), workers: Arc::clone(&workers), translated };
            bus.add(Arc::new(VirtioPci::new(device, host)?)).map_err(io::Error::other)?;
        }
        Ok(bus)
    }
}

fn open_disk(disk: &Disk) -> Result<block::Disk, block::OpenError> {
    block::Disk::open(&disk.options(), disk.id.as_deref().unwrap_or_default(), DISK_QUEUES, Engine::Auto)
}

fn open_net(net: &Net) -> Result<net::Net, TapError> {
    Ok(net::Net::new(&net.tap, Tap::open(&net.tap)?, net.mac.bytes()))
}

fn open_vsock(vsock: &Vsock) -> Result<vsock::Vsock, VsockError> {
    vsock::Vsock::new(vsock.cid, &vsock.path)
}

fn new_balloon(said: Balloon) -> balloon::Balloon {
    let offer = Offer { deflate_on_oom: said.deflate_on_oom, reporting: said.free_page_reporting };
    let bytes = said.size.map_or(0, |size| size.bytes());
    balloon::Balloon::new(Arc::new(HostPages::new()), offer, bytes)
}

/// The host side of a console; where a pty is, is printed as `what`.
///
/// # Errors
/// When it cannot be opened.
pub fn host_console(choice: &ConsoleChoice, what: &str) -> Result<Console, ConsoleError> {
    let console = match choice {
        ConsoleChoice::Stdio => Console::stdio()?,
        ConsoleChoice::File(path) => Console::file(path)?,
        ConsoleChoice::Pty => Console::pty()?,
    };
    if let Some(path) = console.pty_path() {
        eprintln!("cede: {what} is {}", path.display());
    }
    Ok(console)
}

fn open_console(choice: &ConsoleChoice) -> Result<console::Console, ConsoleError> {
    let console = host_console(choice, "the guest's second console")?;
    Ok(console::Console::new(console, format!("console {choice}")))
}

fn workers(threads: DeviceThreads) -> io::Result<Arc<dyn Workers>> {
    match threads {
        DeviceThreads::Each => Ok(Arc::new(Threads::for_each())),
        DeviceThreads::Shared(count) => {
            let count = NonZeroUsize::new(count.into()).unwrap_or(NonZeroUsize::MIN);
            Ok(Arc::new(Threads::pool(count)?))
        }
    }
}

#[cfg(test)]
mod tests;
