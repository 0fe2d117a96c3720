//! What the run loop, an architecture and the hypervisor say to each other.
//!
//! The crate holds words only: values that cross a border ([`Exit`], [`Reply`], [`Action`]), the [`Arch`]
//! trait that an architecture implements for the run loop, and the ports through which it reaches the
//! hypervisor ([`Vcpu`], and [`ppc64`] or [`x86_64`]). `kvm` implements the ports, `vmm` drives the trait,
//! and an architecture is pure code between the two, so it is tested on any host.

#![forbid(unsafe_code)]

mod arch;
mod bind;
mod exit;
pub mod ppc64;
mod schedule;
pub mod x86_64;

pub use arch::{Action, Arch, Fatal, RamRegion, Stop, Vcpu};
pub use bind::Bind;
pub use exit::{Exit, Reply};
pub use schedule::{Look, Nap, Polled, Raise, Scheduler, Until};

use std::io;

/// A hypervisor call that failed.
#[derive(Debug, thiserror::Error)]
#[error("{call} failed")]
pub struct HvError {
    /// The call as the kernel's documentation names it, with its object: `KVM_SET_ONE_REG(LPCR)`.
    pub call: &'static str,
    /// What the kernel answered.
    #[source]
    pub source: io::Error,
}

impl HvError {
    /// The error of `call`, from `errno`.
    #[must_use]
    pub fn last(call: &'static str) -> Self {
        Self { call, source: io::Error::last_os_error() }
    }
}
