//! The port on Linux: CLOCK_MONOTONIC, one futex word with a bit set per vcore, the caller's kick.
//!
//! Owns the system calls. FUTEX_WAIT_BITSET sleeps with the thread's bit and an absolute timeout,
//! which is the decrementer's deadline as it stands; FUTEX_WAKE_BITSET wakes exactly the threads
//! named. Both are private to the process. The wake side is one system call and no memory but the
//! arguments, so it is async-signal-safe; it preserves `errno`.

use std::sync::Arc;

use crate::contention::Contention;
use crate::port::{Port, Waited};
use crate::stats::Stats;
use crate::sync::AtomicU32;
use crate::tunables::SharedTunables;
use crate::word::{Cause, MAX_THREADS, Thread, ThreadMask};

/// How running threads are brought out of the guest.
pub trait Kick {
    /// Makes `threads` leave KVM_RUN soon, or take `cause` where they are. Must be
    /// async-signal-safe.
    fn kick(&self, threads: ThreadMask, cause: Cause);
}

/// For vcores whose threads are never in a guest (tests, benchmarks).
#[derive(Clone, Copy, Debug)]
pub struct NoKick;

impl Kick for NoKick {
    fn kick(&self, _threads: ThreadMask, _cause: Cause) {}
}

impl<F: Fn(ThreadMask, Cause)> Kick for F {
    fn kick(&self, threads: ThreadMask, cause: Cause) {
        self(threads, cause);
    }
}

/// What belongs to one vCPU and is touched by its thread alone.
#[derive(Debug, Default)]
struct Vcpu {
    stats: Stats,
    contention: Contention,
}

/// The world of one vcore on Linux.
#[derive(Debug)]
pub struct FutexPort<K> {
    first_vcpu: u32,
    vcpus: Box<[Vcpu]>,
    tunables: Arc<SharedTunables>,
    kick: K,
}

impl<K: Kick> FutexPort<K> {
    /// A port for a vcore of `threads` vCPUs numbered from `first_vcpu`, of the VM that has these
    /// tunables.
    ///
    /// # Panics
    /// If `threads` is more than 8.
    pub fn new(first_vcpu: u32, threads: usize, tunables: Arc<SharedTunables>, kick: K) -> Self {
        assert!(threads <= MAX_THREADS, "a vcore has at most {MAX_THREADS} threads, not {threads}");
        let vcpus = (0..threads).map(|_| Vcpu::default()).collect();
        Self { first_vcpu, vcpus, tunables, kick }
    }
}

impl<K: Kick> Port for FutexPort<K> {
    fn now(&self) -> u64 {
        monotonic_ns()
    }

    fn wait(&self, futex: &AtomicU32, expected: u32, thread: Thread, deadline: Option<u64>) -> Waited {
        let timeout = deadline.map(timespec);
        let timeout = timeout.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
        let op = libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG;
        let bit = u32::from(thread.mask().0);
        // SAFETY: the futex word and the timeout outlive the call, the word is 4-byte aligned, and
        // the kernel only reads both. FUTEX_WAIT_BITSET does not use the fifth argument.
        let woken = unsafe {
            libc::syscall(
                libc::SYS_futex,
                futex.as_ptr(),
                op,
                expected,
                timeout,
                core::ptr::null::<u32>(),
                bit,
            )
        };
        if woken == 0 {
            return Waited::Woken;
        }
        match std::io::Error::last_os_error().raw_os_error() {
            Some(libc::ETIMEDOUT) => Waited::TimedOut,
            // EAGAIN: the word has changed. EINTR: a signal's handler ran, and may have posted.
            _ => Waited::Retry,
        }
    }

    fn wake(&self, futex: &AtomicU32, threads: ThreadMask) {
        let op = libc::FUTEX_WAKE_BITSET | libc::FUTEX_PRIVATE_FLAG;
        let none = core::ptr::null::<libc::c_void>();
        // SAFETY: a wake uses the word's address only as a key. It fails with EINVAL or EFAULT
        // alone, which an aligned word in mapped memory and a non-empty mask exclude, so it never
        // writes `errno`, which a signal handler must leave alone.
        unsafe {
            libc::syscall(libc::SYS_futex, futex.as_ptr(), op, i32::MAX, none, none, u32::from(threads.0));
        }
    }

    fn kick(&self, threads: ThreadMask, cause: Cause) {
        self.kick.kick(threads, cause);
    }

    fn may_poll(&self, thread: Thread, now: u64) -> bool {
        self.vcpus[thread.number()].contention.may_poll(now)
    }

    fn keep_polling(&self, thread: Thread, before: u64, now: u64) -> bool {
        self.vcpus[thread.number()].contention.keep_polling(before, now)
    }

    fn yield_cpu(&self) {
        std::thread::yield_now();
    }

    fn tunables(&self) -> &SharedTunables {
        &self.tunables
    }

    fn stats(&self, thread: Thread) -> &Stats {
        &self.vcpus[thread.number()].stats
    }

    fn vcpu_id(&self, thread: Thread) -> u32 {
        self.first_vcpu + thread.number() as u32
    }
}

/// The time on CLOCK_MONOTONIC in nanoseconds, the clock of every deadline.
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a timespec of ours. CLOCK_MONOTONIC always exists, so the call succeeds.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn timespec(ns: u64) -> libc::timespec {
    libc::timespec {
        tv_sec: (ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (ns % 1_000_000_000) as libc::c_long,
    }
}
