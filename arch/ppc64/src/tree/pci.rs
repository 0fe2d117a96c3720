//! `/pci@…`: the PCI host bridge and the functions behind it (PAPR appendix B, IEEE 1275 PCI bus binding).
//!
//! A Linux that runs on a hypervisor scans no bus: it takes for functions what is a child node here. Their base address registers
//! are the guest's to assign: there is no `assigned-addresses`, so Linux takes the sizes from `reg`, the space from `ranges`,
//! and writes the registers through configuration space.

use crate::layout::{
    IRQ_MSI_COUNT, PCI_BUID, PCI_DMA_SIZE, PCI_LIOBN, PCI_MEM32, PCI_MEM32_BUS, PCI_MEM32_SIZE, PCI_MEM64,
    PCI_MEM64_SIZE,
};
use devices::pci::{Bar, BarKind, Identity};
use fdt::{Cell, Node, Phandle};

/// A function on the bus.
#[derive(Debug, Clone)]
pub struct PciFunction {
    /// Device number (5 bits) and function number (3 bits).
    pub devfn: u8,
    /// The numbers in its header.
    pub identity: Identity,
    /// Its base address registers.
    pub bars: Vec<Bar>,
    /// How many MSI-X messages it may have.
    pub messages: u16,
    /// The interrupt source of its pin.
    pub lsi: u32,
}

/// Space codes of the first of an address's three cells.
const SPACE_MEM32: u32 = 0x0200_0000;
const SPACE_MEM64: u32 = 0x0300_0000;
const PREFETCHABLE: u32 = 0x4000_0000;

/// The first base address register in configuration space.
const BAR_0: u32 = 0x10;

/// Interrupt pin A, as `interrupts` says it.
const PIN_A: u32 = 1;

fn halves(n: u64) -> [u32; 2] {
    [(n >> 32) as u32, n as u32]
}

/// Device and function number as an address's first cell has it.
fn place(devfn: u8) -> u32 {
    u32::from(devfn) << 8
}

/// The host bridge, if there is a function behind it. `intc` is the machine's interrupt controller.
pub(super) fn host_bridge(functions: &[PciFunction], intc: Phandle) -> Option<Node> {
    if functions.is_empty() {
        return None;
    }
    let [buid_high, buid_low] = halves(PCI_BUID);
    let [dma_high, dma_low] = halves(PCI_DMA_SIZE);
    let node = Node::new(format!("pci@{PCI_BUID:x}"))
        .string("device_type", "pci")
        .string("compatible", "IBM,Logical_PHB")
        .cells("reg", [buid_high, buid_low, 0, 0])
        .u32("#address-cells", 3)
        .u32("#size-cells", 2)
        .u32("#interrupt-cells", 1)
        .cells("bus-range", [0, 0])
        .cells("ranges", ranges())
        .cells("interrupt-map-mask", [0xf800, 0, 0, 7])
        .cells("interrupt-map", functions.iter().flat_map(|function| pin(function, intc)))
        .empty("used-by-rtas")
        // Configuration space has 4096 bytes a function.
        .u32("ibm,pci-config-space-type", 1)
        // Linux makes no MSI domain without it, and then falls over a function that has messages. What it says Linux shares out
        // evenly; more than there are leaves each function what it has.
        .u32("ibm,pe-total-#msi", IRQ_MSI_COUNT)
        .u32("ibm,#dma-address-cells", 2)
        .u32("ibm,#dma-size-cells", 2)
        .cells("ibm,dma-window", [PCI_LIOBN, 0, 0, dma_high, dma_low]);
    Some(node.children(functions.iter().map(function_node)))
}

/// Windows: bus address (3 cells), CPU address (2), size (2). There is no I/O space.
fn ranges() -> Vec<u32> {
    let window = |space: u32, bus: u64, cpu: u64, size: u64| {
        [[space].as_slice(), &halves(bus), &halves(cpu), &halves(size)].concat()
    };
    [
        window(SPACE_MEM32, PCI_MEM32_BUS, PCI_MEM32, PCI_MEM32_SIZE),
        window(SPACE_MEM64, PCI_MEM64, PCI_MEM64, PCI_MEM64_SIZE),
    ]
    .concat()
}

/// A row of the interrupt map: function (3 cells), pin, controller, source, level triggered.
fn pin(function: &PciFunction, intc: Phandle) -> [Cell; 7] {
    let [zero, level] = [0, 1].map(Cell::from);
    [place(function.devfn).into(), zero, zero, PIN_A.into(), intc.into(), function.lsi.into(), level]
}

fn function_node(function: &PciFunction) -> Node {
    let Identity { vendor, device, revision, class, subsystem_vendor, subsystem } = function.identity;
    let (slot, number) = (function.devfn >> 3, function.devfn & 7);
    let unit = if number == 0 { format!("{slot:x}") } else { format!("{slot:x},{number:x}") };
    let messages = u32::from(function.messages);
    Node::new(format!("pci{vendor:x},{device:x}@{unit}"))
        .cells("reg", registers(function))
        .u32("vendor-id", vendor.into())
        .u32("device-id", device.into())
        .u32("revision-id", revision.into())
        .u32("class-code", class)
        .u32("subsystem-vendor-id", subsystem_vendor.into())
        .u32("subsystem-id", subsystem.into())
        .u32("interrupts", PIN_A)
        .u32("ibm,pci-config-space-type", 1)
        .when(messages > 0, |node| node.u32("ibm,req#msi-x", messages))
}

/// Configuration space, then each base address register: address (3 cells), size (2).
fn registers(function: &PciFunction) -> Vec<u32> {
    let mut cells = vec![place(function.devfn), 0, 0, 0, 0];
    for bar in &function.bars {
        let space = match bar.kind {
            BarKind::Memory32 => SPACE_MEM32,
            BarKind::Memory64 => SPACE_MEM64 | PREFETCHABLE,
        };
        cells.extend([space | place(function.devfn) | (BAR_0 + 4 * u32::from(bar.index)), 0, 0]);
        cells.extend(halves(bar.size));
    }
    cells
}

#[cfg(test)]
mod tests;
