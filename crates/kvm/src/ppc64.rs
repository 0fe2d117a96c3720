//! KVM on POWER: Book3S HV.

mod cede_event;
mod cede_watch;
mod device;
mod host;
mod pin;
mod sleep_watch;
mod timebase;
mod vcpu;
mod vm;
mod xive;

pub use host::{CAPABILITIES, probe};
pub use vcpu::Vcpu;
pub use vm::{Vm, VmFd};
