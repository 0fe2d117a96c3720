//! x86_64 guests: boot, ACPI, ports, PCI.
//!
//! Pure code between the run loop and the hypervisor: an exit arrives as a value, KVM is reached through the ports of
//! [`arch_api::x86_64`], so everything here runs in tests on any host.
//!
//! - [`plan`] decides what machine it is; [`boot`] and [`acpi`] say what the guest finds in memory, [`cpuid`] what its processors
//!   say of themselves.
//! - [`machine`] implements [`arch_api::Arch`]; exits go to [`ports`] and [`pci`].

#![forbid(unsafe_code)]

pub mod acpi;
pub mod boot;
pub mod cpuid;
#[cfg(test)]
mod fake;
pub mod image;
pub mod layout;
pub mod machine;
pub mod pci;
pub mod plan;
pub mod ports;
pub mod uart;

pub use boot::{BootError, BootImages};
pub use machine::Machine;
pub use plan::{Plan, PlanError, Wish};
