//! Device models: registers at offsets, queues, an interrupt line to raise. They know no architecture.

pub mod console;
pub mod dma;
pub mod pci;
pub mod virtio;
