//! PCI: functions on one bus, their configuration space, and what lies behind their base address registers.

mod function;

pub use function::{Bar, BarKind, Doorbell, Function, Identity};
