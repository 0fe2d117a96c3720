//! `/chosen`: what the firmware hands to the kernel.

use super::{Error, TreeSpec, vec5, vio};
use fdt::Node;

/// What is handed to the kernel.
#[derive(Debug, Clone, Copy)]
pub struct Boot<'a> {
    /// The kernel command line.
    pub cmdline: &'a str,
    /// Where the initial RAM disk is.
    pub initrd: Option<Initrd>,
    /// Seeds the guest's random number generator before any device does.
    pub rng_seed: Option<[u8; 32]>,
}

/// The guest-physical range of the initial RAM disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Initrd {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

impl Boot<'_> {
    /// The initrd lies in memory, clear of RTAS. That it clears the kernel is for the loader to see to.
    pub(super) fn check(&self, spec: &TreeSpec) -> Result<(), Error> {
        let Some(Initrd { start, end }) = self.initrd else { return Ok(()) };
        if start >= end || end > spec.memory.size {
            return Err(Error::InitrdPlace { start, end, size: spec.memory.size });
        }
        let base = spec.rtas.base;
        if start < u64::from(base) + u64::from(spec.rtas.size) && u64::from(base) < end {
            return Err(Error::InitrdOverRtas { start, end, base });
        }
        Ok(())
    }
}

pub(super) fn node(spec: &TreeSpec) -> Node {
    let mut node = Node::new("chosen").string("bootargs", spec.boot.cmdline);
    if let Some(Initrd { start, end }) = spec.boot.initrd {
        node = node.u64("linux,initrd-start", start).u64("linux,initrd-end", end);
    }
    if let Some(vty) = spec.vtys.first() {
        node = node.string("stdout-path", vio::path(vty));
    }
    if !spec.pci.is_empty() {
        // Base address registers are the guest's to assign.
        node = node.u32("linux,pci-probe-only", 0);
    }
    if let Some(seed) = spec.boot.rng_seed {
        node = node.bytes("rng-seed", seed);
    }
    node.bytes("ibm,architecture-vec-5", vec5::bytes(spec))
}
