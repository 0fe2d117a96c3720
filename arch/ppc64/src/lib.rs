//! pseries guests: boot, hcalls, RTAS, device tree.

pub mod layout;
pub mod tree;
