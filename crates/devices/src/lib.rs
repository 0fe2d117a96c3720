//! Device models: registers at offsets, queues, an interrupt line to raise.

pub mod console;
