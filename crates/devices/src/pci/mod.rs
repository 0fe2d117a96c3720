//! PCI: functions on one bus, their configuration space, and what lies behind their base address registers.

mod bus;
mod function;

pub use bus::{Bus, BusFull, DoorbellPort};
pub use function::{Bar, BarKind, Doorbell, Function, Identity};
