//! The vcores, and what each event does to them.
//!
//! One thread's life: a wake is posted; if the thread naps it comes up after the time that a wake-up
//! takes (short if it polls, long if it sleeps); it enters the guest, works, and cedes; if it is
//! the last of its vcore it polls until the machine says. All of that are `Machine::step`s; the
//! engine only keeps the time and the books.
//!
//! What always holds: a thread has at most one wake-up under way (`up_at`); a poll's end that
//! comes when the poll is over already is ignored.

use vcore::machine::Outcome;
use vcore::{Cause, Event, Machine, Thread, ThreadState, Tunables};

use crate::measure::Measured;
use crate::queue::{Entry, Queue};
use crate::workload::{Load, Random, Recorded, Source, Workload};

/// What the host charges, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Costs {
    /// From a wake to the thread being up, if it polls.
    pub wake_polling: u64,
    /// From a wake to the thread being up, if it sleeps.
    pub wake_asleep: u64,
    /// CPU time of one sleep: into the scheduler and out again, and the waker's system call.
    pub sleep_cpu: u64,
}

impl Costs {
    /// Nothing costs anything, as closed forms assume.
    pub const FREE: Self = Self { wake_polling: 0, wake_asleep: 0, sleep_cpu: 0 };

    /// As measured by `cargo bench -p cede-vcore --bench ratios` on the machine of docs/vcore.md.
    pub const MEASURED: Self = Self { wake_polling: 115, wake_asleep: 35_000, sleep_cpu: 3_100 };
}

/// What to simulate.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The load.
    pub workload: Workload,
    /// How many vcores.
    pub vcores: u32,
    /// For how long, in nanoseconds.
    pub duration: u64,
    /// The policy.
    pub tunables: Tunables,
    /// The interval that vcores start with.
    pub halt_poll_ns: u32,
    /// The host.
    pub costs: Costs,
    /// Of the random draws.
    pub seed: u64,
}

/// The kinds of events in the queue. The number is packed with the thread's.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
enum What {
    Wake,
    Expire,
    Up,
    Cede,
    PollEnd,
    Replay,
}

const KINDS: [What; 6] = [What::Wake, What::Expire, What::Up, What::Cede, What::PollEnd, What::Replay];

const fn pack(what: What, thread: Thread) -> u16 {
    (what as u16) << 3 | thread.number() as u16
}

/// What the engine keeps of a thread beside the machine.
#[derive(Clone, Copy)]
struct Fiber {
    /// When the wake that it is coming up for was posted.
    woken_at: u64,
    /// When it will be up; `NEVER` if no wake-up is under way.
    up_at: u64,
    /// Of a burst, how many interrupts are left; of a pair, whether it has something to answer.
    left: u32,
}

const NEVER: u64 = u64::MAX;

/// Stands in events that are for the whole vcore.
const FIRST: Thread = match Thread::new(0) {
    Some(thread) => thread,
    None => unreachable!(),
};

/// One cache line, for most events touch nothing else.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Core {
    machine: Machine,
    /// When the next look at the poll is booked; `NEVER` if none is. One at a time: most polls
    /// end early, and a booking for each would fill the queue.
    look_at: u64,
    /// Thread 0; its siblings are in `Engine::siblings`.
    fiber: Fiber,
}

impl Core {
    /// When the present poll must end.
    fn poll_due(&self) -> u64 {
        self.machine.period_start().saturating_add(u64::from(self.machine.halt_poll_ns()))
    }
}

/// A simulation under way.
pub struct Engine {
    plan: Plan,
    queue: Queue,
    cores: Vec<Core>,
    siblings: Vec<Fiber>,
    threads: usize,
    random: Random,
    replay: Vec<Recorded>,
    record: Option<Vec<Recorded>>,
    measured: Measured,
}

impl Engine {
    /// A simulation of `plan`, all threads about to cede for the first time.
    pub fn new(plan: Plan) -> Self {
        let threads = plan.workload.threads.len();
        let fiber = Fiber { woken_at: 0, up_at: NEVER, left: 0 };
        let core = Core { machine: Machine::new(threads, plan.halt_poll_ns), look_at: NEVER, fiber };
        let mut engine = Self {
            queue: Queue::new(plan.vcores as usize * threads),
            cores: vec![core; plan.vcores as usize],
            siblings: vec![fiber; plan.vcores as usize * (threads - 1)],
            threads,
            random: Random::new(plan.seed),
            replay: Vec::new(),
            record: None,
            measured: Measured::default(),
            plan,
        };
        for vcore in 0..engine.plan.vcores {
            for thread in Thread::all().take(threads) {
                // Spread over a millisecond, so that vcores do not march in step.
                let first = engine.random.below(1_000_000);
                engine.queue.push(first, vcore, pack(What::Cede, thread));
                engine.start_source(first, vcore, thread);
            }
        }
        engine
    }

    /// Replays a recording on top of the plan's load.
    pub fn with_replay(mut self, replay: Vec<Recorded>) -> Self {
        for (index, wake) in replay.iter().enumerate() {
            // `vcore` carries the line's number; the line says which vcore.
            self.queue.push(wake.time, index as u32, pack(What::Replay, wake.thread));
        }
        self.replay = replay;
        self
    }

    /// Keeps what it posts, for [`Engine::recording`].
    pub fn recording_wakes(mut self) -> Self {
        self.record = Some(Vec::new());
        self
    }

    /// Runs to the plan's end.
    pub fn run(&mut self) -> &Measured {
        loop {
            let cores = &self.cores;
            // The loads do not wait for each other, so the day's cache misses overlap.
            let touch = |entry: Entry| {
                let near = cores.get(entry.vcore() as usize).map(|core| core.look_at);
                std::hint::black_box(near);
            };
            let Some(entry) = self.queue.pop(touch).filter(|entry| entry.time() < self.plan.duration) else {
                break;
            };
            self.measured.events += 1;
            let thread = Thread::new(usize::from(entry.what() & 7)).expect("three bits");
            self.happen(entry.time(), entry.vcore(), thread, KINDS[usize::from(entry.what() >> 3)]);
        }
        &self.measured
    }

    /// The wakes that were posted, if they were kept.
    pub fn recording(&self) -> &[Recorded] {
        self.record.as_deref().unwrap_or_default()
    }

    fn happen(&mut self, now: u64, vcore: u32, thread: Thread, what: What) {
        match what {
            What::Wake => {
                self.post(now, vcore, thread, Cause::External);
                self.next_wake(now, vcore, thread);
            }
            What::Expire => {
                self.post(now, vcore, thread, Cause::Decrementer);
                self.next_wake(now, vcore, thread);
            }
            What::Replay => {
                let Recorded { vcore, thread, cause, .. } = self.replay[vcore as usize];
                self.post(now, vcore, thread, cause);
            }
            What::Up => {
                if self.fiber(vcore, thread).up_at == now {
                    self.apply(now, vcore, Event::Unnap(thread));
                }
            }
            What::Cede => {
                if let Source::Pair { delay } = self.load(thread).source {
                    if std::mem::take(&mut self.fiber_mut(vcore, thread).left) > 0 {
                        self.queue.push(now + delay, vcore ^ 1, pack(What::Wake, thread));
                    }
                }
                self.apply(now, vcore, Event::Cede { thread, poll: true });
            }
            What::PollEnd => self.look_at_poll(now, vcore),
        }
    }

    /// Posts a cause, and starts the wake-up of a thread that naps.
    fn post(&mut self, now: u64, vcore: u32, thread: Thread, cause: Cause) {
        if vcore as usize >= self.cores.len() || thread.number() >= self.threads {
            return;
        }
        if let Some(record) = &mut self.record {
            record.push(Recorded { time: now, vcore, thread, cause });
        }
        let before = self.cores[vcore as usize].machine.word();
        self.apply(now, vcore, Event::Post { threads: thread.mask(), cause });
        if before.thread_state(thread) != ThreadState::Napping || !before.causes(thread).is_empty() {
            return;
        }
        let Costs { wake_polling, wake_asleep, .. } = self.plan.costs;
        let up_at = match before.poller() {
            Some(poller) if poller == thread => now + wake_polling,
            Some(_) => {
                // The poller sees that its sibling is on its way up.
                self.queue.push(now + wake_polling, vcore, pack(What::PollEnd, FIRST));
                now + wake_asleep
            }
            None => now + wake_asleep,
        };
        let fiber = self.fiber_mut(vcore, thread);
        (fiber.woken_at, fiber.up_at) = (now, up_at);
        self.queue.push(up_at, vcore, pack(What::Up, thread));
    }

    /// One step of a machine, and what follows from it.
    fn apply(&mut self, now: u64, vcore: u32, event: Event) {
        let core = &mut self.cores[vcore as usize];
        let before = core.machine.word();
        let (machine, actions) = core.machine.step(now, event, &self.plan.tunables);
        core.machine = machine;
        self.measured.steps += 1;
        if before.poller().is_some() && machine.word().poller().is_none() {
            self.measured.polled_ns += now - machine.period_start();
        }
        if let Some(block) = actions.block {
            self.measured.blocks += 1;
            self.measured.blocked_ns += block.block_ns();
            self.measured.successful += u64::from(!block.waited);
        }
        match (actions.outcome, event.thread()) {
            (Outcome::Awake(_), Some(thread)) => {
                if before.thread_state(thread) == ThreadState::Napping {
                    let slept = before.poller() != Some(thread);
                    self.has_come_up(now, vcore, thread, slept);
                }
                if matches!(self.load(thread).source, Source::Pair { .. }) {
                    self.fiber_mut(vcore, thread).left = 1;
                }
                self.apply(now, vcore, Event::Enter(thread));
            }
            (Outcome::Entered, Some(thread)) => {
                self.queue.push(now + self.load(thread).work, vcore, pack(What::Cede, thread));
            }
            (Outcome::Poll, _) => {
                self.measured.attempted += 1;
                self.book_look(vcore);
            }
            _ => {}
        }
    }

    fn has_come_up(&mut self, now: u64, vcore: u32, thread: Thread, slept: bool) {
        let sleep_cpu = self.plan.costs.sleep_cpu;
        let fiber = self.fiber_mut(vcore, thread);
        let latency = now - fiber.woken_at;
        fiber.up_at = NEVER;
        self.measured.latencies.add(latency);
        if slept {
            self.measured.switched_ns += sleep_cpu;
        }
    }

    fn book_look(&mut self, vcore: u32) {
        let core = &mut self.cores[vcore as usize];
        if core.poll_due() < core.look_at {
            core.look_at = core.poll_due();
            self.queue.push(core.look_at, vcore, pack(What::PollEnd, FIRST));
        }
    }

    /// Ends the poll if its time is over or a sibling is on its way up.
    fn look_at_poll(&mut self, now: u64, vcore: u32) {
        let core = &mut self.cores[vcore as usize];
        if core.look_at == now {
            core.look_at = NEVER;
        }
        let word = core.machine.word();
        // A poller with a cause of its own is coming up anyway, at its own time.
        let Some(poller) = word.poller().filter(|poller| word.causes(*poller).is_empty()) else { return };
        if now >= core.poll_due() || !word.woken().is_empty() {
            self.apply(now, vcore, Event::PollEnd(poller));
        } else {
            self.book_look(vcore);
        }
    }

    fn start_source(&mut self, now: u64, vcore: u32, thread: Thread) {
        match self.load(thread).source {
            // A pair has one ball in play, and the even vcore serves.
            Source::Pair { .. } => self.fiber_mut(vcore, thread).left = u32::from(vcore % 2 == 0),
            Source::Replayed => {}
            _ => self.next_wake(now, vcore, thread),
        }
    }

    /// Books the next wake of a thread's own source.
    fn next_wake(&mut self, now: u64, vcore: u32, thread: Thread) {
        let (what, wait) = match self.load(thread).source {
            Source::Periodic { period } => (What::Expire, period),
            Source::Poisson { mean } => (What::Wake, self.random.exponential(mean)),
            Source::Burst { count, gap, pause } => {
                let left = &mut self.fiber_mut(vcore, thread).left;
                let wait = if *left == 0 { pause } else { gap };
                *left = if *left == 0 { count.saturating_sub(1) } else { *left - 1 };
                (What::Wake, wait)
            }
            Source::Pair { .. } | Source::Replayed => return,
        };
        self.queue.push(now + wait, vcore, pack(what, thread));
    }

    fn load(&self, thread: Thread) -> Load {
        self.plan.workload.threads[thread.number()]
    }

    fn sibling(&self, vcore: u32, thread: Thread) -> usize {
        vcore as usize * (self.threads - 1) + thread.number() - 1
    }

    fn fiber(&self, vcore: u32, thread: Thread) -> &Fiber {
        if thread == FIRST {
            &self.cores[vcore as usize].fiber
        } else {
            &self.siblings[self.sibling(vcore, thread)]
        }
    }

    fn fiber_mut(&mut self, vcore: u32, thread: Thread) -> &mut Fiber {
        if thread == FIRST {
            return &mut self.cores[vcore as usize].fiber;
        }
        let index = self.sibling(vcore, thread);
        &mut self.siblings[index]
    }
}
