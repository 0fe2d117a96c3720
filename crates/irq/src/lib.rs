//! Interrupt sources and the lines that devices pull.
//!
//! A device knows a [`Line`]; what the line leads to (KVM's interrupt controller, or one of our own) is
//! decided once, when the machine is built, by whoever implements [`Sink`].

#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::sync::Arc;

/// An interrupt controller's input side.
pub trait Sink: Send + Sync {
    /// Sets the level of source `gsi`. For an edge source (an MSI) `true` is one event and `false` nothing.
    /// Never blocks.
    ///
    /// # Errors
    /// When there is no such source.
    fn set(&self, gsi: u32, level: bool) -> io::Result<()>;
}

/// One interrupt source, as its device holds it.
#[derive(Clone)]
pub struct Line {
    sink: Arc<dyn Sink>,
    gsi: u32,
}

impl Line {
    /// The line of source `gsi` of `sink`.
    #[must_use]
    pub fn new(sink: Arc<dyn Sink>, gsi: u32) -> Self {
        Self { sink, gsi }
    }

    /// Raises one event on an edge source.
    ///
    /// # Errors
    /// When the controller has no such source.
    pub fn trigger(&self) -> io::Result<()> {
        self.sink.set(self.gsi, true)
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("gsi", &self.gsi).finish_non_exhaustive()
    }
}
