//! pseries guests: boot, hcalls, RTAS, device tree.
//!
//! Pure code between the run loop and the hypervisor: an exit arrives as a value, KVM is reached through the
//! ports of [`arch_api::ppc64`], so everything here runs in tests on any host.
//!
//! - [`plan`] decides what machine it is; [`boot`] and [`tree`] say what the guest finds in memory.
//! - [`xics`] is the interrupt controller, where it is ours and not the hypervisor's.
//! - `assist` polls before KVM sleeps, where the interrupt controller is KVM's.
//! - [`machine`] implements [`arch_api::Arch`]; exits go to [`hcall`], and from there to [`rtas`].

#![forbid(unsafe_code)]

mod assist;
pub mod boot;
mod clock;
mod cpus;
mod entropy;
mod epow;
#[cfg(test)]
mod fake;
pub mod hcall;
#[cfg(test)]
mod hostile;
pub mod image;
pub mod layout;
mod lpcr;
pub mod machine;
mod own;
mod papr;
pub mod phb;
pub mod plan;
mod platform;
pub mod rtas;
pub mod tree;
mod tree_spec;
pub mod xics;
mod xive;

pub use boot::{BootError, BootImages};
pub use machine::Machine;
pub use plan::{MmuKind, Plan, PlanError, PlaneKind, Wish};
pub use tree_spec::{assumed_host, dtb};
