//! `/memory@…`: guest RAM, from address 0 without holes.

use super::Error;
use fdt::Node;

/// Guest RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Bytes, from address 0.
    pub size: u64,
    /// Bytes that can be reached in real mode: the first memory node. Hash guests keep what they need before
    /// translation is on inside it; radix guests have no such limit, give them all of `size`.
    pub rma: u64,
}

/// The largest page that a kernel is built for, so memory in these units suits every guest.
const GRANULE: u64 = 0x1_0000;

impl Memory {
    pub(super) fn check(&self) -> Result<(), Error> {
        let Memory { size, rma } = *self;
        if size == 0 || size % GRANULE != 0 {
            return Err(Error::MemorySize { size });
        }
        if rma == 0 || rma > size || rma % GRANULE != 0 {
            return Err(Error::Rma { rma, size });
        }
        Ok(())
    }
}

/// The real-mode area is what the first node says, so what is beyond it is in a second one.
pub(super) fn nodes(memory: &Memory) -> Vec<Node> {
    let mut nodes = vec![node(0, memory.rma)];
    if memory.rma < memory.size {
        nodes.push(node(memory.rma, memory.size - memory.rma));
    }
    nodes
}

fn node(address: u64, size: u64) -> Node {
    let cells = |n: u64| [(n >> 32) as u32, n as u32];
    let reg: Vec<u32> = [cells(address), cells(size)].concat();
    Node::new(format!("memory@{address:x}")).string("device_type", "memory").cells("reg", reg)
}
