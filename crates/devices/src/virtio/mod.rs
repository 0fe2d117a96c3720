//! virtio 1.x devices, in three parts that know little of each other:
//!
//! ```text
//!  vCPU threads                               a worker's thread
//!  transport (virtio-pci) ──activate──▶ worker ──▶ Backend: the device at work, from DRIVER_OK to reset
//!      │ Device: kind, features, config space         │ Ring: its queues
//!      ◀──────────────────── Interrupts ──────────────┘
//! ```
//!
//! A [`Device`] is what the driver negotiates with; a [`Backend`] is what then runs the queues, on one thread, and is
//! dropped at the reset. Source: Virtual I/O Device (VIRTIO) 1.2.

mod alarm;
pub mod balloon;
pub mod block;
mod chain;
pub mod console;
mod device;
pub mod entropy;
#[cfg(any(test, feature = "testing"))]
pub mod hostile;
pub mod net;
mod outline;
mod ring;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod transport;
mod vectors;
pub mod vsock;
mod worker;

pub use chain::{Buffers, Malformed, Missing, Span, Spans};
pub use device::{Activation, Backend, Device, Interrupts, Kind, NeedsReset, Running, Work, Workers};
pub use outline::Outline;
pub use ring::Ring;
pub use vectors::Vectors;
pub use worker::Threads;
