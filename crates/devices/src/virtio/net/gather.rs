//! Guest buffers as the host's system calls take them: a packet goes between them and the tap without a copy in between.
//!
//! What must hold: an address here lies in the memory that is held here too. The kernel reads and writes it as the
//! guest's own processors do, at any time; there is no Rust reference to guest memory.

use crate::dma::Memory;
use libc::iovec;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use virtio_queue::desc::split::Descriptor;
use vm_memory::{GuestMemory, Permissions};

/// How many parts one system call takes (UIO_MAXIOV).
const MOST: usize = 1024;

/// How many parts the buffers of one chain may have.
pub(super) const CHAIN: usize = MOST / 2;

/// Buffers one after the other. What has been used goes from the front.
pub(super) struct Gather {
    memory: Memory,
    vectors: Vec<iovec>,
    /// Those before have been used.
    first: usize,
    /// In those that are left.
    bytes: usize,
}

// SAFETY: the pointers lead into guest memory, which is held, and which any thread may touch.
unsafe impl Send for Gather {}

/// What a chain added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Added {
    /// Parts.
    pub vectors: usize,
    /// Bytes in them.
    pub bytes: usize,
}

/// Why a chain cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unusable {
    #[error("a buffer is not in memory, or may not be accessed")]
    Memory,
    #[error("a chain's buffers have more than {CHAIN} parts")]
    Parts,
}

impl Gather {
    pub(super) fn new(memory: Memory) -> Self {
        Self { memory, vectors: Vec::with_capacity(2 * MOST), first: 0, bytes: 0 }
    }

    /// Bytes that wait to be used.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is room for another chain, whatever it is.
    pub(super) fn has_room(&self) -> bool {
        // One is the spill's.
        self.vectors.len() - self.first + CHAIN < MOST
    }

    /// Adds those buffers of a chain that the device may access so (reading those it reads, writing those it
    /// writes), up to `limit` bytes of them. Nothing is added on an error.
    pub(super) fn add(
        &mut self,
        chain: impl Iterator<Item = Descriptor>,
        access: Permissions,
        limit: usize,
    ) -> Result<Added, Unusable> {
        // The front is cleared away now and then, so that little is moved and nothing is allocated.
        if self.first >= MOST / 2 {
            self.vectors.drain(..self.first);
            self.first = 0;
        }
        let begin = self.vectors.len();
        let writable = access == Permissions::Write;
        let mut bytes = 0;
        let added = chain.filter(|buffer| buffer.is_write_only() == writable).try_for_each(|buffer| {
            let length = (buffer.len() as usize).min(limit - bytes);
            bytes += length;
            self.add_buffer(buffer, length, access, begin)
        });
        if let Err(unusable) = added {
            self.vectors.truncate(begin);
            return Err(unusable);
        }
        self.bytes += bytes;
        Ok(Added { vectors: self.vectors.len() - begin, bytes })
    }

    fn add_buffer(
        &mut self,
        buffer: Descriptor,
        length: usize,
        access: Permissions,
        begin: usize,
    ) -> Result<(), Unusable> {
        if length == 0 {
            return Ok(());
        }
        // Nobody further down should have to add up an end beyond the address space.
        buffer.addr().0.checked_add(length as u64).ok_or(Unusable::Memory)?;
        let slices = self.memory.get_slices(buffer.addr(), length, access).map_err(|_| Unusable::Memory)?;
        for slice in slices {
            let slice = slice.map_err(|_| Unusable::Memory)?;
            if self.vectors.len() - begin == CHAIN {
                return Err(Unusable::Parts);
            }
            let iov_base = slice.ptr_guard_mut().as_ptr().cast();
            self.vectors.push(iovec { iov_base, iov_len: slice.len() });
        }
        Ok(())
    }

    /// The first parts have been used.
    pub(super) fn take(&mut self, added: Added) {
        self.first += added.vectors;
        self.bytes -= added.bytes;
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.vectors.clear();
        self.first = 0;
        self.bytes = 0;
    }

    /// One readv(2) into all of them; what does not fit goes into `spill`. To be used for buffers that were added
    /// to be written.
    pub(super) fn read(&mut self, file: impl AsFd, spill: &mut [u8]) -> io::Result<usize> {
        self.vectors.push(iovec { iov_base: spill.as_mut_ptr().cast(), iov_len: spill.len() });
        let vectors = &self.vectors[self.first..];
        // SAFETY: the vectors lie in guest memory, which is held and which the device may write, and in `spill`.
        let read =
            unsafe { libc::readv(file.as_fd().as_raw_fd(), vectors.as_ptr(), vectors.len() as libc::c_int) };
        self.vectors.pop();
        usize::try_from(read).map_err(|_| io::Error::last_os_error())
    }

    /// One writev(2) of all of them.
    pub(super) fn write(&self, file: impl AsFd) -> io::Result<usize> {
        let vectors = &self.vectors[self.first..];
        // SAFETY: the vectors lie in guest memory, which is held.
        let written =
            unsafe { libc::writev(file.as_fd().as_raw_fd(), vectors.as_ptr(), vectors.len() as libc::c_int) };
        usize::try_from(written).map_err(|_| io::Error::last_os_error())
    }

    /// Copies `data` to `offset` bytes behind the front, as far as there is room. As [`read`](Self::read) for
    /// buffers to be written.
    pub(super) fn put(&self, mut offset: usize, mut data: &[u8]) {
        for vector in &self.vectors[self.first..] {
            if offset >= vector.iov_len {
                offset -= vector.iov_len;
                continue;
            }
            let (here, rest) = data.split_at(data.len().min(vector.iov_len - offset));
            // SAFETY: the vector lies in guest memory, which is held, and `here` fits in behind `offset`. A guest
            // that writes there at the same time finds one or the other, as with any device.
            unsafe { vector.iov_base.cast::<u8>().add(offset).copy_from(here.as_ptr(), here.len()) };
            (offset, data) = (0, rest);
            if data.is_empty() {
                break;
            }
        }
    }
}
