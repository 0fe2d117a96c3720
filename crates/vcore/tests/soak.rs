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
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use vcore::futex::monotonic_ns;
use vcore::{Cause, Causes, FutexPort, NoKick, SharedTunables, Thread, Tunables, Vcore};

const STALL_NS: u64 = 10_000_000;
const PATIENCE_NS: u64 = 60_000_000_000;

/// The time that the two threads have stood in run queues, in nanoseconds. The kernel brings a
/// thread's figure up to date when it gets a CPU, so before it can end another one's turn.
struct RunDelays([File; 2]);

impl RunDelays {
    fn of(tids: [u64; 2]) -> Self {
        let open = |tid| File::open(format!("/proc/self/task/{tid}/schedstat")).expect("CONFIG_SCHED_INFO");
        Self(tids.map(open))
    }

    fn get(&self) -> u64 {
        self.0.iter().map(Self::read).sum()
    }

    fn read(file: &File) -> u64 {
        let mut text = [0; 80];
        let length = file.read_at(&mut text, 0).unwrap();
        let text = std::str::from_utf8(&text[..length]).unwrap();
        text.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

/// The kernel's number of the calling thread.
fn tid() -> u64 {
    // SAFETY: gettid has no arguments and cannot fail.
    unsafe { libc::gettid() as u64 }
}

/// Plays `pairs` rounds of wake and cede between two vcores, with those tunables.
fn soak(pairs: u64, tunables: Tunables) {
    let shared = Arc::new(SharedTunables::new(tunables));
    let vcores: [Vcore<_>; 2] = [0, 1].map(|id| {
        Vcore::new(1, FutexPort::new(id, 1, shared.clone(), NoKick)).starting_with(tunables.halt_poll_ns)
    });
    let me = Thread::new(0).unwrap();
    let tids = [const { AtomicU64::new(0) }; 2];
    let both = Barrier::new(2);
    let player = |side: usize| {
        tids[side].store(tid(), Ordering::Relaxed);
        both.wait();
        let delays = RunDelays::of(tids.each_ref().map(|tid| tid.load(Ordering::Relaxed)));
        let (mut longest, mut queued, mut begun) = (0, delays.get(), monotonic_ns());
        for turn in 0..pairs {
            if side == 0 || turn > 0 {
                vcores[1 - side].wake(me, Cause::External);
            }
            let causes = vcores[side].cede(me, Some(begun + PATIENCE_NS)).unwrap();
            assert_eq!(causes, Causes::only(Cause::External), "turn {turn} of {pairs}: a wake was lost");
            let now = monotonic_ns();
            let mut length = now - begun;
            // Reading the figures takes a system call each: only when it matters, and now and then
            // so that little of the past is taken for this turn's.
            if length > STALL_NS / 4 || turn % 1_024 == 0 {
                let before = std::mem::replace(&mut queued, delays.get());
                length = length.saturating_sub(queued - before);
            }
            longest = longest.max(length);
            begun = monotonic_ns();
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
