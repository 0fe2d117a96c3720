//! The command line's parts: what was asked ([`cli`]), what it means ([`config`]), what is said about it
//! ([`report`], [`log`]) and how the process ends ([`exit_code`]). [`power`] and `x86` connect them to the VMM by [`machine`];
//! [`control`] is how a VM that runs is steered, [`placement`] where its vCPUs go, [`devices`] what is on its bus.

pub mod cli;
pub mod config;
pub mod control;
pub mod devices;
pub mod exit_code;
pub mod log;
pub mod machine;
pub mod placement;
pub mod power;
pub mod report;
#[cfg(target_arch = "x86_64")]
pub mod x86;
