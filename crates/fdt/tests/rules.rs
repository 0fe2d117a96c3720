//! Each rule of the specification that a tree can break, and the error that says so.

use fdt::{Cell, Error, Node, Tree};

fn error(root: Node) -> Error {
    let mut tree = Tree::new();
    *tree.root_mut() = root;
    tree.to_dtb().unwrap_err()
}

fn accepted(root: Node) {
    let mut tree = Tree::new();
    *tree.root_mut() = root;
    tree.to_dtb().unwrap();
}

fn bus(address: u32, size: u32) -> Node {
    Node::root().u32("#address-cells", address).u32("#size-cells", size)
}

#[test]
fn node_names() {
    let max = "a".repeat(31);
    accepted(Node::root().child(Node::new(&max)).child(Node::new("PowerPC,POWER9+x_y.z-1")));
    for name in ["", "1abc", "a b", "a/b", "é", "a#", &format!("{max}a"), "@1", "a@", "a@1@2"] {
        let path = format!("/{name}");
        assert_eq!(error(Node::root().child(Node::new(name))), Error::NodeName { path });
    }
    assert_eq!(error(Node::new("root")), Error::RootName { name: "root".into() });
}

#[test]
fn property_names() {
    let long = "p".repeat(32);
    for name in ["", "a b", "a@b", "é", "a\0", &long] {
        let wanted = Error::PropertyName { path: "/".into(), name: name.into(), max: 31 };
        assert_eq!(error(Node::root().u32(name, 1)), wanted);
    }
    accepted(Node::root().u32("ibm,ppc-interrupt-gserver#s", 1).u32("64-bit", 1).u32(&long[1..], 1));
    for name in ["phandle", "linux,phandle"] {
        let wanted = Error::PhandleProperty { path: "/".into(), name: name.into() };
        assert_eq!(error(Node::root().u32(name, 1)), wanted);
    }
}

#[test]
fn names_are_given_once() {
    let wanted = Error::DuplicateProperty { path: "/".into(), name: "x".into() };
    assert_eq!(error(Node::root().u32("x", 1).empty("x")), wanted);
    let wanted = Error::DuplicateChild { path: "/a".into(), name: "b".into() };
    assert_eq!(error(Node::root().child(Node::new("a").child(Node::new("b")).child(Node::new("b")))), wanted);
    accepted(Node::root().child(Node::new("a").child(Node::new("b"))).child(Node::new("b")));
}

#[test]
fn strings_have_no_nul() {
    let wanted = Error::Nul { path: "/".into(), name: "s".into() };
    assert_eq!(error(Node::root().string("s", "a\0b")), wanted);
    assert_eq!(error(Node::root().strings("s", ["a", "b\0"])), wanted);
}

#[test]
fn unit_addresses_are_the_first_address() {
    accepted(bus(1, 0).child(Node::new("vty@71000000").u32("reg", 0x7100_0000)));
    accepted(bus(2, 2).child(Node::new("memory@0").cells("reg", [0u32, 0, 0, 1])));
    accepted(
        bus(2, 2).child(Node::new("pci@800000020000000").cells("reg", [0x0800_0000u32, 0x2000_0000, 0, 0])),
    );
    let cases = [("memory", "0"), ("memory@00", "0"), ("memory@1", "0")];
    for (name, expected) in cases {
        let path = format!("/{name}");
        let root = bus(2, 2).child(Node::new(name).cells("reg", [0u32, 0, 0, 1]));
        assert_eq!(error(root), Error::UnitAddress { path, expected: expected.into() });
    }
    let wanted = Error::UnitAddressWithoutReg { path: "/memory@0".into() };
    assert_eq!(error(bus(2, 2).child(Node::new("memory@0"))), wanted);
}

#[test]
fn pci_unit_addresses_are_device_and_function() {
    let pci = |name: &str, hi: u32| {
        let device = Node::new(name).cells("reg", [hi, 0, 0, 0, 0]);
        Node::root().child(
            Node::new("pci")
                .string("device_type", "pci")
                .u32("#address-cells", 3)
                .u32("#size-cells", 2)
                .child(device),
        )
    };
    accepted(pci("ethernet@1f", 0x1f << 11));
    accepted(pci("scsi@2,1", 2 << 11 | 1 << 8));
    let wanted = Error::UnitAddress { path: "/pci/scsi@1000".into(), expected: "2".into() };
    assert_eq!(error(pci("scsi@1000", 2 << 11)), wanted);
}

#[test]
fn reg_is_whole_entries_of_stated_cells() {
    let path = || "/a@0".to_string();
    let child = |cells: &[u32]| Node::new("a@0").cells("reg", cells.iter().copied());
    let wanted = Error::RegLength { path: path(), address: 1, size: 1 };
    assert_eq!(error(bus(1, 1).child(child(&[0, 1, 2]))), wanted);
    assert_eq!(error(bus(1, 1).child(child(&[]))), wanted);
    assert_eq!(error(bus(1, 1).child(Node::new("a@0").bytes("reg", [0u8; 7]))), wanted);
    assert_eq!(error(Node::root().child(child(&[0, 1]))), Error::ParentCells { path: path() });
    assert_eq!(error(bus(5, 1).child(child(&[0, 1]))), Error::ParentCells { path: path() });
}

#[test]
fn phandles_name_one_node() {
    let mut tree = Tree::new();
    let (p, q) = (tree.new_phandle(), tree.new_phandle());
    assert_ne!(p, q);
    *tree.root_mut() = Node::root().child(Node::new("a").phandle(p)).child(Node::new("b").phandle(p));
    let wanted = Error::DuplicatePhandle { path: "/b".into(), other: "/a".into(), phandle: p.get() };
    assert_eq!(tree.to_dtb().unwrap_err(), wanted);

    *tree.root_mut() =
        Node::root().cells("x", [Cell::U32(0), Cell::Phandle(q)]).child(Node::new("a").phandle(p));
    let wanted = Error::DanglingPhandle { path: "/".into(), name: "x".into(), phandle: q.get() };
    assert_eq!(tree.to_dtb().unwrap_err(), wanted);
}

#[test]
fn reservations_are_sane() {
    let reserved = |list: &[(u64, u64)]| {
        let mut tree = Tree::new();
        list.iter().for_each(|(address, size)| tree.reserve(*address, *size));
        tree.to_dtb()
    };
    assert!(reserved(&[(0x1000, 0x1000), (0, 0x1000)]).is_ok());
    assert_eq!(reserved(&[(1, 0)]), Err(Error::Reservation { address: 1, size: 0 }));
    assert_eq!(reserved(&[(u64::MAX, 2)]), Err(Error::Reservation { address: u64::MAX, size: 2 }));
    assert!(matches!(reserved(&[(0, 0x1001), (0x1000, 1)]), Err(Error::Write(_))));
}

#[test]
fn nesting_has_a_limit() {
    let nested = |depth: usize| (1..depth).fold(Node::new("n"), |inner, _| Node::new("n").child(inner));
    accepted(Node::root().child(nested(63)));
    let deep = error(Node::root().child(nested(64)));
    assert!(matches!(deep, Error::Depth { max: 64, .. }), "{deep:?}");
}
