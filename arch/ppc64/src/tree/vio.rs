//! `/vdevice`: devices that are reached by hcalls; `/ibm,platform-facilities`: hcalls that act as devices.

use super::interrupts::edge;
use fdt::Node;

/// A virtual terminal, for H_GET_TERM_CHAR and H_PUT_TERM_CHAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vty {
    /// The terminal number in those hcalls.
    pub reg: u32,
    /// Raised when there is input. Without one the guest polls; with one that is never raised it has no input.
    pub interrupt: Option<u32>,
}

/// Linux takes a node for the early console only if its name begins with "vty".
fn name(vty: &Vty) -> String {
    format!("vty@{:x}", vty.reg)
}

/// The path of a terminal's node, for `stdout-path`.
pub(super) fn path(vty: &Vty) -> String {
    format!("/vdevice/{}", name(vty))
}

/// `/vdevice`. It is an interrupt controller in form only, as PAPR wants: numbers in it are the real controller's.
pub(super) fn vdevice(vtys: &[Vty]) -> Node {
    Node::new("vdevice")
        .string("device_type", "vdevice")
        .string("compatible", "IBM,vdevice")
        .u32("#address-cells", 1)
        .u32("#size-cells", 0)
        .empty("interrupt-controller")
        .u32("#interrupt-cells", 2)
        .children(vtys.iter().map(terminal))
}

fn terminal(vty: &Vty) -> Node {
    let node = Node::new(name(vty))
        .string("device_type", "serial")
        .string("compatible", "hvterm1")
        .u32("reg", vty.reg);
    match vty.interrupt {
        Some(source) => node.cells("interrupts", edge(source)),
        None => node,
    }
}

/// `/ibm,platform-facilities`, if H_RANDOM is there: Linux's pseries-rng driver is its reader.
pub(super) fn platform_facilities(random: bool) -> Option<Node> {
    let node = Node::new("ibm,platform-facilities")
        .string("device_type", "ibm,platform-facilities")
        .child(Node::new("ibm,random-v1").string("compatible", "ibm,random"));
    random.then_some(node)
}
