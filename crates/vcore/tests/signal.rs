//! A million wakes from a signal handler that interrupts the very thread that cedes, none lost.
//!
//! A second thread sends one signal per cede, after a pause that differs from turn to turn, so that
//! it lands before the nap, between the nap and the sleep, in the poll loop and in the futex. A lost
//! wake shows as the nap's deadline.

#![cfg(all(target_os = "linux", not(loom)))]

use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use vcore::futex::monotonic_ns;
use vcore::{Cause, Causes, FutexPort, NoKick, SharedTunables, Thread, ThreadState, Tunables, Vcore};

const TIMES: u64 = 1_000_000;
const PATIENCE_NS: u64 = 10_000_000_000;

static VCORE: AtomicPtr<Vcore<FutexPort<NoKick>>> = AtomicPtr::new(std::ptr::null_mut());
/// How often the handler found its thread awake, polling, or bound for sleep.
static FOUND: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

fn me() -> Thread {
    Thread::new(0).unwrap()
}

extern "C" fn wake_myself(_signal: libc::c_int) {
    // SAFETY: set before the handler was installed, to a vcore that lives as long as the process.
    let vcore = unsafe { &*VCORE.load(Ordering::Relaxed) };
    let word = vcore.word();
    let place = match (word.thread_state(me()), word.poller()) {
        (ThreadState::Napping, Some(_)) => 1,
        (ThreadState::Napping, None) => 2,
        _ => 0,
    };
    FOUND[place].fetch_add(1, Ordering::Relaxed);
    vcore.wake(me(), Cause::External);
}

/// Up to `most` turns of nothing, in an order that does not follow the loop's own.
fn pause(turn: u64, most: u64) {
    for _ in 0..(turn.wrapping_mul(0x9e37_79b9) >> 7) % most {
        std::hint::spin_loop();
    }
}

#[test]
fn a_million_wakes_from_a_handler() {
    let tunables = Arc::new(SharedTunables::new(Tunables::NO_POLL));
    let port = FutexPort::new(0, 1, tunables.clone(), NoKick);
    let vcore: &Vcore<_> = Box::leak(Box::new(Vcore::new(1, port)));
    VCORE.store(std::ptr::from_ref(vcore).cast_mut(), Ordering::Release);
    let handler: extern "C" fn(libc::c_int) = wake_myself;
    // SAFETY: installs an async-signal-safe handler for a signal that nobody else uses here.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as usize;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()), 0);
    }

    let taken = Arc::new(AtomicU64::new(0));
    let (tell, told) = mpsc::channel();
    let ceder = std::thread::spawn({
        let taken = taken.clone();
        move || {
            // SAFETY: names the calling thread.
            tell.send(unsafe { libc::pthread_self() }).unwrap();
            for n in 0..TIMES {
                pause(n, 150);
                let causes = vcore.cede(me(), Some(monotonic_ns() + PATIENCE_NS)).unwrap();
                assert_eq!(causes, Causes::only(Cause::External), "wake {n} was lost");
                taken.store(n + 1, Ordering::Release);
            }
        }
    });
    let target = told.recv().unwrap();
    for n in 0..TIMES {
        if n % 1_000 == 0 {
            // Polls that end before the signal comes, about when it comes, and after it.
            let halt_poll_ns = [0, 3_000, 100_000][(n / 1_000 % 3) as usize];
            let fixed =
                Tunables { halt_poll_ns_grow_start: halt_poll_ns, halt_poll_ns_shrink: 1, ..Tunables::X86 };
            tunables.set(Tunables { halt_poll_ns, ..fixed });
        }
        // SAFETY: the thread is joined below, so its handle is valid.
        assert_eq!(unsafe { libc::pthread_kill(target, libc::SIGUSR1) }, 0);
        while taken.load(Ordering::Acquire) <= n {
            assert!(!ceder.is_finished(), "the thread that cedes has failed");
            std::hint::spin_loop();
        }
        pause(n, 100);
    }
    ceder.join().unwrap();
    let found = FOUND.each_ref().map(|count| count.load(Ordering::Relaxed));
    assert_eq!(found.iter().sum::<u64>(), TIMES);
    println!("the handler found its thread awake, polling, asleep: {found:?} times");
    assert!(found.iter().all(|count| *count > 0), "a place was never interrupted: {found:?}");
}
