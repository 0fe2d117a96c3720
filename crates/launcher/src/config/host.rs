//! What the host has to have for a configuration. The facts are arguments, so a test can be any host.

use super::{ConfigError, VmConfig};
use std::fs::File;
use std::io;
use std::path::Path;

/// What is known of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostFacts {
    /// RAM in bytes; see [`host_memory`].
    pub memory_bytes: u64,
    /// How many vCPUs a VM can have (KVM_CAP_MAX_VCPUS).
    pub max_vcpus: u32,
    /// Which numbers of threads a core can have, one bit each: bit value 4 is four threads
    /// (KVM_CAP_PPC_SMT_POSSIBLE).
    pub threads_possible: u32,
}

/// The host's RAM in bytes.
#[must_use]
pub fn host_memory() -> u64 {
    // SAFETY: sysconf takes and returns integers.
    let (pages, page) = unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
    // Both are known on Linux; -1 would stand for a value that is not.
    u64::try_from(pages).unwrap_or(0) * u64::try_from(page).unwrap_or(0)
}

/// Whether the host can run the configuration at all.
///
/// # Errors
/// The first thing that it cannot, with the flag, the key and the host's own number.
pub fn check_host(config: &VmConfig, host: &HostFacts) -> Result<(), ConfigError> {
    if config.memory.bytes() > host.memory_bytes {
        return Err(ConfigError::Memory { wanted: config.memory, mib: host.memory_bytes >> 20 });
    }
    let vcpus = config.topology.vcpus.get();
    if vcpus > host.max_vcpus {
        return Err(ConfigError::Cpus { wanted: vcpus, limit: host.max_vcpus });
    }
    let threads = config.topology.threads.get();
    if threads & host.threads_possible == 0 {
        let possible: Vec<String> = (0..4)
            .map(|bit| 1_u32 << bit)
            .filter(|threads| threads & host.threads_possible != 0)
            .map(|threads| threads.to_string())
            .collect();
        return Err(ConfigError::Threads { wanted: threads, possible: possible.join(", ") });
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
