//! The whole tree, and what belongs to no node: phandle numbers, reservations, the boot CPU.

use crate::error::Error;
use crate::node::Node;
use crate::value::Phandle;
use crate::{blob, check};

/// The longest property name that the Devicetree Specification allows (section 2.2.4.1).
pub const PROPERTY_NAME_MAX: usize = 31;

/// Memory that the client program must leave alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation {
    /// Physical address of the first byte.
    pub address: u64,
    /// Length in bytes.
    pub size: u64,
}

/// A device tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    root: Node,
    boot_cpuid_phys: u32,
    reservations: Vec<Reservation>,
    property_name_max: usize,
    last_phandle: u32,
}

impl Default for Tree {
    fn default() -> Self {
        Tree::new()
    }
}

impl Tree {
    /// A tree whose root has no properties and no children.
    pub fn new() -> Self {
        Tree {
            root: Node::root(),
            boot_cpuid_phys: 0,
            reservations: Vec::new(),
            property_name_max: PROPERTY_NAME_MAX,
            last_phandle: 0,
        }
    }

    /// A phandle that no earlier call returned. Numbers start at 1; 0 and -1 mean "no node" to Linux.
    pub fn new_phandle(&mut self) -> Phandle {
        self.last_phandle += 1;
        Phandle(self.last_phandle)
    }

    /// The root node.
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// The root node, to be filled in.
    pub fn root_mut(&mut self) -> &mut Node {
        &mut self.root
    }

    /// Reserves memory. Reservations are written in the order in which they were made.
    pub fn reserve(&mut self, address: u64, size: u64) {
        self.reservations.push(Reservation { address, size });
    }

    /// The reservations made so far.
    pub fn reservations(&self) -> &[Reservation] {
        &self.reservations
    }

    /// Says which CPU boots, as its physical id: the `boot_cpuid_phys` field of the header.
    pub fn set_boot_cpuid_phys(&mut self, id: u32) {
        self.boot_cpuid_phys = id;
    }

    /// The CPU that boots.
    pub fn boot_cpuid_phys(&self) -> u32 {
        self.boot_cpuid_phys
    }

    /// Raises the length that property names may have. PAPR defines names that are longer than
    /// [`PROPERTY_NAME_MAX`], such as `ibm,processor-radix-AP-encodings`, and clients read them.
    pub fn set_property_name_max(&mut self, max: usize) {
        self.property_name_max = max;
    }

    /// The length that property names may have.
    pub fn property_name_max(&self) -> usize {
        self.property_name_max
    }

    /// The node at `path`, such as `/vdevice/vty@71000000`; unit addresses may not be left out.
    pub fn node(&self, path: &str) -> Option<&Node> {
        path.strip_prefix('/')?
            .split('/')
            .filter(|name| !name.is_empty())
            .try_fold(&self.root, |node, name| node.get_child(name))
    }

    /// Holds the tree to the Devicetree Specification.
    pub fn check(&self) -> Result<(), Error> {
        check::check(self)
    }

    /// Checks the tree and flattens it.
    pub fn to_dtb(&self) -> Result<Vec<u8>, Error> {
        self.check()?;
        blob::write(self).map_err(Error::Write)
    }
}
