//! What becomes of an eventfd's binding.

/// What becomes of an eventfd's binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bind {
    /// It begins.
    Add,
    /// It ends. Everything else is as it was added.
    Remove,
}
