//! Statistics of idle periods, under the names of KVM's binary statistics.
//!
//! Owns one set of counters per vCPU. As in the kernel, what concerns the vcore as a whole is
//! charged to one of its vCPUs: the poll to the poller, the rest of a block to the thread whose
//! waking ended it.
//!
//! What always holds: only the vCPU's own thread writes its counters, so counting is a load and a
//! store, no locked instruction; anybody may read. `Relaxed` throughout: each counter stands by
//! itself and publishes nothing. A reader sees each one exactly, not all of them at one instant.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::poll::Block;

/// Buckets of a histogram (the kernel's `HALT_POLL_HIST_COUNT`).
pub const HIST_BUCKETS: usize = 32;

/// A log2 histogram of nanoseconds: bucket 0 counts zeros, bucket `n` the values from 2^(n-1) to
/// 2^n - 1, and the last one everything above as well (`KVM_STATS_TYPE_LOG_HIST`).
#[derive(Debug)]
pub struct Histogram([AtomicU64; HIST_BUCKETS]);

impl Histogram {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; HIST_BUCKETS])
    }

    /// The bucket that counts `value`.
    pub const fn bucket(value: u64) -> usize {
        let fls = (u64::BITS - value.leading_zeros()) as usize;
        if fls < HIST_BUCKETS { fls } else { HIST_BUCKETS - 1 }
    }

    fn add(&self, value: u64) {
        add(&self.0[Self::bucket(value)], 1);
    }

    fn get(&self) -> [u64; HIST_BUCKETS] {
        core::array::from_fn(|bucket| self.0[bucket].load(Ordering::Relaxed))
    }
}

/// The counters of one vCPU; only its own thread may call the methods that count. Aligned so that no two vCPUs share a cache line (128 bytes on POWER,
/// and the pair of lines that x86 prefetches).
#[derive(Debug)]
#[repr(align(128))]
pub struct Stats {
    halt_successful_poll: AtomicU64,
    halt_attempted_poll: AtomicU64,
    halt_poll_invalid: AtomicU64,
    halt_wakeup: AtomicU64,
    halt_successful_wait: AtomicU64,
    halt_poll_success_ns: AtomicU64,
    halt_poll_fail_ns: AtomicU64,
    halt_wait_ns: AtomicU64,
    halt_poll_success_hist: Histogram,
    halt_poll_fail_hist: Histogram,
    halt_wait_hist: Histogram,
}

/// What the counters said at one time. The fields have the kernel's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Idle periods that ended while polling.
    pub halt_successful_poll: u64,
    /// Idle periods that polled at all.
    pub halt_attempted_poll: u64,
    /// Successful polls whose wake-up brought the guest nothing (an exit request alone).
    pub halt_poll_invalid: u64,
    /// Times that a waker took this vCPU out of its sleep.
    pub halt_wakeup: u64,
    /// Idle periods that ended after the vcore had slept.
    pub halt_successful_wait: u64,
    /// Nanoseconds spent in polls that succeeded.
    pub halt_poll_success_ns: u64,
    /// Nanoseconds spent in polls that failed.
    pub halt_poll_fail_ns: u64,
    /// Nanoseconds between the end of polling and the end of the idle period.
    pub halt_wait_ns: u64,
    /// How long successful polls took.
    pub halt_poll_success_hist: [u64; HIST_BUCKETS],
    /// How long failed polls took.
    pub halt_poll_fail_hist: [u64; HIST_BUCKETS],
    /// How long sleeps took.
    pub halt_wait_hist: [u64; HIST_BUCKETS],
}

impl Snapshot {
    /// The single-valued statistics by name, in the kernel's order.
    pub const fn named(&self) -> [(&'static str, u64); 8] {
        [
            ("halt_successful_poll", self.halt_successful_poll),
            ("halt_attempted_poll", self.halt_attempted_poll),
            ("halt_poll_invalid", self.halt_poll_invalid),
            ("halt_wakeup", self.halt_wakeup),
            ("halt_successful_wait", self.halt_successful_wait),
            ("halt_poll_success_ns", self.halt_poll_success_ns),
            ("halt_poll_fail_ns", self.halt_poll_fail_ns),
            ("halt_wait_ns", self.halt_wait_ns),
        ]
    }

    /// The histograms by name, in the kernel's order.
    pub const fn histograms(&self) -> [(&'static str, &[u64; HIST_BUCKETS]); 3] {
        [
            ("halt_poll_success_hist", &self.halt_poll_success_hist),
            ("halt_poll_fail_hist", &self.halt_poll_fail_hist),
            ("halt_wait_hist", &self.halt_wait_hist),
        ]
    }
}

/// Only the counter's one writer calls this.
fn add(counter: &AtomicU64, amount: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}

impl Stats {
    /// All zero.
    pub const fn new() -> Self {
        Self {
            halt_successful_poll: AtomicU64::new(0),
            halt_attempted_poll: AtomicU64::new(0),
            halt_poll_invalid: AtomicU64::new(0),
            halt_wakeup: AtomicU64::new(0),
            halt_successful_wait: AtomicU64::new(0),
            halt_poll_success_ns: AtomicU64::new(0),
            halt_poll_fail_ns: AtomicU64::new(0),
            halt_wait_ns: AtomicU64::new(0),
            halt_poll_success_hist: Histogram::new(),
            halt_poll_fail_hist: Histogram::new(),
            halt_wait_hist: Histogram::new(),
        }
    }

    /// A poll begins.
    pub fn poll_attempted(&self) {
        add(&self.halt_attempted_poll, 1);
    }

    /// A poll gave up after `ns`, and the vcore goes to sleep.
    pub fn poll_failed(&self, ns: u64) {
        add(&self.halt_poll_fail_ns, ns);
        self.halt_poll_fail_hist.add(ns);
    }

    /// A waker took the thread out of its sleep.
    pub fn woken(&self) {
        add(&self.halt_wakeup, 1);
    }

    /// An idle period ended.
    pub fn block_ended(&self, block: &Block) {
        if block.waited {
            add(&self.halt_successful_wait, 1);
            add(&self.halt_wait_ns, block.wait_ns());
            self.halt_wait_hist.add(block.wait_ns());
            return;
        }
        add(&self.halt_successful_poll, 1);
        add(&self.halt_poll_success_ns, block.block_ns());
        self.halt_poll_success_hist.add(block.block_ns());
        if !block.valid {
            add(&self.halt_poll_invalid, 1);
        }
    }

    /// The present values.
    pub fn snapshot(&self) -> Snapshot {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Snapshot {
            halt_successful_poll: get(&self.halt_successful_poll),
            halt_attempted_poll: get(&self.halt_attempted_poll),
            halt_poll_invalid: get(&self.halt_poll_invalid),
            halt_wakeup: get(&self.halt_wakeup),
            halt_successful_wait: get(&self.halt_successful_wait),
            halt_poll_success_ns: get(&self.halt_poll_success_ns),
            halt_poll_fail_ns: get(&self.halt_poll_fail_ns),
            halt_wait_ns: get(&self.halt_wait_ns),
            halt_poll_success_hist: self.halt_poll_success_hist.get(),
            halt_poll_fail_hist: self.halt_poll_fail_hist.get(),
            halt_wait_hist: self.halt_wait_hist.get(),
        }
    }
}

impl Default for Stats {
    fn default() -> Self {
        Self::new()
    }
}
