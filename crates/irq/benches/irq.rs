//! From a device's raise to the vCPU that handles it: straight there, and with a thread in between.
//!
//! The vCPU is a thread that cedes on a vcore's wait queue, the interrupt controller a sink that wakes it. What is measured is
//! the way between the two, not the controller. Each turn waits until the vCPU has ceded, and a little longer so that it
//! sleeps or polls for sure; then the device's thread raises, and sleeps itself until the interrupt was handled. The vCPU has a
//! CPU of its own; the device's thread and the one in between share another.
//!
//! | way | from raise to sink |
//! |---|---|
//! | fast path | [`irq::Vector`]: the device's thread calls the sink |
//! | worker | a flag, and a thread that is unparked, as a work queue has one |
//! | poll loop | an eventfd, and a thread in epoll_wait(2) that owns an [`irq::Irqfd`] |
//!
//! `cargo xtask bench irq` runs this with `--rounds N --turns N` and makes a table of the records that it prints, in JSON,
//! one a line. Without arguments it prints nothing.

#[path = "../../vcore/benches/support/cpu.rs"]
mod cpu;

use cpu::{me, pin};
use irq::{Irqfd, Line, Sink, Vector};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use vcore::futex::monotonic_ns;
use vcore::{
    Cause, FutexPort, NoKick, Port, SharedTunables, Stats, Thread, ThreadMask, ThreadState, Tunables, Vcore,
    Waited,
};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

const GSI: u32 = 1;

/// Who runs on which CPU.
const DEVICES: usize = 0;
const VCPU: usize = 1;

/// How long the vCPU has been idle when it is interrupted, at least.
const IDLE_NS: u64 = 30_000;

/// The one interval of a vCPU that polls: longer than any turn.
const POLL_NS: u32 = 2_000_000;

#[derive(Clone, Copy, PartialEq)]
enum Way {
    FastPath,
    Worker,
    PollLoop,
}

const WAYS: [(&str, Way); 3] =
    [("fast path", Way::FastPath), ("worker", Way::Worker), ("poll loop", Way::PollLoop)];

/// The crate's port, but for a poller that goes on whoever else wants its CPU: what is measured is polling, not whether this
/// machine has the time.
struct Steady(FutexPort<NoKick>);

impl Port for Steady {
    fn now(&self) -> u64 {
        self.0.now()
    }

    fn wait(&self, futex: &AtomicU32, expected: u32, thread: Thread, deadline: Option<u64>) -> Waited {
        self.0.wait(futex, expected, thread, deadline)
    }

    fn wake(&self, futex: &AtomicU32, threads: ThreadMask) {
        self.0.wake(futex, threads);
    }

    fn kick(&self, threads: ThreadMask, cause: Cause) {
        self.0.kick(threads, cause);
    }

    fn may_poll(&self, _: Thread, _: u64) -> bool {
        true
    }

    fn keep_polling(&self, _: Thread, _: u64, _: u64) -> bool {
        true
    }

    fn yield_cpu(&self) {
        self.0.yield_cpu();
    }

    fn tunables(&self) -> &SharedTunables {
        self.0.tunables()
    }

    fn stats(&self, thread: Thread) -> &Stats {
        self.0.stats(thread)
    }

    fn vcpu_id(&self, thread: Thread) -> u32 {
        self.0.vcpu_id(thread)
    }
}

/// What the threads of a batch share.
struct Bench {
    vcore: Vcore<Steady>,
    /// When the last raise began.
    raised: AtomicU64,
    /// How many interrupts were handled.
    handled: AtomicU64,
    over: AtomicBool,
}

impl Bench {
    fn new(polls: bool) -> Self {
        let interval = if polls { POLL_NS } else { 0 };
        let fixed = Tunables {
            halt_poll_ns: interval,
            halt_poll_ns_grow_start: interval,
            halt_poll_ns_shrink: 1,
            ..Tunables::X86
        };
        let port = FutexPort::new(0, 1, Arc::new(SharedTunables::new(fixed)), NoKick);
        Self {
            vcore: Vcore::new(1, Steady(port)).starting_with(interval),
            raised: AtomicU64::new(0),
            handled: AtomicU64::new(0),
            over: AtomicBool::new(false),
        }
    }

    /// The vCPU's life: what each interrupt took until it was handled, and the thread's context switches.
    fn vcpu(&self, device: &thread::Thread) -> (Vec<u64>, u64) {
        pin(VCPU);
        let (mut took, before) = (Vec::new(), switches());
        while !self.over.load(Ordering::Relaxed) {
            let causes = self.vcore.cede(me(), None).expect("the thread is in the host");
            if causes.contains(Cause::External) {
                took.push(monotonic_ns() - self.raised.load(Ordering::Relaxed));
                self.handled.fetch_add(1, Ordering::Release);
                device.unpark();
            }
        }
        (took, switches() - before)
    }

    /// The device's: what each raise took by itself, and the context switches meanwhile.
    fn device(&self, turns: u64, raise: impl Fn()) -> (Vec<u64>, u64) {
        pin(DEVICES);
        let (mut took, mut switched) = (Vec::new(), 0);
        for turn in 0..turns {
            while self.vcore.word().thread_state(me()) != ThreadState::Napping {
                thread::yield_now();
            }
            let ceded = monotonic_ns();
            while monotonic_ns() < ceded + IDLE_NS {
                std::hint::spin_loop();
            }
            let before = switches();
            let begin = monotonic_ns();
            self.raised.store(begin, Ordering::Relaxed);
            raise();
            took.push(monotonic_ns() - begin);
            switched += switches() - before;
            while self.handled.load(Ordering::Acquire) <= turn {
                thread::park();
            }
        }
        (took, switched)
    }

    /// Calls the vCPU out of its last nap.
    fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        self.vcore.wake(me(), Cause::Prod);
    }
}

/// The interrupt controller.
struct Controller(Arc<Bench>);

impl Sink for Controller {
    fn set(&self, _: u32, _: bool) -> io::Result<()> {
        self.0.vcore.wake(me(), Cause::External);
        Ok(())
    }
}

/// The thread in between, and its context switches.
struct Between {
    thread: thread::JoinHandle<u64>,
    over: Arc<AtomicBool>,
    wake: Box<dyn Fn()>,
}

impl Between {
    fn worker(vector: Arc<Vector>) -> Self {
        let (over, raised) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let thread = {
            let (over, raised) = (Arc::clone(&over), Arc::clone(&raised));
            thread::spawn(move || {
                pin(DEVICES);
                let before = switches();
                while !over.load(Ordering::Acquire) {
                    if raised.swap(false, Ordering::AcqRel) {
                        vector.raise().expect("there is a source");
                    }
                    thread::park();
                }
                switches() - before
            })
        };
        let target = thread.thread().clone();
        let wake = Box::new(move || {
            raised.store(true, Ordering::Release);
            target.unpark();
        });
        Self { thread, over, wake }
    }

    fn poll_loop(vector: Arc<Vector>) -> Self {
        let irqfd = Arc::new(Irqfd::new(vector).expect("there are descriptors"));
        let over = Arc::new(AtomicBool::new(false));
        let thread = {
            let (over, irqfd) = (Arc::clone(&over), Arc::clone(&irqfd));
            thread::spawn(move || {
                use std::os::fd::AsRawFd;
                let epoll = Epoll::new().expect("there are descriptors");
                let wanted = EpollEvent::new(EventSet::IN, 0);
                let event = irqfd.event().as_raw_fd();
                epoll.ctl(ControlOperation::Add, event, wanted).expect("an eventfd can be polled");
                pin(DEVICES);
                let before = switches();
                loop {
                    // An interruption is a turn for nothing.
                    let _ = epoll.wait(-1, &mut [EpollEvent::default()]);
                    if over.load(Ordering::Acquire) {
                        return switches() - before;
                    }
                    irqfd.ready().expect("there is a source");
                }
            })
        };
        let wake = Box::new(move || irqfd.event().write(1).expect("an eventfd takes a one"));
        Self { thread, over, wake }
    }

    fn end(self) -> u64 {
        self.over.store(true, Ordering::Release);
        (self.wake)();
        self.thread.join().expect("the thread in between does not panic")
    }
}

/// One batch: figures with their units and values.
fn batch(way: Way, polls: bool, turns: u64) -> Vec<(&'static str, &'static str, f64)> {
    let bench = Arc::new(Bench::new(polls));
    let vector = Arc::new(Vector::default());
    vector.set_route(Some(Line::new(Arc::new(Controller(Arc::clone(&bench))), GSI)));
    let (tell, device) = mpsc::channel();
    let vcpu = {
        let bench = Arc::clone(&bench);
        thread::spawn(move || bench.vcpu(&device.recv().expect("there is a device")))
    };
    tell.send(thread::current()).expect("the vCPU listens");
    let between = match way {
        Way::FastPath => None,
        Way::Worker => Some(Between::worker(Arc::clone(&vector))),
        Way::PollLoop => Some(Between::poll_loop(Arc::clone(&vector))),
    };
    let (raises, switched) = match &between {
        None => bench.device(turns, || vector.raise().expect("there is a source")),
        Some(between) => bench.device(turns, &between.wake),
    };
    let between = between.map_or(0, Between::end);
    bench.end();
    let (handled, napped) = vcpu.join().expect("the vCPU does not panic");
    assert_eq!(handled.len() as u64, turns, "each interrupt is handled once");
    let state = |asleep, polling| if polls { polling } else { asleep };
    let (handled, raises) = (sorted(handled), sorted(raises));
    let each = |count: u64| count as f64 / turns as f64;
    let us = "microseconds";
    vec![
        (state("asleep: to handler, median", "polling: to handler, median"), us, quantile(&handled, 0.5)),
        (state("asleep: to handler, p90", "polling: to handler, p90"), us, quantile(&handled, 0.9)),
        (state("asleep: raise, median", "polling: raise, median"), us, quantile(&raises, 0.5)),
        (
            state(
                "asleep: switches per raise, device's thread",
                "polling: switches per raise, device's thread",
            ),
            "number",
            each(switched),
        ),
        (
            state(
                "asleep: switches per raise, thread between",
                "polling: switches per raise, thread between",
            ),
            "number",
            each(between),
        ),
        (
            state("asleep: switches per raise, vCPU", "polling: switches per raise, vCPU"),
            "number",
            each(napped),
        ),
    ]
}

fn sorted(mut values: Vec<u64>) -> Vec<u64> {
    values.sort_unstable();
    values
}

fn quantile(sorted: &[u64], quantile: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * quantile) as usize] as f64
}

/// How often the calling thread has given up its CPU by itself.
fn switches() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").expect("/proc is mounted");
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.and_then(|count| count.trim().parse().ok()).expect("the kernel counts context switches")
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let after = |flag: &str| {
        args.iter().position(|arg| arg == flag).and_then(|at| args.get(at + 1)?.parse::<u64>().ok())
    };
    let (Some(rounds), Some(turns)) = (after("--rounds"), after("--turns")) else { return };
    let mut ways = WAYS;
    for round in 0..=rounds {
        for (subject, way) in ways {
            for polls in [false, true] {
                for (title, unit, value) in batch(way, polls, turns) {
                    let figure = format!("{{\"title\":\"{title}\",\"unit\":\"{unit}\"}}");
                    println!(
                        "{{\"subject\":\"{subject}\",\"round\":{round},\"figure\":{figure},\"value\":{value}}}"
                    );
                }
            }
        }
        ways.reverse();
    }
}
