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
        while state.paused && !state.halt {
            state.held += 1;
            self.changed.notify_all();
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
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
