//! The driver on real threads: what an SMT vcore does, what is counted and allocated.

#![cfg(all(target_os = "linux", not(loom)))]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;
use vcore::futex::monotonic_ns;
use vcore::{
    Cause, Causes, Conferred, Entry, FutexPort, NoKick, Port, SharedTunables, Snapshot, Thread, ThreadMask,
    Tunables, Vcore, VcoreState,
};

/// Counts what the calling thread allocates.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: all of it is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn thread(number: usize) -> Thread {
    Thread::new(number).unwrap()
}

fn vcore(threads: usize, tunables: Tunables) -> Vcore<FutexPort<NoKick>> {
    let port = FutexPort::new(16, threads, Arc::new(SharedTunables::new(tunables)), NoKick);
    Vcore::new(threads, port).starting_with(tunables.halt_poll_ns)
}

fn soon(ns: u64) -> Option<u64> {
    Some(monotonic_ns() + ns)
}

fn wait_for(what: impl Fn() -> bool) {
    let patience = monotonic_ns() + 10_000_000_000;
    while !what() {
        assert!(monotonic_ns() < patience, "it never came");
        std::thread::yield_now();
    }
}

#[test]
fn nothing_is_allocated() {
    let vcore = vcore(1, Tunables { halt_poll_ns: 20_000, ..Tunables::X86 });
    let me = thread(0);
    let before = ALLOCATIONS.with(Cell::get);
    for turn in 0..1_000u64 {
        assert!(matches!(vcore.enter(me), Ok(Entry::Guest)));
        vcore.leave(me).unwrap();
        vcore.prod(me);
        vcore.wake(me, Cause::External);
        assert!(!vcore.cede(me, None).unwrap().is_empty());
        // Some of these end in the poll, some in the futex.
        let _ = vcore.cede(me, soon(turn % 50 * 1_000)).unwrap();
    }
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0);
    let stats = vcore.port().stats(me).snapshot();
    assert!(stats.halt_successful_poll > 0 && stats.halt_successful_wait > 0, "{stats:?}");
}

#[test]
fn eight_threads_take_every_wake_once() {
    const EACH: u64 = 20_000;
    let vcore = vcore(8, Tunables { halt_poll_ns: 5_000, ..Tunables::X86 });
    let taken = [const { AtomicU64::new(0) }; 8];
    std::thread::scope(|scope| {
        for me in Thread::all() {
            let (vcore, taken) = (&vcore, &taken);
            scope.spawn(move || {
                for n in 0..EACH {
                    let causes = vcore.cede(me, soon(10_000_000_000)).unwrap();
                    assert_eq!(causes, Causes::only(Cause::Doorbell), "thread {me:?}, wake {n}");
                    taken[me.number()].store(n + 1, Ordering::Release);
                }
            });
        }
        for n in 0..EACH {
            for target in Thread::all() {
                while taken[target.number()].load(Ordering::Acquire) < n {
                    std::thread::yield_now();
                }
                vcore.wake(target, Cause::Doorbell);
            }
        }
    });
    let all: Vec<Snapshot> = Thread::all().map(|t| vcore.port().stats(t).snapshot()).collect();
    let sum = |field: fn(&Snapshot) -> u64| all.iter().map(field).sum::<u64>();
    let failed: u64 = sum(|s| s.halt_poll_fail_hist.iter().sum());
    // Every poll that began ended, as a success or as a failure.
    assert_eq!(sum(|s| s.halt_attempted_poll), sum(|s| s.halt_successful_poll) + failed);
    assert_eq!(sum(|s| s.halt_successful_poll), sum(|s| s.halt_poll_success_hist.iter().sum()));
    assert_eq!(sum(|s| s.halt_successful_wait), sum(|s| s.halt_wait_hist.iter().sum()));
    assert!(sum(|s| s.halt_wakeup) <= 8 * EACH);
}

#[test]
fn an_expired_deadline_does_not_nap() {
    let vcore = vcore(1, Tunables::NO_POLL);
    let causes = vcore.cede(thread(0), Some(monotonic_ns())).unwrap();
    assert_eq!(causes, Causes::only(Cause::Decrementer));
    assert_eq!(vcore.port().stats(thread(0)).snapshot(), Snapshot::default());
}

#[test]
fn a_nap_ends_at_its_deadline_and_not_before() {
    for tunables in [Tunables::NO_POLL, Tunables { halt_poll_ns: 1_000_000_000, ..Tunables::X86 }] {
        let vcore = vcore(2, tunables);
        // The sibling in the host keeps the vcore from being idle in the first turn, offline in the second.
        for _ in 0..2 {
            let deadline = monotonic_ns() + 2_000_000;
            assert_eq!(vcore.cede(thread(0), Some(deadline)).unwrap(), Causes::only(Cause::Decrementer));
            assert!(monotonic_ns() >= deadline);
            let _ = vcore.offline(thread(1));
        }
    }
}

/// Calls everybody when it goes, so that a check that fails in between leaves no thread behind that nobody would ever wake.
struct Release<'a, P: Port>(&'a Vcore<P>);

impl<P: Port> Drop for Release<'_, P> {
    fn drop(&mut self) {
        self.0.request_exit(ThreadMask::ALL);
    }
}

/// The poller gives way to other tasks of the machine, so on a busy one not every attempt shows a poll.
#[test]
fn siblings_sleep_and_one_polls() {
    assert!((0..200).any(|_| one_polls_undisturbed()), "no poll of 200 was left alone");
}

/// False if the poller was in another task's way.
fn one_polls_undisturbed() -> bool {
    let second = Tunables { halt_poll_ns: 1_000_000_000, ..Tunables::X86 };
    let vcore = vcore(3, second);
    let polled = std::thread::scope(|scope| {
        let _release = Release(&vcore);
        let nap = |n| {
            let vcore = &vcore;
            move || vcore.cede(thread(n), None).unwrap()
        };
        let first = scope.spawn(nap(0));
        wait_for(|| vcore.word().napping() == ThreadMask(0b001));
        assert_eq!(vcore.word().vcore_state(), VcoreState::Inactive);
        let second = scope.spawn(nap(1));
        wait_for(|| vcore.word().napping() == ThreadMask(0b011));
        assert_eq!(vcore.word().poller(), None, "a sibling is still in the host");
        let last = scope.spawn(nap(2));
        wait_for(|| vcore.word().napping() == ThreadMask(0b111));
        // A sleeping sibling is woken: it runs, and nobody polls any more.
        let poller = vcore.word().poller();
        vcore.wake(thread(0), Cause::External);
        assert_eq!(first.join().unwrap(), Causes::only(Cause::External));
        assert_eq!(vcore.word().poller(), None);
        assert_eq!(vcore.word().napping(), ThreadMask(0b110));
        vcore.request_exit(ThreadMask::ALL);
        for napper in [second, last] {
            assert_eq!(napper.join().unwrap(), Causes::only(Cause::Exit));
        }
        poller == Some(thread(2))
    });
    let stats = [0, 1, 2].map(|n| vcore.port().stats(thread(n)).snapshot());
    if !polled || stats[0].halt_successful_wait > 0 {
        return false;
    }
    assert_eq!(stats.map(|s| s.halt_attempted_poll), [0, 0, 1]);
    assert_eq!(stats.map(|s| s.halt_successful_poll), [1, 0, 0], "charged to the thread that ended it");
    // Thread 0 was in the host and owes its exit; it was online, so the request is for it as well.
    assert_eq!(vcore.enter(thread(0)).unwrap(), Entry::Host(Causes::only(Cause::Exit)));
    true
}

#[test]
fn running_threads_are_kicked_and_napping_ones_are_not() {
    let kicked = Arc::new(AtomicU8::new(0));
    let kick = {
        let kicked = kicked.clone();
        move |threads: ThreadMask, _cause: Cause| {
            kicked.fetch_or(threads.0, Ordering::Relaxed);
        }
    };
    let port = FutexPort::new(0, 3, Arc::new(SharedTunables::new(Tunables::NO_POLL)), kick);
    let vcore: Vcore<_> = Vcore::new(3, port);
    assert_eq!(vcore.enter(thread(0)).unwrap(), Entry::Guest);
    std::thread::scope(|scope| {
        let napper = scope.spawn(|| vcore.cede(thread(1), None).unwrap());
        wait_for(|| vcore.word().napping() == ThreadMask(0b010));
        vcore.prod(thread(0));
        assert_eq!(kicked.load(Ordering::Relaxed), 0, "a prod does not disturb a running thread");
        vcore.request_exit(ThreadMask::ALL);
        assert_eq!(kicked.load(Ordering::Relaxed), 0b001);
        assert_eq!(napper.join().unwrap(), Causes::only(Cause::Exit));
    });
    vcore.leave(thread(0)).unwrap();
    assert_eq!(vcore.enter(thread(0)).unwrap(), Entry::Host(Causes::only(Cause::Exit)));
    // The prod has waited for the cede.
    assert_eq!(vcore.cede(thread(0), None).unwrap(), Causes::only(Cause::Prod));
}

#[test]
fn confer() {
    let vcore = vcore(1, Tunables::NO_POLL);
    assert_eq!(vcore.confer(thread(0), || true), Conferred::Yielded);
    assert_eq!(vcore.confer(thread(0), || false), Conferred::NotNeeded);
    vcore.prod(thread(0));
    assert_eq!(vcore.confer(thread(0), || true), Conferred::Prodded);
    assert_eq!(vcore.confer(thread(0), || true), Conferred::Yielded, "the prod was consumed");
}

#[test]
fn misuse_is_an_error_and_changes_nothing() {
    let vcore = vcore(1, Tunables::NO_POLL);
    let before = vcore.word();
    let error = vcore.leave(thread(0)).unwrap_err().to_string();
    assert_eq!(
        error,
        "thread 0 of the vcore is Host: it cannot leave the guest; each thread may only call for itself"
    );
    for result in [vcore.online(thread(0)), vcore.offline(thread(1)), vcore.cede(thread(1), None).map(drop)] {
        assert!(result.is_err());
    }
    assert_eq!(vcore.word(), before);
}

/// A pending deadline is taken over by no sibling, and an offline thread takes no part.
#[test]
fn an_offline_thread_does_not_keep_the_vcore_awake() {
    let vcore = vcore(2, Tunables::NO_POLL);
    vcore.offline(thread(1)).unwrap();
    let _ = vcore.cede(thread(0), soon(1_000_000)).unwrap();
    assert_eq!(vcore.port().stats(thread(0)).snapshot().halt_successful_wait, 1);
    vcore.online(thread(1)).unwrap();
    let _ = vcore.cede(thread(0), soon(1_000_000)).unwrap();
    assert_eq!(vcore.port().stats(thread(0)).snapshot().halt_successful_wait, 1, "the vcore was never idle");
}

/// The futex path itself: a wake reaches the thread that it names and no other.
#[test]
fn a_wake_is_for_the_threads_named() {
    let vcore = vcore(2, Tunables::NO_POLL);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| vcore.cede(thread(1), None).unwrap());
        wait_for(|| vcore.word().napping() == ThreadMask(0b10));
        for _ in 0..100 {
            vcore.wake(thread(0), Cause::External);
            assert_eq!(vcore.cede(thread(0), None).unwrap(), Causes::only(Cause::External));
        }
        std::thread::sleep(Duration::from_millis(1));
        vcore.wake(thread(1), Cause::External);
        let _ = other.join().unwrap();
    });
    assert!(vcore.port().stats(thread(1)).snapshot().halt_wakeup <= 1);
}
