//! Where the benchmarks' threads run, and which thread of their vcores they are.

use std::sync::OnceLock;
use vcore::Thread;

/// The one thread of a bench vcore.
pub fn me() -> Thread {
    Thread::new(0).expect("0 is below 8")
}

/// Pins the calling thread to one CPU, the `index`-th of those that the process was started with.
pub fn pin(index: usize) {
    static CPUS: OnceLock<Vec<usize>> = OnceLock::new();
    // SAFETY: an all-zero cpu_set_t is the empty set; both calls get its size and a valid address.
    unsafe {
        let cpus = CPUS.get_or_init(|| {
            let mut all: libc::cpu_set_t = std::mem::zeroed();
            libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut all);
            (0..libc::CPU_SETSIZE as usize).filter(|cpu| libc::CPU_ISSET(*cpu, &all)).collect()
        });
        let mut one: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpus[index % cpus.len()], &mut one);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &one);
    }
}
