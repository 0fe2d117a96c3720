//! The contract between the transport, a device, and the thread that runs its queues.

use super::Ring;
use crate::dma::Memory;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use vmm_sys_util::eventfd::EventFd;

/// virtio's device types (5 Device Types).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// Network card.
    Net = 1,
    /// Block device.
    Block = 2,
    /// Console.
    Console = 3,
    /// Entropy source.
    Entropy = 4,
    /// Memory balloon.
    Balloon = 5,
    /// Sockets to the host.
    Socket = 19,
}

/// What the driver negotiates with. Called from any vCPU's thread; nothing here may block.
pub trait Device: Send + Sync {
    /// What it is.
    fn kind(&self) -> Kind;

    /// Name for logs: kind and what is behind it (`disk root.img`).
    fn name(&self) -> &str;

    /// The feature bits of its kind (bits 0 to 23 and 50 up). The transport adds those of the queues and of itself.
    fn features(&self) -> u64;

    /// The largest size of each queue: a power of 2, at most 32768.
    fn queues(&self) -> &[u16];

    /// Reads its configuration: little-endian, zero beyond its end.
    fn config(&self, offset: u64, data: &mut [u8]);

    /// Writes its configuration. What cannot be written is ignored.
    fn set_config(&self, _offset: u64, _data: &[u8]) {}

    /// The driver is ready (DRIVER_OK): what runs the queues from now on.
    ///
    /// # Errors
    /// When the host refuses what it needs; the driver is told that the device needs a reset.
    fn activate(&self, activation: Activation) -> io::Result<Box<dyn Backend>>;
}

/// What a device gets when its driver is ready.
pub struct Activation {
    /// Guest memory, translated if the driver accepted VIRTIO_F_ACCESS_PLATFORM.
    pub memory: Memory,
    /// What was negotiated.
    pub features: u64,
    /// By queue; `None` where the driver enabled none.
    pub rings: Vec<Option<Ring>>,
    /// How the driver is told.
    pub interrupts: Arc<dyn Interrupts>,
}

/// How a device tells its driver.
pub trait Interrupts: Send + Sync {
    /// Queue `queue` has used descriptors.
    fn used(&self, queue: u16);

    /// Whoever writes `call`, an eventfd, means [`used`](Interrupts::used) of `queue`, but cannot call: the kernel's vhost. Where the interrupt
    /// controller hears eventfds the interrupt goes from there to the guest, and nobody finds `call` readable; what is
    /// readable of it all the same is the backend's to read and to tell. `None` ends it: nothing is bound to the one of before when
    /// this returns.
    fn lead(&self, _queue: u16, _call: Option<Arc<OwnedFd>>) {}

    /// The configuration has changed.
    fn config_changed(&self);

    /// The device is broken until it is reset (DEVICE_NEEDS_RESET).
    fn needs_reset(&self);
}

/// The driver broke the rules of a queue, or the host failed in a way that no status can tell: the device stops until
/// it is reset.
#[derive(Debug, thiserror::Error)]
pub enum NeedsReset {
    /// The ring itself, or a chain, is not as the specification says.
    #[error("queue {queue}: {what}")]
    Queue {
        /// The queue's index.
        queue: u16,
        /// What is wrong.
        what: String,
    },
    /// The host.
    #[error("{what}")]
    Host {
        /// What failed.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What a backend sees by itself, with no descriptor to wake it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Sight {
    /// Nothing: it is never asked to look, and its calls ask for the next notification before they return.
    #[default]
    Blind,
    /// Its queues, or some of them, and not all of its sources.
    Queues,
    /// All that could wake it.
    All,
}

/// A device at work. Lives on one worker's thread, which may run several; it is dropped there at the reset, after which nothing
/// of it touches guest memory any more. Nothing here may block for long.
///
/// One that is not [`Blind`](Sight::Blind) leaves its queues without notification, and sees to them like this:
///
/// ```text
///  notified, ready ──▶ look ─ nothing, for a while ─▶ arm ─ false ─▶ wait for the doorbells and sources
///                      ▲  └─ true ─┐                   │ true
///                      └───────────┴───────────────────┘
/// ```
pub trait Backend: Send {
    /// The driver may have put descriptors into queue `queue`. Called once after the activation for each queue too.
    ///
    /// # Errors
    /// [`NeedsReset`]; nothing is called any more then but `drop`.
    fn notified(&mut self, queue: u16) -> Result<(), NeedsReset>;

    /// Takes the doorbells of its queues over where not the thread is to hear them but the kernel (vhost), and
    /// says so: [`notified`](Backend::notified) is never called then. Asked once, before it is handed to a thread, and it may
    /// begin to work within.
    ///
    /// # Errors
    /// As [`Device::activate`].
    fn take_doorbells(&mut self, _doorbells: &[(u16, Arc<EventFd>)]) -> io::Result<bool> {
        Ok(false)
    }

    /// Descriptors that wake it when they are readable, beside its queues. Asked once.
    fn sources(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    /// The source with this index is readable.
    ///
    /// # Errors
    /// As [`notified`](Backend::notified).
    fn ready(&mut self, _source: usize) -> Result<(), NeedsReset> {
        Ok(())
    }

    /// Whether the last call left chains behind that are available and could be worked on, since what one call does is bounded. Asked after each call;
    /// every queue is [`notified`](Backend::notified) again when others on the thread had their turn.
    fn unfinished(&self) -> bool {
        false
    }

    /// What [`look`](Self::look) sees. Always the same.
    fn sight(&self) -> Sight {
        Sight::Blind
    }

    /// Looks for something to do, and does as much of it as a call may. `false` if there is nothing, which costs no
    /// system call. Called over and over while its thread has nothing else to do.
    ///
    /// # Errors
    /// As [`notified`](Backend::notified).
    fn look(&mut self) -> Result<bool, NeedsReset> {
        Ok(false)
    }

    /// Asks the driver to notify of whatever it makes available from now on. `true` if something is there already: then the
    /// thread does not wait, and it is looked at.
    ///
    /// # Errors
    /// As [`notified`](Backend::notified).
    fn arm(&mut self) -> Result<bool, NeedsReset> {
        Ok(false)
    }

    /// Whether the source with this index is to wake it. Asked after each call. A source that stays readable calls
    /// [`ready`](Backend::ready) again and again, so whoever cannot take anything from it now says `false`.
    fn listens(&self, _source: usize) -> bool {
        true
    }
}

/// A backend, and what a worker needs to run it.
pub struct Work {
    /// Name for logs and the thread: [`Device::name`].
    pub name: String,
    /// What runs.
    pub backend: Box<dyn Backend>,
    /// The doorbell of each enabled queue, unless the backend has taken them: queue and event. An event may be there from before
    /// the activation.
    pub doorbells: Vec<(u16, Arc<EventFd>)>,
    /// Told by [`needs_reset`](Interrupts::needs_reset) when the backend ends with [`NeedsReset`].
    pub interrupts: Arc<dyn Interrupts>,
}

/// The threads that run backends.
pub trait Workers: Send + Sync {
    /// Starts to run a backend, calling [`Backend::notified`] once for each of its queues. Called on a vCPU's thread at
    /// DRIVER_OK; does not wait for the backend.
    ///
    /// # Errors
    /// When the host refuses a thread or a descriptor; the backend is dropped before this returns.
    fn start(&self, work: Work) -> io::Result<Box<dyn Running>>;
}

/// A backend that runs, or did until it broke.
pub trait Running: Send {
    /// Has the backend dropped, and never waits for that: `done` is called when nothing of it is left, from any thread,
    /// also this one before it returns. After that nothing is called on [`Work::interrupts`].
    fn stop(self: Box<Self>, done: Box<dyn FnOnce() + Send>);
}
