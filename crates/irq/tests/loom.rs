//! Vectors, irqfds and level sources under loom: every interleaving, and every value that the memory model lets a load return.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p cede-irq --test loom --release`, and a CARGO_TARGET_DIR of its own to spare the
//! normal build. Where more than two threads take part the number of preemptions is bounded ([`BOUND`]).
//! A change that waits for ever, or a worker that sleeps through its wake-up, shows as a deadlock or as an execution that does
//! not end.

#![cfg(loom)]

use irq::{Irqfd, Levels, Line, Sink, Vector};
use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use loom::thread::{self, JoinHandle};
use std::io;
use std::sync::Arc;

/// Preemptions per execution where three threads or more take part.
const BOUND: usize = 3;

const OLD: u32 = 1;
const NEW: u32 = 2;

fn bounded(bound: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(bound);
    model.check(body);
}

/// An interrupt controller with two sources, and what devices write before they interrupt. All of it is Relaxed: what
/// is seen is seen on account of the crate's own orderings.
struct Controller {
    /// Deliveries to [`OLD`] and [`NEW`].
    delivered: [AtomicU32; 2],
    /// A delivery to [`OLD`] must not begin, or be under way, any more.
    old_is_gone: AtomicBool,
    /// What a device wrote before it raised.
    written: AtomicU32,
    /// What of it the deliveries have seen, added up.
    seen: AtomicU32,
    /// The level told last, of a level source.
    level: AtomicBool,
}

impl Controller {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            delivered: [AtomicU32::new(0), AtomicU32::new(0)],
            old_is_gone: AtomicBool::new(false),
            written: AtomicU32::new(0),
            seen: AtomicU32::new(0),
            level: AtomicBool::new(false),
        })
    }

    fn line(self: &Arc<Self>, gsi: u32) -> Line {
        Line::new(Arc::clone(self) as _, gsi)
    }

    fn vector(self: &Arc<Self>) -> Arc<Vector> {
        let vector = Arc::new(Vector::default());
        vector.set_route(Some(self.line(OLD)));
        vector
    }

    fn delivered(&self) -> [u32; 2] {
        [0, 1].map(|n| self.delivered[n].load(Ordering::Relaxed))
    }
}

impl Sink for Controller {
    fn set(&self, gsi: u32, level: bool) -> io::Result<()> {
        assert!(gsi != OLD || !self.old_is_gone.load(Ordering::Relaxed), "begun after the change");
        self.level.store(level, Ordering::Relaxed);
        // Read and written apart: two that are there at once would lose one, but there are two sources for two raisers.
        self.seen.fetch_or(self.written.load(Ordering::Relaxed), Ordering::Relaxed);
        self.delivered[gsi as usize - 1].fetch_add(1, Ordering::Relaxed);
        assert!(gsi != OLD || !self.old_is_gone.load(Ordering::Relaxed), "under way after the change");
        Ok(())
    }
}

fn raiser(vector: &Arc<Vector>) -> JoinHandle<()> {
    let vector = Arc::clone(vector);
    thread::spawn(move || vector.raise().unwrap())
}

fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// A routing update: the raise goes one way or the other, once; none is under way on the old one when the update is over, and
/// all that was sent that way is seen by then.
fn update(raisers: usize) {
    let controller = Controller::new();
    let vector = controller.vector();
    let raisers: Vec<_> = (0..raisers).map(|_| raiser(&vector)).collect();
    let count = raisers.len() as u32;
    vector.set_route(Some(controller.line(NEW)));
    let [by_then, _] = controller.delivered();
    controller.old_is_gone.store(true, Ordering::Relaxed);
    vector.raise().unwrap();
    join(raisers);
    let [old, new] = controller.delivered();
    assert_eq!((old, old + new), (by_then, count + 1));
}

#[test]
fn raise_against_update() {
    loom::model(|| update(1));
    bounded(BOUND, || update(2));
}

/// Two updates by two threads: the later one also waits for a raise that began before the earlier one.
#[test]
fn raise_against_two_updates() {
    bounded(BOUND, || {
        let controller = Controller::new();
        let vector = controller.vector();
        let raiser = raiser(&vector);
        let (other, line) = (Arc::clone(&vector), controller.line(NEW));
        let updater = thread::spawn(move || other.set_route(Some(line)));
        vector.set_route(None);
        vector.set_route(Some(controller.line(NEW)));
        controller.old_is_gone.store(true, Ordering::Relaxed);
        join([raiser, updater]);
    });
}

/// Teardown: the source is gone for good.
#[test]
fn raise_against_teardown() {
    for raisers in [1, 2] {
        bounded(BOUND, move || {
            let controller = Controller::new();
            let vector = controller.vector();
            let raisers: Vec<_> = (0..raisers).map(|_| raiser(&vector)).collect();
            vector.reset();
            let by_then = controller.delivered();
            controller.old_is_gone.store(true, Ordering::Relaxed);
            vector.raise().unwrap();
            join(raisers);
            assert_eq!(controller.delivered(), by_then);
        });
    }
}

/// Raise, update and teardown, each on its thread.
#[test]
fn raise_against_update_against_teardown() {
    bounded(BOUND, || {
        let controller = Controller::new();
        let vector = controller.vector();
        let raiser = raiser(&vector);
        let (other, line) = (Arc::clone(&vector), controller.line(NEW));
        let updater = thread::spawn(move || other.set_route(Some(line)));
        vector.set_route(None);
        // Whoever updated last, nothing goes the old way any more.
        controller.old_is_gone.store(true, Ordering::Relaxed);
        vector.raise().unwrap();
        join([raiser, updater]);
        let [old, new] = controller.delivered();
        assert!(old + new <= 2);
    });
}

/// One raise, and a mask that comes and goes: delivered exactly once, and the handler sees what the device wrote.
#[test]
fn raise_against_mask_and_unmask() {
    loom::model(|| {
        let controller = Controller::new();
        let vector = controller.vector();
        let device = {
            let (controller, vector) = (Arc::clone(&controller), Arc::clone(&vector));
            thread::spawn(move || {
                controller.written.store(1, Ordering::Relaxed);
                vector.raise().unwrap();
            })
        };
        vector.set_masked(true).unwrap();
        let masked = controller.delivered();
        let pending = vector.is_pending();
        assert_eq!(controller.delivered(), masked, "delivered while it was masked");
        assert!(!pending || masked == [0, 0]);
        vector.set_masked(false).unwrap();
        join([device]);
        assert_eq!(controller.delivered(), [1, 0]);
        assert_eq!(controller.seen.load(Ordering::Relaxed), 1);
        assert!(!vector.is_pending());
    });
}

/// The same with an event pending before: the raise is either that event, or one more. What the device wrote is seen.
#[test]
fn raise_against_the_unmask_of_a_pending_event() {
    for raisers in [1, 2] {
        bounded(BOUND, move || {
            let controller = Controller::new();
            let vector = controller.vector();
            vector.set_masked(true).unwrap();
            vector.raise().unwrap();
            let devices: Vec<_> = (0..raisers)
                .map(|n| {
                    let (controller, vector) = (Arc::clone(&controller), Arc::clone(&vector));
                    thread::spawn(move || {
                        controller.written.fetch_or(1 << n, Ordering::Relaxed);
                        vector.raise().unwrap();
                    })
                })
                .collect();
            vector.set_masked(false).unwrap();
            join(devices);
            let [delivered, _] = controller.delivered();
            assert!((1..=1 + raisers).contains(&delivered), "{delivered}");
            assert_eq!(
                controller.seen.load(Ordering::Relaxed),
                (1 << raisers) - 1,
                "a device's write was missed"
            );
        });
    }
}

/// Mask, update and unmask by one thread against raises: the event that was kept goes the new way.
#[test]
fn raise_against_a_reroute_under_the_mask() {
    bounded(BOUND, || {
        let controller = Controller::new();
        let vector = controller.vector();
        let raiser = raiser(&vector);
        vector.set_masked(true).unwrap();
        controller.old_is_gone.store(true, Ordering::Relaxed);
        vector.set_route(Some(controller.line(NEW)));
        vector.set_masked(false).unwrap();
        join([raiser]);
        let [old, new] = controller.delivered();
        assert_eq!(old + new, 1);
    });
}

/// An eventfd's source goes away while the poll loop raises it and another device raises the vector.
#[test]
fn irqfd_against_its_teardown() {
    bounded(BOUND, || {
        let controller = Controller::new();
        let vector = controller.vector();
        let irqfd = Arc::new(Irqfd::new(Arc::clone(&vector)).unwrap());
        irqfd.event().write(1).unwrap();
        let poll_loop = {
            let irqfd = Arc::clone(&irqfd);
            thread::spawn(move || {
                irqfd.ready().unwrap();
            })
        };
        let raiser = raiser(&vector);
        irqfd.close();
        vector.set_route(None);
        let by_then = controller.delivered();
        controller.old_is_gone.store(true, Ordering::Relaxed);
        assert!(!irqfd.ready().unwrap());
        join([poll_loop, raiser]);
        assert_eq!(controller.delivered(), by_then);
    });
}

/// One input: the controller ends with the level that was set last, and sees what the device wrote before it asserted.
fn level_set(levels: &'static [bool]) {
    let controller = Controller::new();
    let worker = Levels::start([controller.line(OLD)]).unwrap();
    let input = worker.input(OLD);
    for (n, level) in levels.iter().enumerate() {
        controller.written.fetch_or(1 << n, Ordering::Relaxed);
        input.set(*level).unwrap();
    }
    worker.stop();
    assert_eq!(Some(controller.level.load(Ordering::Relaxed)), levels.last().copied());
    if levels == [true] {
        assert_eq!((controller.delivered(), controller.seen.load(Ordering::Relaxed)), ([1, 0], 1));
    }
}

#[test]
fn a_level_against_its_worker() {
    loom::model(|| level_set(&[true]));
    bounded(BOUND, || level_set(&[true, false]));
    bounded(BOUND, || level_set(&[true, false, true]));
}

/// Without an end that makes the worker look: it is told of each change.
#[test]
fn the_worker_sleeps_through_no_change() {
    loom::model(|| {
        let controller = Controller::new();
        let worker = Levels::start([controller.line(OLD)]).unwrap();
        worker.input(OLD).set(true).unwrap();
        while controller.delivered() == [0, 0] {
            thread::yield_now();
        }
        worker.stop();
        assert!(controller.level.load(Ordering::Relaxed));
    });
}

/// A device asserts while a vCPU, on another thread, deasserts what the device had asserted before; then whoever is last wins.
/// And a second device's input holds the line up.
#[test]
fn assert_against_deassert_against_the_worker() {
    bounded(BOUND - 1, || {
        let controller = Controller::new();
        let worker = Levels::start([controller.line(OLD)]).unwrap();
        let (first, second) = (worker.input(OLD), worker.input(OLD));
        first.set(true).unwrap();
        let device = thread::spawn(move || second.set(true).unwrap());
        first.set(false).unwrap();
        join([device]);
        worker.stop();
        assert!(controller.level.load(Ordering::Relaxed), "the second device asserts");
    });
    bounded(BOUND - 1, || {
        let controller = Controller::new();
        let worker = Levels::start([controller.line(OLD)]).unwrap();
        let input = worker.input(OLD);
        input.set(true).unwrap();
        let device = {
            let input = input.clone();
            thread::spawn(move || input.set(true).unwrap())
        };
        join([device]);
        input.set(false).unwrap();
        worker.stop();
        assert!(!controller.level.load(Ordering::Relaxed), "the last level was low");
    });
}
