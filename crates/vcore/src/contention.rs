//! How a poller in user space notices that it is in another task's way.
//!
//! The kernel's poller asks `need_resched()` and `single_task_running()`; user space can ask
//! neither. What it can see is that it was off its CPU: two clock reads in a row, normally some 50
//! ns apart, lie far apart. [`GAP_NS`] is well above what interrupts take and well below any time
//! slice. A gap alone may be an interrupt or a stolen CPU, so after one (and only then: it is a
//! system call) the thread's count of involuntary switches decides: has it grown since the last
//! such look, another task wants this CPU. Then the poll ends, and no other begins for
//! [`BACKOFF_NS`], for the other task is likely to stay; a vCPU that sleeps instead gives its CPU
//! away at once and gets it back when it wakes.
//!
//! Tried and rejected: a `sched_yield` before each poll. It finds a competitor at once, but hands
//! the CPU over as a runnable task, and a wake-up that comes meanwhile waits for the competitor's
//! whole slice. docs/vcore.md has the figures (`cargo bench -p cede-vcore --bench contention`).

use std::sync::atomic::{AtomicU64, Ordering};

/// A distance between two turns of the poll loop that asks for an explanation.
pub const GAP_NS: u64 = 20_000;

/// How long a vCPU does not poll after it stood in another task's way.
pub const BACKOFF_NS: u64 = 10_000_000;

/// What one vCPU knows of other tasks on its CPU. Only its own thread calls; atomics because the
/// port is shared, `Relaxed` because nothing is published.
#[derive(Debug, Default)]
pub struct Contention {
    switches: AtomicU64,
    quiet_until: AtomicU64,
}

impl Contention {
    /// Whether a poll may begin at `now`.
    pub fn may_poll(&self, now: u64) -> bool {
        now >= self.quiet_until.load(Ordering::Relaxed)
    }

    /// Whether the poll may go on, given the clock of the loop's last turn and of this one.
    pub fn keep_polling(&self, before: u64, now: u64) -> bool {
        if now.saturating_sub(before) < GAP_NS {
            return true;
        }
        let switches = involuntary_switches();
        if self.switches.swap(switches, Ordering::Relaxed) == switches {
            return true;
        }
        self.quiet_until.store(now.saturating_add(BACKOFF_NS), Ordering::Relaxed);
        false
    }
}

/// How often the calling thread was taken off its CPU while it wanted to run.
fn involuntary_switches() -> u64 {
    // SAFETY: an all-zero rusage is valid, and the call fills it; RUSAGE_THREAD is always valid.
    let usage = unsafe {
        let mut usage: libc::rusage = core::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &mut usage);
        usage
    };
    usage.ru_nivcsw as u64
}
