//! Threads as devices see them. What a thread does that looks for work is in `looking`.

mod looking;

use super::Threads;
use crate::virtio::device::{Backend, Interrupts, NeedsReset, Running, Work, Workers};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const PATIENCE: Duration = Duration::from_secs(20);

/// It changes nothing for a backend that does not look.
const POLL_NS: u32 = 100_000;

/// What happened to a backend, seen from outside.
#[derive(Default)]
struct Log {
    notified: AtomicU64,
    ready: AtomicU64,
    resets: AtomicUsize,
    dropped: AtomicBool,
}

impl Interrupts for Log {
    fn used(&self, _: u16) {}

    fn config_changed(&self) {}

    fn needs_reset(&self) {
        assert!(self.dropped.load(Ordering::Acquire), "the driver hears of it when the backend is gone");
        self.resets.fetch_add(1, Ordering::Release);
    }
}

type OnCall = Box<dyn FnMut() -> Result<(), NeedsReset> + Send>;

struct Fake {
    log: Arc<Log>,
    thread: Option<std::thread::ThreadId>,
    source: Option<nix::sys::eventfd::EventFd>,
    listens: bool,
    unfinished: bool,
    on_notified: OnCall,
}

impl Fake {
    fn here(&mut self) {
        assert!(!self.log.dropped.load(Ordering::Acquire));
        let here = std::thread::current().id();
        assert_eq!(*self.thread.get_or_insert(here), here);
    }
}

impl Backend for Fake {
    fn notified(&mut self, _: u16) -> Result<(), NeedsReset> {
        self.here();
        self.log.notified.fetch_add(1, Ordering::Release);
        self.listens = true;
        (self.on_notified)()
    }

    fn sources(&self) -> Vec<BorrowedFd<'_>> {
        self.source.iter().map(|event| event.as_fd()).collect()
    }

    fn ready(&mut self, source: usize) -> Result<(), NeedsReset> {
        assert_eq!(source, 0);
        self.here();
        // It stays readable, so it must not be heard.
        self.listens = false;
        self.log.ready.fetch_add(1, Ordering::Release);
        Ok(())
    }

    fn unfinished(&self) -> bool {
        self.unfinished
    }

    fn listens(&self, _: usize) -> bool {
        self.listens
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if self.thread.is_some() && !std::thread::panicking() {
            self.here();
        }
        self.log.dropped.store(true, Ordering::Release);
    }
}

struct Device {
    log: Arc<Log>,
    doorbell: Arc<EventFd>,
    fake: Fake,
}

fn event() -> Arc<EventFd> {
    Arc::new(EventFd::new(EFD_NONBLOCK).unwrap())
}

fn device() -> Device {
    let log = Arc::new(Log::default());
    let fake = Fake {
        log: Arc::clone(&log),
        thread: None,
        source: None,
        listens: true,
        unfinished: false,
        on_notified: Box::new(|| Ok(())),
    };
    Device { log, doorbell: event(), fake }
}

impl Device {
    fn start(self, threads: &Threads) -> (Arc<Log>, Arc<EventFd>, Box<dyn Running>) {
        let doorbells = vec![(0, Arc::clone(&self.doorbell))];
        let interrupts = Arc::clone(&self.log) as Arc<dyn Interrupts>;
        let work = Work { name: "fake device".into(), backend: Box::new(self.fake), doorbells, interrupts };
        (self.log, self.doorbell, threads.start(work).unwrap())
    }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let begin = std::time::Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn stop(running: Box<dyn Running>) -> Receiver<()> {
    let (sender, done) = channel();
    running.stop(Box::new(move || _ = sender.send(())));
    done
}

fn pool(count: usize) -> Threads {
    Threads::pool(NonZeroUsize::new(count).unwrap(), POLL_NS).unwrap()
}

fn both() -> [Threads; 2] {
    [Threads::for_each(POLL_NS), pool(1)]
}

fn broken() -> NeedsReset {
    NeedsReset::Queue { queue: 0, what: "on purpose".into() }
}

#[test]
fn a_backend_is_notified_once_and_then_at_each_ring() {
    for threads in both() {
        let (log, doorbell, running) = device().start(&threads);
        wait_until("notified at the start", || log.notified.load(Ordering::Acquire) == 1);
        for rings in 2..10 {
            doorbell.write(1).unwrap();
            wait_until("notified by the doorbell", || log.notified.load(Ordering::Acquire) == rings);
        }
        stop(running).recv_timeout(PATIENCE).unwrap();
        assert!(log.dropped.load(Ordering::Acquire));
        assert_eq!(log.resets.load(Ordering::Acquire), 0);
    }
}

#[test]
fn a_source_that_is_not_listened_to_does_not_wake() {
    let threads = pool(1);
    let mut device = device();
    let source = nix::sys::eventfd::EventFd::from_value(1).unwrap();
    device.fake.source = Some(source);
    let (log, doorbell, running) = device.start(&threads);
    wait_until("woken by its source", || log.ready.load(Ordering::Acquire) == 1);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(log.ready.load(Ordering::Acquire), 1);
    // The fake listens again when it is notified.
    doorbell.write(1).unwrap();
    wait_until("woken again", || log.ready.load(Ordering::Acquire) == 2);
    stop(running).recv_timeout(PATIENCE).unwrap();
}

#[test]
fn a_backend_that_needs_a_reset_is_dropped_and_the_driver_told() {
    for threads in both() {
        let mut device = device();
        device.fake.on_notified = Box::new(|| Err(broken()));
        let (log, doorbell, running) = device.start(&threads);
        wait_until("the driver is told", || log.resets.load(Ordering::Acquire) == 1);
        doorbell.write(1).unwrap();
        stop(running).recv_timeout(PATIENCE).unwrap();
        assert_eq!(log.notified.load(Ordering::Acquire), 1);
        assert_eq!(log.resets.load(Ordering::Acquire), 1);
    }
}

#[test]
fn a_handle_that_is_dropped_stops_its_backend() {
    for threads in both() {
        let (log, _doorbell, running) = device().start(&threads);
        drop(running);
        wait_until("the backend is dropped", || log.dropped.load(Ordering::Acquire));
    }
}

#[test]
fn a_backend_that_is_never_finished_starves_nobody() {
    let threads = pool(1);
    let mut greedy = device();
    greedy.fake.unfinished = true;
    let (greedy, _, running) = greedy.start(&threads);
    let (log, doorbell, other) = device().start(&threads);
    for rings in 1..100 {
        wait_until("the other one has its turn", || log.notified.load(Ordering::Acquire) == rings);
        doorbell.write(1).unwrap();
    }
    assert!(greedy.notified.load(Ordering::Acquire) > 50);
    stop(other).recv_timeout(PATIENCE).unwrap();
    stop(running).recv_timeout(PATIENCE).unwrap();
}

#[test]
fn devices_spread_over_the_pool() {
    let threads = pool(2);
    let (sender, names) = channel();
    let running: Vec<_> = (0..4)
        .map(|_| {
            let mut device = device();
            let sender = sender.clone();
            device.fake.on_notified = Box::new(move || {
                sender.send(std::thread::current().name().map(str::to_owned)).unwrap();
                Ok(())
            });
            device.start(&threads).2
        })
        .collect();
    let mut names: Vec<_> = running.iter().map(|_| names.recv_timeout(PATIENCE).unwrap().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["virtio0", "virtio0", "virtio1", "virtio1"]);
}

#[test]
fn a_thread_that_ends_says_that_all_is_gone() {
    let threads = pool(1);
    let (log, _, other) = device().start(&threads);
    let mut device = device();
    device.fake.on_notified = Box::new(|| panic!("on purpose"));
    let (broken, _, running) = device.start(&threads);
    wait_until("the thread ends", || broken.dropped.load(Ordering::Acquire));
    stop(running).recv_timeout(PATIENCE).unwrap();
    stop(other).recv_timeout(PATIENCE).unwrap();
    assert!(log.dropped.load(Ordering::Acquire));
}

/// Devices come and go while their doorbells ring and some break: nothing is called after `done`, and `done` always comes.
#[test]
fn start_ring_and_stop_in_any_order() {
    for threads in [Threads::for_each(POLL_NS), pool(2)] {
        std::thread::scope(|scope| {
            for seed in 0..4_u64 {
                let threads = &threads;
                scope.spawn(move || {
                    for round in 0..200 {
                        let mut device = device();
                        if (seed + round) % 5 == 0 {
                            let mut left = round % 3;
                            device.fake.on_notified = Box::new(move || {
                                left = left.checked_sub(1).ok_or_else(broken)?;
                                Ok(())
                            });
                        }
                        let (log, doorbell, running) = device.start(threads);
                        for _ in 0..(seed * 7 + round) % 4 {
                            doorbell.write(1).unwrap();
                            std::thread::yield_now();
                        }
                        stop(running).recv_timeout(PATIENCE).unwrap();
                        let (notified, resets) =
                            (log.notified.load(Ordering::Acquire), log.resets.load(Ordering::Acquire));
                        assert!(log.dropped.load(Ordering::Acquire));
                        doorbell.write(1).unwrap();
                        std::thread::yield_now();
                        assert_eq!(log.notified.load(Ordering::Acquire), notified);
                        assert_eq!(log.resets.load(Ordering::Acquire), resets);
                    }
                });
            }
        });
    }
}
