//! A device to be looked at: what a bus shows of it, with nothing behind it and nothing of the host's.

use super::{Activation, Backend, Device, Kind, Running, Work, Workers};
use crate::dma::{self, Untranslated};
use crate::virtio::transport::{Host, VirtioPci};
use std::io;
use std::sync::Arc;
use vm_memory::GuestMemoryMmap;

/// All that a function shows of its device: what it is, and how many queues it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    kind: Kind,
    queues: Vec<u16>,
}

impl Outline {
    pub(super) fn new(kind: Kind, queues: impl Into<Vec<u16>>) -> Self {
        Self { kind, queues: queues.into() }
    }

    /// The function. A guest that drove it would find that the device needs a reset.
    ///
    /// # Errors
    /// When the host has no eventfd.
    pub fn function(self) -> io::Result<VirtioPci> {
        let memory = dma::memory(GuestMemoryMmap::new(), Arc::new(Untranslated));
        VirtioPci::new(Arc::new(self), Host { memory, workers: Arc::new(Nobody), translated: false })
    }
}

fn nothing() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "the device is there to be looked at")
}

impl Device for Outline {
    fn kind(&self) -> Kind {
        self.kind
    }

    fn name(&self) -> &str {
        "outline"
    }

    fn features(&self) -> u64 {
        0
    }

    fn queues(&self) -> &[u16] {
        &self.queues
    }

    fn config(&self, _: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn activate(&self, _: Activation) -> io::Result<Box<dyn Backend>> {
        Err(nothing())
    }
}

struct Nobody;

impl Workers for Nobody {
    fn start(&self, _: Work) -> io::Result<Box<dyn Running>> {
        Err(nothing())
    }
}
