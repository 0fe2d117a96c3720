//! ioctl numbers, by architecture.

pub mod ppc64;
