//! The root's properties, and `/hypervisor`.

use super::{InterruptController, TreeSpec};
use fdt::Node;

/// Names of the machine. Text that the guest shows; nothing depends on it.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// Root `model`: the machine line of /proc/cpuinfo.
    pub model: &'a str,
    /// `vm,uuid`, and `system-id` as `/proc/powerpc/lparcfg` shows it.
    pub uuid: Option<&'a str>,
    /// `ibm,partition-name`: the name of the VM.
    pub name: Option<&'a str>,
}

/// The priorities that the hypervisor keeps for itself: pairs of <first, count>. Like PowerVM's and QEMU's,
/// everything from 7 up, so that Linux takes 6. Linux gives up on XIVE when the property is missing.
const RESERVED_PRIORITIES: [u32; 2] = [7, 0xf8];

/// The root with its properties, without its children.
pub(super) fn properties(spec: &TreeSpec) -> Node {
    let Identity { model, uuid, name } = spec.identity;
    let mut root = Node::root()
        .u32("#address-cells", 2)
        .u32("#size-cells", 2)
        // How Linux knows a pseries machine; it looks at nothing else, and stops without a word if it is missing.
        .string("device_type", "chrp")
        .string("compatible", "cede,pseries")
        .string("model", model);
    if let Some(uuid) = uuid {
        root = root.string("vm,uuid", uuid).string("system-id", uuid);
    }
    if let Some(name) = name {
        root = root.string("ibm,partition-name", name);
    }
    root.when(matches!(spec.interrupts, InterruptController::Xive { .. }), |root| {
        root.cells("ibm,plat-res-int-priorities", RESERVED_PRIORITIES)
    })
}

/// `/hypervisor`: tells the guest that it is KVM's. Linux then leaves out msgsndp, which KVM would have to emulate.
pub(super) fn hypervisor() -> Node {
    Node::new("hypervisor").string("compatible", "linux,kvm")
}
