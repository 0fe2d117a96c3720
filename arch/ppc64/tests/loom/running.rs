//! The way of an interrupt to a vCPU that runs, naps or is between the two: the controller, the line and the vcore together.
//!
//! A sender makes the ICP pending and posts the cause; the vcore wakes the vCPU if it naps and has its line raised if it is
//! in the guest. The vCPU settles its line, enters, takes the interrupt where the line is high, and cedes where it is not; then
//! it naps unless its ICP has something pending. What must never be: a vCPU that stays in the guest with its line low, or is
//! asleep, and an interrupt that it would take.
//!
//! All three are the real ones on loom's atomics. Reduced are: the vcore to one thread that does not poll (`crates/vcore`
//! checks the rest by itself), the guest to what it does about interrupts, the hypervisor to the pin's level and the futex, the
//! run loop to the order of its calls, and its turns with a raise that is under way to a few ([`Senders::PATIENCE`]). The gate and
//! the kick signal are left out. The number of preemptions is bounded throughout: without a bound two threads take minutes.

use super::{BOUND, EDGE, OTHER, Pin, PinOf, Shared, bounded, join, line, quiet};
use loom::sync::{Condvar, Mutex, MutexGuard};
use loom::thread::{self, JoinHandle};
use ppc64::xics::{Line, Trigger, Xics};
use std::sync::atomic::{AtomicU64 as Untracked, Ordering::Relaxed};
use vcore::sync::{AtomicU32, Ordering};
use vcore::{Cause, Causes, Entry, Port, SharedTunables, Stats, Thread, ThreadMask, Tunables, Vcore, Waited};

/// What the kernel keeps of the sleeper.
#[derive(Default)]
struct Futex {
    asleep: bool,
    woken: bool,
}

/// The world of a vcore of one thread: a futex, and the line.
struct LoomPort {
    futex: Mutex<Futex>,
    changed: Condvar,
    line: Shared<Line<PinOf>>,
    clock: Untracked,
    tunables: SharedTunables,
    stats: Stats,
}

impl LoomPort {
    fn new(line: Shared<Line<PinOf>>) -> Self {
        Self {
            futex: Mutex::new(Futex::default()),
            changed: Condvar::new(),
            line,
            clock: Untracked::new(0),
            tunables: SharedTunables::new(Tunables::NO_POLL),
            stats: Stats::new(),
        }
    }

    fn futex(&self) -> MutexGuard<'_, Futex> {
        self.futex.lock().unwrap()
    }
}

impl Port for LoomPort {
    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Relaxed)
    }

    fn wait(&self, word: &AtomicU32, expected: u32, _thread: Thread, _deadline: Option<u64>) -> Waited {
        let mut futex = self.futex();
        if word.load(Ordering::Relaxed) != expected {
            return Waited::Retry;
        }
        futex.asleep = true;
        while !futex.woken {
            futex = self.changed.wait(futex).unwrap();
        }
        *futex = Futex::default();
        Waited::Woken
    }

    fn wake(&self, _word: &AtomicU32, _threads: ThreadMask) {
        let mut futex = self.futex();
        futex.woken = futex.asleep;
        self.changed.notify_one();
    }

    fn kick(&self, _threads: ThreadMask, cause: Cause) {
        assert_eq!(cause, Cause::External);
        self.line.raise().unwrap();
    }

    fn may_poll(&self, _thread: Thread, _now: u64) -> bool {
        false
    }

    fn keep_polling(&self, _thread: Thread, _before: u64, _now: u64) -> bool {
        false
    }

    fn yield_cpu(&self) {
        thread::yield_now();
    }

    fn tunables(&self) -> &SharedTunables {
        &self.tunables
    }

    fn stats(&self, _thread: Thread) -> &Stats {
        &self.stats
    }

    fn vcpu_id(&self, _thread: Thread) -> u32 {
        0
    }
}

/// A vCPU, and all that an interrupt passes on its way there.
struct World {
    xics: Xics,
    line: Shared<Line<PinOf>>,
    pin: Shared<Pin>,
    vcore: Vcore<LoomPort>,
}

const ME: Thread = match Thread::new(0) {
    Some(thread) => thread,
    None => unreachable!(),
};

/// What a vCPU or a sender leaves out, to show that it is missed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// The vCPU, which has been told on its way into the guest, enters without another look.
    NoSecondLook,
    /// The vCPU naps without a look at its ICP.
    NapsOverPending,
    /// The sender tells before there is anything to see.
    TellsFirst,
}

impl World {
    fn new() -> Shared<Self> {
        let xics = Xics::new(1, &[(EDGE, Trigger::Edge), (OTHER, Trigger::Edge)]);
        for (irq, priority) in [(EDGE, 5), (OTHER, 4)] {
            xics.set_xive(irq, 0, priority, quiet).unwrap();
        }
        xics.cppr(0, 0xff, quiet);
        let (line, pin) = line();
        let vcore = Vcore::new(1, LoomPort::new(line.clone()));
        Shared::new(Self { xics, line, pin, vcore })
    }

    fn send(&self, irq: u32, fault: Fault) {
        let tell = |_| self.vcore.wake(ME, Cause::External);
        if fault == Fault::TellsFirst {
            tell(0);
            self.xics.set(irq, true, quiet).unwrap();
        } else {
            self.xics.set(irq, true, tell).unwrap();
        }
    }

    fn settle(&self) {
        self.line.settle(|| self.xics.pending(0)).unwrap();
    }

    /// From the host into the guest, as the run loop does it.
    fn enter(&self, fault: Fault) {
        self.settle();
        while let Entry::Host(causes) = self.vcore.enter(ME).unwrap() {
            assert_eq!(causes, Causes::only(Cause::External));
            if fault != Fault::NoSecondLook {
                self.settle();
            }
        }
    }

    /// The guest's handler: two hypercalls, each of which is an exit. What it served, if it was called for anything.
    fn interrupt(&self) -> Option<u32> {
        self.vcore.leave(ME).unwrap();
        let tell = |_| self.vcore.wake(ME, Cause::External);
        let xirr = self.xics.xirr(0);
        if xirr & 0xff_ffff == 0 {
            return None;
        }
        self.enter(Fault::None);
        self.vcore.leave(ME).unwrap();
        self.xics.eoi(0, xirr, tell).unwrap();
        Some(xirr & 0xff_ffff)
    }
}

/// The sending threads.
struct Senders {
    threads: Vec<JoinHandle<()>>,
    patience: u32,
}

impl Senders {
    /// Turns that a vCPU and a raise that is under way keep each other busy with. There is no end to them but the host's
    /// scheduler's, so the model makes one.
    const PATIENCE: u32 = 1;

    fn start(world: &Shared<World>, irqs: &[u32], fault: Fault) -> Self {
        let sender = |&irq: &u32| {
            let world = world.clone();
            thread::spawn(move || world.send(irq, fault))
        };
        Self { threads: irqs.iter().map(sender).collect(), patience: Self::PATIENCE }
    }

    /// The vCPU waits for a raise: its line is high for nothing, or low though something is pending.
    fn wait(&mut self) {
        if self.patience == 0 {
            return self.join();
        }
        self.patience -= 1;
        thread::yield_now();
    }

    fn join(&mut self) {
        join(self.threads.drain(..));
    }
}

/// The vCPU serves what it is interrupted for, and when nothing interrupts it stays in the guest: its pin is all that it hears.
fn runs(irqs: &[u32], fault: Fault) {
    let world = World::new();
    let mut senders = Senders::start(&world, irqs, fault);
    let mut served = Vec::new();
    world.enter(fault);
    while world.pin.is_high() {
        match world.interrupt() {
            Some(irq) => served.push(irq),
            None => senders.wait(),
        }
        world.enter(fault);
    }
    senders.join();
    assert!(world.xics.pending(0) <= world.pin.is_high(), "pending, and the pin is low");
    while world.pin.is_high() {
        served.extend(world.interrupt());
        world.enter(Fault::None);
    }
    served.sort_unstable();
    assert_eq!(served, irqs);
    assert!(!world.xics.pending(0));
}

/// The vCPU cedes whenever nothing interrupts it, until it has served everything. Where it would sleep for good loom says so.
fn cedes(irqs: &[u32], fault: Fault) {
    let world = World::new();
    let mut senders = Senders::start(&world, irqs, fault);
    let mut served = Vec::new();
    loop {
        world.enter(fault);
        if world.pin.is_high() {
            match world.interrupt() {
                Some(irq) => served.push(irq),
                None => senders.wait(),
            }
            continue;
        }
        world.vcore.leave(ME).unwrap();
        if served.len() == irqs.len() {
            break;
        }
        if world.xics.pending(0) && fault != Fault::NapsOverPending {
            senders.wait();
            continue;
        }
        world.vcore.cede(ME, None).unwrap();
    }
    senders.join();
    served.sort_unstable();
    assert_eq!(served, irqs);
    // A raise that came too late costs an interrupt of nobody, and is gone then.
    world.settle();
    assert!(!world.pin.is_high());
    assert_eq!(world.xics.xirr(0) & 0xff_ffff, 0);
}

#[test]
fn a_vcpu_that_runs_is_interrupted() {
    bounded(BOUND, || runs(&[EDGE], Fault::None));
}

#[test]
fn a_vcpu_that_runs_is_interrupted_by_two() {
    bounded(BOUND - 1, || runs(&[EDGE, OTHER], Fault::None));
}

#[test]
fn a_vcpu_that_cedes_is_interrupted() {
    bounded(BOUND, || cedes(&[EDGE], Fault::None));
}

#[test]
fn a_vcpu_that_cedes_is_interrupted_by_two() {
    bounded(BOUND - 1, || cedes(&[EDGE, OTHER], Fault::None));
}

#[test]
#[should_panic(expected = "pending, and the pin is low")]
fn a_vcpu_that_does_not_look_again_misses_it() {
    bounded(BOUND, || runs(&[EDGE], Fault::NoSecondLook));
}

/// The line is about to go high, the vCPU has taken the cause meanwhile and cedes again.
#[test]
#[should_panic(expected = "deadlock")]
fn a_vcpu_that_naps_with_an_interrupt_pending_sleeps_on() {
    bounded(BOUND, || cedes(&[EDGE], Fault::NapsOverPending));
}

#[test]
#[should_panic(expected = "pending, and the pin is low")]
fn who_tells_too_early_is_missed() {
    bounded(BOUND, || runs(&[EDGE], Fault::TellsFirst));
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_sleeper_who_is_told_too_early_sleeps_on() {
    bounded(BOUND, || cedes(&[EDGE], Fault::TellsFirst));
}
