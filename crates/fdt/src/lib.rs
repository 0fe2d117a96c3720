//! Typed device-tree building over vm-fdt.
//!
//! A [`Tree`] is plain data: nodes with ordered properties and ordered children, phandles, memory
//! reservations and the boot CPU. Nothing is checked while it is being put together, so building code
//! reads like the tree it makes; [`Tree::check`] then holds it to the Devicetree Specification (v0.4,
//! chapter 2) and [`Tree::to_dtb`] writes the flattened blob (chapter 5, version 17).
//!
//! What always holds for a blob that `to_dtb` returned:
//! - nodes and properties are in the order in which they were added;
//! - every name is well formed, no node has two properties or two children of one name;
//! - the unit address of a node is the first address of its `reg`, and `reg` is whole entries of the
//!   parent's `#address-cells` and `#size-cells`, which are written out and never implied;
//! - every [`Phandle`] that is referred to belongs to exactly one node;
//! - memory reservations do not overlap.
//!
//! ```
//! use fdt::{Node, Tree};
//!
//! let mut tree = Tree::new();
//! let intc = tree.new_phandle();
//! *tree.root_mut() = Node::root()
//!     .u32("#address-cells", 2)
//!     .u32("#size-cells", 2)
//!     .child(Node::new("interrupt-controller").empty("interrupt-controller").u32("#interrupt-cells", 2).phandle(intc))
//!     .child(Node::new("memory@0").string("device_type", "memory").cells("reg", [0u32, 0, 0, 0x8000_0000]))
//!     .child(Node::new("event-sources").reference("interrupt-parent", intc));
//! let dtb = tree.to_dtb()?;
//! assert_eq!(dtb[..4], [0xd0, 0x0d, 0xfe, 0xed]);
//! # Ok::<(), fdt::Error>(())
//! ```

#![forbid(unsafe_code)]

mod blob;
mod check;
mod error;
mod node;
mod tree;
mod value;

pub use error::Error;
pub use node::{Node, Property};
pub use tree::{PROPERTY_NAME_MAX, Reservation, Tree};
pub use value::{Cell, Phandle, Value};
