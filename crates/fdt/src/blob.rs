//! Flattening through vm-fdt.
//!
//! vm-fdt refuses property names of more than 31 bytes. That is the specification's limit, but nothing in
//! the blob's format asks for it, and PAPR has such names. They are therefore written under a short stand-in
//! that no property of the tree bears, and afterwards the strings block is laid out again with the real names.

use std::collections::{BTreeMap, BTreeSet};

use vm_fdt::{Error, FdtReserveEntry, FdtWriter};

use crate::node::Node;
use crate::tree::{PROPERTY_NAME_MAX, Tree};

/// Flattens `tree`, which has been checked.
pub(crate) fn write(tree: &Tree) -> Result<Vec<u8>, Error> {
    let reservations: Vec<_> = tree
        .reservations()
        .iter()
        .map(|r| FdtReserveEntry::new(r.address, r.size))
        .collect::<Result<_, _>>()?;
    let stand_ins = StandIns::for_tree(tree.root());
    let mut writer = FdtWriter::new_with_mem_reserv(&reservations)?;
    writer.set_boot_cpuid_phys(tree.boot_cpuid_phys());
    write_node(&mut writer, tree.root(), &stand_ins)?;
    let blob = writer.finish()?;
    if stand_ins.short_of.is_empty() { Ok(blob) } else { relabel(blob, &stand_ins.real_names()) }
}

fn write_node(writer: &mut FdtWriter, node: &Node, stand_ins: &StandIns) -> Result<(), Error> {
    let open = writer.begin_node(&node.name)?;
    for property in &node.properties {
        writer.property(stand_ins.writable(&property.name), &property.value.to_bytes())?;
    }
    if let Some(phandle) = node.phandle {
        writer.property_phandle(phandle.get())?;
    }
    for child in &node.children {
        write_node(writer, child, stand_ins)?;
    }
    writer.end_node(open)
}

/// Short names for the long ones of a tree.
struct StandIns<'a> {
    short_of: BTreeMap<&'a str, String>,
}

impl<'a> StandIns<'a> {
    fn for_tree(root: &'a Node) -> Self {
        let mut names = BTreeSet::new();
        collect_names(root, &mut names);
        let mut free = (0u32..).map(|n| format!("?{n}")).filter(|short| !names.contains(short.as_str()));
        let long = names.iter().filter(|name| name.len() > PROPERTY_NAME_MAX);
        StandIns { short_of: long.filter_map(|name| Some((*name, free.next()?))).collect() }
    }

    fn writable<'b>(&'b self, name: &'b str) -> &'b str {
        self.short_of.get(name).map_or(name, String::as_str)
    }

    fn real_names(&self) -> BTreeMap<&[u8], &[u8]> {
        self.short_of.iter().map(|(long, short)| (short.as_bytes(), long.as_bytes())).collect()
    }
}

fn collect_names<'a>(node: &'a Node, names: &mut BTreeSet<&'a str>) {
    names.extend(node.properties.iter().map(|p| p.name.as_str()));
    node.children.iter().for_each(|child| collect_names(child, names));
}

// Header fields (Devicetree Specification, section 5.2) and structure tokens (section 5.4.1).
const TOTALSIZE: usize = 4;
const OFF_DT_STRUCT: usize = 8;
const OFF_DT_STRINGS: usize = 12;
const SIZE_DT_STRINGS: usize = 32;
const FDT_BEGIN_NODE: u32 = 1;
const FDT_PROP: u32 = 3;
const FDT_END: u32 = 9;

/// Lays out the strings block of `blob` again, with `real` names for stand-ins.
///
/// `blob` is vm-fdt's: the strings block is its last part, and the offsets inside it are trusted.
fn relabel(mut blob: Vec<u8>, real: &BTreeMap<&[u8], &[u8]>) -> Result<Vec<u8>, Error> {
    let off_strings = get(&blob, OFF_DT_STRINGS) as usize;
    let old = blob.split_off(off_strings);
    let mut strings = Strings::default();
    let mut at = get(&blob, OFF_DT_STRUCT) as usize;
    loop {
        match get(&blob, at) {
            FDT_END => break,
            FDT_BEGIN_NODE => at += 4 + aligned(until_nul(&blob[at + 4..]).len() + 1),
            FDT_PROP => {
                let written = until_nul(&old[get(&blob, at + 8) as usize..]);
                let name = real.get(written).copied().unwrap_or(written);
                put(&mut blob, at + 8, strings.offset_of(name)?);
                at += 12 + aligned(get(&blob, at + 4) as usize);
            }
            _ => at += 4,
        }
    }
    put(&mut blob, SIZE_DT_STRINGS, size(strings.block.len())?);
    blob.append(&mut strings.block);
    let total = size(blob.len())?;
    put(&mut blob, TOTALSIZE, total);
    Ok(blob)
}

/// A strings block, each string once.
#[derive(Default)]
struct Strings<'a> {
    block: Vec<u8>,
    offsets: BTreeMap<&'a [u8], u32>,
}

impl<'a> Strings<'a> {
    fn offset_of(&mut self, name: &'a [u8]) -> Result<u32, Error> {
        if let Some(offset) = self.offsets.get(name) {
            return Ok(*offset);
        }
        let offset = size(self.block.len())?;
        self.block.extend_from_slice(name);
        self.block.push(0);
        self.offsets.insert(name, offset);
        Ok(offset)
    }
}

fn get(blob: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([blob[at], blob[at + 1], blob[at + 2], blob[at + 3]])
}

fn put(blob: &mut [u8], at: usize, n: u32) {
    blob[at..at + 4].copy_from_slice(&n.to_be_bytes());
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|b| *b == 0).next().unwrap_or(bytes)
}

/// Tokens are on 4-byte boundaries, so names and values are padded to them.
fn aligned(len: usize) -> usize {
    len.next_multiple_of(4)
}

fn size(len: usize) -> Result<u32, Error> {
    len.try_into().map_err(|_| Error::TotalSizeTooLarge)
}
