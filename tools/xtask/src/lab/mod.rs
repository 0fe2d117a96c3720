//! The lab: KVM on POWER, for real, on a machine that has no POWER.
//!
//! QEMU emulates a POWER host (powernv, or pseries for nested KVM); a stock Debian kernel boots on it with a small initramfs, loads KVM HV
//! and runs one command. [`Run`] says what to run and where, [`Session`] is the run itself.

pub mod apt;
pub mod cpio;
pub mod fetch;
mod modules;
