//! An architecture whose guests are lists of steps, on real threads.
//!
//! A vCPU blocks as in KVM_RUN: a signal that was let through brings it out, and stays pending and blocked for
//! the thread until somebody takes it. (ppoll would run the signal's default action, which ends the process.)
//! What must not happen is collected in [`Log::wrong`]; a panic on a vCPU's thread would only look like a hang.

use arch_api::{
    Action, Arch, Exit, Fatal, HvError, Nap, Raise, RamRegion, Reply, Scheduler, Stop, Until, Vcpu,
};
use devices::console::Console;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm::{Handle, Options, Outcome, Vm};
use vmm_sys_util::signal::clear_signal;

pub type Program = Vec<Step>;
pub type Counter = Arc<AtomicUsize>;

/// What a guest does next.
#[derive(Debug, Clone)]
pub enum Step {
    /// Nothing, for good.
    Idle,
    /// Nothing until the counter is this high.
    Until(Counter, usize),
    /// Counts one up.
    Count(Counter),
    /// Tells whoever started this process.
    Say(&'static str),
    /// This many exits that nobody has to do anything about.
    Work(usize),
    /// A load outside memory.
    Load,
    /// Nothing until this vCPU is parked.
    WhenParked(usize),
    /// Starts a vCPU, if it is parked.
    Start(usize, Program),
    /// Every other vCPU has to pass `prepare`.
    Sync,
    Park,
    Stop(Stop),
    /// A wait that comes out as a hypercall.
    Cede(Nap),
    /// A wait that comes out as [`Exit::Ceded`].
    CedeEvent(Nap),
    /// A nap of so many nanoseconds that goes on until the architecture was asked this many times.
    Ask(usize, u64),
    Interrupt(usize),
    Prod(usize),
    Confer(Option<usize>),
    /// The counter is this high, and no higher.
    Expect(Counter, usize),
    /// Notes which of the host's CPUs this thread may run on.
    Where,
    /// The architecture gives up.
    Fail,
    /// The hypervisor refuses to run.
    Refuse,
}

/// What happened, and what must not have.
#[derive(Debug, Default)]
pub struct Log {
    pub boots: AtomicUsize,
    pub entered: Vec<AtomicUsize>,
    pub left: Vec<AtomicUsize>,
    pub prepared: Vec<Counter>,
    /// How often the architecture was asked whether a nap goes on.
    pub asked: Vec<Counter>,
    /// How often the external interrupt was raised.
    pub raised: Vec<Counter>,
    /// How often a kick brought it out.
    pub kicked: Vec<Counter>,
    /// Runs, of all vCPUs.
    pub runs: AtomicUsize,
    /// Where each vCPU's thread may run, as it last noted.
    pub places: Mutex<BTreeMap<usize, Vec<usize>>>,
    /// How many threads are in `run`.
    pub inside: AtomicUsize,
    pub buttons: Counter,
    /// How often the devices were stopped.
    pub quiesced: AtomicUsize,
    /// Whether a boot has filled RAM since.
    pub filled: AtomicBool,
    pub loaded: Mutex<Vec<[u8; 8]>>,
    pub wrong: Mutex<Vec<String>>,
}

impl Log {
    pub fn new(vcpus: usize) -> Arc<Self> {
        let counters = || (0..vcpus).map(|_| AtomicUsize::default()).collect();
        let shared = || (0..vcpus).map(|_| Counter::default()).collect();
        Arc::new(Self {
            entered: counters(),
            left: counters(),
            prepared: shared(),
            asked: shared(),
            raised: shared(),
            kicked: shared(),
            ..Self::default()
        })
    }

    fn check(&self, good: bool, what: impl FnOnce() -> String) {
        if !good {
            self.wrong.lock().unwrap().push(what());
        }
    }

    /// Every vCPU that entered has left, nobody is inside and nothing went wrong.
    pub fn assert_quiet(&self) {
        assert_eq!(*self.wrong.lock().unwrap(), [""; 0]);
        assert_eq!(self.inside.load(SeqCst), 0, "threads in the hypervisor");
        assert_eq!(self.quiesced.load(SeqCst), self.boots.load(SeqCst), "devices stop once after each boot");
        for (index, (entered, left)) in self.entered.iter().zip(&self.left).enumerate() {
            assert_eq!(entered.load(SeqCst), left.load(SeqCst), "vCPU {index} entered and left");
        }
    }
}

/// What goes wrong, and when.
#[derive(Debug, Default, Clone)]
pub struct Faults {
    /// `create_vcpu` of this index.
    pub create: Option<usize>,
    /// `reset` number this, from 1.
    pub reset: Option<usize>,
    /// `enter` of this index.
    pub enter: Option<usize>,
    /// `leave` of this index.
    pub leave: Option<usize>,
}

pub struct Guest {
    log: Arc<Log>,
    /// vCPU 0's program at each boot; the last one again and again.
    programs: Mutex<VecDeque<Program>>,
    running: Arc<[AtomicBool]>,
    memory: Option<GuestMemoryMmap>,
    scheduler: Option<Arc<dyn Scheduler>>,
    faults: Faults,
    threads: usize,
    raises: bool,
}

impl Guest {
    pub fn new(log: &Arc<Log>, programs: impl Into<VecDeque<Program>>) -> Self {
        let running = log.entered.iter().map(|_| AtomicBool::default()).collect();
        let programs = Mutex::new(programs.into());
        Self {
            log: Arc::clone(log),
            programs,
            running,
            memory: None,
            scheduler: None,
            faults: Faults::default(),
            threads: 1,
            raises: false,
        }
    }

    pub fn with_faults(self, faults: Faults) -> Self {
        Self { faults, ..self }
    }

    /// So many vCPUs share a vcore.
    pub fn with_threads(self, threads: usize) -> Self {
        Self { threads, ..self }
    }

    /// Interrupts reach vCPUs in the guest without a kick.
    pub fn with_raisers(self) -> Self {
        Self { raises: true, ..self }
    }

    fn scheduler(&self) -> &dyn Scheduler {
        &**self.scheduler.as_ref().expect("attach comes first")
    }
}

/// A vCPU's external interrupt.
struct Raiser {
    index: usize,
    log: Arc<Log>,
}

impl Raise for Raiser {
    fn raise(&self) {
        self.log.raised[self.index].fetch_add(1, SeqCst);
    }
}

pub struct GuestVcpu {
    index: usize,
    log: Arc<Log>,
    running: Arc<[AtomicBool]>,
    program: VecDeque<Step>,
    /// The step that the last exit is of.
    current: Step,
    /// What the next run has to bring.
    expected: Reply,
    exits: i64,
    /// How often it is still to be asked whether its nap goes on, and for how long it naps.
    asks: (usize, u64),
    /// Readable while the kick is pending for the thread that polls.
    kick: OwnedFd,
}

fn refused(call: &'static str) -> HvError {
    HvError { call, source: io::Error::from(io::ErrorKind::PermissionDenied) }
}

/// A descriptor that tells of the pending kick without taking it.
fn kick_fd() -> OwnedFd {
    // SAFETY: the set is initialised by sigemptyset before it is used, and the new descriptor is nobody else's.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, vmm::kick_signal());
        let fd = libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        assert!(fd >= 0, "signalfd: {}", io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    }
}

impl GuestVcpu {
    /// Whether a kick is pending, after at most this long.
    fn kicked(&self, timeout: PollTimeout) -> bool {
        let mut fds = [PollFd::new(self.kick.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, timeout).unwrap_or(0) > 0
    }

    fn guest(&mut self) -> Result<Exit, HvError> {
        loop {
            if self.kicked(PollTimeout::ZERO) {
                clear_signal(vmm::kick_signal()).expect("the kick is blocked");
                self.log.kicked[self.index].fetch_add(1, SeqCst);
                return Ok(Exit::Interrupted);
            }
            let hcall = Exit::Hcall { nr: 0, args: [0; 9] };
            match self.program.pop_front().unwrap_or(Step::Idle) {
                Step::Idle => {
                    self.program.push_front(Step::Idle);
                    self.kicked(PollTimeout::NONE);
                }
                Step::Until(counter, least) if counter.load(SeqCst) < least => {
                    self.program.push_front(Step::Until(counter, least));
                    self.kicked(PollTimeout::from(1u8));
                }
                Step::WhenParked(index) if self.running[index].load(SeqCst) => {
                    self.program.push_front(Step::WhenParked(index));
                    self.kicked(PollTimeout::from(1u8));
                }
                Step::Until(..) | Step::WhenParked(_) | Step::Work(0) => {}
                Step::Count(counter) => _ = counter.fetch_add(1, SeqCst),
                Step::Say(words) => println!("{words}"),
                Step::Expect(counter, exactly) => {
                    let is = counter.load(SeqCst);
                    self.log.check(is == exactly, || format!("vCPU {}: {is}, not {exactly}", self.index));
                }
                Step::Where => {
                    self.log.places.lock().unwrap().insert(self.index, own_cpus());
                }
                step @ Step::CedeEvent(_) => {
                    self.current = step;
                    return Ok(Exit::Ceded);
                }
                Step::Work(more) => {
                    self.program.push_front(Step::Work(more - 1));
                    self.current = Step::Work(more);
                    return Ok(hcall);
                }
                Step::Load => {
                    self.current = Step::Load;
                    self.expected = LOADED;
                    return Ok(Exit::MmioRead { addr: 0x1000, len: 4 });
                }
                Step::Refuse => return Err(refused("KVM_RUN")),
                step => {
                    self.current = step;
                    return Ok(hcall);
                }
            }
        }
    }
}

impl Vcpu for GuestVcpu {
    fn run(&mut self, reply: Reply) -> Result<Exit, HvError> {
        let expected = std::mem::replace(&mut self.expected, Reply::None);
        self.log.check(reply == expected, || format!("vCPU {}: {reply:?}, not {expected:?}", self.index));
        if let Reply::Mmio(bytes) = reply {
            self.log.loaded.lock().unwrap().push(bytes);
        }
        self.log.runs.fetch_add(1, SeqCst);
        self.log.inside.fetch_add(1, SeqCst);
        let exit = self.guest();
        self.log.inside.fetch_sub(1, SeqCst);
        exit
    }
}

const RAM: usize = 1 << 20;

/// What every load reads.
const LOADED: Reply = Reply::Mmio([0x5a; 8]);

impl Arch for Guest {
    type Vcpu = GuestVcpu;
    type Entry = Program;

    fn vcpu_count(&self) -> usize {
        self.running.len()
    }

    fn ram(&self) -> Vec<RamRegion> {
        vec![RamRegion { start: GuestAddress(0), size: RAM as u64 }]
    }

    fn threads(&self) -> usize {
        self.threads
    }

    fn attach(&mut self, memory: GuestMemoryMmap, scheduler: Arc<dyn Scheduler>) -> Result<(), HvError> {
        (self.memory, self.scheduler) = (Some(memory), Some(scheduler));
        Ok(())
    }

    fn create_vcpu(&self, index: usize) -> Result<GuestVcpu, HvError> {
        if self.faults.create == Some(index) {
            return Err(refused("KVM_CREATE_VCPU"));
        }
        Ok(GuestVcpu {
            index,
            log: Arc::clone(&self.log),
            running: Arc::clone(&self.running),
            program: VecDeque::new(),
            current: Step::Idle,
            expected: Reply::None,
            exits: 0,
            asks: (0, 0),
            kick: kick_fd(),
        })
    }

    fn raiser(&self, index: usize) -> Option<Arc<dyn Raise>> {
        self.raises.then(|| Arc::new(Raiser { index, log: Arc::clone(&self.log) }) as _)
    }

    fn reset(&self) -> Result<Vec<(usize, Program)>, Fatal> {
        let log = &self.log;
        let boot = log.boots.fetch_add(1, SeqCst) + 1;
        if self.faults.reset == Some(boot) {
            return Err(Fatal::Reset("as asked".into()));
        }
        log.check(log.inside.load(SeqCst) == 0, || format!("reset {boot} with a vCPU in the guest"));
        for (index, running) in self.running.iter().enumerate() {
            log.check(!running.load(SeqCst), || format!("reset {boot} with vCPU {index} not parked"));
        }
        let memory = self.memory.as_ref().expect("attach comes first");
        let mut bytes = vec![0; RAM];
        memory.read_slice(&mut bytes, GuestAddress(0)).unwrap();
        log.check(bytes.iter().all(|&b| b == 0), || format!("RAM is not zero at reset {boot}"));
        memory.write_slice(&vec![0x5a; RAM], GuestAddress(0)).unwrap();
        log.filled.store(true, SeqCst);

        let mut programs = self.programs.lock().unwrap();
        let program = if programs.len() > 1 { programs.pop_front() } else { programs.front().cloned() };
        self.running[0].store(true, SeqCst);
        Ok(vec![(0, program.unwrap_or_default())])
    }

    fn enter(&self, index: usize, vcpu: &mut GuestVcpu, entry: Program) -> Result<(), Fatal> {
        self.log.entered[index].fetch_add(1, SeqCst);
        if self.faults.enter == Some(index) {
            return Err(refused("enter").into());
        }
        vcpu.program = entry.into();
        vcpu.expected = Reply::None;
        Ok(())
    }

    fn leave(&self, index: usize, _vcpu: &mut GuestVcpu) -> Result<(), Fatal> {
        self.log.left[index].fetch_add(1, SeqCst);
        self.running[index].store(false, SeqCst);
        if self.faults.leave == Some(index) {
            return Err(refused("leave").into());
        }
        Ok(())
    }

    fn prepare(&self, index: usize, _vcpu: &mut GuestVcpu) -> Result<(), Fatal> {
        self.log.prepared[index].fetch_add(1, SeqCst);
        Ok(())
    }

    fn handle(&self, index: usize, vcpu: &mut GuestVcpu, exit: Exit) -> Result<Action<Program>, Fatal> {
        let current = std::mem::replace(&mut vcpu.current, Step::Idle);
        match exit {
            Exit::Ceded => return Ok(self.ceded(index, vcpu, current)),
            Exit::MmioRead { .. } => return Ok(Action::Resume(LOADED)),
            _ => {}
        }
        self.log.check(matches!(exit, Exit::Hcall { .. }), || format!("{exit:?} is not the architecture's"));
        vcpu.exits += 1;
        let reply = Reply::Hcall { ret: vcpu.exits, args: [index as u64; 9] };
        vcpu.expected = reply;
        match current {
            Step::Interrupt(other) => self.scheduler().interrupt(other),
            Step::Prod(other) => self.scheduler().prod(other),
            Step::Confer(other) => self.scheduler().confer(index, other),
            _ => {}
        }
        Ok(match current {
            Step::Start(other, entry) if !self.running[other].swap(true, SeqCst) => {
                Action::Start { vcpu: other, entry, reply }
            }
            Step::Sync => Action::ResumeAndSync(reply),
            Step::Cede(nap) => Action::Nap { nap, reply },
            Step::Ask(times, ns) => {
                vcpu.asks = (times, ns);
                Action::Nap { nap: asking(ns), reply }
            }
            Step::Park => Action::Park,
            Step::Stop(stop) => Action::Stop(stop),
            Step::Fail => return Err(Fatal::Guest { vcpu: index, what: "as asked".into() }),
            _ => Action::Resume(reply),
        })
    }

    fn quiesce(&self) {
        let (log, memory) = (&self.log, self.memory.as_ref().expect("attach comes first"));
        log.check(log.inside.load(SeqCst) == 0, || "devices stop with a vCPU in the guest".into());
        let running = self.running.iter().any(|running| running.load(SeqCst));
        log.check(!running, || "devices stop with a vCPU not parked".into());
        let byte: u8 = memory.read_obj(GuestAddress(RAM as u64 - 1)).unwrap();
        let filled = log.filled.swap(false, SeqCst);
        log.check(!filled || byte == 0x5a, || "RAM was discarded before the devices stopped".into());
        log.quiesced.fetch_add(1, SeqCst);
    }

    fn power_button(&self) -> Result<(), HvError> {
        self.log.buttons.fetch_add(1, SeqCst);
        Ok(())
    }
}

impl Guest {
    /// The vCPU has ceded, or naps and asks whether it goes on napping.
    fn ceded(&self, index: usize, vcpu: &mut GuestVcpu, current: Step) -> Action<Program> {
        if let Step::CedeEvent(nap) = current {
            return Action::Nap { nap, reply: Reply::None };
        }
        self.log.asked[index].fetch_add(1, SeqCst);
        let (times, ns) = vcpu.asks;
        self.log.check(times > 0, || format!("vCPU {index} asks, and was not to"));
        vcpu.asks.0 = times.saturating_sub(1);
        if times > 1 {
            Action::Nap { nap: asking(ns), reply: Reply::None }
        } else {
            Action::Resume(Reply::None)
        }
    }
}

/// A nap after which the architecture is asked.
pub fn asking(ns: u64) -> Nap {
    Nap { timeout: Some(ns), until: Until::EventOrAskAgain }
}

/// A nap without an end of its own.
pub fn endless(until: Until) -> Nap {
    Nap { timeout: None, until }
}

/// The host's CPUs that the calling thread may run on.
pub fn own_cpus() -> Vec<usize> {
    let cpus = sched_getaffinity(Pid::from_raw(0)).unwrap();
    (0..CpuSet::count()).filter(|&cpu| cpus.is_set(cpu).unwrap()).collect()
}

/// Runs a guest to its end while `steer` has its handle, and checks that nothing of it is left.
pub fn run_steered(
    log: &Arc<Log>,
    guest: Guest,
    options: Options,
    steer: impl FnOnce(&Handle) + Send + 'static,
) -> Result<Outcome, String> {
    let result = within(60, "the VM", move || {
        let vm = Vm::new(guest, console(), options)?;
        let handle = vm.handle();
        let steering = std::thread::spawn(move || steer(&handle));
        let result = vm.run();
        steering.join().expect("what steers found nothing wrong");
        result
    });
    log.assert_quiet();
    assert_eq!(Arc::strong_count(log), 1, "a thread or a vCPU is left");
    result.map_err(|error| error.to_string())
}

pub fn console() -> Arc<Console> {
    Arc::new(Console::file(Path::new("/dev/null")).unwrap())
}

/// What `work` returns, or a failure that names it if that takes longer than it ever should.
pub fn within<T: Send + 'static>(seconds: u64, what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    let worker = std::thread::spawn(move || sender.send(work()));
    match receiver.recv_timeout(Duration::from_secs(seconds)) {
        Ok(value) => value,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what}: it hangs; nothing for {seconds} s"),
        Err(mpsc::RecvTimeoutError::Disconnected) => match worker.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(_) => unreachable!("a worker that ends sends"),
        },
    }
}
