//! `/dev/kvm`: is it there, and what can it do.

use crate::fd::KvmFd;
use crate::ioctl::host::{KVM_CHECK_EXTENSION, KVM_GET_API_VERSION};
use std::fs::OpenOptions;
use std::io;

const DEVICE: &str = "/dev/kvm";

/// The API that has not changed since Linux 2.6.22.
const API_VERSION: i32 = 12;

/// What brings the device.
const MODPROBE: &str =
    if cfg!(target_arch = "x86_64") { "modprobe kvm_amd, or kvm_intel" } else { "modprobe kvm_hv" };

/// KVM cannot be used on this host.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No device.
    #[error(
        "/dev/kvm does not exist; load the module ({MODPROBE}) on a host whose firmware lets it be a hypervisor"
    )]
    Absent,
    /// No permission.
    #[error(
        "/dev/kvm may not be opened by this user; run as root or join the group that owns it (usually kvm)"
    )]
    Permission,
    /// Something else.
    #[error("cannot open /dev/kvm")]
    Open(#[source] io::Error),
    /// Not KVM, or one from the future.
    #[error("/dev/kvm speaks API version {0}, cede speaks {API_VERSION}")]
    Version(i32),
    /// No HV KVM. The cause is within the message, so it is no source that would be printed again.
    #[error("this host's KVM has no Book3S HV (KVM_CREATE_VM: {0}); load it with: modprobe kvm_hv")]
    NoHv(io::Error),
    /// The processor is not one cede knows.
    #[error("cannot tell which POWER processor this is: {0}")]
    Processor(String),
}

/// `/dev/kvm`, open.
#[derive(Debug)]
pub struct Kvm {
    pub(crate) fd: KvmFd,
}

impl Kvm {
    /// Opens the device.
    ///
    /// # Errors
    /// [`OpenError`], each with what to do about it.
    pub fn open() -> Result<Self, OpenError> {
        let file = OpenOptions::new().read(true).write(true).open(DEVICE);
        let file = file.map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => OpenError::Absent,
            Some(libc::EACCES | libc::EPERM) => OpenError::Permission,
            _ => OpenError::Open(error),
        })?;
        let kvm = Self { fd: KvmFd(file.into()) };
        match kvm.fd.value("KVM_GET_API_VERSION", KVM_GET_API_VERSION, 0) {
            Ok(API_VERSION) => Ok(kvm),
            Ok(other) => Err(OpenError::Version(other)),
            Err(error) => Err(OpenError::Open(error.source)),
        }
    }

    /// The value of a capability: 0 where KVM does not know it.
    #[must_use]
    pub fn capability(&self, cap: u32) -> i32 {
        self.fd.value("KVM_CHECK_EXTENSION", KVM_CHECK_EXTENSION, u64::from(cap)).unwrap_or(0)
    }
}
