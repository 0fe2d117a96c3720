//! The command line's parts: what was asked ([`cli`]), what it means ([`config`]), what is said about it
//! ([`report`], [`log`]) and how the process ends ([`exit_code`]). [`power`] connects them to the VMM;
//! [`control`] is how a VM that runs is steered, [`placement`] where its vCPUs go, [`devices`] what is on its bus.

pub mod cli;
pub mod config;
pub mod control;
pub mod devices;
pub mod exit_code;
pub mod log;
pub mod placement;
pub mod power;
pub mod report;
