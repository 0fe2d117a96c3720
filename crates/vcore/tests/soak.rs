//! Cede and wake between two threads, over and over: nothing lost, nobody stuck.
//!
//! The long form is `cargo test --release -p cede-vcore --test soak -- --ignored --nocapture`
//! (10^8 pairs; `SOAK_PAIRS` sets another number).
//!
//! A stall is a wake that takes more than 10 ms to come back, less the time that the threads stood
//! in a run queue meanwhile (`/proc/thread-self/schedstat`), which is the host's doing.

#![cfg(all(target_os = "linux", not(loom)))]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vcore::futex::monotonic_ns;
use vcore::{Cause, Causes, FutexPort, NoKick, SharedTunables, Thread, Tunables, Vcore};

const STALL_NS: u64 = 10_000_000;
const PATIENCE_NS: u64 = 60_000_000_000;

/// The calling thread's time in run queues, in nanoseconds.
struct RunDelay(File);

impl RunDelay {
    fn of_this_thread() -> Self {
        Self(File::open("/proc/thread-self/schedstat").expect("CONFIG_SCHED_INFO"))
    }

    fn get(&self) -> u64 {
        let mut text = [0; 80];
        let length = self.0.read_at(&mut text, 0).unwrap();
        let text = std::str::from_utf8(&text[..length]).unwrap();
        text.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

/// Plays `pairs` rounds of wake and cede between two vcores, with those tunables.
fn soak(pairs: u64, tunables: Tunables) {
    let shared = Arc::new(SharedTunables::new(tunables));
    let vcores: [Vcore<_>; 2] = [0, 1].map(|id| {
        Vcore::new(1, FutexPort::new(id, 1, shared.clone(), NoKick)).starting_with(tunables.halt_poll_ns)
    });
    let me = Thread::new(0).unwrap();
    // The other side's time in run queues, published by it whenever a turn of its own was long.
    let delays = [AtomicU64::new(0), AtomicU64::new(0)];
    let player = |side: usize| {
        let delay = RunDelay::of_this_thread();
        let (mut longest, mut known, mut begun) = (0, [0, 0], monotonic_ns());
        for turn in 0..pairs {
            if side == 0 || turn > 0 {
                vcores[1 - side].wake(me, Cause::External);
            }
            let causes = vcores[side].cede(me, Some(begun + PATIENCE_NS)).unwrap();
            assert_eq!(causes, Causes::only(Cause::External), "turn {turn} of {pairs}: a wake was lost");
            let now = monotonic_ns();
            if now - begun > STALL_NS / 4 {
                delays[side].store(delay.get(), Ordering::Relaxed);
                let seen = [0, 1].map(|n| delays[n].load(Ordering::Relaxed));
                let queued: u64 = seen.iter().zip(known).map(|(new, old)| new - old).sum();
                known = seen;
                longest = longest.max((now - begun).saturating_sub(queued));
            } else {
                longest = longest.max(now - begun);
            }
            begun = now;
        }
        if side == 1 {
            vcores[0].wake(me, Cause::External);
        }
        longest
    };
    let begun = monotonic_ns();
    let longest = std::thread::scope(|scope| {
        let other = scope.spawn(|| player(1));
        player(0).max(other.join().unwrap())
    });
    let each = (monotonic_ns() - begun) / pairs;
    println!("{pairs} pairs, {each} ns each, the longest turn {longest} ns ({tunables})");
    assert!(longest < STALL_NS, "a turn took {longest} ns without standing in a run queue");
}

const POLL: Tunables = Tunables { halt_poll_ns: 50_000, halt_poll_ns_shrink: 1, ..Tunables::X86 };

#[test]
fn short_soak_asleep() {
    soak(100_000, Tunables::NO_POLL);
}

#[test]
fn short_soak_polling() {
    soak(300_000, POLL);
}

#[test]
#[ignore = "10^8 pairs: many minutes"]
fn long_soak() {
    let pairs =
        std::env::var("SOAK_PAIRS").map_or(100_000_000, |text| text.parse().expect("SOAK_PAIRS is a number"));
    // One in a hundred through the futex: an idle CPU takes a hundred times as long to wake up.
    soak(pairs / 100 * 99, POLL);
    soak(pairs / 100, Tunables::NO_POLL);
}
