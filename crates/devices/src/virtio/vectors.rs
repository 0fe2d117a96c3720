//! Guest memory as the host's system calls take it: no byte is copied between a driver's buffers and a file.
//!
//! What must hold: an address here lies in the memory that is held here too. The kernel reads and writes it as the guest's own processors
//! do, at any time; no Rust reference to guest memory exists that this could break.

use super::chain::{Missing, Span};
use crate::dma::Memory;
use libc::iovec;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use vm_memory::{GuestMemory, Permissions};

/// How many the kernel takes (UIO_MAXIOV).
const MOST: usize = 1024;

/// An array of `struct iovec`. Made once and filled often.
pub struct Vectors {
    memory: Memory,
    vectors: Vec<iovec>,
    /// Those before are done.
    next: usize,
    /// Whether all of it may be written.
    writable: bool,
}

// SAFETY: the pointers lead to guest memory, which is held, and which any thread may touch.
unsafe impl Send for Vectors {}

impl Vectors {
    /// Empty, for buffers in `memory`.
    #[must_use]
    pub fn new(memory: Memory) -> Self {
        Self { memory, vectors: Vec::new(), next: 0, writable: false }
    }

    /// Takes up `spans` to be read, or to be written.
    ///
    /// # Errors
    /// Where there is no memory, or the host bridge does not let the device do it. Nothing is taken up then.
    pub fn fill(&mut self, spans: impl Iterator<Item = Span>, access: Permissions) -> Result<(), Missing> {
        self.clear();
        self.writable = access.allow(Permissions::Write);
        let filled = self.add(spans, access);
        if filled.is_err() {
            self.clear();
        }
        filled
    }

    fn add(&mut self, spans: impl Iterator<Item = Span>, access: Permissions) -> Result<(), Missing> {
        for span in spans {
            // A buffer that ends beyond the address space is nowhere in memory, and nobody further down should have to add it up.
            span.address.0.checked_add(span.length as u64).ok_or(Missing)?;
            let slices = self.memory.get_slices(span.address, span.length, access).map_err(|_| Missing)?;
            for slice in slices {
                let slice = slice.map_err(|_| Missing)?;
                let iov_base = slice.ptr_guard_mut().as_ptr().cast();
                self.vectors.push(iovec { iov_base, iov_len: slice.len() });
            }
        }
        Ok(())
    }

    /// Lets go of all.
    pub fn clear(&mut self) {
        self.vectors.clear();
        self.next = 0;
    }

    /// What one system call can take of what is left.
    #[must_use]
    pub fn as_slice(&self) -> &[iovec] {
        let left = &self.vectors[self.next..];
        &left[..left.len().min(MOST)]
    }

    /// Bytes left.
    #[must_use]
    pub fn length(&self) -> usize {
        self.vectors[self.next..].iter().map(|vector| vector.iov_len).sum()
    }

    /// Whether every address and length is a multiple of `unit`, a power of 2.
    #[must_use]
    pub fn is_aligned(&self, unit: usize) -> bool {
        self.vectors[self.next..].iter().all(|v| (v.iov_base.addr() | v.iov_len) & (unit - 1) == 0)
    }

    /// Leaves out the first `count` bytes: they are done.
    pub fn advance(&mut self, mut count: usize) {
        while let Some(vector) = self.vectors.get_mut(self.next) {
            if count < vector.iov_len {
                vector.iov_base = vector.iov_base.wrapping_byte_add(count);
                vector.iov_len -= count;
                return;
            }
            count -= vector.iov_len;
            self.next += 1;
        }
    }

    /// readv(2) into them; with `offset` preadv(2).
    ///
    /// # Errors
    /// As the system call. EFAULT where they were taken up to be read only.
    pub fn read(&self, file: BorrowedFd<'_>, offset: Option<u64>) -> io::Result<usize> {
        if !self.writable {
            return Err(io::Error::from_raw_os_error(libc::EFAULT));
        }
        let (vectors, count) = self.raw();
        // SAFETY: the vectors lie in guest memory, which is held; the device may write there.
        count_of(unsafe {
            match offset {
                Some(offset) => libc::preadv(file.as_raw_fd(), vectors, count, signed(offset)?),
                None => libc::readv(file.as_raw_fd(), vectors, count),
            }
        })
    }

    /// writev(2) from them; with `offset` pwritev2(2), which takes `flags`.
    ///
    /// # Errors
    /// As the system call.
    pub fn write(&self, file: BorrowedFd<'_>, offset: Option<u64>, flags: i32) -> io::Result<usize> {
        let (vectors, count) = self.raw();
        // SAFETY: the vectors lie in guest memory, which is held.
        count_of(unsafe {
            match offset {
                Some(offset) => libc::pwritev2(file.as_raw_fd(), vectors, count, signed(offset)?, flags),
                None => libc::writev(file.as_raw_fd(), vectors, count),
            }
        })
    }

    fn raw(&self) -> (*const iovec, libc::c_int) {
        let vectors = self.as_slice();
        (vectors.as_ptr(), vectors.len() as libc::c_int)
    }
}

fn signed(offset: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn count_of(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
