//! The interrupt controller under loom: every interleaving, and every value that the memory model lets a load return, of
//! senders, movers and the vCPU that they meet.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p cede-arch-ppc64 --test loom --release`, and a CARGO_TARGET_DIR of its own to
//! spare the normal build. Two threads are checked without bounds; where three take part the number of preemptions is
//! bounded ([`BOUND`]). A wake-up that does not come shows as a deadlock.

#![cfg(loom)]

use arch_api::HvError;
use arch_api::ppc64::ExternalPin;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread::{self, JoinHandle};
use ppc64::xics::{IPI, Line, Trigger, Xics};
use std::ops::Deref;

#[path = "loom/running.rs"]
mod running;

/// Preemptions per execution where three threads take part.
const BOUND: usize = 3;

const EDGE: u32 = 0x1000;
const OTHER: u32 = 0x1300;
const LSI: u32 = 0x1200;
const NONE: [u32; 0] = [];

/// loom's `Arc`, but not dropped while a failed check unwinds: loom's execution is gone by then, and a second panic
/// would hide the first.
struct Shared<T>(Option<Arc<T>>);

impl<T> Shared<T> {
    fn new(value: T) -> Self {
        Self(Some(Arc::new(value)))
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
        self.0.as_ref().expect("there until it is dropped")
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::mem::forget(self.0.take());
        }
    }
}

fn bounded(bound: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(bound);
    model.check(body);
}

fn quiet(_: usize) {}

/// Two servers with these CPPRs, and sources that are routed to server 0 at these priorities.
struct Machine {
    xics: Xics,
    /// Server 0 was told, and has not looked since.
    told: Mutex<bool>,
    tell: Condvar,
}

impl Machine {
    fn new(cpprs: [u8; 2], edge: u32, other: u32) -> Shared<Self> {
        let xics = Xics::new(2, &[(EDGE, Trigger::Edge), (LSI, Trigger::Level), (OTHER, Trigger::Edge)]);
        for (irq, priority) in [(EDGE, edge), (OTHER, other), (LSI, edge)] {
            xics.set_xive(irq, 0, priority, quiet).unwrap();
        }
        for (server, cppr) in cpprs.into_iter().enumerate() {
            xics.cppr(server, cppr, quiet);
        }
        Shared::new(Self { xics, told: Mutex::new(false), tell: Condvar::new() })
    }

    /// What wakes server 0.
    fn notify(&self, server: usize) {
        if server == 0 {
            *self.told.lock().unwrap() = true;
            self.tell.notify_one();
        }
    }

    /// Server 0 sleeps until it is told.
    fn sleep(&self) {
        let mut told = self.told.lock().unwrap();
        while !*told {
            told = self.tell.wait(told).unwrap();
        }
        *told = false;
    }

    fn set(&self, irq: u32) {
        self.xics.set(irq, true, |server| self.notify(server)).unwrap();
    }

    fn cppr(&self, cppr: u8) {
        self.xics.cppr(0, cppr, |server| self.notify(server));
    }

    fn eoi(&self, server: usize, xirr: u32) {
        self.xics.eoi(server, xirr, |server| self.notify(server)).unwrap();
    }

    /// Accepts and ends one interrupt, as Linux does with an IPI too; 0 if there is none.
    fn serve(&self, server: usize) -> u32 {
        let xirr = self.xics.xirr(server);
        let irq = xirr & 0xff_ffff;
        if irq == IPI {
            self.xics.ipi(server, 0xff, |server| self.notify(server)).unwrap();
        }
        if irq != 0 {
            self.eoi(server, xirr);
        }
        irq
    }

    /// Accepts and ends all there is with everything open.
    fn drain(&self, server: usize) -> Vec<u32> {
        self.xics.cppr(server, 0xff, quiet);
        let served = std::iter::from_fn(|| Some(self.serve(server)).filter(|irq| *irq != 0)).collect();
        assert!(!self.xics.pending(server));
        served
    }

    /// Server 0 sleeps and serves until it has had `expected`, each once.
    fn serve_until(&self, expected: &[u32]) {
        let mut seen = Vec::new();
        while seen.len() < expected.len() {
            self.sleep();
            while self.xics.pending(0) {
                let irq = self.serve(0);
                assert!(expected.contains(&irq) && !seen.contains(&irq), "{irq:#x} after {seen:x?}");
                seen.push(irq);
            }
        }
        assert_eq!(self.drain(0), NONE);
    }
}

fn start(machine: &Shared<Machine>, body: impl FnOnce(&Machine) + 'static) -> JoinHandle<()> {
    let machine = machine.clone();
    thread::spawn(move || body(&machine))
}

fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn one_sender_wakes_a_sleeper() {
    loom::model(|| {
        let machine = Machine::new([0xff; 2], 5, 5);
        let sender = start(&machine, |machine| machine.set(EDGE));
        machine.serve_until(&[EDGE]);
        join([sender]);
    });
}

/// Two sources meet in one server: of equal priority one is turned away, of unequal ones one is rejected.
#[test]
fn two_senders_against_the_receiver() {
    for other in [5, 4] {
        bounded(BOUND, move || {
            let machine = Machine::new([0xff; 2], 5, other);
            let senders = [EDGE, OTHER].map(|irq| start(&machine, move |machine| machine.set(irq)));
            machine.serve_until(&[EDGE, OTHER]);
            join(senders);
        });
    }
}

#[test]
fn a_source_and_an_ipi_against_the_receiver() {
    for mfrr in [4, 5, 6] {
        bounded(BOUND, move || {
            let machine = Machine::new([0xff; 2], 5, 5);
            let sender = start(&machine, |machine| machine.set(EDGE));
            let sibling = start(&machine, move |machine| {
                machine.xics.ipi(0, mfrr, |server| machine.notify(server)).unwrap();
            });
            machine.serve_until(&[EDGE, IPI]);
            join([sender, sibling]);
        });
    }
}

/// The processor closes and opens while an event comes.
#[test]
fn cppr_against_delivery() {
    loom::model(|| {
        let machine = Machine::new([0xff; 2], 5, 5);
        let sender = start(&machine, |machine| machine.set(EDGE));
        machine.cppr(5);
        machine.cppr(0xff);
        machine.serve_until(&[EDGE]);
        join([sender]);
    });
}

/// The processor closes and opens over one that is pending, while one that is more favoured comes.
#[test]
fn reject_against_delivery() {
    bounded(BOUND, || {
        let machine = Machine::new([0xff; 2], 5, 4);
        machine.set(EDGE);
        let sender = start(&machine, |machine| machine.set(OTHER));
        machine.cppr(4);
        machine.cppr(0xff);
        machine.serve_until(&[EDGE, OTHER]);
        join([sender]);
    });
}

/// The processor opens in two steps: the first must not drop from the bitmap who is just about to be turned away.
#[test]
fn two_openings_against_a_sender() {
    bounded(BOUND, || {
        let machine = Machine::new([3, 0], 4, 5);
        machine.set(OTHER);
        let sender = start(&machine, |machine| machine.set(EDGE));
        machine.cppr(4);
        machine.cppr(0xff);
        machine.serve_until(&[EDGE, OTHER]);
        join([sender]);
    });
}

/// A source is moved while it is triggered and its old server opens.
#[test]
fn set_xive_against_delivery() {
    bounded(BOUND, || {
        let machine = Machine::new([0, 0xff], 5, 5);
        let sender = start(&machine, |machine| machine.set(EDGE));
        let mover = start(&machine, |machine| machine.xics.set_xive(EDGE, 1, 5, quiet).unwrap());
        machine.cppr(0xff);
        join([sender, mover]);
        let served = [machine.xics.pending(0), machine.xics.pending(1)];
        assert_eq!(served.into_iter().filter(|pending| *pending).count(), 1, "{served:?}");
        let mut served = machine.drain(0);
        served.extend(machine.drain(1));
        assert_eq!(served, [EDGE]);
    });
}

/// It is moved to and fro while its server closes and opens over it.
#[test]
fn set_xive_against_reject() {
    bounded(BOUND, || {
        let machine = Machine::new([0xff, 0xff], 5, 5);
        machine.set(EDGE);
        let mover = start(&machine, |machine| {
            machine.xics.set_xive(EDGE, 1, 5, quiet).unwrap();
            machine.xics.set_xive(EDGE, 0, 6, quiet).unwrap();
        });
        machine.cppr(5);
        machine.cppr(0xff);
        join([mover]);
        assert!(machine.xics.pending(0) || machine.xics.pending(1));
        let mut served = machine.drain(0);
        served.extend(machine.drain(1));
        assert_eq!(served, [EDGE]);
    });
}

#[test]
fn masking_against_delivery() {
    bounded(BOUND, || {
        let machine = Machine::new([0xff; 2], 5, 5);
        let sender = start(&machine, |machine| machine.set(EDGE));
        let sibling = start(&machine, |machine| {
            machine.xics.int_off(EDGE).unwrap();
            machine.xics.int_on(EDGE, |server| machine.notify(server)).unwrap();
        });
        machine.serve_until(&[EDGE]);
        join([sender, sibling]);
    });
}

/// An event that comes while the guest serves the last one.
#[test]
fn delivery_against_eoi() {
    loom::model(|| {
        let machine = Machine::new([0xff; 2], 5, 5);
        machine.set(EDGE);
        let sender = start(&machine, |machine| machine.set(EDGE));
        machine.sleep();
        assert_eq!(machine.serve(0), EDGE);
        machine.sleep();
        assert_eq!(machine.serve(0), EDGE);
        join([sender]);
        assert_eq!(machine.drain(0), NONE);
    });
}

/// A line that goes low and high again around the EOI.
#[test]
fn level_against_eoi() {
    loom::model(|| {
        let machine = Machine::new([0xff; 2], 5, 5);
        machine.set(LSI);
        let device = start(&machine, |machine| {
            machine.xics.set(LSI, false, quiet).unwrap();
            machine.set(LSI);
        });
        assert_eq!(machine.serve(0), LSI);
        join([device]);
        assert_eq!(machine.serve(0), LSI);
        machine.xics.set(LSI, false, quiet).unwrap();
        // What was sent while the line was high is not called back.
        assert!(machine.drain(0).len() <= 1);
    });
}

/// A processor is started again while an event comes.
#[test]
fn restart_against_delivery() {
    bounded(BOUND, || {
        let machine = Machine::new([0xff; 2], 5, 5);
        machine.set(OTHER);
        let sender = start(&machine, |machine| machine.set(EDGE));
        machine.xics.reset_server(0, quiet);
        *machine.told.lock().unwrap() = false;
        machine.cppr(0xff);
        machine.serve_until(&[EDGE, OTHER]);
        join([sender]);
    });
}

/// The hypervisor's pin. What the kernel orders between two system calls is not relied on.
struct Pin {
    level: AtomicBool,
}

impl Pin {
    fn is_high(&self) -> bool {
        self.level.load(Ordering::Relaxed)
    }
}

#[derive(Clone)]
struct PinOf(Shared<Pin>);

impl ExternalPin for PinOf {
    fn set(&self, level: bool) -> Result<(), HvError> {
        self.0.level.swap(level, Ordering::Relaxed);
        Ok(())
    }
}

fn line() -> (Shared<Line<PinOf>>, Shared<Pin>) {
    let pin = Shared::new(Pin { level: AtomicBool::new(false) });
    (Shared::new(Line::new(PinOf(pin.clone()))), pin)
}

/// Raisers against the owner, who lowers; after that the flag knows the pin, so the pin can be made either.
fn raise_against_lower(is_high: bool, raisers: usize, then_high: bool) {
    let (line, pin) = line();
    if is_high {
        line.raise().unwrap();
    }
    let raisers: Vec<_> = (0..raisers)
        .map(|_| {
            let line = line.clone();
            thread::spawn(move || line.raise().unwrap())
        })
        .collect();
    line.lower().unwrap();
    join(raisers);
    if then_high { line.raise() } else { line.lower() }.unwrap();
    assert_eq!(pin.is_high(), then_high);
}

#[test]
fn the_pin_follows_the_flag() {
    for (is_high, then_high) in [(false, false), (false, true), (true, false), (true, true)] {
        loom::model(move || raise_against_lower(is_high, 1, then_high));
        bounded(BOUND, move || raise_against_lower(is_high, 2, then_high));
    }
}

/// A sender makes the ICP pending and raises; the owner accepts, ends and settles before it enters the guest.
fn delivery_against_settle(senders: &'static [u32]) {
    let machine = Machine::new([0xff; 2], 5, 4);
    let (line, pin) = line();
    machine.xics.set(LSI, true, |_| line.raise().unwrap()).unwrap();
    machine.xics.set(LSI, false, quiet).unwrap();
    assert!(pin.is_high());
    let senders: Vec<_> = senders
        .iter()
        .map(|&irq| {
            let line = line.clone();
            start(&machine, move |machine| machine.xics.set(irq, true, |_| line.raise().unwrap()).unwrap())
        })
        .collect();
    let xirr = machine.xics.xirr(0);
    machine.xics.eoi(0, xirr, |_| line.raise().unwrap()).unwrap();
    line.settle(|| machine.xics.pending(0)).unwrap();
    // It is in the guest from here on: the pin is all that it hears.
    join(senders);
    assert!(machine.xics.pending(0) <= pin.is_high(), "pending, and the pin is low");
    // A spurious interrupt ends with the exit that it causes.
    machine.drain(0);
    line.settle(|| machine.xics.pending(0)).unwrap();
    assert!(!pin.is_high());
}

#[test]
fn whoever_is_pending_has_a_high_pin() {
    loom::model(|| delivery_against_settle(&[EDGE]));
    // One preemption less: with three it takes a minute.
    bounded(BOUND - 1, || delivery_against_settle(&[EDGE, OTHER]));
}
