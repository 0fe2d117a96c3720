//! Message-signalled interrupts: a vector of a device, and the route that it holds.

use crate::Line;
use arc_swap::ArcSwapOption;
use std::io;
use std::sync::Arc;

/// What a device writes to the bus to interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Message {
    /// Bus address.
    pub address: u64,
    /// Data.
    pub data: u32,
}

/// Where messages lead, as the architecture decides.
pub trait Messages: Send + Sync {
    /// The line that `message` pulls; `None` where it leads nowhere.
    fn route(&self, message: Message) -> Option<Line>;
}

/// A vector of a device. Whoever configures it resolves its message once; whoever raises it follows the resolved
/// route, from any thread, with no lock.
#[derive(Debug, Default)]
pub struct Vector {
    route: ArcSwapOption<Line>,
}

impl Vector {
    /// Raises the interrupt. Without a route nothing happens.
    ///
    /// # Errors
    /// When the controller has no such source.
    pub fn raise(&self) -> io::Result<()> {
        match &*self.route.load() {
            Some(line) => line.trigger(),
            None => Ok(()),
        }
    }

    /// Sets the route for every raise that begins after this returns.
    pub fn set_route(&self, route: Option<Line>) {
        self.route.store(route.map(Arc::new));
    }
}
