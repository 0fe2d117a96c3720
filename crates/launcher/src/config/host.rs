//! What the host has to have for a configuration. The facts are arguments, so a test can be any host.

use super::{ConfigError, VmConfig};
use std::fs::File;
use std::io;
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

/// Whether the images can be read. What is in them is for those who load them.
///
/// # Errors
/// The first image that cannot, with its flag and key.
pub fn check_images(config: &VmConfig) -> Result<(), ConfigError> {
    for (what, path) in [("kernel", &config.boot.kernel), ("initrd", &config.boot.initrd)] {
        if let Some(path) = path {
            readable(path).map_err(|source| ConfigError::Image { what, path: path.clone(), source })?;
        }
    }
    Ok(())
}

fn readable(path: &Path) -> io::Result<()> {
    // The type before the open: that of a FIFO would wait for a writer.
    let kind = std::fs::metadata(path)?;
    if !kind.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    File::open(path).map(drop)
}
