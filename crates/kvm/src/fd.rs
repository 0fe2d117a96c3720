//! A KVM file descriptor and the one place where ioctl(2) is called.

use arch_api::HvError;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A descriptor of KVM: the system, a VM, a vCPU or a device.
#[derive(Debug)]
pub(crate) struct KvmFd(pub OwnedFd);

impl KvmFd {
    /// An ioctl whose argument is a number.
    pub fn value(&self, call: &'static str, nr: u32, arg: u64) -> Result<i32, HvError> {
        // SAFETY: callers pass only requests that take their argument by value, so the kernel follows no pointer.
        check(call, unsafe { libc::ioctl(self.0.as_raw_fd(), nr as _, arg) })
    }

    /// An ioctl whose argument is a structure that the kernel only reads.
    pub fn read_from<T>(&self, call: &'static str, nr: u32, arg: &T) -> Result<i32, HvError> {
        debug_assert_eq!(size_in(nr), size_of::<T>());
        // SAFETY: `nr` encodes the size of what the kernel accesses, which is that of `T`; it reads no more.
        check(call, unsafe { libc::ioctl(self.0.as_raw_fd(), nr as _, std::ptr::from_ref(arg)) })
    }

    /// As [`read_from`](Self::read_from), for a structure of which the number carries only the head's size.
    pub fn read_from_long<T>(&self, call: &'static str, nr: u32, arg: &T) -> Result<i32, HvError> {
        debug_assert!(size_in(nr) <= size_of::<T>());
        // SAFETY: callers state the full length in the head, which is how much the kernel reads.
        check(call, unsafe { libc::ioctl(self.0.as_raw_fd(), nr as _, std::ptr::from_ref(arg)) })
    }

    /// As [`exchange`](Self::exchange), for a structure of which the number carries only the head's size.
    #[cfg(target_arch = "x86_64")]
    pub fn exchange_long<T: Copy>(&self, call: &'static str, nr: u32, arg: &mut T) -> Result<i32, HvError> {
        debug_assert!(size_in(nr) <= size_of::<T>());
        // SAFETY: callers state in the head how many entries there is room for, and the kernel writes no more; they pass
        // plain C structures, for which every bit pattern is valid.
        check(call, unsafe { libc::ioctl(self.0.as_raw_fd(), nr as _, std::ptr::from_mut(arg)) })
    }

    /// An ioctl whose argument is a structure of integers that the kernel reads and may fill.
    pub fn exchange<T: Copy>(&self, call: &'static str, nr: u32, arg: &mut T) -> Result<i32, HvError> {
        debug_assert_eq!(size_in(nr), size_of::<T>());
        // SAFETY: as in `read_from`, and the kernel writes no more than that either; callers pass plain C
        // structures, for which every bit pattern is valid.
        check(call, unsafe { libc::ioctl(self.0.as_raw_fd(), nr as _, std::ptr::from_mut(arg)) })
    }
}

fn check(call: &'static str, result: libc::c_int) -> Result<i32, HvError> {
    if result < 0 { Err(HvError::last(call)) } else { Ok(result) }
}

/// The argument size that an ioctl number carries: of 13 bits on powerpc, and of 14 elsewhere, where none is that large.
fn size_in(nr: u32) -> usize {
    (nr >> 16 & 0x1fff) as usize
}

/// A shared mapping of a KVM descriptor, unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    address: *mut libc::c_void,
    length: usize,
}

// SAFETY: the mapping is plain memory that belongs to the value; who may touch it is up to its owner.
unsafe impl Send for Mapping {}
// SAFETY: as above: a shared reference gives out the address only.
unsafe impl Sync for Mapping {}

/// Makes vCPU `id` of `vm` by `request`, which is the architecture's KVM_CREATE_VCPU, and maps `length` bytes of what it shares with the
/// kernel: a `Run` at least.
pub(crate) fn create_vcpu<Run>(
    vm: &KvmFd,
    request: u32,
    id: u32,
    length: usize,
) -> Result<(KvmFd, Mapping), HvError> {
    let number = vm.value("KVM_CREATE_VCPU", request, u64::from(id))?;
    // SAFETY: the kernel made this descriptor for us just now, and nobody else has it.
    let fd = KvmFd(unsafe { OwnedFd::from_raw_fd(number) });
    let run = Mapping::new(&fd, length, 0, "mmap(kvm_run)")?;
    if run.len() < size_of::<Run>() {
        let source = io::Error::other("KVM_GET_VCPU_MMAP_SIZE is smaller than kvm_run");
        return Err(HvError { call: "mmap(kvm_run)", source });
    }
    Ok((fd, run))
}

impl Mapping {
    /// Maps `length` bytes of `fd` from `offset`, to read and write.
    pub fn new(fd: &KvmFd, length: usize, offset: u64, call: &'static str) -> Result<Self, HvError> {
        let offset = libc::off_t::try_from(offset)
            .map_err(|_| HvError { call, source: io::Error::from(io::ErrorKind::InvalidInput) })?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let address = unsafe {
            libc::mmap(std::ptr::null_mut(), length, protection, libc::MAP_SHARED, fd.0.as_raw_fd(), offset)
        };
        if address == libc::MAP_FAILED {
            return Err(HvError::last(call));
        }
        Ok(Self { address, length })
    }

    pub fn as_ptr(&self) -> *mut u8 {
        self.address.cast()
    }

    pub fn len(&self) -> usize {
        self.length
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `new` mapped exactly this, and the owner of the value is the last who could use it.
        unsafe { libc::munmap(self.address, self.length) };
    }
}

#[cfg(test)]
pub(crate) mod tests;
