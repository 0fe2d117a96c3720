//! Who may run guest code: the count of vCPUs that are started, and the gate that stops them all.
//!
//! ```text
//!            start            pause                resume
//!   parked ─────────▶ running ──────▶ held (waits) ──────▶ running
//!      ▲                 │ park, halt    │ halt
//!      └─────────────────┴───────────────┘
//! ```
//!
//! A vCPU passes the gate before every run. Open, the gate is one load. Whoever closes it sets what it is closed for
//! first and then calls the vCPUs out of the guest, so each comes here soon and sees why. No vCPU waits here with a lock
//! held or within a handler.
//!
//! What must hold: `running` goes up before a vCPU's entry is posted, so nobody takes a vCPU that is about to enter for a
//! parked one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
struct State {
    /// Everybody leaves and parks.
    halt: bool,
    /// Nobody runs until it is over.
    paused: bool,
    /// Started and not parked yet.
    running: usize,
    /// Of those, how many wait at the gate.
    held: usize,
}

/// The gate.
#[derive(Debug, Default)]
pub struct Gate {
    /// Whether there is anything in `state` that a vCPU has to look at.
    closed: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic ends the process in release builds; elsewhere the counters stay meaningful.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        // Release: pairs with the Acquire of `pass`. The state itself is read under the lock.
        self.closed.store(state.halt || state.paused, Ordering::Release);
        self.changed.notify_all();
        result
    }

    fn wait_until(&self, done: impl Fn(&State) -> bool) {
        let mut state = self.lock();
        while !done(&state) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A vCPU is about to be started.
    pub fn started(&self) {
        self.update(|state| state.running += 1);
    }

    /// A vCPU has parked.
    pub fn parked(&self) {
        self.update(|state| state.running -= 1);
    }

    /// Whether the calling vCPU may enter the guest; if not, it is to park. Waits out a pause.
    #[must_use]
    pub fn pass(&self) -> bool {
        if !self.closed.load(Ordering::Acquire) {
            return true;
        }
        let mut state = self.lock();
        if state.paused && !state.halt {
            state.held += 1;
            // Once, and not at each turn: those who are held would wake each other for ever.
            self.changed.notify_all();
            while state.paused && !state.halt {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.held -= 1;
        }
        !state.halt
    }

    /// Closes for good, calls the vCPUs by `call`, waits until all are parked, and opens again for the next life. A
    /// pause ends with it.
    pub fn halt(&self, call: impl FnOnce()) {
        self.update(|state| (state.halt, state.paused) = (true, false));
        call();
        self.wait_until(|state| state.running == 0);
        self.update(|state| state.halt = false);
    }

    /// Closes, calls the vCPUs by `call`, and waits until every one that is started is held or has parked.
    pub fn pause(&self, call: impl FnOnce()) {
        self.update(|state| state.paused = true);
        call();
        self.wait_until(|state| state.held == state.running || !state.paused);
    }

    /// Opens after a pause.
    pub fn resume(&self) {
        self.update(|state| state.paused = false);
    }

    /// Whether the VM is paused.
    pub fn is_paused(&self) -> bool {
        self.lock().paused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::thread::{self, JoinHandle};
    use std::time::{Duration, Instant};

    /// A gate, and how many have passed it and not come back.
    #[derive(Default)]
    struct Rig {
        gate: Gate,
        inside: AtomicUsize,
        rounds: AtomicUsize,
        /// Whoever is inside comes out when this is higher than it was.
        calls: AtomicUsize,
    }

    impl Rig {
        /// A vCPU of the run loop: through the gate, inside until it is called, and back.
        fn live(&self) {
            loop {
                let calls = self.calls.load(SeqCst);
                if !self.gate.pass() {
                    break;
                }
                self.inside.fetch_add(1, SeqCst);
                self.rounds.fetch_add(1, SeqCst);
                // A few come out by themselves.
                for _ in 0..100 {
                    if self.calls.load(SeqCst) != calls {
                        break;
                    }
                    thread::yield_now();
                }
                self.inside.fetch_sub(1, SeqCst);
            }
            self.gate.parked();
        }

        fn call(&self) {
            self.calls.fetch_add(1, SeqCst);
        }

        fn start(self: &Arc<Self>) -> JoinHandle<()> {
            self.gate.started();
            let rig = Arc::clone(self);
            thread::spawn(move || rig.live())
        }

        fn wait_for_rounds(&self, more: usize) {
            let (start, deadline) = (self.rounds.load(SeqCst), Instant::now() + Duration::from_secs(30));
            while self.rounds.load(SeqCst) < start + more {
                assert!(Instant::now() < deadline, "nobody passes the gate");
                thread::yield_now();
            }
        }
    }

    #[test]
    fn nobody_passes_while_it_is_paused() {
        let rig: Arc<Rig> = Arc::default();
        let vcpus = [(); 3].map(|()| rig.start());
        for _ in 0..100 {
            rig.wait_for_rounds(1);
            rig.gate.pause(|| rig.call());
            let rounds = rig.rounds.load(SeqCst);
            assert!(rig.gate.is_paused());
            assert_eq!(rig.inside.load(SeqCst), 0);
            thread::yield_now();
            assert_eq!(rig.rounds.load(SeqCst), rounds);
            rig.gate.resume();
        }
        rig.gate.halt(|| rig.call());
        assert_eq!(rig.inside.load(SeqCst), 0);
        vcpus.into_iter().for_each(|vcpu| vcpu.join().unwrap());
    }

    /// A paused VM costs nothing.
    #[test]
    fn who_is_held_sleeps() {
        let rig: Arc<Rig> = Arc::default();
        let tasks = Arc::<Mutex<Vec<_>>>::default();
        let vcpus = [(); 3].map(|()| {
            rig.gate.started();
            let (rig, tasks) = (Arc::clone(&rig), Arc::clone(&tasks));
            thread::spawn(move || {
                tasks.lock().unwrap().push(std::fs::read_link("/proc/thread-self").unwrap());
                rig.live();
            })
        });
        rig.wait_for_rounds(3);
        rig.gate.pause(|| rig.call());
        let sleeps = || {
            let of = |task: &std::path::PathBuf| {
                let status =
                    std::fs::read_to_string(std::path::Path::new("/proc").join(task).join("status")).unwrap();
                let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap();
                line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
            };
            tasks.lock().unwrap().iter().map(of).sum::<u64>()
        };
        // The last one may still be on its way to sleep.
        thread::sleep(Duration::from_millis(20));
        let before = sleeps();
        thread::sleep(Duration::from_millis(50));
        let woken = sleeps() - before;
        rig.gate.halt(|| rig.call());
        vcpus.into_iter().for_each(|vcpu| vcpu.join().unwrap());
        assert!(woken <= 3, "those who are held woke {woken} times");
    }

    /// Two who pause and resume as they like, while lives begin and end.
    #[test]
    fn pauses_and_ends_do_not_wait_for_each_other() {
        let rig: Arc<Rig> = Arc::default();
        let pausers = [(); 2].map(|()| {
            let rig = Arc::clone(&rig);
            thread::spawn(move || {
                for _ in 0..300 {
                    rig.gate.pause(|| rig.call());
                    rig.gate.resume();
                }
            })
        });
        for _ in 0..100 {
            let vcpus = [(); 2].map(|()| rig.start());
            rig.gate.halt(|| rig.call());
            assert_eq!(rig.inside.load(SeqCst), 0);
            vcpus.into_iter().for_each(|vcpu| vcpu.join().unwrap());
        }
        pausers.into_iter().for_each(|pauser| pauser.join().unwrap());
        let state = rig.gate.lock();
        assert_eq!((state.running, state.held, state.halt, state.paused), (0, 0, false, false));
        assert!(!rig.gate.closed.load(SeqCst));
    }

    #[test]
    fn a_halt_ends_a_pause_and_reaches_those_who_are_held() {
        let rig: Arc<Rig> = Arc::default();
        let vcpus = [(); 2].map(|()| rig.start());
        rig.gate.pause(|| rig.call());
        rig.gate.halt(|| rig.call());
        vcpus.into_iter().for_each(|vcpu| vcpu.join().unwrap());
        assert!(!rig.gate.is_paused());
        assert!(rig.gate.pass(), "open for the next life");
    }

    #[test]
    fn where_nobody_is_started_a_pause_waits_for_nobody_and_holds_whoever_starts() {
        let rig: Arc<Rig> = Arc::default();
        rig.gate.pause(|| rig.call());
        let vcpu = rig.start();
        let deadline = Instant::now() + Duration::from_secs(30);
        while rig.gate.lock().held == 0 {
            assert!(Instant::now() < deadline, "it is not held");
            thread::yield_now();
        }
        assert_eq!(rig.rounds.load(SeqCst), 0);
        rig.gate.resume();
        rig.wait_for_rounds(1);
        rig.gate.halt(|| rig.call());
        vcpu.join().unwrap();
    }
}
