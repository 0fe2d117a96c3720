//! A running VM at a socket: what `cede set`, `stat`, `pause`, `resume`, `reload` and `list` talk to.
//!
//! ```text
//!   cede stat vm ──▶ client ══ control.sock ══ server ──▶ Steering ──▶ dyn Control ──▶ the VM
//!                    (protocol: a line each way)   SIGHUP ──▲
//! ```
//!
//! - [`RunDir`] is the VM's directory. Whoever has it has the name: it is claimed before anything starts.
//! - [`Server`] answers, one thread per client, each with a time limit, so that a client that hangs costs
//!   nobody anything. It never holds a lock of the VM.
//! - [`Steering`] knows what the configuration said, what was set since, and what both mean together.
//! - [`Control`] is what a VM has to offer for that. docs/control.md describes the socket for other programs.

pub mod client;
pub mod commands;
pub mod kernel;
pub mod protocol;
mod run_dir;
mod running;
mod server;
pub mod show;
mod steering;
#[cfg(test)]
mod tests;

pub use run_dir::{RunDir, RunDirError, bases};
pub use running::{Count, RunningVm, Side};
pub use server::Server;
pub use steering::{Load, Reloaded, Steering};

use crate::config::TunableChanges;
use protocol::{Ballooned, Device};
use vcore::{Snapshot, Tunables};

/// What a VM offers to those who steer it. Called by several threads at once.
pub trait Control: Send + Sync {
    /// The plane's name: `kernel`, `assist` or `vmm`.
    fn plane(&self) -> &'static str;

    /// The present tunables; `None` where the host shows none.
    fn tunables(&self) -> Option<Tunables>;

    /// Changes some tunables; the next idle period of each vcore sees it.
    ///
    /// # Errors
    /// Why not, and what would help, in one line. Nothing was changed then.
    fn set(&self, changes: TunableChanges) -> Result<(), String>;

    /// The figures of every vCPU, by number.
    fn vcpus(&self) -> Vec<VcpuStats>;

    /// The figures of the devices that count, in the order of the bus.
    fn devices(&self) -> Vec<Device>;

    /// How many loads and stores of the guest's found nothing.
    fn unclaimed_accesses(&self) -> u64;

    /// Brings every vCPU out of the guest and keeps it there. Done when it returns; nothing to do if it was
    /// done before.
    ///
    /// # Errors
    /// Why not, in one line.
    fn pause(&self) -> Result<(), String>;

    /// Lets the vCPUs go on.
    ///
    /// # Errors
    /// Why not, in one line.
    fn resume(&self) -> Result<(), String>;

    /// Whether the VM is paused.
    fn paused(&self) -> bool;

    /// The balloon, if the VM has one.
    fn balloon(&self) -> Option<&dyn Inflate>;
}

/// A balloon, as it is steered.
pub trait Inflate: Send + Sync {
    /// Asks the guest for so many bytes in all.
    fn ask(&self, bytes: u64);

    /// What it is asked for, and what it has given.
    fn given(&self) -> Ballooned;
}

/// The figures of a vCPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VcpuStats {
    /// Its number.
    pub vcpu: u32,
    /// The number of its vcore.
    pub vcore: u32,
    /// Its thread's number in the vcore.
    pub thread: u32,
    /// What it does, in a word.
    pub state: String,
    /// Its vcore's present polling interval in nanoseconds; `None` where KVM has it and does not show it.
    pub halt_poll_ns: Option<u32>,
    /// Its counters.
    pub stats: Snapshot,
}
