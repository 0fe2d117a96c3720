//! What goes into a tree comes out of the blob: every value, in order, whatever the names' lengths.

mod common;

use common::{Parsed, parse};
use fdt::{Cell, Node, Tree};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

/// The tree's own view of a node, in the form that the parser gives.
fn expected(node: &Node) -> Parsed {
    let mut properties: Vec<_> =
        node.iter_properties().map(|p| (p.name().to_string(), p.value().to_bytes())).collect();
    properties.extend(node.get_phandle().map(|p| ("phandle".to_string(), p.get().to_be_bytes().to_vec())));
    Parsed { name: node.name().into(), properties, children: node.iter_children().map(expected).collect() }
}

#[test]
fn every_kind_of_value() {
    let mut tree = Tree::new();
    let intc = tree.new_phandle();
    *tree.root_mut() = Node::root()
        .u32("#address-cells", 2)
        .u32("#size-cells", 1)
        .string("model", "test")
        .strings("compatible", ["one", "two"])
        .empty("flag")
        .u64("big", 0x1122_3344_5566_7788)
        .bytes("odd", [1u8, 2, 3])
        .child(Node::new("zeta@100000000").cells("reg", [1u32, 0, 0x1000]).phandle(intc))
        .child(Node::new("alpha").cells("mixed", [Cell::U32(5), Cell::Phandle(intc)]));
    tree.reserve(0x2000, 0x1000);
    tree.reserve(0x1000, 0x1000);
    tree.set_boot_cpuid_phys(8);

    let blob = parse(&tree.to_dtb().unwrap());
    assert_eq!(blob.boot_cpuid_phys, 8);
    assert_eq!(blob.reservations, [(0x2000, 0x1000), (0x1000, 0x1000)]);
    assert_eq!(blob.root, expected(tree.root()));
    assert_eq!(blob.root.children[0].name, "zeta@100000000", "children stay in order");
    assert_eq!(
        blob.root.children[1].properties,
        [("mixed".into(), vec![0, 0, 0, 5, 0, 0, 0, intc.get() as u8])]
    );
}

#[test]
fn long_property_names() {
    let long = "ibm,processor-radix-AP-encodings";
    let longer = "ibm,query-interrupt-source-number";
    let mut tree = Tree::new();
    tree.set_property_name_max(63);
    // "?0" is the name that the writer would otherwise use in place of the first long one.
    *tree.root_mut() = Node::root()
        .u32("?0", 1)
        .u32(long, 2)
        .child(Node::new("a").u32("x", 3).u32(longer, 4))
        .child(Node::new("b").u32(long, 5));
    assert_eq!(parse(&tree.to_dtb().unwrap()).root, expected(tree.root()));
}

#[test]
fn nodes_are_found_by_path() {
    let mut tree = Tree::new();
    *tree.root_mut() = Node::root().child(Node::new("a").child(Node::new("b").u32("x", 1)));
    assert_eq!(tree.node("/").unwrap().name(), "");
    assert_eq!(tree.node("/a/b").unwrap().get("x").unwrap().to_cells(), Some(vec![1]));
    assert!(tree.node("/a/c").is_none());
    assert!(tree.node("a/b").is_none());
}

fn nodes() -> impl Strategy<Value = Node> {
    let name = || "[a-z][a-z0-9,._+-]{0,30}";
    let properties = || btree_map("[a-z#?][a-zA-Z0-9,._+?#-]{0,40}", vec(any::<u8>(), 0..9), 0..5);
    let build = |name: String, properties, children: Vec<Node>| {
        let properties: std::collections::BTreeMap<String, Vec<u8>> = properties;
        let children: std::collections::BTreeMap<_, _> =
            children.into_iter().map(|c| (c.name().to_string(), c)).collect();
        let node =
            properties.into_iter().fold(Node::new(name), |node, (name, value)| node.bytes(name, value));
        node.children(children.into_values())
    };
    let leaf = (name(), properties()).prop_map(move |(name, properties)| build(name, properties, Vec::new()));
    leaf.prop_recursive(4, 20, 4, move |inner| {
        (name(), properties(), vec(inner, 0..4)).prop_map(move |(n, p, c)| build(n, p, c))
    })
}

proptest! {
    #[test]
    fn any_valid_tree_round_trips(children in vec(nodes(), 0..3), boot in any::<u32>()) {
        let children: std::collections::BTreeMap<_, _> =
            children.into_iter().map(|c| (c.name().to_string(), c)).collect();
        let mut tree = Tree::new();
        tree.set_property_name_max(41);
        tree.set_boot_cpuid_phys(boot);
        *tree.root_mut() = Node::root().children(children.into_values());
        prop_assume!(tree.check().is_ok()); // a random name may be `reg` or `phandle`
        let blob = parse(&tree.to_dtb().unwrap());
        prop_assert_eq!(blob.root, expected(tree.root()));
        prop_assert_eq!(blob.boot_cpuid_phys, boot);
    }

    #[test]
    fn any_names_at_all_are_an_answer(node in ".{0,40}", property in ".{0,40}", text in ".{0,8}") {
        let mut tree = Tree::new();
        tree.set_property_name_max(63);
        *tree.root_mut() = Node::root().child(Node::new(node).string(property, text));
        if let Ok(dtb) = tree.to_dtb() {
            prop_assert_eq!(parse(&dtb).root, expected(tree.root()));
        }
    }
}
