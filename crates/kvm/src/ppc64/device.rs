//! In-kernel devices: their attributes.

use super::vm::VmFd;
use crate::bindings::ppc64::{kvm_create_device, kvm_device_attr};
use crate::fd::KvmFd;
use crate::ioctl::ppc64::{KVM_CREATE_DEVICE, KVM_GET_DEVICE_ATTR, KVM_HAS_DEVICE_ATTR, KVM_SET_DEVICE_ATTR};
use arch_api::HvError;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A device that was made by KVM_CREATE_DEVICE.
#[derive(Debug)]
pub(crate) struct Device {
    pub fd: KvmFd,
}

impl Device {
    pub fn create(vm: &VmFd, kind: u32, call: &'static str) -> Result<Self, HvError> {
        let mut device = kvm_create_device { type_: kind, ..Default::default() };
        vm.fd.exchange(call, KVM_CREATE_DEVICE, &mut device)?;
        // SAFETY: the kernel made this descriptor for us just now, and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(device.fd as i32) };
        Ok(Self { fd: KvmFd(fd) })
    }

    /// The descriptor's number, as KVM_ENABLE_CAP takes it to connect a vCPU.
    pub fn number(&self) -> u64 {
        self.fd.0.as_raw_fd() as u64
    }

    pub fn has(&self, group: u32, attr: u64) -> bool {
        let arg = kvm_device_attr { group, attr, ..Default::default() };
        self.fd.read_from("KVM_HAS_DEVICE_ATTR", KVM_HAS_DEVICE_ATTR, &arg).is_ok()
    }

    /// Sets an attribute that takes no value.
    pub fn command(&self, group: u32, attr: u64, call: &'static str) -> Result<(), HvError> {
        let arg = kvm_device_attr { group, attr, ..Default::default() };
        self.fd.read_from(call, KVM_SET_DEVICE_ATTR, &arg).map(drop)
    }

    /// Sets an attribute. `T` is the structure that the device's documentation gives for it.
    pub fn set<T: Copy>(&self, group: u32, attr: u64, value: &T, call: &'static str) -> Result<(), HvError> {
        let arg = kvm_device_attr { group, attr, addr: std::ptr::from_ref(value) as u64, flags: 0 };
        self.fd.read_from(call, KVM_SET_DEVICE_ATTR, &arg).map(drop)
    }

    /// Reads an attribute into `value`.
    pub fn get<T: Copy>(
        &self,
        group: u32,
        attr: u64,
        value: &mut T,
        call: &'static str,
    ) -> Result<(), HvError> {
        let arg = kvm_device_attr { group, attr, addr: std::ptr::from_mut(value) as u64, flags: 0 };
        self.fd.read_from(call, KVM_GET_DEVICE_ATTR, &arg).map(drop)
    }
}
