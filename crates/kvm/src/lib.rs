//! Every KVM ioctl and binding cede uses; an exit comes out as a value.

pub mod bindings;
pub mod ioctl;
