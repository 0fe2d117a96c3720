//! What the Devicetree Specification asks of names, `reg`, unit addresses and phandles.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Error;
use crate::node::{Node, Property};
use crate::tree::Tree;
use crate::value::Value;

/// The longest `node-name`, without its unit address (section 2.2.1.1).
const NODE_NAME_MAX: usize = 31;

/// The deepest nesting that vm-fdt writes and Linux reads (`FDT_MAX_DEPTH`).
const DEPTH_MAX: usize = 64;

/// Checks everything but what needs the finished blob: its size, and overlapping reservations.
pub(crate) fn check(tree: &Tree) -> Result<(), Error> {
    let root = tree.root();
    if !root.name.is_empty() {
        return Err(Error::RootName { name: root.name.clone() });
    }
    for r in tree.reservations() {
        if r.size == 0 || r.address.checked_add(r.size).is_none() {
            return Err(Error::Reservation { address: r.address, size: r.size });
        }
    }
    let mut walk = Walk { property_name_max: tree.property_name_max(), owners: BTreeMap::new() };
    walk.node(root, "/", 1)?;
    walk.references(root, "/")
}

struct Walk {
    property_name_max: usize,
    /// phandle -> path of the node that owns it.
    owners: BTreeMap<u32, String>,
}

impl Walk {
    fn node(&mut self, node: &Node, path: &str, depth: usize) -> Result<(), Error> {
        if depth > DEPTH_MAX {
            return Err(Error::Depth { path: path.into(), max: DEPTH_MAX });
        }
        let mut names = BTreeSet::new();
        for property in &node.properties {
            self.property(property, path)?;
            if !names.insert(&property.name) {
                return Err(Error::DuplicateProperty { path: path.into(), name: property.name.clone() });
            }
        }
        if let Some(phandle) = node.phandle {
            if let Some(other) = self.owners.insert(phandle.0, path.into()) {
                return Err(Error::DuplicatePhandle { path: path.into(), other, phandle: phandle.0 });
            }
        }
        let mut names = BTreeSet::new();
        for child in &node.children {
            let child_path = join(path, &child.name);
            if !node_name_valid(&child.name) {
                return Err(Error::NodeName { path: child_path });
            }
            if !names.insert(&child.name) {
                return Err(Error::DuplicateChild { path: path.into(), name: child.name.clone() });
            }
            unit_address(node, child, &child_path)?;
            self.node(child, &child_path, depth + 1)?;
        }
        Ok(())
    }

    fn property(&self, property: &Property, path: &str) -> Result<(), Error> {
        let name = &property.name;
        let max = self.property_name_max;
        if name.is_empty() || name.len() > max || !name.chars().all(property_char) {
            return Err(Error::PropertyName { path: path.into(), name: name.clone(), max });
        }
        if matches!(name.as_str(), "phandle" | "linux,phandle") {
            return Err(Error::PhandleProperty { path: path.into(), name: name.clone() });
        }
        if property.value.strings().iter().any(|s| s.contains('\0')) {
            return Err(Error::Nul { path: path.into(), name: name.clone() });
        }
        Ok(())
    }

    /// A second walk, because a property may refer to a node that comes after it.
    fn references(&self, node: &Node, path: &str) -> Result<(), Error> {
        for property in &node.properties {
            for phandle in property.value.references() {
                if !self.owners.contains_key(&phandle.0) {
                    let name = property.name.clone();
                    return Err(Error::DanglingPhandle { path: path.into(), name, phandle: phandle.0 });
                }
            }
        }
        node.children.iter().try_for_each(|child| self.references(child, &join(path, &child.name)))
    }
}

fn join(path: &str, name: &str) -> String {
    if path == "/" { format!("/{name}") } else { format!("{path}/{name}") }
}

fn node_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, ',' | '.' | '_' | '+' | '-')
}

fn property_char(c: char) -> bool {
    node_char(c) || matches!(c, '?' | '#')
}

fn node_name_valid(full: &str) -> bool {
    let (name, unit) = match full.split_once('@') {
        Some((name, unit)) => (name, Some(unit)),
        None => (full, None),
    };
    name.len() <= NODE_NAME_MAX
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(node_char)
        && unit.is_none_or(|u| !u.is_empty() && u.chars().all(node_char))
}

/// `reg` is whole entries, and its first address is the unit address (section 2.2.1.1).
fn unit_address(parent: &Node, child: &Node, path: &str) -> Result<(), Error> {
    let unit = child.name.split_once('@').map(|(_, unit)| unit);
    let Some(reg) = child.get("reg") else {
        return match unit {
            Some(_) => Err(Error::UnitAddressWithoutReg { path: path.into() }),
            None => Ok(()),
        };
    };
    let (Some(address), Some(size)) = (count(parent, "#address-cells"), count(parent, "#size-cells")) else {
        return Err(Error::ParentCells { path: path.into() });
    };
    let cells = reg.to_cells().unwrap_or_default();
    let entry = (address + size) as usize;
    if entry == 0 || cells.is_empty() || cells.len() % entry != 0 {
        return Err(Error::RegLength { path: path.into(), address, size });
    }
    let first = &cells[..address as usize];
    let pci = parent.get("device_type") == Some(&Value::String("pci".into()));
    let expected = if pci { pci_unit(first) } else { hex_unit(first) };
    if unit == Some(expected.as_str()) {
        Ok(())
    } else {
        Err(Error::UnitAddress { path: path.into(), expected })
    }
}

fn count(parent: &Node, name: &str) -> Option<u32> {
    match parent.get(name)?.to_cells()?.as_slice() {
        [n @ 0..=4] => Some(*n),
        _ => None,
    }
}

/// An address in lower-case hexadecimal without leading zeros.
fn hex_unit(address: &[u32]) -> String {
    let digits: String = address.iter().map(|cell| format!("{cell:08x}")).collect();
    match digits.trim_start_matches('0') {
        "" => "0".into(),
        digits => digits.into(),
    }
}

/// `DD` or `DD,F`: device and function out of phys.hi (IEEE 1275 PCI bus binding).
fn pci_unit(address: &[u32]) -> String {
    let hi = address.first().copied().unwrap_or_default();
    match (hi >> 11 & 0x1f, hi >> 8 & 7) {
        (device, 0) => format!("{device:x}"),
        (device, function) => format!("{device:x},{function:x}"),
    }
}
