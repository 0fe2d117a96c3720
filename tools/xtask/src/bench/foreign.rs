//! A program for ppc64el out of Debian's packages, with the libraries that it loads: for a host or a guest that
//! has no Debian.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use elf::ElfBytes;
use elf::abi::DT_NEEDED;
use elf::endian::AnyEndian;

use crate::lab::fetch;

/// The program loader: the one path that a program cannot be told, `/lib64/ld64.so.2`.
pub const LOADER: &str = "ld64.so.2";

const LIBRARIES: [&str; 4] = ["lib/powerpc64le-linux-gnu", "usr/lib/powerpc64le-linux-gnu", "lib", "usr/lib"];

/// A program and its version.
pub struct Program {
    /// Debian's version of the package.
    pub version: String,
    /// The program.
    pub path: PathBuf,
    /// The shared objects that it needs, and those that they need, by the names that they are looked up by; the
    /// loader is one of them.
    pub libraries: BTreeMap<String, PathBuf>,
}

/// Fetches `package` into the lab's `tree` if it is missing, and picks what its file `program` needs to run.
pub fn program(tree: &str, package: &str, program: &str) -> Result<Program> {
    let tree = fetch::foreign_tree(tree, &[package])?;
    let stamp = fs::read_to_string(tree.join("stamp"))?;
    let version = stamp.lines().find_map(|line| line.strip_prefix(package)?.strip_prefix(' '));
    let version = version.and_then(|rest| rest.split(' ').next());
    let version = version.with_context(|| format!("the packages have no {package}"))?.to_owned();
    let path = tree.join(program);
    let libraries = libraries(&tree, &path)?;
    Ok(Program { version, path, libraries })
}

fn libraries(tree: &Path, program: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut queue = VecDeque::from([program.to_owned()]);
    while let Some(file) = queue.pop_front() {
        for name in needed(&file)? {
            if found.contains_key(&name) {
                continue;
            }
            let path = LIBRARIES.iter().map(|dir| tree.join(dir).join(&name)).find(|path| path.exists());
            let path = path.with_context(|| format!("the packages bring no {name}"))?;
            queue.push_back(path.clone());
            found.insert(name, path);
        }
    }
    ensure!(found.contains_key(LOADER), "nothing needs {LOADER}, so this is not glibc's ppc64el");
    Ok(found)
}

/// DT_NEEDED of an ELF file.
fn needed(file: &Path) -> Result<Vec<String>> {
    let read = || -> Result<Vec<String>> {
        let bytes = fs::read(file)?;
        let elf = ElfBytes::<AnyEndian>::minimal_parse(&bytes)?;
        let tables = elf.find_common_data()?;
        let (dynamic, names) = (tables.dynamic.context("no dynamic section")?, tables.dynsyms_strs);
        let names = names.context("no string table")?;
        dynamic
            .iter()
            .filter(|entry| entry.d_tag == DT_NEEDED)
            .map(|entry| Ok(names.get(entry.d_val() as usize)?.to_owned()))
            .collect()
    };
    read().with_context(|| format!("cannot tell what {} needs", file.display()))
}
