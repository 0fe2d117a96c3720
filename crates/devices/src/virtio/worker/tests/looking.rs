//! Backends that look for work before their thread waits.

use super::*;
use crate::virtio::testing::{BUFFERS, Driver, ram};
use crate::virtio::{Ring, Sight};

/// What a backend answers, one after the other, and then no more; and how often it was asked.
#[derive(Default)]
struct Answers {
    left: AtomicU64,
    asked: AtomicU64,
}

impl Answers {
    fn next(&self) -> bool {
        self.asked.fetch_add(1, Ordering::AcqRel);
        self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)).is_ok()
    }
}

#[derive(Default)]
struct Script {
    notified: AtomicU64,
    looks: Answers,
    arms: Answers,
    breaks_in_look: bool,
    breaks_in_arm: bool,
}

struct Looker(Arc<Script>);

impl Backend for Looker {
    fn notified(&mut self, _: u16) -> Result<(), NeedsReset> {
        self.0.notified.fetch_add(1, Ordering::Release);
        Ok(())
    }

    fn sight(&self) -> Sight {
        Sight::All
    }

    fn look(&mut self) -> Result<bool, NeedsReset> {
        if self.0.breaks_in_look { Err(broken()) } else { Ok(self.0.looks.next()) }
    }

    fn arm(&mut self) -> Result<bool, NeedsReset> {
        if self.0.breaks_in_arm { Err(broken()) } else { Ok(self.0.arms.next()) }
    }
}

/// Hears nothing but that its device broke.
#[derive(Default)]
struct Resets(AtomicUsize);

impl Interrupts for Resets {
    fn used(&self, _: u16) {}

    fn config_changed(&self) {}

    fn needs_reset(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

fn start(threads: &Threads, script: &Arc<Script>) -> (Arc<EventFd>, Arc<Resets>, Box<dyn Running>) {
    let (doorbell, resets) = (event(), Arc::<Resets>::default());
    let work = Work {
        name: "looker".into(),
        backend: Box::new(Looker(Arc::clone(script))),
        doorbells: vec![(0, Arc::clone(&doorbell))],
        interrupts: Arc::clone(&resets) as _,
    };
    let running = threads.start(work).unwrap();
    (doorbell, resets, running)
}

fn asked(answers: &Answers) -> u64 {
    answers.asked.load(Ordering::Acquire)
}

#[test]
fn work_that_is_there_when_it_is_armed_is_looked_at() {
    let script = Arc::new(Script::default());
    script.arms.left.store(3, Ordering::Release);
    let (doorbell, _, running) = start(&Threads::for_each(0), &script);
    wait_until("armed until there is nothing", || asked(&script.arms) == 4);
    // Without polling it looks when there is something, and then only.
    assert_eq!(asked(&script.looks), 3);
    doorbell.write(1).unwrap();
    wait_until("armed again after each turn", || asked(&script.arms) == 5);
    assert_eq!((script.notified.load(Ordering::Acquire), asked(&script.looks)), (2, 3));
    stop(running).recv_timeout(PATIENCE).unwrap();
}

/// The first wait is short, so that the next idle period has a look: what that finds is found without a doorbell.
#[test]
fn a_thread_that_is_woken_soon_looks_before_it_waits() {
    let script = Arc::new(Script::default());
    let (doorbell, _, running) = start(&Threads::for_each(10_000_000), &script);
    let begin = std::time::Instant::now();
    while asked(&script.looks) < 1000 {
        assert!(begin.elapsed() < PATIENCE, "it never looks");
        doorbell.write(1).unwrap();
        std::thread::sleep(Duration::from_micros(200));
    }
    let (arms, notified) = (asked(&script.arms), script.notified.load(Ordering::Acquire));
    assert!(arms <= notified + 1, "armed {arms} times, woken {notified} times");
    stop(running).recv_timeout(PATIENCE).unwrap();
}

#[test]
fn a_backend_that_breaks_where_it_looks_is_given_up() {
    let in_look = Script { breaks_in_look: true, ..Script::default() };
    in_look.arms.left.store(1, Ordering::Release);
    for script in [in_look, Script { breaks_in_arm: true, ..Script::default() }] {
        let script = Arc::new(script);
        let (_doorbell, resets, running) = start(&pool(1), &script);
        wait_until("the driver is told", || resets.0.load(Ordering::Acquire) == 1);
        wait_until("the backend is dropped", || Arc::strong_count(&script) == 1);
        stop(running).recv_timeout(PATIENCE).unwrap();
    }
}

/// Gives back what it gets.
struct Echo(Ring);

impl Backend for Echo {
    fn notified(&mut self, _: u16) -> Result<(), NeedsReset> {
        self.0.disable_notification()?;
        while let Some(head) = self.0.pop()?.map(|chain| chain.head_index()) {
            self.0.push(head, 0)?;
        }
        Ok(())
    }

    fn sight(&self) -> Sight {
        Sight::Queues
    }

    fn look(&mut self) -> Result<bool, NeedsReset> {
        let found = self.0.has_more()?;
        if found {
            self.notified(0)?;
        }
        Ok(found)
    }

    fn arm(&mut self) -> Result<bool, NeedsReset> {
        self.0.enable_notification()
    }
}

/// A driver that notifies only where it is asked to, at every distance from the device's last look: were a chain published
/// between look and wait, and neither seen nor notified of, it would never come back.
fn no_chain_is_lost(threads: &Threads, event_idx: bool) {
    const CHAINS: u32 = 5_000;
    let mut driver = Driver::new(0, 16, event_idx, ram());
    let doorbell = event();
    let work = Work {
        name: "echo".into(),
        backend: Box::new(Echo(driver.ring())),
        doorbells: vec![(0, Arc::clone(&doorbell))],
        interrupts: Arc::<Resets>::default(),
    };
    let running = threads.start(work).unwrap();
    let begin = std::time::Instant::now();
    for turn in 0..CHAINS {
        let from = driver.available();
        driver.chain(0, &[(BUFFERS, 8, false)]);
        std::sync::atomic::fence(Ordering::SeqCst);
        if driver.device_wants(from) {
            doorbell.write(1).unwrap();
        }
        while driver.take().is_none() {
            assert!(begin.elapsed() < PATIENCE * 3, "chain {turn} is lost");
            std::thread::yield_now();
        }
        // From none at all to longer than a look takes.
        (0..turn % 64 * (turn % 7)).for_each(|_| std::hint::spin_loop());
    }
    stop(running).recv_timeout(PATIENCE).unwrap();
}

#[test]
fn no_chain_is_lost_between_look_and_wait() {
    for event_idx in [false, true] {
        for poll_ns in [0, 2_000, 1_000_000] {
            no_chain_is_lost(&Threads::for_each(poll_ns), event_idx);
        }
        // A device that does not look has the thread ask for descriptors at each look.
        let shared = pool(1);
        let (log, doorbell, running) = device().start(&shared);
        no_chain_is_lost(&shared, event_idx);
        doorbell.write(1).unwrap();
        wait_until("the other one is woken", || log.notified.load(Ordering::Acquire) == 2);
        stop(running).recv_timeout(PATIENCE).unwrap();
    }
}
