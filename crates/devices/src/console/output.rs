//! Where guest output goes: a descriptor that is written without ever waiting.

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::PollFlags;
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::write;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes per write to a descriptor that could block: what poll calls writable takes so many at once (a pipe
/// has a free page, a terminal has a free buffer).
const SMALL: usize = 256;

/// A descriptor for guest output.
#[derive(Debug)]
pub(super) struct Output {
    fd: OwnedFd,
    /// The open file description is shared with other processes, so O_NONBLOCK is not ours to set.
    shared: bool,
    /// A hang-up only means that nobody has the other side open at the moment.
    pty: bool,
    /// A write failed for good; everything is dropped from then on. A flag and no order: Relaxed.
    closed: AtomicBool,
}

impl Output {
    /// Output to a description that is ours alone and has O_NONBLOCK.
    pub(super) fn owned(fd: OwnedFd) -> Self {
        Self { fd, shared: false, pty: false, closed: AtomicBool::new(false) }
    }

    /// Output to the master of a pty, which has O_NONBLOCK.
    pub(super) fn pty(fd: OwnedFd) -> Self {
        Self { pty: true, ..Self::owned(fd) }
    }

    /// Output to an inherited descriptor. A terminal or pipe is opened again where that works, which gives
    /// a description of our own; anything else (a regular file would lose its offset) is asked before each
    /// write whether it would block.
    pub(super) fn inherited(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let kind = SFlag::from_bits_truncate(fstat(fd)?.st_mode) & SFlag::S_IFMT;
        if kind == SFlag::S_IFCHR || kind == SFlag::S_IFIFO {
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
            if let Ok(own) = open(path.as_str(), flags, Mode::empty()) {
                return Ok(Self::owned(own));
            }
        }
        Ok(Self { shared: true, ..Self::owned(fd.try_clone_to_owned()?) })
    }

    /// Writes what can be written now. Returns the bytes taken, 0 when there is no room.
    ///
    /// SIGPIPE is no concern: Rust's runtime ignores it before `main`, so a closed pipe is EPIPE.
    pub(super) fn write(&self, bytes: &[u8]) -> usize {
        if self.closed.load(Ordering::Relaxed) || self.no_peer() {
            return bytes.len();
        }
        let now = if self.shared {
            if !super::ready(self.fd.as_fd(), PollFlags::POLLOUT) {
                return 0;
            }
            &bytes[..bytes.len().min(SMALL)]
        } else {
            bytes
        };
        loop {
            match write(&self.fd, now) {
                Ok(count) => return count,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return 0,
                Err(errno) => {
                    if !self.closed.swap(true, Ordering::Relaxed) {
                        tracing::warn!(%errno, "console output is lost from here on");
                    }
                    return bytes.len();
                }
            }
        }
    }

    /// Linux keeps output for a peer to come until its buffers are full. The peer would get the oldest of it,
    /// and until then the guest would wait.
    fn no_peer(&self) -> bool {
        self.pty && super::ready(self.fd.as_fd(), PollFlags::empty())
    }
}
