//! The device tree of a pseries guest.
//!
//! A kernel is entered with the tree and nothing else: there is no Open Firmware to ask, and no negotiation
//! (`ibm,client-architecture-support`) in which the guest would say what it can do. So the tree states the
//! outcome: one MMU, one interrupt controller, in `/chosen/ibm,architecture-vec-5` and in the nodes alike.
//! [`build`] turns a [`TreeSpec`], which is plain data, into a tree; it asks nobody anything.
//!
//! One file per part of the tree: `root`, `chosen` (with `vec5`), `cpus` (with `mmu` and `pa_features`),
//! `memory`, `rtas`, `interrupts`, `pci`, `vio`. Sources: PAPR (LoPAR) for names and encodings;
//! `arch/powerpc/kernel/{prom,rtas,smp}.c`, `mm/book3s64` and `platforms/pseries` in Linux for what is read.

mod chosen;
mod cpus;
mod error;
mod interrupts;
mod memory;
mod mmu;
mod pa_features;
mod pci;
mod root;
mod rtas;
#[cfg(test)]
mod tests;
mod vec5;
mod vio;

pub use arch_api::ppc64::Generation;
pub use chosen::{Boot, Initrd};
pub use cpus::{Cache, Cpu, Topology, Version};
pub use error::Error;
pub use interrupts::{Events, InterruptController};
pub use memory::Memory;
pub use mmu::{HashMmu, Mmu, Page, Segment};
pub use pa_features::Facilities;
pub use pci::PciFunction;
pub use root::Identity;
pub use rtas::Rtas;
pub use vio::Vty;

/// The longest name that a pseries tree may give a property. PAPR's longest are RTAS function names
/// (`ibm,query-interrupt-source-number` has 33 characters); twice the Devicetree Specification's limit holds them.
const PROPERTY_NAME_MAX: usize = 63;

/// Everything that the tree says.
#[derive(Debug, Clone)]
pub struct TreeSpec<'a> {
    /// Names, in the root node.
    pub identity: Identity<'a>,
    /// What is handed to the kernel.
    pub boot: Boot<'a>,
    /// How many vCPUs, and their interrupt server numbers.
    pub topology: Topology,
    /// What each vCPU is.
    pub cpu: Cpu,
    /// How vCPUs translate addresses.
    pub mmu: Mmu<'a>,
    /// Guest RAM.
    pub memory: Memory,
    /// The one interrupt controller.
    pub interrupts: InterruptController,
    /// Run-time abstraction services, and the hypercalls that are there.
    pub rtas: Rtas<'a>,
    /// Functions behind the PCI host bridge; without any there is none.
    pub pci: &'a [PciFunction],
    /// Consoles; the first is the kernel's.
    pub vtys: &'a [Vty],
    /// Interrupts of platform events.
    pub events: Events,
    /// Whether H_RANDOM is there.
    pub random: bool,
}

/// Builds the tree that `spec` describes.
///
/// # Errors
/// When the parts of `spec` contradict each other, or a name or string in it cannot be in a tree.
pub fn build(spec: &TreeSpec) -> Result<fdt::Tree, Error> {
    spec.topology.check()?;
    spec.memory.check()?;
    spec.mmu.check(spec)?;
    spec.interrupts.check(spec)?;
    spec.rtas.check(spec)?;
    spec.boot.check(spec)?;

    let mut tree = fdt::Tree::new();
    tree.set_property_name_max(PROPERTY_NAME_MAX);
    tree.set_boot_cpuid_phys(spec.topology.boot_server());
    tree.reserve(spec.rtas.base.into(), spec.rtas.size.into());
    let intc = tree.new_phandle();
    *tree.root_mut() = root::properties(spec)
        .child(chosen::node(spec))
        .child(cpus::node(spec))
        .children(memory::nodes(&spec.memory))
        .child(rtas::node(&spec.rtas))
        .child(interrupts::controller(spec, intc))
        .children(interrupts::event_sources(&spec.events))
        .children(pci::host_bridge(spec.pci, intc))
        .child(vio::vdevice(spec.vtys))
        .children(vio::platform_facilities(spec.random))
        .child(root::hypervisor());
    tree.check()?;
    Ok(tree)
}
