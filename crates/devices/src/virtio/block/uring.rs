//! io_uring with what a disk needs of it: transfers and flushes of one file, each known by a number.

use super::image::Image;
use crate::virtio::Vectors;
use io_uring::{IoUring, opcode, squeue, types};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

/// How many can be in flight.
pub const DEPTH: u32 = 256;

/// The ring. What is in flight is waited for by whoever owns the memory that it goes to.
pub struct Uring {
    ring: IoUring,
    /// The image. It is not registered with the ring, which the kernel takes down some time after it is closed, and with it the image's lock.
    file: types::Fd,
    /// Told to the kernel and not yet done, or to be told.
    in_flight: u32,
    /// To be told.
    queued: usize,
}

impl Uring {
    /// For transfers of `image`.
    ///
    /// # Errors
    /// Where the host has none, or does not let us.
    pub fn new(image: &Image) -> io::Result<Self> {
        let ring = IoUring::builder().dontfork().build(DEPTH)?;
        let file = types::Fd(image.as_fd().as_raw_fd());
        Ok(Self { ring, file, in_flight: 0, queued: 0 })
    }

    /// Queues a read into `vectors`.
    ///
    /// # Safety
    /// `vectors` stays as it is, and is not dropped, until the read is done.
    pub unsafe fn read(&mut self, number: u64, vectors: &Vectors, offset: u64) {
        let slice = vectors.as_slice();
        let entry = opcode::Readv::new(self.file, slice.as_ptr(), slice.len() as u32).offset(offset).build();
        // SAFETY: as the caller says.
        unsafe { self.push(number, entry) };
    }

    /// Queues a write from `vectors`. `flags` are pwritev2(2)'s.
    ///
    /// # Safety
    /// As [`read`](Self::read).
    pub unsafe fn write(&mut self, number: u64, vectors: &Vectors, offset: u64, flags: i32) {
        let slice = vectors.as_slice();
        let entry = opcode::Writev::new(self.file, slice.as_ptr(), slice.len() as u32);
        // SAFETY: as the caller says.
        unsafe { self.push(number, entry.offset(offset).rw_flags(flags).build()) };
    }

    /// Queues an fdatasync(2).
    pub fn sync(&mut self, number: u64) {
        let entry = opcode::Fsync::new(self.file).flags(types::FsyncFlags::DATASYNC).build();
        // SAFETY: it touches no memory of ours.
        unsafe { self.push(number, entry) };
    }

    /// # Safety
    /// The memory that `entry` names stays until it is done.
    unsafe fn push(&mut self, number: u64, entry: squeue::Entry) {
        let entry = entry.user_data(number);
        // SAFETY: as the caller says.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            // Full of what the kernel has not taken yet, which is rare; it takes it as soon as it has memory.
            if self.submit().is_err() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        self.in_flight += 1;
        self.queued += 1;
    }

    /// Tells the kernel what was queued.
    ///
    /// # Errors
    /// EAGAIN or EBUSY when it has no room now: it is still queued, and has to be told again.
    pub fn submit(&mut self) -> io::Result<()> {
        if self.queued > 0 {
            self.queued -= self.ring.submit()?;
        }
        Ok(())
    }

    /// Whether something is queued that the kernel was not told.
    pub fn is_behind(&self) -> bool {
        self.queued > 0
    }

    /// Whether nothing is in flight.
    pub fn is_idle(&self) -> bool {
        self.in_flight == 0
    }

    /// What is done: its number and the bytes, or what went wrong. The kernel is not asked.
    pub fn done(&mut self) -> Option<(u64, io::Result<usize>)> {
        let entry = self.ring.completion().next()?;
        self.in_flight -= 1;
        let result = entry.result();
        let result = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
        Some((entry.user_data(), result))
    }

    /// Waits until nothing is in flight. What was not done yet is not told.
    pub fn drain(&mut self) {
        while self.in_flight > 0 {
            if self.ring.submit_and_wait(1).is_err() {
                // Interrupted, or no room: what is in flight goes on all the same.
                std::thread::sleep(Duration::from_millis(1));
            }
            while self.done().is_some() {}
        }
    }
}

impl AsFd for Uring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as the ring is.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }
}
