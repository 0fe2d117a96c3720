//! Loads and stores outside memory: through the bridge's windows to the bus, or nowhere.
//!
//! A guest may poke into nowhere as often as it likes: the log hears of it once.

use super::{Phb, window};
use std::sync::atomic::{AtomicU64, Ordering};

/// Loads and stores that no memory slot backs.
#[derive(Debug, Default)]
pub struct Mmio {
    /// How many nobody answered.
    unclaimed: AtomicU64,
}

impl Mmio {
    /// What a load of `data.len()` bytes reads, in memory order: ones where nobody answers, as from an empty bus.
    pub fn read(&self, phb: Option<&Phb>, address: u64, data: &mut [u8]) {
        let answered = phb
            .and_then(|phb| Some((phb, window::to_bus(address, data.len())?)))
            .is_some_and(|(phb, address)| phb.bus.read(address, data));
        if !answered {
            data.fill(0xff);
            self.count(address, data.len(), "load");
        }
    }

    /// A store. Nothing happens where nobody answers.
    pub fn write(&self, phb: Option<&Phb>, address: u64, data: &[u8]) {
        let answered = phb
            .and_then(|phb| Some((phb, window::to_bus(address, data.len())?)))
            .is_some_and(|(phb, address)| phb.bus.write(address, data));
        if !answered {
            self.count(address, data.len(), "store");
        }
    }

    fn count(&self, address: u64, length: usize, what: &str) {
        if self.unclaimed.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(
                address = format_args!("{address:#x}"),
                length,
                "a {what} where nothing is; it reads as ones or is dropped, and later ones are only counted"
            );
        }
    }

    /// How many loads and stores nobody answered.
    #[must_use]
    pub fn unclaimed(&self) -> u64 {
        self.unclaimed.load(Ordering::Relaxed)
    }
}
