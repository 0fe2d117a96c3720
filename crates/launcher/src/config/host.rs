//! What the host has to have for a configuration. The facts are arguments, so a test can be any host.

use super::devices::{DevicesError, Disk};
use super::{ConfigError, VmConfig};
use devices::virtio::block;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// The host's RAM in bytes.
#[must_use]
pub fn host_memory() -> u64 {
    // SAFETY: sysconf takes and returns integers.
    let (pages, page) = unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
    // Both are known on Linux; -1 would stand for a value that is not.
    u64::try_from(pages).unwrap_or(0) * u64::try_from(page).unwrap_or(0)
}

/// Whether the host has the memory, of which it has `host_bytes`. What else it has to have is the plan's to say.
///
/// # Errors
/// [`ConfigError::Memory`].
pub fn check_memory(config: &VmConfig, host_bytes: u64) -> Result<(), ConfigError> {
    if config.memory.bytes() > host_bytes {
        return Err(ConfigError::Memory { wanted: config.memory, mib: host_bytes >> 20 });
    }
    Ok(())
}

/// Whether the images can be read, those of disks also written, if the guest may, and are as long as disks are. What is in them is for those who load
/// them.
///
/// # Errors
/// The first image that cannot, with its flag and key; or two disks that would write the same one.
pub fn check_images(config: &VmConfig) -> Result<(), ConfigError> {
    for (what, path) in [("kernel", &config.boot.kernel), ("initrd", &config.boot.initrd)] {
        if let Some(path) = path {
            readable(path).map_err(|source| ConfigError::Image { what, path: path.clone(), source })?;
        }
    }
    Ok(check_disks(&config.devices.disks)?)
}

fn check_disks(disks: &[Disk]) -> Result<(), DevicesError> {
    let mut images = Vec::new();
    for (number, disk) in (1..).zip(disks) {
        let found = block::check(&disk.options()).map_err(|source| DevicesError::Image { number, source })?;
        let image = Image::from(&found);
        let same =
            images.iter().find(|(_, other, readonly)| *other == image && !(*readonly && disk.readonly));
        if let Some(&(one, ..)) = same {
            return Err(DevicesError::SameImage { one, other: number, path: disk.path.clone() });
        }
        images.push((number, image, disk.readonly));
    }
    Ok(())
}

fn readable(path: &Path) -> io::Result<()> {
    // The type before the open: that of a FIFO would wait for a writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    File::open(path).map(drop)
}

/// A file or block device by the kernel's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Image {
    File { device: u64, inode: u64 },
    Device(u64),
}

impl From<&Metadata> for Image {
    fn from(found: &Metadata) -> Self {
        match found.file_type().is_block_device() {
            true => Self::Device(found.rdev()),
            false => Self::File { device: found.dev(), inode: found.ino() },
        }
    }
}
