//! What the benchmarks share: pairs of threads that wake each other, by different means.

use super::cpu::{me, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use vcore::{Cause, FutexPort, NoKick, SharedTunables, Tunables, Vcore};

/// A vcore with one thread and no guest.
pub type BenchVcore = Vcore<FutexPort<NoKick>>;

/// A poll window that no turn here outlasts.
pub const POLL: Tunables = Tunables { halt_poll_ns: 1_000_000, halt_poll_ns_shrink: 1, ..Tunables::X86 };

/// A vcore with those tunables, its interval at the maximum from the start.
pub fn vcore(id: u32, tunables: Tunables) -> BenchVcore {
    vcore_of(id, &Arc::new(SharedTunables::new(tunables)))
}

/// A vcore of the VM that has those tunables.
pub fn vcore_of(id: u32, shared: &Arc<SharedTunables>) -> BenchVcore {
    let tunables = shared.get();
    let port = FutexPort::new(id, 1, shared.clone(), NoKick);
    Vcore::new(1, port).starting_with(tunables.halt_poll_ns)
}

/// One side of a pair: something that one thread waits on and another sets off.
pub trait Parker: Sync + Sized {
    /// Returns once [`Parker::wake`] has been called, once per call.
    fn wait(&self);
    /// Lets the waiter go.
    fn wake(&self);
}

/// A vcore whose thread cedes until it is woken by an external interrupt.
impl Parker for BenchVcore {
    fn wait(&self) {
        let causes = self.cede(me(), None).expect("the thread is in the host");
        assert!(causes.contains(Cause::External));
    }

    fn wake(&self) {
        BenchVcore::wake(self, me(), Cause::External);
    }
}

/// The least that a futex can do: a flag in the futex word.
#[derive(Default)]
pub struct RawFutex(AtomicU32);

impl RawFutex {
    fn call(&self, operation: libc::c_int, value: u32) {
        let none = std::ptr::null::<libc::c_void>();
        // SAFETY: the word lives as long as `self`, which the caller holds.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.0.as_ptr(),
                operation | libc::FUTEX_PRIVATE_FLAG,
                value,
                none,
            );
        }
    }
}

impl Parker for RawFutex {
    fn wait(&self) {
        while self.0.swap(0, Ordering::Acquire) == 0 {
            self.call(libc::FUTEX_WAIT, 0);
        }
    }

    fn wake(&self) {
        self.0.store(1, Ordering::Release);
        self.call(libc::FUTEX_WAKE, 1);
    }
}

/// std's lock and condition variable.
#[derive(Default)]
pub struct StdCondvar(std::sync::Mutex<bool>, std::sync::Condvar);

impl Parker for StdCondvar {
    fn wait(&self) {
        let mut set = self.0.lock().expect("nobody panics");
        while !*set {
            set = self.1.wait(set).expect("nobody panics");
        }
        *set = false;
    }

    fn wake(&self) {
        *self.0.lock().expect("nobody panics") = true;
        self.1.notify_one();
    }
}

/// parking_lot's lock and condition variable.
#[derive(Default)]
pub struct ParkingLot(parking_lot::Mutex<bool>, parking_lot::Condvar);

impl Parker for ParkingLot {
    fn wait(&self) {
        let mut set = self.0.lock();
        while !*set {
            self.1.wait(&mut set);
        }
        *set = false;
    }

    fn wake(&self) {
        *self.0.lock() = true;
        self.1.notify_one();
    }
}

/// The event-listener crate.
#[derive(Default)]
pub struct EventListener(AtomicU32, event_listener::Event);

impl Parker for EventListener {
    fn wait(&self) {
        use event_listener::Listener;
        loop {
            if self.0.swap(0, Ordering::Acquire) == 1 {
                return;
            }
            event_listener::listener!(self.1 => listener);
            if self.0.swap(0, Ordering::Acquire) == 1 {
                return;
            }
            listener.wait();
        }
    }

    fn wake(&self) {
        self.0.store(1, Ordering::Release);
        self.1.notify(1);
    }
}

/// The other end of a pair: answers each wake with a wake, until it is dropped.
pub struct Pair<P: Parker + Send + 'static> {
    sides: Arc<[P; 2]>,
    stop: Arc<AtomicU32>,
    partner: Option<std::thread::JoinHandle<()>>,
}

impl<P: Parker + Send + 'static> Pair<P> {
    /// Starts the partner on the `cpu`-th CPU; the caller is expected on the first.
    pub fn new(cpu: usize, sides: [P; 2]) -> Self {
        let (sides, stop) = (Arc::new(sides), Arc::new(AtomicU32::new(0)));
        let partner = std::thread::spawn({
            let (sides, stop) = (sides.clone(), stop.clone());
            move || {
                pin(cpu);
                loop {
                    sides[1].wait();
                    if stop.load(Ordering::Relaxed) == 1 {
                        return;
                    }
                    sides[0].wake();
                }
            }
        });
        Self { sides, stop, partner: Some(partner) }
    }

    /// Wakes the partner and waits for its answer: two wakes and two waits.
    pub fn turn(&self) {
        self.sides[1].wake();
        self.sides[0].wait();
    }
}

impl<P: Parker + Send + 'static> Drop for Pair<P> {
    fn drop(&mut self) {
        self.stop.store(1, Ordering::Relaxed);
        self.sides[1].wake();
        if let Some(partner) = self.partner.take() {
            partner.join().expect("the partner does not panic");
        }
    }
}
