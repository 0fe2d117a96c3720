//! KVM on x86_64, with the interrupt controllers in the kernel.

mod host;
mod msrs;
mod state;
mod vcpu;
mod vm;

pub use host::{CAPABILITIES, probe};
pub use vcpu::Vcpu;
pub use vm::{HaltPoll, Vm, VmFd};
