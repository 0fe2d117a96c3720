//! The devices of a VM. Each is a table: `[[disk]]` and `[[net]]` as often as there are disks and cards, `[vsock]`,
//! `[rng]` and `[balloon]` once; the device is there if its table is.
//!
//! [`DeviceSettings`] is what was said; [`Devices`] has the defaults, and no two devices that get in each other's way.
//! Only what the configuration alone can tell is checked here; what the host has to have is [`host`](super::host)'s.

#[cfg(test)]
pub(super) mod tests;
mod values;

pub use values::{DeviceThreads, MacAddress};
pub(super) use values::{cid, disk_id, tap};

use super::{ConsoleChoice, MemorySize};
use devices::virtio::block::{self, OpenError};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Bytes of the path of a socket of virtio-vsock at most: `sun_path` without the final zero, and room for the `_PORT`
/// that is added for each port of the host.
const MAX_SOCKET_PATH: usize = 107 - "_4294967295".len();

/// Devices that cannot be had together, or not like this.
#[derive(Debug, thiserror::Error)]
pub enum DevicesError {
    /// A key without which the device is nothing.
    #[error("{device} has no {key}; write {key} in {table}, or {flag} {key}=…")]
    Missing {
        /// As `disk 2`.
        device: String,
        /// What is missing.
        key: &'static str,
        /// The table as the file has it.
        table: &'static str,
        /// The flag.
        flag: &'static str,
    },
    /// Two devices that want the same for themselves.
    #[error("{one} and {other} have the same {key} ({value}); each needs its own")]
    Same {
        /// As `net 1`.
        one: String,
        /// As `net 2`.
        other: String,
        /// The key.
        key: &'static str,
        /// What both have.
        value: String,
    },
    /// A disk's image.
    #[error("disk {number} ([[disk]], --disk) cannot be had")]
    Image {
        /// Which disk, from 1.
        number: usize,
        /// Why.
        #[source]
        source: OpenError,
    },
    /// An image that two disks would change under each other's hands.
    #[error(
        "disks {one} and {other} are the same image, {}; give it once, or both times as readonly", path.display()
    )]
    SameImage {
        /// Which disk, from 1.
        one: usize,
        /// Another one.
        other: usize,
        /// The image.
        path: PathBuf,
    },
    /// A path that no socket can have.
    #[error(
        "the path of the vsock, {}, is {} bytes long; at most {MAX_SOCKET_PATH} are possible (path in [vsock], or --vsock path=…)",
        path.display(), path.as_os_str().len()
    )]
    SocketPath {
        /// The path.
        path: PathBuf,
    },
    /// A balloon larger than what it is in.
    #[error(
        "a balloon of {size} leaves nothing of {memory} of memory; lower size in [balloon] (--balloon size=…)"
    )]
    Balloon {
        /// The balloon.
        size: MemorySize,
        /// Guest RAM.
        memory: MemorySize,
    },
    /// Two consoles in one place.
    #[error(
        "both consoles are {console}; choose another place for one of them (--console, --virtio-console; backend and \
         virtio in [console])"
    )]
    Console {
        /// Where both are.
        console: ConsoleChoice,
    },
}

/// What flags or a file said of devices. A value that is there is good by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceSettings {
    /// `[[disk]]`.
    pub disks: Vec<DiskSettings>,
    /// `[[net]]`.
    pub nets: Vec<NetSettings>,
    /// `[vsock]`.
    pub vsock: Option<VsockSettings>,
    /// `[rng]`.
    pub rng: Option<Rng>,
    /// `[balloon]`.
    pub balloon: Option<Balloon>,
    /// The second console.
    pub console: Option<ConsoleChoice>,
    /// How many threads run queues.
    pub threads: Option<DeviceThreads>,
}

/// What was said of a disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskSettings {
    /// Image or block device.
    pub path: Option<PathBuf>,
    /// Whether the guest may only read.
    pub readonly: bool,
    /// Whether the host's page cache is left out.
    pub direct: bool,
    /// Whether every write lasts by itself.
    pub writethrough: bool,
    /// What the guest is told as its serial number.
    pub id: Option<String>,
    /// Whether it goes through the host bridge's translation.
    pub iommu: bool,
}

/// What was said of a network card.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetSettings {
    /// The tap.
    pub tap: Option<String>,
    /// The card's address.
    pub mac: Option<MacAddress>,
    /// Whether it goes through the host bridge's translation.
    pub iommu: bool,
}

/// What was said of the vsock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VsockSettings {
    /// The guest's context ID.
    pub cid: Option<u32>,
    /// The socket.
    pub path: Option<PathBuf>,
    /// Whether it goes through the host bridge's translation.
    pub iommu: bool,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Raw image or block device.
    pub path: PathBuf,
    /// Whether the guest may only read.
    pub readonly: bool,
    /// Whether the host's page cache is left out (`O_DIRECT`).
    pub direct: bool,
    /// Whether every write lasts by itself, unless the guest wants otherwise.
    pub writethrough: bool,
    /// What the guest is told as its serial number: 1 to 20 printable ASCII characters.
    pub id: Option<String>,
    /// Whether it offers to go through the host bridge's translation (VIRTIO_F_ACCESS_PLATFORM).
    pub iommu: bool,
}

/// A network card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Net {
    /// The host's tap interface. No two cards have the same.
    pub tap: String,
    /// The card's address. No two cards have the same.
    pub mac: MacAddress,
    /// Whether it offers to go through the host bridge's translation.
    pub iommu: bool,
}

/// Sockets between guest and host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vsock {
    /// The guest's context ID: 3 to 4294967294.
    pub cid: u32,
    /// The Unix socket at which the host's programs reach the guest's ports.
    pub path: PathBuf,
    /// Whether it offers to go through the host bridge's translation.
    pub iommu: bool,
}

/// Random numbers from the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rng {
    /// Whether it offers to go through the host bridge's translation.
    pub iommu: bool,
}

/// Memory that the guest gives back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balloon {
    /// How much the guest is asked for at the start.
    pub size: Option<MemorySize>,
    /// Whether the guest may take memory back before it runs out of it.
    pub deflate_on_oom: bool,
    /// Whether the guest says which pages it does not use.
    pub free_page_reporting: bool,
}

impl Default for Balloon {
    fn default() -> Self {
        Self { size: None, deflate_on_oom: true, free_page_reporting: true }
    }
}

/// The devices of a VM, beside its first console.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Devices {
    /// Disks: those of the file, then those of flags.
    pub disks: Vec<Disk>,
    /// Network cards, likewise.
    pub nets: Vec<Net>,
    /// Sockets to the host.
    pub vsock: Option<Vsock>,
    /// Random numbers.
    pub rng: Option<Rng>,
    /// Memory that the guest gives back.
    pub balloon: Option<Balloon>,
    /// A second console (virtio).
    pub console: Option<ConsoleChoice>,
    /// How many threads run queues.
    pub threads: DeviceThreads,
}

impl Disk {
    /// How its image is opened.
    #[must_use]
    pub fn options(&self) -> block::Options {
        block::Options {
            path: self.path.clone(),
            read_only: self.readonly,
            direct: self.direct,
            write_through: self.writethrough,
        }
    }
}

impl DeviceSettings {
    /// These settings of flags, and what `file` says: its disks and cards come before these; another device that
    /// is here is this one alone.
    #[must_use]
    pub(super) fn or(self, mut file: Self) -> Self {
        file.disks.extend(self.disks);
        file.nets.extend(self.nets);
        Self {
            disks: file.disks,
            nets: file.nets,
            vsock: self.vsock.or(file.vsock),
            rng: self.rng.or(file.rng),
            balloon: self.balloon.or(file.balloon),
            console: self.console.or(file.console),
            threads: self.threads.or(file.threads),
        }
    }

    /// Fills in the defaults and checks the devices against each other; `vm` is the VM's name, `console` where its first console
    /// is.
    pub(super) fn resolve(
        self,
        vm: &str,
        memory: MemorySize,
        console: &ConsoleChoice,
    ) -> Result<Devices, DevicesError> {
        let disks: Vec<Disk> = numbered(self.disks, |n, disk| {
            let missing = |key| DevicesError::missing(format!("disk {n}"), key, "[[disk]]", "--disk");
            let DiskSettings { path, readonly, direct, writethrough, id, iommu } = disk;
            Ok(Disk { path: path.ok_or_else(|| missing("path"))?, readonly, direct, writethrough, id, iommu })
        })?;
        let nets: Vec<Net> = numbered(self.nets, |n, net| {
            let missing = |key| DevicesError::missing(format!("net {n}"), key, "[[net]]", "--net");
            let tap = net.tap.ok_or_else(|| missing("tap"))?;
            let mac = net.mac.unwrap_or_else(|| MacAddress::of(vm, &tap));
            Ok(Net { tap, mac, iommu: net.iommu })
        })?;
        let vsock = self.vsock.map(|vsock| {
            let missing = |key| DevicesError::missing("the vsock".into(), key, "[vsock]", "--vsock");
            let (cid, path) =
                (vsock.cid.ok_or_else(|| missing("cid"))?, vsock.path.ok_or_else(|| missing("path"))?);
            if path.as_os_str().as_bytes().len() > MAX_SOCKET_PATH {
                return Err(DevicesError::SocketPath { path });
            }
            Ok(Vsock { cid, path, iommu: vsock.iommu })
        });
        differ("disk", "id", disks.iter().map(|disk| disk.id.clone()))?;
        differ("net", "tap", nets.iter().map(|net| Some(net.tap.clone())))?;
        differ("net", "mac", nets.iter().map(|net| Some(net.mac.to_string())))?;
        if let Some(size) = self.balloon.and_then(|balloon| balloon.size).filter(|size| *size >= memory) {
            return Err(DevicesError::Balloon { size, memory });
        }
        // Each pty is a new one.
        if let Some(second) = self.console.as_ref().filter(|c| *c == console && **c != ConsoleChoice::Pty) {
            return Err(DevicesError::Console { console: second.clone() });
        }
        Ok(Devices {
            disks,
            nets,
            vsock: vsock.transpose()?,
            rng: self.rng,
            balloon: self.balloon,
            console: self.console,
            threads: self.threads.unwrap_or_default(),
        })
    }

    /// Every path there is, for relative ones to be made absolute.
    pub(super) fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let disks = self.disks.iter_mut().filter_map(|disk| disk.path.as_mut());
        let vsock = self.vsock.iter_mut().filter_map(|vsock| vsock.path.as_mut());
        disks.chain(vsock).chain(self.console.as_mut().and_then(ConsoleChoice::path_mut))
    }
}

impl DevicesError {
    fn missing(device: String, key: &'static str, table: &'static str, flag: &'static str) -> Self {
        Self::Missing { device, key, table, flag }
    }
}

/// Numbers count from 1, as messages do.
fn numbered<S, T>(
    said: Vec<S>,
    resolve: impl Fn(usize, S) -> Result<T, DevicesError>,
) -> Result<Vec<T>, DevicesError> {
    (1..).zip(said).map(|(number, device)| resolve(number, device)).collect()
}

/// Whether no two devices of a kind have the same value, as far as they have one.
fn differ(
    kind: &str,
    key: &'static str,
    values: impl Iterator<Item = Option<String>>,
) -> Result<(), DevicesError> {
    let values: Vec<_> = (1..).zip(values).filter_map(|(number, value)| Some((number, value?))).collect();
    for (index, (number, value)) in values.iter().enumerate() {
        if let Some((first, _)) = values[..index].iter().find(|(_, before)| before == value) {
            let (one, other) = (format!("{kind} {first}"), format!("{kind} {number}"));
            return Err(DevicesError::Same { one, other, key, value: value.clone() });
        }
    }
    Ok(())
}

/// A path, and the flags that are set, apart by commas.
fn marked(path: &Path, marks: &[(bool, &str)]) -> String {
    let set = marks.iter().filter(|(set, _)| *set).map(|(_, word)| format!(", {word}"));
    path.display().to_string() + &set.collect::<String>()
}

impl fmt::Display for Devices {
    /// A line for each device, each after a line feed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { disks, nets, vsock, rng, balloon, console, threads } = self;
        for (number, disk) in (1..).zip(disks) {
            let id = disk.id.as_deref().map_or_else(String::new, |id| format!("id {id}"));
            let marks = [
                (disk.readonly, "readonly"),
                (disk.direct, "direct"),
                (disk.writethrough, "writethrough"),
                (disk.iommu, "iommu"),
                (disk.id.is_some(), &id),
            ];
            write!(f, "\n{:<8} {}", format!("disk {number}"), marked(&disk.path, &marks))?;
        }
        for (number, net) in (1..).zip(nets) {
            let marks = [(true, &*format!("mac {}", net.mac)), (net.iommu, "iommu")];
            write!(f, "\n{:<8} {}", format!("net {number}"), marked(net.tap.as_ref(), &marks))?;
        }
        if let Some(vsock) = vsock {
            let marks = [(true, &*format!("cid {}", vsock.cid)), (vsock.iommu, "iommu")];
            write!(f, "\nvsock    {}", marked(&vsock.path, &marks))?;
        }
        if let Some(rng) = rng {
            write!(f, "\nrng      {}", marked("the host's".as_ref(), &[(rng.iommu, "iommu")]))?;
        }
        if let Some(balloon) = balloon {
            let size = balloon.size.map_or_else(|| "0".into(), |size| size.to_string());
            let marks = [
                (balloon.deflate_on_oom, "deflate on OOM"),
                (balloon.free_page_reporting, "free page reporting"),
            ];
            write!(f, "\nballoon  {}", marked(size.as_ref(), &marks))?;
        }
        if let Some(console) = console {
            write!(f, "\nvirtio   console {console}")?;
        }
        match threads {
            _ if *self == (Self { threads: *threads, ..Self::default() }) => Ok(()),
            DeviceThreads::Each => write!(f, "\nthreads  one for each device"),
            DeviceThreads::Shared(count) => write!(f, "\nthreads  {count} for all devices"),
        }
    }
}
