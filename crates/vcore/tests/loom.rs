//! The driver under loom: every interleaving, and every value that the memory model lets a load
//! return, of the races that a vcore lives with.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p cede-vcore --test loom --release`, and a
//! CARGO_TARGET_DIR of its own to spare the normal build. Two threads are checked without bounds;
//! where three take part the number of preemptions is bounded ([`BOUND`]), which is what makes them
//! finish. A lost wake-up shows as a deadlock, a double delivery as a failed assertion, a missing
//! ordering as a causality violation.

#![cfg(loom)]

use loom::cell::UnsafeCell;
use loom::sync::{Arc, Condvar, Mutex, MutexGuard};
use loom::thread;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64 as Untracked, Ordering::Relaxed};
use vcore::sync::{AtomicU32, Ordering, Orderings, Sound};
use vcore::{Cause, Causes, Entry, Port, SharedTunables, Stats, Thread, ThreadMask, Tunables, Vcore, Waited};

/// Preemptions per execution where three threads take part.
const BOUND: usize = 3;

/// A deadline that only `LoomPort::expire` makes true.
const LATER: u64 = u64::MAX;

/// What the kernel keeps of a vcore's sleepers and guests.
#[derive(Default)]
struct Kernel {
    asleep: u8,
    woken: u8,
    expired: u8,
    kicked: u8,
}

/// A futex with bit sets out of a lock and a condition variable per thread; the lock is the hash
/// bucket's.
struct LoomPort {
    kernel: Mutex<Kernel>,
    changed: [Condvar; 2],
    clock: Untracked,
    tunables: SharedTunables,
    stats: [Stats; 2],
}

impl LoomPort {
    /// `halt_poll_ns` turns of the poll loop: the clock advances by one each time it is read.
    fn new(halt_poll_ns: u32) -> Self {
        let tunables = Tunables { halt_poll_ns, halt_poll_ns_grow: 0, ..Tunables::POWERPC };
        Self {
            kernel: Mutex::new(Kernel::default()),
            changed: [Condvar::new(), Condvar::new()],
            clock: Untracked::new(0),
            tunables: SharedTunables::new(tunables),
            stats: [Stats::new(), Stats::new()],
        }
    }

    fn kernel(&self) -> MutexGuard<'_, Kernel> {
        self.kernel.lock().unwrap()
    }

    /// The timer of `thread` fires: if it sleeps it wakes, if it comes to sleep it does not stay.
    fn expire(&self, thread: Thread) {
        self.kernel().expired |= thread.mask().0;
        self.changed[thread.number()].notify_one();
    }

    /// The guest of `thread` runs until it is kicked.
    fn run_guest(&self, thread: Thread) {
        let mut kernel = self.kernel();
        while kernel.kicked & thread.mask().0 == 0 {
            kernel = self.changed[thread.number()].wait(kernel).unwrap();
        }
        kernel.kicked &= !thread.mask().0;
    }
}

impl Port for LoomPort {
    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Relaxed)
    }

    fn wait(&self, futex: &AtomicU32, expected: u32, thread: Thread, deadline: Option<u64>) -> Waited {
        let bit = thread.mask().0;
        let mut kernel = self.kernel();
        if futex.load(Ordering::Relaxed) != expected {
            return Waited::Retry;
        }
        kernel.asleep |= bit;
        loop {
            let ended = if kernel.woken & bit != 0 {
                kernel.woken &= !bit;
                Some(Waited::Woken)
            } else if deadline.is_some() && kernel.expired & bit != 0 {
                Some(Waited::TimedOut)
            } else {
                None
            };
            if let Some(how) = ended {
                kernel.asleep &= !bit;
                return how;
            }
            kernel = self.changed[thread.number()].wait(kernel).unwrap();
        }
    }

    fn wake(&self, _futex: &AtomicU32, threads: ThreadMask) {
        let mut kernel = self.kernel();
        let reached = ThreadMask(threads.0 & kernel.asleep);
        kernel.woken |= reached.0;
        reached.iter().for_each(|t| self.changed[t.number()].notify_one());
    }

    fn kick(&self, threads: ThreadMask, _cause: Cause) {
        self.kernel().kicked |= threads.0;
        threads.iter().for_each(|t| self.changed[t.number()].notify_one());
    }

    fn may_poll(&self, _thread: Thread, _now: u64) -> bool {
        true
    }

    fn keep_polling(&self, _thread: Thread, _before: u64, _now: u64) -> bool {
        true
    }

    fn yield_cpu(&self) {
        thread::yield_now();
    }

    fn tunables(&self) -> &SharedTunables {
        &self.tunables
    }

    fn stats(&self, thread: Thread) -> &Stats {
        &self.stats[thread.number()]
    }

    fn vcpu_id(&self, thread: Thread) -> u32 {
        thread.number() as u32
    }
}

/// loom's `Arc`, but not dropped while a failed check unwinds: loom's execution is gone by then, and
/// a second panic would abort the test that expects the first.
struct Shared<T>(ManuallyDrop<Arc<T>>);

impl<T> Shared<T> {
    fn new(value: T) -> Self {
        Self(ManuallyDrop::new(Arc::new(value)))
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: dropped here and nowhere else.
            unsafe { ManuallyDrop::drop(&mut self.0) };
        }
    }
}

fn vcore<O: Orderings>(threads: usize, halt_poll_ns: u32) -> Shared<Vcore<LoomPort, O>> {
    Shared::new(Vcore::new(threads, LoomPort::new(halt_poll_ns)).starting_with(halt_poll_ns))
}

fn thread(number: usize) -> Thread {
    Thread::new(number).unwrap()
}

/// Cedes until each of `expected` has come, and fails if one comes twice or uncalled for.
fn cede_until<O: Orderings>(
    vcore: &Vcore<LoomPort, O>,
    me: Thread,
    expected: &[Cause],
    deadline: Option<u64>,
) {
    let expected: Causes = expected.iter().copied().collect();
    let mut seen = Causes::NONE;
    while seen != expected {
        let causes = vcore.cede(me, deadline).unwrap();
        assert!(vcore.word().check(), "{:?}", vcore.word());
        assert!(!causes.is_empty(), "woke for nothing");
        assert!(causes.intersection(seen).is_empty(), "{causes:?} again, after {seen:?}");
        assert_eq!(causes.union(expected), expected, "nobody posted {causes:?}");
        seen = seen.union(causes);
    }
    assert!(vcore.word().causes(me).is_empty(), "left behind: {:?}", vcore.word());
}

fn bounded(bound: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(bound);
    model.check(body);
}

/// One thread cedes and one wakes it; what the waker wrote before must be seen after.
fn cede_against_wake<O: Orderings + 'static>(halt_poll_ns: u32, cause: Cause) {
    let vcore = vcore::<O>(1, halt_poll_ns);
    let ring = Shared::new(UnsafeCell::new(0));
    let waker = {
        let (vcore, ring) = (vcore.clone(), ring.clone());
        thread::spawn(move || {
            // SAFETY: the vCPU reads it only after the wake that follows; loom checks just that.
            ring.with_mut(|ring| unsafe { *ring = 42 });
            vcore.wake(thread(0), cause);
        })
    };
    cede_until(&vcore, thread(0), &[cause], None);
    // SAFETY: as above.
    assert_eq!(ring.with(|ring| unsafe { *ring }), 42);
    waker.join().unwrap();
    let stats = vcore.port().stats(thread(0)).snapshot();
    assert!(stats.halt_successful_poll + stats.halt_successful_wait <= 1, "{stats:?}");
}

#[test]
fn cede_against_wake_asleep() {
    loom::model(|| cede_against_wake::<Sound>(0, Cause::External));
}

#[test]
fn cede_against_wake_polling() {
    loom::model(|| cede_against_wake::<Sound>(2, Cause::External));
}

#[test]
fn cede_against_prod() {
    loom::model(|| cede_against_wake::<Sound>(1, Cause::Prod));
}

/// The sleeper may see the new futex word without the cause: it sleeps on a wake that has been.
enum RelaxedTicket {}

impl Orderings for RelaxedTicket {
    const TICKET: Ordering = Ordering::Relaxed;
    const POST: Ordering = Sound::POST;
    const TAKE: Ordering = Sound::TAKE;
    const BUMP: Ordering = Sound::BUMP;
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_relaxed_ticket_loses_a_wake_up() {
    loom::model(|| cede_against_wake::<RelaxedTicket>(0, Cause::External));
}

/// The waker may be seen to count before it posts.
enum RelaxedBump {}

impl Orderings for RelaxedBump {
    const BUMP: Ordering = Ordering::Relaxed;
    const POST: Ordering = Sound::POST;
    const TAKE: Ordering = Sound::TAKE;
    const TICKET: Ordering = Sound::TICKET;
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_relaxed_bump_loses_a_wake_up() {
    loom::model(|| cede_against_wake::<RelaxedBump>(0, Cause::External));
}

/// The cause may be taken without what the device wrote before it.
enum RelaxedPost {}

impl Orderings for RelaxedPost {
    const POST: Ordering = Ordering::Relaxed;
    const TAKE: Ordering = Sound::TAKE;
    const BUMP: Ordering = Sound::BUMP;
    const TICKET: Ordering = Sound::TICKET;
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_relaxed_post_publishes_nothing() {
    loom::model(|| cede_against_wake::<RelaxedPost>(0, Cause::External));
}

#[test]
fn two_wakes() {
    for halt_poll_ns in [0, 1] {
        bounded(BOUND, move || {
            let vcore = vcore::<Sound>(1, halt_poll_ns);
            let wakers = [Cause::External, Cause::Doorbell].map(|cause| {
                let vcore = vcore.clone();
                thread::spawn(move || vcore.wake(thread(0), cause))
            });
            cede_until(&vcore, thread(0), &[Cause::External, Cause::Doorbell], None);
            wakers.into_iter().for_each(|waker| waker.join().unwrap());
        });
    }
}

#[test]
fn exit_request_against_cede() {
    for halt_poll_ns in [0, 2] {
        loom::model(move || {
            let vcore = vcore::<Sound>(1, halt_poll_ns);
            let vmm = {
                let vcore = vcore.clone();
                thread::spawn(move || vcore.request_exit(ThreadMask::ALL))
            };
            cede_until(&vcore, thread(0), &[Cause::Exit], None);
            vmm.join().unwrap();
        });
    }
}

/// An exit request and a prod, wherever the thread is between the host, the guest and a nap.
#[test]
fn exit_request_against_the_run_loop() {
    bounded(BOUND, || {
        let vcore = vcore::<Sound>(1, 0);
        let vmm = {
            let vcore = vcore.clone();
            thread::spawn(move || vcore.request_exit(thread(0).mask()))
        };
        let me = thread(0);
        match vcore.enter(me).unwrap() {
            Entry::Host(causes) => assert_eq!(causes, Causes::only(Cause::Exit)),
            Entry::Guest => {
                vcore.port().run_guest(me);
                // The hypervisor's exit was the kick's; the guest had ceded just then.
                assert_eq!(vcore.cede(me, None).unwrap(), Causes::only(Cause::Exit));
            }
        }
        vmm.join().unwrap();
    });
}

#[test]
fn timer_expiry_against_wake() {
    for halt_poll_ns in [0, 1] {
        bounded(BOUND, move || {
            let vcore = vcore::<Sound>(1, halt_poll_ns);
            let timer = {
                let vcore = vcore.clone();
                thread::spawn(move || vcore.port().expire(thread(0)))
            };
            let waker = {
                let vcore = vcore.clone();
                thread::spawn(move || vcore.wake(thread(0), Cause::External))
            };
            let mut seen = Causes::NONE;
            while !seen.contains(Cause::External) {
                // A deadline that was reported is spent; the guest has set no new one.
                let deadline = if seen.is_empty() { Some(LATER) } else { None };
                let causes = vcore.cede(thread(0), deadline).unwrap();
                assert!(causes.intersection(seen).is_empty(), "{causes:?} again, after {seen:?}");
                seen = seen.union(causes);
            }
            timer.join().unwrap();
            waker.join().unwrap();
        });
    }
}

/// Two threads cede at the same time. Exactly one of them is the last.
#[test]
fn last_cede_against_last_cede() {
    for halt_poll_ns in [0, 1] {
        bounded(BOUND, move || {
            let vcore = vcore::<Sound>(2, halt_poll_ns);
            let sibling = {
                let vcore = vcore.clone();
                thread::spawn(move || cede_until(&vcore, thread(1), &[Cause::External], None))
            };
            let waker = {
                let vcore = vcore.clone();
                thread::spawn(move || {
                    vcore.wake(thread(1), Cause::External);
                    vcore.wake(thread(0), Cause::External);
                })
            };
            cede_until(&vcore, thread(0), &[Cause::External], None);
            sibling.join().unwrap();
            waker.join().unwrap();
            let all = [0, 1].map(|n| vcore.port().stats(thread(n)).snapshot());
            // The wakes may have been faster than both cedes, so there may have been no idle period.
            let ended: u64 = all.iter().map(|s| s.halt_successful_poll + s.halt_successful_wait).sum();
            let polled: u64 = all.iter().map(|s| s.halt_attempted_poll).sum();
            assert!(ended <= 2 && polled <= ended, "{all:?}");
        });
    }
}

/// One thread polls while its sibling is woken and runs: the poller stops and sleeps, and hears
/// its own wake later.
#[test]
fn a_sibling_wakes_while_one_polls() {
    bounded(BOUND, || {
        let vcore = vcore::<Sound>(2, 2);
        let sibling = {
            let vcore = vcore.clone();
            thread::spawn(move || {
                cede_until(&vcore, thread(1), &[Cause::Doorbell], None);
                assert_eq!(vcore.word().poller(), None, "someone polls while thread 1 is up");
                vcore.wake(thread(0), Cause::External);
            })
        };
        let waker = {
            let vcore = vcore.clone();
            thread::spawn(move || vcore.wake(thread(1), Cause::Doorbell))
        };
        cede_until(&vcore, thread(0), &[Cause::External], None);
        sibling.join().unwrap();
        waker.join().unwrap();
    });
}
