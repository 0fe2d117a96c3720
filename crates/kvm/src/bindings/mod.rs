//! The kernel's KVM interface as plain data: structures, constants and register ids.
//!
//! x86's comes from the `kvm-bindings` crate. Powerpc's is generated here by `tools/bindgen`, is compiled on every
//! 64-bit host so that code for POWER can be checked and tested anywhere, and is compared with the kernel's headers
//! by `tests/bindings.rs`. The names are the kernel's; an anonymous structure or union has bindgen's.

// The lints below are about code that people write. The generated `unsafe` blocks are of two kinds: a structure of
// integers made of zeroes, and a view of a flexible array, whose length the caller vouches for.
#[allow(missing_docs, non_camel_case_types, clippy::undocumented_unsafe_blocks, clippy::missing_safety_doc)]
pub mod ppc64;
