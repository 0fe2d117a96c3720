//! The host bridge's node.

use super::*;
use crate::fake::function::IDENTITY;
use crate::tree::tests::{cells, power9};
use crate::tree::{Error, build};
use fdt::Tree;

const PATH: &str = "/pci@800000020000000";

fn function(slot: u8, messages: u16) -> PciFunction {
    PciFunction {
        devfn: slot << 3,
        identity: IDENTITY,
        bars: vec![
            Bar { index: 0, kind: BarKind::Memory64, size: 0x4000 },
            Bar { index: 2, kind: BarKind::Memory32, size: 0x1000 },
        ],
        messages,
        lsi: 0x1200 + u32::from(slot),
    }
}

fn tree(functions: &[PciFunction]) -> Result<Tree, Error> {
    let mut spec = power9();
    spec.pci = functions;
    build(&spec)
}

#[test]
fn without_functions_there_is_no_host_bridge() {
    let tree = tree(&[]).unwrap();
    assert!(tree.root().iter_children().all(|node| !node.name().starts_with("pci")));
    assert!(tree.node("/chosen").unwrap().get("linux,pci-probe-only").is_none());
}

#[test]
fn windows_interrupts_and_dma() {
    let functions = [function(0, 2), function(9, 3)];
    let tree = tree(&functions).unwrap();
    let bridge = |property| cells(&tree, PATH, property);
    assert_eq!(bridge("reg"), [0x0800_0000, 0x2000_0000, 0, 0]);
    assert_eq!(
        bridge("ranges"),
        [
            [0x0200_0000, 0, 0x8000_0000, 0x2000, 0x8000_0000, 0, 0x8000_0000],
            [0x0300_0000, 0x2100, 0, 0x2100, 0, 0x100, 0],
        ]
        .concat()
    );
    let controllers =
        tree.root().iter_children().filter(|node| node.name().starts_with("interrupt-controller"));
    let intc = controllers.map(|node| node.get_phandle().unwrap().get()).next().unwrap();
    assert_eq!(
        bridge("interrupt-map"),
        [[0, 0, 0, 1, intc, 0x1200, 1], [9 << 11, 0, 0, 1, intc, 0x1209, 1]].concat()
    );
    assert_eq!(bridge("ibm,pe-total-#msi"), [IRQ_MSI_COUNT]);
    assert_eq!(bridge("interrupt-map-mask"), [0xf800, 0, 0, 7]);
    assert_eq!(bridge("ibm,dma-window"), [PCI_LIOBN, 0, 0, 0, PCI_DMA_SIZE as u32]);
    assert_eq!(cells(&tree, "/chosen", "linux,pci-probe-only"), [0]);
}

#[test]
fn functions_are_nodes() {
    let functions = [function(0, 2), function(17, 0)];
    let tree = tree(&functions).unwrap();
    let first = format!("{PATH}/pci1af4,1042@0");
    let node = |property| cells(&tree, &first, property);
    assert_eq!(
        node("reg"),
        [[0, 0, 0, 0, 0], [0x4300_0010, 0, 0, 0, 0x4000], [0x0200_0018, 0, 0, 0, 0x1000]].concat()
    );
    assert_eq!(["vendor-id", "device-id", "class-code"].map(node), [[0x1af4], [0x1042], [0x01_00_00]]);
    assert_eq!((node("interrupts"), node("ibm,req#msi-x")), (vec![1], vec![2]));

    let second = format!("{PATH}/pci1af4,1042@11");
    assert_eq!(cells(&tree, &second, "reg")[..6], [17 << 11, 0, 0, 0, 0, 0x4300_0010 | 17 << 11]);
    assert!(tree.node(&second).unwrap().get("ibm,req#msi-x").is_none(), "Linux then takes the pin");
    tree.to_dtb().unwrap();
}

#[test]
fn msi_support_is_stated() {
    let vector = |functions: &[PciFunction]| {
        let tree = tree(functions).unwrap();
        tree.node("/chosen").unwrap().get("ibm,architecture-vec-5").unwrap().to_bytes()[2]
    };
    assert_eq!((vector(&[]), vector(&[function(0, 1)])), (0xc0, 0xc1));
}
