//! The interrupt controller, and `/event-sources`.
//!
//! Exactly one controller node: the node that is there is how Linux chooses between XICS and XIVE. Interrupts are
//! two cells everywhere, <source number, 1 if level triggered>.

use super::{Error, Generation, TreeSpec};
use crate::layout::XIVE_PAGE;
use fdt::{Node, Phandle};

/// The one interrupt controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InterruptController {
    /// XICS: presentation by hcalls, sources by RTAS calls.
    Xics,
    /// XIVE in exploitation mode: the guest reaches the hardware's pages itself.
    Xive {
        /// Guest-physical address of the user page of the thread interrupt management area.
        tima_user: u64,
        /// Guest-physical address of the OS page of the thread interrupt management area.
        tima_os: u64,
        /// The first source number for IPIs.
        first_ipi: u32,
        /// How many source numbers IPIs may take: at least one per vCPU. Every one of them must exist.
        ipis: u32,
    },
}

/// Interrupts of platform events. The guest asks by the RTAS function `check-exception` what happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Events {
    /// Environmental and power warnings: "shut down, please" is one.
    pub epow: Option<u32>,
    /// Devices that came or went.
    pub hotplug: Option<u32>,
}

/// log2 of the event queue sizes that a guest may choose from: KVM takes 64 KiB alone.
const XIVE_QUEUE_SIZES: [u32; 1] = [16];

impl InterruptController {
    pub(super) fn check(&self, spec: &TreeSpec) -> Result<(), Error> {
        let generation = spec.cpu.generation;
        match *self {
            InterruptController::Xics => Ok(()),
            InterruptController::Xive { .. } if generation < Generation::Power9 => {
                Err(Error::NotOnThisProcessor { generation: generation.name(), what: "XIVE" })
            }
            InterruptController::Xive { ipis, .. } if ipis < spec.topology.vcpus => {
                Err(Error::TooFewIpis { ipis, vcpus: spec.topology.vcpus })
            }
            InterruptController::Xive { .. } => Ok(()),
        }
    }
}

/// The controller's node.
pub(super) fn controller(spec: &TreeSpec, phandle: Phandle) -> Node {
    let node = match spec.interrupts {
        InterruptController::Xics => Node::new("interrupt-controller")
            .string("device_type", "PowerPC-External-Interrupt-Presentation")
            .string("compatible", "IBM,ppc-xicp")
            .cells("ibm,interrupt-server-ranges", [0, spec.topology.server_limit()]),
        InterruptController::Xive { tima_user, tima_os, first_ipi, ipis } => {
            Node::new(format!("interrupt-controller@{tima_user:x}"))
                .string("device_type", "power-ivpe")
                .string("compatible", "ibm,power-ivpe")
                // The user page, then the OS page: the guest's kernel takes the second.
                .cells("reg", [tima_user, tima_os].iter().flat_map(|page| register_page(*page)))
                .cells("ibm,xive-eq-sizes", XIVE_QUEUE_SIZES)
                .cells("ibm,xive-lisn-ranges", [first_ipi, ipis])
        }
    };
    provider(node).phandle(phandle)
}

fn register_page(address: u64) -> [u32; 4] {
    [(address >> 32) as u32, address as u32, (XIVE_PAGE >> 32) as u32, XIVE_PAGE as u32]
}

/// Makes `node` a node that interrupts are given in, without addresses of its own.
fn provider(node: Node) -> Node {
    node.empty("interrupt-controller").u32("#interrupt-cells", 2).u32("#address-cells", 0)
}

/// An edge-triggered interrupt, as a property's cells.
pub(super) fn edge(source: u32) -> [u32; 2] {
    [source, 0]
}

/// `/event-sources`, if there are any.
pub(super) fn event_sources(events: &Events) -> Option<Node> {
    let sources: Vec<_> = [("epow-events", events.epow), ("hot-plug-events", events.hotplug)]
        .into_iter()
        .filter_map(|(name, source)| Some((name, source?)))
        .collect();
    if sources.is_empty() {
        return None;
    }
    let children = sources.iter().map(|(name, source)| Node::new(*name).cells("interrupts", edge(*source)));
    let ranges = sources.iter().flat_map(|(_, source)| [*source, 1]);
    Some(provider(Node::new("event-sources")).cells("interrupt-ranges", ranges).children(children))
}
