//! KVM on POWER: Book3S HV.

mod device;
mod host;
mod vcpu;
mod vm;
mod xive;

pub use host::{CAPABILITIES, probe};
pub use vcpu::Vcpu;
pub use vm::{Vm, VmFd};
