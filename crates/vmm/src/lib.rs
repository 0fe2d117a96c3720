//! Threads, memory, lifecycle and the only vCPU run loop, generic over [`Arch`](arch_api::Arch).
//!
//! ```text
//!                    ┌────────────── reboot ───────────────┐
//!                    ▼                                     │
//!   new ──▶ all vCPUs parked ──reset──▶ running ──▶ every vCPU parks
//!                                                          │ power off, panic, stop
//!                                                          ▼
//!                                                     threads end
//! ```
//!
//! - [`Vm::run`] is the control loop, on the caller's thread: signals, console input, and what vCPUs report.
//! - Each vCPU has one thread, which alone touches the hypervisor's vCPU. It takes orders from its
//!   [`mailbox`] while it is parked and is kicked out of the guest by a signal.
//! - RAM is zero at each boot.

mod control;
mod gate;
mod handle;
mod mailbox;
mod memory;
mod vcores;
mod vcpu;

pub use control::{Options, Outcome, RunError, Vm};
pub use handle::Handle;
pub use memory::{HostPages, MemoryError};
pub use vcores::{VcpuStatus, kick_signal};
