//! Typed device-tree building over vm-fdt.
