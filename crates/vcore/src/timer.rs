//! The timer that follows its vCPU: one deadline, held by a running timer while the vCPU is in
//! the guest and by the wait queue's timeout while it naps.
//!
//! Owns the policy of it, one [`VcpuTimer`] per vCPU, used by the vCPU's own thread only. It arms
//! nothing: each call says what to do with the running timer, which is whatever interrupts only
//! this thread's KVM_RUN (the kernel's decrementer on POWER; a per-thread POSIX timer on x86).
//!
//! ```text
//!             enter, deadline set: Arm                    expired, taken as an interrupt
//!   disarmed -------------------------> armed (running) --------------------------> disarmed,
//!      ^                                  |                                         no deadline
//!      `----------------------------------'
//!             nap: Disarm; the deadline is the nap's timeout
//! ```
//!
//! What always holds: the running timer is armed only between an entry and the next nap, for the
//! present deadline; while the vCPU naps no timer exists, so an idle guest costs no timer
//! interrupt; and an expiry is reported once. A short stay in the host leaves the timer armed:
//! taking it down and up again would cost two system calls per exit to save an interrupt that is
//! rare.

use crate::trace;

/// What to do with the running timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the policy believes that it was done"]
pub enum RunningTimer {
    /// Leave it as it is.
    Keep,
    /// Arm it (again, if it is armed) to fire at this time, in nanoseconds.
    Arm(u64),
    /// Disarm it.
    Disarm,
}

/// The timer of one vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuTimer {
    vcpu_id: u32,
    deadline: Option<u64>,
    armed: Option<u64>,
}

impl VcpuTimer {
    /// A timer without a deadline.
    pub const fn new(vcpu_id: u32) -> Self {
        Self { vcpu_id, deadline: None, armed: None }
    }

    /// The deadline, if one is set and has not been reported as expired.
    pub const fn deadline(&self) -> Option<u64> {
        self.deadline
    }

    /// The guest has set its timer (mtdec, TSC deadline), or taken it back with `None`. It acts at
    /// the next entry or nap.
    pub fn set(&mut self, deadline: Option<u64>) {
        self.deadline = deadline;
    }

    /// The vCPU is about to enter the guest.
    pub fn enter(&mut self) -> RunningTimer {
        match self.deadline {
            deadline if deadline == self.armed => RunningTimer::Keep,
            Some(deadline) => {
                self.arm(Some(deadline));
                RunningTimer::Arm(deadline)
            }
            None => {
                self.arm(None);
                RunningTimer::Disarm
            }
        }
    }

    /// The vCPU is about to nap: the timeout for [`crate::Vcore::cede`], and what to do first.
    pub fn nap(&mut self) -> (Option<u64>, RunningTimer) {
        let running = if self.armed.is_some() { RunningTimer::Disarm } else { RunningTimer::Keep };
        self.arm(None);
        (self.deadline, running)
    }

    /// Whether the deadline has passed at time `now`. True once per deadline; the caller makes the
    /// timer interrupt pending. The running timer fires once and is disarmed by that.
    pub fn expired(&mut self, now: u64) -> bool {
        match self.deadline {
            Some(deadline) if deadline <= now => {
                self.deadline = None;
                self.arm(None);
                true
            }
            _ => false,
        }
    }

    fn arm(&mut self, deadline: Option<u64>) {
        if self.armed.is_some() != deadline.is_some() {
            trace::hv_timer_state(self.vcpu_id, deadline.is_some());
        }
        self.armed = deadline;
    }
}
