//! QEMU for a ppc64el machine, as the lab host needs it: the program, the libraries that it loads and its
//! firmware.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use elf::ElfBytes;
use elf::abi::DT_NEEDED;
use elf::endian::AnyEndian;

use crate::lab::fetch;

/// Where its files are below the host's /lab.
pub const DIRECTORY: &str = "qemu";
/// The program loader: the one path that the program cannot be told.
pub const LOADER: &str = "ld64.so.2";

const PROGRAM: &str = "usr/bin/qemu-system-ppc64";
const LIBRARIES: [&str; 4] = ["lib/powerpc64le-linux-gnu", "usr/lib/powerpc64le-linux-gnu", "lib", "usr/lib"];

/// QEMU and its version.
pub struct Qemu {
    /// Debian's version of the package.
    pub version: String,
    /// The files and their names below [`DIRECTORY`].
    pub files: Vec<(PathBuf, String)>,
}

/// Fetches QEMU's packages if they are missing, and picks what it needs to run.
pub fn get() -> Result<Qemu> {
    let tree = fetch::foreign_tree("qemu-ppc64el", &["qemu-system-ppc"])?;
    let stamp = fs::read_to_string(tree.join("stamp"))?;
    let version = stamp.lines().find_map(|line| line.strip_prefix("qemu-system-ppc "));
    let version = version.and_then(|rest| rest.split(' ').next()).context("the packages have no QEMU")?;
    let mut files = vec![(tree.join(PROGRAM), "qemu-system-ppc64".to_owned())];
    for (name, path) in libraries(&tree)? {
        files.push((path, format!("lib/{name}")));
    }
    Ok(Qemu { version: version.to_owned(), files })
}

/// The shared objects that the program needs, and those that they need, by the names that they are looked up
/// by.
fn libraries(tree: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut queue = VecDeque::from([tree.join(PROGRAM)]);
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
