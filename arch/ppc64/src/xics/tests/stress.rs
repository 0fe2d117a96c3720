//! Real threads: devices, a guest's other CPU that moves sources, and two receivers that sleep until they are told.

use super::*;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

const SERVERS: usize = 2;
const SOURCES: [u32; 4] = [0x1000, 0x1100, 0x1300, 0x1301];
/// The last source floods: its device does not wait for the guest.
const FLOOD: usize = 3;
const RUN: Duration = Duration::from_millis(1000);
/// Nothing takes this long, so something was lost.
const LOST: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Counts {
    sent: AtomicUsize,
    /// `sent`, as the handler saw it last.
    seen: AtomicUsize,
    handled: AtomicUsize,
}

struct Guest {
    xics: Xics,
    sources: [Counts; SOURCES.len()],
    ipis: [Counts; SERVERS],
    over: AtomicBool,
    /// The receivers' threads.
    receivers: OnceLock<[Thread; SERVERS]>,
}

impl Guest {
    fn new() -> Self {
        let xics = Xics::new(SERVERS, &SOURCES.map(|irq| (irq, Trigger::Edge)));
        (0..SERVERS).for_each(|server| xics.cppr(server, 0xff, quiet));
        Self {
            xics,
            sources: Default::default(),
            ipis: Default::default(),
            over: AtomicBool::new(false),
            receivers: OnceLock::new(),
        }
    }

    fn notify(&self, server: usize) {
        self.receivers.get().expect("they run before anybody sends")[server].unpark();
    }

    /// What a handler does: it serves all that was sent by now.
    fn handle(counts: &Counts) {
        counts.seen.store(counts.sent.load(Ordering::SeqCst), Ordering::SeqCst);
        let handled = counts.handled.fetch_add(1, Ordering::SeqCst) + 1;
        let sent = counts.sent.load(Ordering::SeqCst);
        assert!(handled <= sent, "handled {handled} of {sent}");
    }

    /// Sleeps and serves.
    fn receive(&self, server: usize) {
        let notify = |server| self.notify(server);
        while !self.over.load(Ordering::SeqCst) {
            if !self.xics.pending(server) {
                thread::park();
                continue;
            }
            let xirr = self.xics.xirr(server);
            match xirr & 0xff_ffff {
                0 => continue,
                IPI => {
                    self.xics.ipi(server, 0xff, notify).unwrap();
                    Self::handle(&self.ipis[server]);
                }
                irq => Self::handle(&self.sources[SOURCES.iter().position(|s| *s == irq).unwrap()]),
            }
            self.xics.eoi(server, xirr, notify).unwrap();
            // As a guest does that has a critical section now and then.
            if xirr & 1 == 0 {
                self.xics.cppr(server, 0, notify);
                self.xics.cppr(server, 0xff, notify);
            }
        }
    }

    /// Sends until the time is over, each after the one before was handled if it is to `wait`.
    fn send(&self, counts: &Counts, wait: bool, trigger: impl Fn()) {
        let begin = Instant::now();
        while begin.elapsed() < RUN {
            let sent = counts.sent.fetch_add(1, Ordering::SeqCst) + 1;
            trigger();
            if wait {
                Self::await_seen(counts, sent);
            }
        }
        Self::await_seen(counts, counts.sent.load(Ordering::SeqCst));
    }

    fn await_seen(counts: &Counts, sent: usize) {
        let begin = Instant::now();
        while counts.seen.load(Ordering::SeqCst) < sent {
            assert!(begin.elapsed() < LOST, "{sent} sent, {:?} seen", counts.seen);
            thread::yield_now();
        }
    }

    /// Moves, masks and changes priorities, until the time is over; in the end all is open.
    fn shuffle(&self) {
        let notify = |server| self.notify(server);
        let begin = Instant::now();
        for turn in 0.. {
            let (irq, server) = (SOURCES[turn % SOURCES.len()], turn / 3 % SERVERS);
            self.xics.set_xive(irq, server, 5 + turn as u32 / 5 % 3, notify).unwrap();
            self.xics.int_off(irq).unwrap();
            self.xics.int_on(irq, notify).unwrap();
            thread::yield_now();
            if begin.elapsed() >= RUN {
                return;
            }
        }
    }
}

#[test]
fn nothing_is_lost_or_invented_between_threads() {
    let guest = &Guest::new();
    thread::scope(|scope| {
        let receivers = [0, 1].map(|server| scope.spawn(move || guest.receive(server)).thread().clone());
        guest.receivers.set(receivers).unwrap();
        scope.spawn(|| guest.shuffle());
        let notify = |server| guest.notify(server);
        let sources = (0..SOURCES.len()).map(|n| {
            let trigger = move || guest.xics.set(SOURCES[n], true, notify).unwrap();
            scope.spawn(move || guest.send(&guest.sources[n], n != FLOOD, trigger))
        });
        let ipis = (0..SERVERS).map(|server| {
            let trigger = move || guest.xics.ipi(server, 4, notify).unwrap();
            scope.spawn(move || guest.send(&guest.ipis[server], true, trigger))
        });
        let senders: Vec<_> = sources.chain(ipis).collect();
        let results: Vec<_> = senders.into_iter().map(|sender| sender.join()).collect();
        guest.over.store(true, Ordering::SeqCst);
        (0..SERVERS).for_each(notify);
        results.into_iter().for_each(|result| result.unwrap());
    });
    for (n, counts) in guest.sources.iter().enumerate() {
        let (sent, handled) = (counts.sent.load(Ordering::SeqCst), counts.handled.load(Ordering::SeqCst));
        assert!(sent > 0 && handled > 0);
        assert!(n == FLOOD || handled == sent, "{n}: handled {handled} of {sent}");
    }
}
