//! PCI: functions on one bus, their configuration space, and what lies behind their base address registers.

mod bus;
mod config;
mod function;
mod msix;

pub use bus::{Bus, BusFull, DoorbellPort, ResetError};
pub use config::Config;
pub use function::{Bar, BarKind, Doorbell, Function, Identity, Stuck};
pub use msix::{CAPABILITY as MSIX, MOST as MSIX_MOST, Msix};
