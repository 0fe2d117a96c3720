//! The parts of a kernel package that the lab uses: the image, and a few modules with what they depend on.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// What hosts and guests load, as lists: the host always, when it has disks, and for a bridge; a guest for each kind of virtio
/// device, by its ID, and for its root. Virtio's PCI transport and its console are built in. The checksum is ext4's, which asks
/// for it by an alias that only depmod's tables would resolve.
const WANTED: [(&str, &[&str]); 9] = [
    ("order", &["kvm_hv"]),
    ("order-disk", &["virtio_blk", "crc32c_generic", "ext4"]),
    ("order-net", &["tun", "bridge", "vhost_net"]),
    ("virtio-0x0001", &["virtio_net"]),
    ("virtio-0x0002", &["virtio_blk"]),
    ("virtio-0x0004", &["virtio_rng"]),
    ("virtio-0x0005", &["virtio_balloon"]),
    ("virtio-0x0013", &["vmw_vsock_virtio_transport"]),
    ("order-root", &["crc32c_generic", "ext4"]),
];

/// The lists that a guest gets.
pub const GUEST_LISTS: [&str; 6] =
    ["virtio-0x0001", "virtio-0x0002", "virtio-0x0004", "virtio-0x0005", "virtio-0x0013", "order-root"];

/// The lists that a host gets.
pub const HOST_LISTS: [&str; 3] = ["order", "order-disk", "order-net"];

/// The lists and the modules that they name, as files below `dir`.
pub fn listed(dir: &Path, lists: &[&str]) -> Result<BTreeSet<String>> {
    let mut files = BTreeSet::new();
    for list in lists {
        let path = dir.join(list);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        files.extend(text.lines().map(str::to_owned));
        files.insert((*list).to_owned());
    }
    Ok(files)
}

/// The `vmlinux` of an unpacked kernel package.
pub fn kernel_image(package: &Path) -> Result<PathBuf> {
    let boot = package.join("boot");
    let entries = fs::read_dir(&boot).with_context(|| format!("cannot read {}", boot.display()))?;
    let mut images = entries.filter_map(Result::ok).map(|entry| entry.path());
    images
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinux")))
        .with_context(|| format!("{} holds no vmlinux", boot.display()))
}

/// Decompresses the wanted modules of `package` and their dependencies into `into`, with files that list them
/// in order.
pub fn prepare(package: &Path, into: &Path, xz: &Path) -> Result<()> {
    fs::create_dir_all(into)?;
    let mut available = HashMap::new();
    collect(package, &mut available)?;
    let loader = Loader { available, into, xz };
    for (list, names) in WANTED {
        let mut order = Vec::new();
        for name in names {
            loader.load(name, &mut order)?;
        }
        fs::write(into.join(list), order.iter().map(|name| format!("{name}.ko\n")).collect::<String>())?;
    }
    Ok(())
}

/// The module `name` of `package`, decompressed; for one that depends on no other.
pub fn single(package: &Path, name: &str, xz: &Path) -> Result<Vec<u8>> {
    let mut available = HashMap::new();
    collect(package, &mut available)?;
    let path = available.get(name).with_context(|| format!("the kernel package has no module {name}"))?;
    let module = decompress(path, xz)?;
    ensure!(depends(&module).is_empty(), "the module {name} needs others");
    Ok(module)
}

struct Loader<'a> {
    available: HashMap<String, PathBuf>,
    into: &'a Path,
    xz: &'a Path,
}

impl Loader<'_> {
    /// Puts `name` into `order`, behind what it depends on.
    fn load(&self, name: &str, order: &mut Vec<String>) -> Result<()> {
        if order.iter().any(|loaded| loaded == name) {
            return Ok(());
        }
        let path = self.available.get(name);
        let module =
            decompress(path.with_context(|| format!("the kernel package has no module {name}"))?, self.xz)?;
        for dependency in depends(&module) {
            self.load(&dependency, order)?;
        }
        fs::write(self.into.join(format!("{name}.ko")), &module)?;
        order.push(name.to_owned());
        Ok(())
    }
}

/// All modules below `dir` by their names, in which the kernel takes `-` for `_`.
fn collect(dir: &Path, found: &mut HashMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), found)?;
        } else if let Some((module, "" | ".xz")) = name.split_once(".ko") {
            found.insert(module.replace('-', "_"), entry.path());
        }
    }
    Ok(())
}

fn decompress(path: &Path, xz: &Path) -> Result<Vec<u8>> {
    if path.extension().is_none_or(|extension| extension != "xz") {
        return Ok(fs::read(path)?);
    }
    let output = Command::new(xz)
        .args(["--decompress", "--stdout"])
        .arg(path)
        .output()
        .with_context(|| format!("cannot run {}", xz.display()))?;
    ensure!(
        output.status.success(),
        "cannot decompress {}: {}",
        path.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(output.stdout)
}

/// The names in the module's `depends=` entry: NUL-terminated text in its .modinfo section.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let value = module[at + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(value)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_modinfo() {
        assert_eq!(depends(b"license=GPL\0depends=kvm,irq-bypass\0name=x\0"), ["kvm", "irq_bypass"]);
        assert_eq!(depends(b"license=GPL\0depends=\0name=x\0"), Vec::<String>::new());
        assert_eq!(depends(b"nothing"), Vec::<String>::new());
    }
}
