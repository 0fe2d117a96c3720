//! A timer for a backend that has to try again: one of its [`sources`](super::Backend::sources).

use super::NeedsReset;
use nix::errno::Errno;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// Readable once its time has come, until it is set again or cleared.
pub(super) struct Alarm(TimerFd);

fn failed(error: Errno) -> NeedsReset {
    NeedsReset::Host { what: "its timer failed", source: error.into() }
}

impl Alarm {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self(TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?))
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// To be readable after `delay`, which is not 0.
    pub(super) fn set(&self, delay: Duration) -> Result<(), NeedsReset> {
        self.0.set(Expiration::OneShot(delay.into()), TimerSetTimeFlags::empty()).map_err(failed)
    }

    /// Not to be readable: nothing is read, so nobody ever waits for a time that somebody else has set anew.
    pub(super) fn clear(&self) -> Result<(), NeedsReset> {
        self.0.unset().map_err(failed)
    }
}
