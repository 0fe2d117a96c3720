//! `/dev/vhost-net`: every ioctl of it that a card needs.
//!
//! rust-vmm's `vhost` makes its requests' numbers by x86's rule, with which no request is POWER's; nix knows both.
//!
//! What must hold: addresses that the kernel has are in memory that is held here too, for as long as it has them.

use super::{FEATURES, Kernel, Refused, VhostError, Vring};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Mutex, PoisonError};
use virtio_queue::QueueT;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

const DEVICE: &str = "/dev/vhost-net";

/// The requests, as in the kernel's `linux/vhost.h`.
mod ioctl {
    use super::{RingAddresses, RingFile, RingState};
    use nix::{
        ioctl_none, ioctl_read, ioctl_readwrite, ioctl_write_ptr, ioctl_write_ptr_bad, request_code_write,
    };
    ioctl_read!(get_features, 0xaf, 0x00, u64);
    ioctl_write_ptr!(set_features, 0xaf, 0x00, u64);
    ioctl_none!(set_owner, 0xaf, 0x01);
    // `struct vhost_memory`, whose size is that of its two first fields.
    ioctl_write_ptr_bad!(set_mem_table, request_code_write!(0xaf, 0x03, 8), u64);
    ioctl_write_ptr!(set_vring_num, 0xaf, 0x10, RingState);
    ioctl_write_ptr!(set_vring_addr, 0xaf, 0x11, RingAddresses);
    ioctl_write_ptr!(set_vring_base, 0xaf, 0x12, RingState);
    ioctl_readwrite!(get_vring_base, 0xaf, 0x12, RingState);
    ioctl_write_ptr!(set_vring_kick, 0xaf, 0x20, RingFile);
    ioctl_write_ptr!(set_vring_call, 0xaf, 0x21, RingFile);
    ioctl_write_ptr!(set_vring_err, 0xaf, 0x22, RingFile);
    ioctl_write_ptr!(net_set_backend, 0xaf, 0x30, RingFile);
}

/// `struct vhost_vring_state`.
#[repr(C)]
pub struct RingState {
    index: u32,
    value: u32,
}

/// `struct vhost_vring_file`.
#[repr(C)]
pub struct RingFile {
    index: u32,
    /// -1 is none.
    fd: i32,
}

/// `struct vhost_vring_addr`: addresses of this process.
#[repr(C)]
pub struct RingAddresses {
    index: u32,
    flags: u32,
    table: u64,
    used: u64,
    available: u64,
    log: u64,
}

/// The kernel's vhost-net, for one card. Has a thread of the kernel's, which runs where the one may that opens this.
#[derive(Debug)]
pub struct VhostNet {
    file: File,
    /// What the kernel has the addresses of. Goes after the file, with which the kernel forgets them.
    memory: Mutex<GuestMemoryMmap>,
}

impl VhostNet {
    /// Opens it.
    ///
    /// # Errors
    /// [`VhostError`], which says what to do.
    pub fn open() -> Result<Self, VhostError> {
        let mut options = OpenOptions::new();
        let file =
            options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open(DEVICE).map_err(unopened)?;
        // SAFETY: the request takes no argument.
        refused("VHOST_SET_OWNER", unsafe { ioctl::set_owner(file.as_raw_fd()) })?;
        let mut features = 0;
        // SAFETY: the kernel writes 64 bits.
        refused("VHOST_GET_FEATURES", unsafe { ioctl::get_features(file.as_raw_fd(), &mut features) })?;
        match FEATURES & !features {
            0 => Ok(Self { file, memory: Mutex::default() }),
            lacking => Err(VhostError::Features(lacking)),
        }
    }

    fn state(
        &self,
        call: &'static str,
        request: unsafe fn(libc::c_int, *const RingState) -> nix::Result<libc::c_int>,
        (queue, value): (u16, u16),
    ) -> Result<(), Refused> {
        let state = RingState { index: queue.into(), value: value.into() };
        // SAFETY: each of these requests reads one such structure.
        refused(call, unsafe { request(self.file.as_raw_fd(), &raw const state) })
    }

    fn file(
        &self,
        call: &'static str,
        request: unsafe fn(libc::c_int, *const RingFile) -> nix::Result<libc::c_int>,
        (queue, fd): (u16, Option<&dyn AsRawFd>),
    ) -> Result<(), Refused> {
        let file = RingFile { index: queue.into(), fd: fd.map_or(-1, AsRawFd::as_raw_fd) };
        // SAFETY: each of these requests reads one such structure, and keeps the file by itself.
        refused(call, unsafe { request(self.file.as_raw_fd(), &raw const file) })
    }

    fn set_addresses(&self, queue: u16, ring: &impl QueueT) -> Result<(), Refused> {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let size = usize::from(ring.size());
        let addresses = RingAddresses {
            index: queue.into(),
            flags: 0,
            table: own_address(&memory, ring.desc_table(), 16 * size)?,
            used: own_address(&memory, ring.used_ring(), 6 + 8 * size)?,
            available: own_address(&memory, ring.avail_ring(), 6 + 2 * size)?,
            log: 0,
        };
        // SAFETY: it reads one such structure. The addresses are guest memory's, which is held.
        refused("VHOST_SET_VRING_ADDR", unsafe { ioctl::set_vring_addr(self.file.as_raw_fd(), &addresses) })
    }
}

impl Kernel for VhostNet {
    fn begin(&self, features: u64, memory: &GuestMemoryMmap) -> Result<(), Refused> {
        // SAFETY: the kernel reads 64 bits.
        let set = unsafe { ioctl::set_features(self.file.as_raw_fd(), &features) };
        refused("VHOST_SET_FEATURES", set)?;
        let mut held = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let table = memory_table(memory);
        // SAFETY: the table is as long as its head says. The addresses are guest memory's, which is held from here on;
        // those that the kernel had before are let go of after it has these.
        let set = unsafe { ioctl::set_mem_table(self.file.as_raw_fd(), table.as_ptr()) };
        refused("VHOST_SET_MEM_TABLE", set)?;
        *held = memory.clone();
        Ok(())
    }

    fn start(&self, vring: &Vring<'_>, tap: BorrowedFd<'_>) -> Result<(), Refused> {
        let queue = vring.queue;
        self.state("VHOST_SET_VRING_NUM", ioctl::set_vring_num, (queue, vring.ring.size()))?;
        self.state("VHOST_SET_VRING_BASE", ioctl::set_vring_base, (queue, vring.ring.next_avail()))?;
        self.set_addresses(queue, vring.ring)?;
        self.file("VHOST_SET_VRING_ERR", ioctl::set_vring_err, (queue, Some(&vring.error)))?;
        self.file("VHOST_SET_VRING_CALL", ioctl::set_vring_call, (queue, Some(&vring.call)))?;
        self.file("VHOST_SET_VRING_KICK", ioctl::set_vring_kick, (queue, Some(vring.kick)))?;
        self.file("VHOST_NET_SET_BACKEND", ioctl::net_set_backend, (queue, Some(&tap)))
    }

    fn stop(&self, queue: u16) -> Result<u16, Refused> {
        self.file("VHOST_NET_SET_BACKEND", ioctl::net_set_backend, (queue, None))?;
        let mut state = RingState { index: queue.into(), value: 0 };
        // SAFETY: it reads and writes one such structure.
        let got = unsafe { ioctl::get_vring_base(self.file.as_raw_fd(), &mut state) };
        refused("VHOST_GET_VRING_BASE", got)?;
        self.file("VHOST_SET_VRING_KICK", ioctl::set_vring_kick, (queue, None))?;
        self.file("VHOST_SET_VRING_CALL", ioctl::set_vring_call, (queue, None))?;
        self.file("VHOST_SET_VRING_ERR", ioctl::set_vring_err, (queue, None))?;
        Ok(state.value as u16)
    }
}

/// `struct vhost_memory`: how many regions there are, and of each its guest physical address, its bytes, its address here, and
/// no flags.
fn memory_table(memory: &GuestMemoryMmap) -> Vec<u64> {
    // A 32-bit number and 32 bits of nothing, in the host's byte order.
    let count = memory.num_regions() as u32;
    let mut head = [0; 8];
    head[..4].copy_from_slice(&count.to_ne_bytes());
    let regions = memory.iter().flat_map(|region| {
        let start = region.start_addr();
        [start.0, region.len(), region.as_ptr().addr() as u64, 0]
    });
    std::iter::once(u64::from_ne_bytes(head)).chain(regions).collect()
}

/// Where `length` bytes of guest memory are in this process, in one piece.
fn own_address(memory: &GuestMemoryMmap, address: u64, length: usize) -> Result<u64, Refused> {
    match memory.get_slice(GuestAddress(address), length) {
        Ok(slice) => Ok(slice.ptr_guard().as_ptr().addr() as u64),
        Err(error) => Err(Refused { call: "a ring is not in memory", source: io::Error::other(error) }),
    }
}

fn refused(call: &'static str, result: nix::Result<libc::c_int>) -> Result<(), Refused> {
    result.map(drop).map_err(|errno| Refused { call, source: errno.into() })
}

/// Why the device node cannot be opened.
fn unopened(error: io::Error) -> VhostError {
    match error.raw_os_error() {
        // ENODEV and ENXIO: the node is there, but not the driver.
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => VhostError::Missing(error),
        Some(libc::EACCES | libc::EPERM) => VhostError::Permission(error),
        _ => VhostError::Refused(Refused { call: "opening /dev/vhost-net", source: error }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_cannot_be_opened_says_what_to_do() {
        let says = |errno| unopened(io::Error::from_raw_os_error(errno)).to_string();
        for errno in [libc::ENOENT, libc::ENODEV, libc::ENXIO] {
            assert!(says(errno).contains("modprobe vhost_net"), "{errno}");
        }
        assert!(says(libc::EACCES).contains("join the group"));
        assert!(says(libc::EMFILE).contains("leave vhost out"));
    }

    #[test]
    fn the_kernel_gets_all_of_memory() {
        let parts = [(GuestAddress(0), 0x1_0000), (GuestAddress(0x10_0000), 0x2_0000)];
        let memory = GuestMemoryMmap::from_ranges(&parts).unwrap();
        let table = memory_table(&memory);
        let address = |at| memory.get_host_address(GuestAddress(at)).unwrap().addr() as u64;
        assert_eq!(table[0].to_ne_bytes(), [2u32.to_ne_bytes(), [0; 4]].concat()[..]);
        assert_eq!(table[1..], [0, 0x1_0000, address(0), 0, 0x10_0000, 0x2_0000, address(0x10_0000), 0]);
    }

    #[test]
    fn a_ring_is_in_memory_in_one_piece() {
        let parts = [(GuestAddress(0), 0x1_0000), (GuestAddress(0x1_0000), 0x1_0000)];
        let memory = GuestMemoryMmap::from_ranges(&parts).unwrap();
        let first = memory.get_host_address(GuestAddress(0)).unwrap().addr() as u64;
        assert_eq!(own_address(&memory, 0xf000, 0x1000).unwrap(), first + 0xf000, "up to its end");
        for (address, length) in [(0xf001, 0x1000), (0x1_f001, 0x1000), (0x2_0000, 1), (u64::MAX, 2)] {
            assert!(own_address(&memory, address, length).is_err(), "{address:#x}");
        }
    }
}
