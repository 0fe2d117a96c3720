//! ioctl numbers, by architecture.

pub mod ppc64;
#[cfg(target_arch = "x86_64")]
pub mod x86_64;

/// Those of the host, for what all architectures have.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) use ppc64 as host;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64 as host;
