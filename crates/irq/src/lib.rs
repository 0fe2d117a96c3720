//! Interrupt sources, their routes, and the lines that devices pull.
//!
//! ```text
//!  device thread ──▶ Vector (MSI) ──resolved route──▶ Line ──▶ Sink      no lock, no other thread
//!  device thread ──▶ Level (LSI)  ──▶ worker ──▶ Line ──▶ Sink           one writer for each level
//! ```
//!
//! What a [`Line`] leads to (KVM's interrupt controller, or one of our own) is decided once, when the machine is
//! built, by whoever implements [`Sink`]; where a message leads is the architecture's to say, by [`Messages`].

#![forbid(unsafe_code)]

mod msi;

pub use msi::{Message, Messages, Vector};

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

    /// Sets the level of a level source.
    ///
    /// # Errors
    /// When the controller has no such source.
    pub fn set(&self, level: bool) -> io::Result<()> {
        self.sink.set(self.gsi, level)
    }

    /// The source's number.
    #[must_use]
    pub fn gsi(&self) -> u32 {
        self.gsi
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("gsi", &self.gsi).finish_non_exhaustive()
    }
}
