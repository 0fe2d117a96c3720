//! Every KVM ioctl and binding cede uses; an exit comes out as a value.
//!
//! [`Kvm`] is `/dev/kvm`. What is made from it is per architecture: [`ppc64::Vm`], its vCPUs and its
//! interrupt controllers, which implement the ports that `arch/ppc64` is written against. [`KvmStats`] are KVM's own
//! figures of a vCPU, [`Parameters`] its settings for the host. The ppc64 part
//! compiles on every host, since its structures and numbers are powerpc's own wherever they are compiled; it runs
//! on POWER only. `x86_64` compiles on its own kind of host, as the crate with its structures does.

pub mod bindings;
mod fd;
pub mod ioctl;
mod parameters;
pub mod ppc64;
mod signals;
mod stats;
mod system;
#[cfg(target_arch = "x86_64")]
pub mod x86_64;

pub use parameters::Parameters;
pub use signals::Signals;
pub use stats::{KvmStats, StatsError, Value, VcpuFigures};
pub use system::{Kvm, OpenError};
