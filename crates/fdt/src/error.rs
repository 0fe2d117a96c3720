//! Why a tree cannot be written.

/// Why a [`Tree`](crate::Tree) is not a valid device tree. Each names the node and says what to change.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A node name has a character or a length that the specification forbids.
    #[error(
        "{path}: a node name is 1 to 31 of [0-9A-Za-z,._+-], starts with a letter, and may end in @unit-address"
    )]
    NodeName {
        /// The node.
        path: String,
    },
    /// The root has a name.
    #[error("the root node is called {name:?}; use Node::root(), its name must be empty")]
    RootName {
        /// The name it has.
        name: String,
    },
    /// A property name has a character or a length that the specification (or the tree's own limit) forbids.
    #[error("{path}: property name {name:?} is not 1 to {max} of [0-9A-Za-z,._+?#-]")]
    PropertyName {
        /// The node.
        path: String,
        /// The property.
        name: String,
        /// The length that this tree allows.
        max: usize,
    },
    /// `phandle` was given as a plain property.
    #[error("{path}: {name} is written from Node::phandle, remove the property")]
    PhandleProperty {
        /// The node.
        path: String,
        /// The property.
        name: String,
    },
    /// A node has two properties of one name.
    #[error("{path}: property {name} is given twice")]
    DuplicateProperty {
        /// The node.
        path: String,
        /// The property.
        name: String,
    },
    /// A node has two children of one name.
    #[error("{path}: child {name} is given twice")]
    DuplicateChild {
        /// The parent.
        path: String,
        /// The child.
        name: String,
    },
    /// A string holds a NUL.
    #[error("{path}: property {name} has a NUL inside a string")]
    Nul {
        /// The node.
        path: String,
        /// The property.
        name: String,
    },
    /// `reg` is present, but the parent does not say how many cells an address and a size have.
    #[error(
        "{path}: has reg, so its parent needs #address-cells (0 to 4) and #size-cells (0 to 4), one cell each"
    )]
    ParentCells {
        /// The node.
        path: String,
    },
    /// `reg` is not a whole number of entries.
    #[error("{path}: reg is not a whole number of entries of {address} address and {size} size cells")]
    RegLength {
        /// The node.
        path: String,
        /// The parent's `#address-cells`.
        address: u32,
        /// The parent's `#size-cells`.
        size: u32,
    },
    /// The unit address is not the first address of `reg`.
    #[error("{path}: the unit address must be {expected}, the first address in reg")]
    UnitAddress {
        /// The node.
        path: String,
        /// What `reg` says.
        expected: String,
    },
    /// A unit address without `reg`.
    #[error("{path}: has a unit address but no reg; drop one or add the other")]
    UnitAddressWithoutReg {
        /// The node.
        path: String,
    },
    /// Two nodes own one phandle.
    #[error("{path}: phandle {phandle:#x} already names {other}")]
    DuplicatePhandle {
        /// The second node.
        path: String,
        /// The first node.
        other: String,
        /// The phandle.
        phandle: u32,
    },
    /// A reference to a phandle that names no node.
    #[error(
        "{path}: property {name} refers to phandle {phandle:#x}, which names no node; give it to one with Node::phandle"
    )]
    DanglingPhandle {
        /// The node.
        path: String,
        /// The property.
        name: String,
        /// The phandle.
        phandle: u32,
    },
    /// A memory reservation is empty or passes the end of the address space.
    #[error(
        "memory reservation of {size:#x} bytes at {address:#x} is empty or passes the end of the address space"
    )]
    Reservation {
        /// Its first byte.
        address: u64,
        /// Its length.
        size: u64,
    },
    /// Nodes are nested deeper than Linux reads.
    #[error("{path}: nodes are nested deeper than {max}")]
    Depth {
        /// The node.
        path: String,
        /// The deepest that is allowed.
        max: usize,
    },
    /// The writer refused the tree: reservations that overlap, or a blob of 4 GiB or more.
    #[error("cannot flatten the tree")]
    Write(#[source] vm_fdt::Error),
}
