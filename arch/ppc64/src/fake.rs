//! A hypervisor and a small guest for tests, on any host.
//!
//! [`Fake`] records what it is asked for and asserts what KVM would refuse or what would reach outside guest
//! RAM, so a test that passes garbage through the hcalls fails when garbage comes out on the other side.

pub mod function;

use crate::cpus::{CpuState, Cpus};
use crate::hcall::{Call, Effect, dispatch};
use crate::layout::{IRQ_EPOW, IRQ_VIO};
use crate::machine::Sources;
use crate::own::Own;
use crate::papr::nr;
use crate::phb::Phb;
use crate::platform::Platform;
use crate::rtas;
use crate::xive::XiveRoutes;
use arch_api::ppc64::{
    Bind, CpuCharacteristics, ExternalPin, Partition, Regs, Trigger, Vm, Watch, Xive, XiveQueue, XiveRoute,
};
use arch_api::{Exit, HvError, Look, Polled, Reply, Scheduler};
use devices::console::Console;
use function::FakeFunction;
use irq::Sink;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

/// Interrupt server numbers: not the indices, so a mix-up shows.
pub const SERVERS: &[u32] = &[0, 1, 8, 9];

/// XIVE sources of the small guest.
pub const LISNS: &[(u32, Trigger)] = &[
    (0, Trigger::Edge),
    (1, Trigger::Edge),
    (2, Trigger::Edge),
    (3, Trigger::Edge),
    (0x1000, Trigger::Edge),
    (0x1100, Trigger::Edge),
    (LSI, Trigger::Level),
];

/// The level source among them.
pub const LSI: u32 = 0x1200;

/// The small guest's RAM: a piece at 0, and one that straddles 4 GiB.
pub const RAM: &[(u64, usize)] = &[(0, 1 << 20), ((4 << 30) - 0x2_0000, 0x4_0000)];

/// What the hypervisor was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    Mmu { radix: bool, gtse: bool, table: u64 },
    Irq { source: u32, level: bool },
    Irqfd { source: u32, event: RawFd, bind: Bind },
    Ioeventfd { address: u64, length: u32, event: RawFd, bind: Bind },
    Source(u32, XiveRoute),
    Queue { server: u32, priority: u8, queue: XiveQueue },
    Sync(u32),
    Esb { lisn: u32, offset: u64, store: Option<u64> },
    XiveReset,
    Memory(u64),
    CreateVcpu(u32),
    CreateSources(Vec<(u32, Trigger)>),
    Reset,
}

/// What an eventfd is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    Source(u32, RawFd),
    Store { address: u64, length: u32, event: RawFd },
}

/// The hypervisor.
#[derive(Default)]
pub struct Fake {
    servers: Vec<u32>,
    lisns: Vec<u32>,
    ram: Mutex<Option<GuestMemoryMmap>>,
    has_xive: bool,
    /// Every call fails from now on.
    refuses: AtomicBool,
    asked: Mutex<Vec<Asked>>,
    /// Eventfds that are bound, and to what: one to a source, one to an address.
    bound: Mutex<Vec<Bound>>,
    queues: Mutex<HashMap<(u32, u8), XiveQueue>>,
}

/// What the timebase always reads.
pub const TIMEBASE: u64 = 0x00c0_ffee;

/// What an ESB load reads.
pub const ESB_VALUE: u64 = 0x1234_5678_9abc_def0;

impl Fake {
    pub fn new(has_xive: bool, servers: &[u32], sources: &[(u32, Trigger)]) -> Self {
        let lisns = sources.iter().map(|(lisn, _)| *lisn).collect();
        Self { has_xive, servers: servers.to_vec(), lisns, ..Self::default() }
    }

    pub fn refuse(&self, refuse: bool) {
        self.refuses.store(refuse, Ordering::Relaxed);
    }

    /// Everything asked for since the last time.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut lock(&self.asked))
    }

    /// Binds or unbinds as KVM does: nothing twice, and only what is there is removed.
    fn bind(&self, call: &'static str, what: Bound, bind: Bind) -> Result<(), HvError> {
        let mut bound = lock(&self.bound);
        let place = bound.iter().position(|b| *b == what);
        let refused = |kind| Err(HvError { call, source: io::Error::from(kind) });
        match (bind, place) {
            (Bind::Add, None) => bound.push(what),
            (Bind::Remove, Some(place)) => drop(bound.swap_remove(place)),
            (Bind::Add, Some(_)) => return refused(io::ErrorKind::AlreadyExists),
            (Bind::Remove, None) => return refused(io::ErrorKind::NotFound),
        }
        Ok(())
    }

    fn ask(&self, call: &'static str, what: Asked) -> Result<(), HvError> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(HvError { call, source: io::Error::from(io::ErrorKind::PermissionDenied) });
        }
        lock(&self.asked).push(what);
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

impl Partition for Fake {
    fn configure_mmu(&self, radix: bool, gtse: bool, table: u64) -> Result<(), HvError> {
        assert!(table >> 60 == 0 && table & 0x1f <= 24 && table & 0xfe0 == 0, "process table {table:#x}");
        self.ask("KVM_PPC_CONFIGURE_V3_MMU", Asked::Mmu { radix, gtse, table })
    }

    fn set_irq(&self, source: u32, level: bool) -> Result<(), HvError> {
        self.ask("KVM_IRQ_LINE", Asked::Irq { source, level })
    }

    fn irqfd(&self, source: u32, event: &dyn AsRawFd, bind: Bind) -> Result<(), HvError> {
        let (call, event) = ("KVM_IRQFD", event.as_raw_fd());
        self.ask(call, Asked::Irqfd { source, event, bind })?;
        self.bind(call, Bound::Source(source, event), bind)
    }

    fn ioeventfd(&self, address: u64, length: u32, event: &dyn AsRawFd, bind: Bind) -> Result<(), HvError> {
        assert!(matches!(length, 0 | 1 | 2 | 4 | 8), "a store of {length} bytes");
        let (call, event) = ("KVM_IOEVENTFD", event.as_raw_fd());
        self.ask(call, Asked::Ioeventfd { address, length, event, bind })?;
        self.bind(call, Bound::Store { address, length, event }, bind)
    }

    fn timebase(&self) -> u64 {
        TIMEBASE
    }

    fn xive(&self) -> Option<&dyn Xive> {
        self.has_xive.then_some(self)
    }
}

impl Xive for Fake {
    fn set_source(&self, lisn: u32, route: XiveRoute) -> Result<(), HvError> {
        assert!(self.lisns.contains(&lisn), "source {lisn:#x}");
        assert!(
            self.servers.contains(&route.server) && route.priority < 7 && route.eisn >> 31 == 0,
            "{route:?}"
        );
        self.ask("KVM_DEV_XIVE_GRP_SOURCE_CONFIG", Asked::Source(lisn, route))
    }

    fn set_queue(&self, server: u32, priority: u8, queue: XiveQueue) -> Result<(), HvError> {
        assert!(self.servers.contains(&server) && priority < 7, "queue {server} {priority}");
        if queue.shift == 0 {
            assert_eq!(queue, XiveQueue::default());
        } else {
            let ram = lock(&self.ram).clone().expect("RAM");
            assert!(queue.shift == 16 && queue.address % 0x1_0000 == 0, "{queue:?}");
            assert!(ram.check_range(GuestAddress(queue.address), 0x1_0000), "{queue:?} is outside RAM");
        }
        self.ask("KVM_DEV_XIVE_GRP_EQ_CONFIG", Asked::Queue { server, priority, queue })?;
        lock(&self.queues).insert((server, priority), queue);
        Ok(())
    }

    fn queue(&self, server: u32, priority: u8) -> Result<XiveQueue, HvError> {
        assert!(self.servers.contains(&server) && priority < 7, "queue {server} {priority}");
        if self.refuses.load(Ordering::Relaxed) {
            let source = io::Error::from(io::ErrorKind::NotFound);
            return Err(HvError { call: "KVM_DEV_XIVE_GRP_EQ_CONFIG", source });
        }
        Ok(lock(&self.queues).get(&(server, priority)).copied().unwrap_or_default())
    }

    fn sync(&self, lisn: u32) -> Result<(), HvError> {
        assert!(self.lisns.contains(&lisn), "source {lisn:#x}");
        self.ask("KVM_DEV_XIVE_GRP_SOURCE_SYNC", Asked::Sync(lisn))
    }

    fn esb(&self, lisn: u32, offset: u64, store: Option<u64>) -> u64 {
        assert!(self.lisns.contains(&lisn), "source {lisn:#x}");
        assert!(offset % 8 == 0 && offset < 0x1_0000, "offset {offset:#x}");
        lock(&self.asked).push(Asked::Esb { lisn, offset, store });
        ESB_VALUE
    }

    fn reset(&self) -> Result<(), HvError> {
        self.ask("KVM_DEV_XIVE_RESET", Asked::XiveReset)?;
        lock(&self.queues).clear();
        Ok(())
    }
}

impl Vm for Fake {
    type Vcpu = FakeVcpu;

    fn set_memory(&self, memory: &GuestMemoryMmap) -> Result<(), HvError> {
        *lock(&self.ram) = Some(memory.clone());
        let end = memory.iter().map(|r| r.start_addr().raw_value() + r.len()).max().unwrap_or(0);
        self.ask("KVM_SET_USER_MEMORY_REGION", Asked::Memory(end))
    }

    fn create_vcpu(&self, server: u32) -> Result<FakeVcpu, HvError> {
        self.ask("KVM_CREATE_VCPU", Asked::CreateVcpu(server))?;
        Ok(FakeVcpu::default())
    }

    fn create_sources(&self, sources: &[(u32, Trigger)]) -> Result<(), HvError> {
        self.ask("sources", Asked::CreateSources(sources.to_vec()))
    }

    fn reset(&self) -> Result<(), HvError> {
        self.ask("reset", Asked::Reset)
    }
}

/// Registers, as they were last written.
#[derive(Debug, Default)]
pub struct FakeVcpu {
    pub regs: Regs,
    pub lpcr: u64,
    pub online: bool,
    pub resets: u32,
    pub decrementer_ns: i64,
    pub doorbell: bool,
    pub watches: u32,
    /// What of its idling is to come out; every change of it.
    pub watched: Vec<Watch>,
    pub vpa: u64,
    /// The events cannot be had.
    pub unwatchable: bool,
    pub pin: Arc<FakePin>,
}

/// The external interrupt's level, as it was last set.
#[derive(Debug, Default)]
pub struct FakePin(AtomicBool);

impl FakePin {
    pub fn is_high(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

impl ExternalPin for FakePin {
    fn set(&self, level: bool) -> Result<(), HvError> {
        self.0.store(level, Ordering::SeqCst);
        Ok(())
    }
}

impl arch_api::Vcpu for FakeVcpu {
    fn run(&mut self, _reply: Reply) -> Result<Exit, HvError> {
        Ok(Exit::Interrupted)
    }
}

impl arch_api::ppc64::Vcpu for FakeVcpu {
    fn regs(&mut self) -> Result<Regs, HvError> {
        Ok(self.regs)
    }

    fn set_regs(&mut self, regs: &Regs) -> Result<(), HvError> {
        self.regs = *regs;
        Ok(())
    }

    fn set_lpcr(&mut self, mask: u64, value: u64) -> Result<(), HvError> {
        self.lpcr = (self.lpcr & !mask) | (value & mask);
        Ok(())
    }

    fn set_online(&mut self, online: bool) -> Result<(), HvError> {
        self.online = online;
        Ok(())
    }

    fn decrementer_ns(&mut self) -> Result<i64, HvError> {
        Ok(self.decrementer_ns)
    }

    fn doorbell(&mut self) -> Result<bool, HvError> {
        Ok(std::mem::take(&mut self.doorbell))
    }

    fn watch_cede(&mut self) -> Result<(), HvError> {
        self.watches += 1;
        Ok(())
    }

    fn watch(&mut self, watch: Watch) -> Result<(), HvError> {
        if self.unwatchable {
            return Err(HvError { call: "watch", source: io::Error::from(io::ErrorKind::PermissionDenied) });
        }
        self.watched.push(watch);
        Ok(())
    }

    fn vpa(&mut self) -> Result<u64, HvError> {
        Ok(self.vpa)
    }

    fn external_pin(&self) -> Arc<dyn ExternalPin> {
        Arc::clone(&self.pin) as _
    }

    fn reset(&mut self) -> Result<(), HvError> {
        self.resets += 1;
        Ok(())
    }
}

/// A scheduler that writes down what it is told.
#[derive(Debug, Default)]
pub struct FakeScheduler {
    told: Mutex<Vec<Told>>,
    /// What `polls` and `interval` say.
    pub halt_poll_ns: AtomicU32,
    /// How often a poll looks until its time is over.
    pub turns: AtomicU32,
}

/// What it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    Interrupt(usize),
    Prod(usize),
    Confer(usize, Option<usize>),
    Poll { vcpu: usize, timeout: u64, polled: Polled },
    Slept(usize),
}

impl FakeScheduler {
    /// Everything told since the last time.
    pub fn told(&self) -> Vec<Told> {
        std::mem::take(&mut lock(&self.told))
    }
}

impl Scheduler for FakeScheduler {
    fn interrupt(&self, vcpu: usize) {
        lock(&self.told).push(Told::Interrupt(vcpu));
    }

    fn prod(&self, vcpu: usize) {
        lock(&self.told).push(Told::Prod(vcpu));
    }

    fn confer(&self, vcpu: usize, target: Option<usize>) {
        lock(&self.told).push(Told::Confer(vcpu, target));
    }

    fn polls(&self) -> bool {
        self.halt_poll_ns.load(Ordering::Relaxed) != 0
    }

    fn interval(&self, _vcpu: usize) -> u32 {
        self.halt_poll_ns.load(Ordering::Relaxed)
    }

    fn poll(&self, vcpu: usize, timeout: u64, look: &mut dyn FnMut() -> Look) -> Polled {
        let turns = self.turns.load(Ordering::Relaxed);
        let seen = (0..turns).map(|_| look()).find(|seen| *seen != Look::Nothing);
        let polled = if seen == Some(Look::Arrived) { Polled::Awake } else { Polled::Asleep };
        lock(&self.told).push(Told::Poll { vcpu, timeout, polled });
        polled
    }

    fn slept(&self, vcpu: usize) {
        lock(&self.told).push(Told::Slept(vcpu));
    }
}

/// What an hcall came back with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pub ret: i64,
    pub args: [u64; 9],
    pub effect: Effect,
}

/// Four vCPUs, of which the first runs, on a [`Fake`].
pub struct Guest {
    pub platform: Platform,
    pub fake: Arc<Fake>,
    /// What it is told on the VMM's plane.
    pub scheduler: Arc<FakeScheduler>,
    /// What is behind the PCI host bridge, by slot.
    pub functions: Vec<Arc<FakeFunction>>,
    /// The external interrupts of the vCPUs on the VMM's plane.
    pub pins: Vec<Arc<FakePin>>,
}

impl Guest {
    /// A radix guest with a XIVE, and a console that nobody reads.
    pub fn new() -> Self {
        Self::with_console(Console::file(Path::new("/dev/null")).unwrap())
    }

    pub fn with_console(console: Console) -> Self {
        let guest = Self::unconnected(console);
        guest.connect(Arc::new(Sources(Arc::clone(&guest.platform.partition))));
        guest
    }

    /// Its interrupts lead nowhere yet.
    fn unconnected(console: Console) -> Self {
        let ranges: Vec<_> = RAM.iter().map(|&(start, size)| (GuestAddress(start), size)).collect();
        let memory = GuestMemoryMmap::from_ranges(&ranges).unwrap();
        let fake = Arc::new(Fake::new(true, SERVERS, LISNS));
        *lock(&fake.ram) = Some(memory.clone());
        let (bus, functions) = function::bus();
        let platform = Platform {
            memory,
            partition: Arc::clone(&fake) as _,
            cpus: Cpus::new(SERVERS),
            console: Arc::new(console),
            unsent: Default::default(),
            clock: Default::default(),
            epow: Default::default(),
            own: None,
            assist: None,
            phb: Phb::new(bus, Arc::default()),
            mmio: Default::default(),
            xive: Some(XiveRoutes::new(LISNS)),
            characteristics: Some(CpuCharacteristics { character: 0xabc << 52, behaviour: 0xdef << 52 }),
            ail_mode_3: true,
            radix: true,
            isa_v3: true,
            name: "ada".into(),
            ram: 3 << 30,
            counters: Default::default(),
        };
        platform.cpus.set(0, CpuState::Running);
        Self { platform, fake, scheduler: Arc::default(), functions, pins: Vec::new() }
    }

    fn connect(&self, sink: Arc<dyn Sink>) {
        if let Some(phb) = &self.platform.phb {
            phb.connect(&sink, &self.platform.partition).unwrap();
        }
    }

    /// The same on the VMM's plane: no XIVE, and a XICS of ours, all of whose sources are masked and whose servers accept
    /// nothing.
    pub fn on_vmm_plane() -> Self {
        let mut guest = Self::unconnected(Console::file(Path::new("/dev/null")).unwrap());
        let scheduler = Arc::clone(&guest.scheduler);
        let sources = [IRQ_EPOW, IRQ_VIO].map(|number| (number, Trigger::Edge));
        let behind_phb = guest.platform.phb.iter().flat_map(Phb::sources);
        let sources: Vec<_> = sources.into_iter().chain(behind_phb).collect();
        let own = Arc::new(Own::new(SERVERS.len(), 1, &sources, scheduler));
        guest.connect(Arc::clone(&own) as _);
        guest.pins = SERVERS.iter().map(|_| Arc::default()).collect();
        for (index, pin) in guest.pins.iter().enumerate() {
            own.connect(index, Arc::clone(pin) as _);
        }
        (guest.platform.own, guest.platform.xive) = (Some(own), None);
        guest
    }

    /// An hcall of vCPU 0. Arguments that are not given are zero.
    pub fn hcall(&self, nr: u64, given: &[u64]) -> Answer {
        self.hcall_of(0, nr, given)
    }

    pub fn hcall_of(&self, vcpu: usize, nr: u64, given: &[u64]) -> Answer {
        let mut args = [0; 9];
        args[..given.len()].copy_from_slice(given);
        let mut call = Call { platform: &self.platform, vcpu, args, effect: Effect::None };
        let ret = dispatch(nr, &mut call);
        Answer { ret, args: call.args, effect: call.effect }
    }

    /// Only the return code.
    pub fn ret(&self, nr: u64, given: &[u64]) -> i64 {
        self.hcall(nr, given).ret
    }

    pub fn write_words(&self, at: u64, words: &[u32]) {
        for (word, at) in words.iter().zip((at..).step_by(4)) {
            self.platform.memory.write_slice(&word.to_be_bytes(), GuestAddress(at)).unwrap();
        }
    }

    pub fn words(&self, at: u64, count: usize) -> Vec<u32> {
        let word =
            |at| self.platform.memory.read_obj::<[u8; 4]>(GuestAddress(at)).map(u32::from_be_bytes).unwrap();
        (at..).step_by(4).take(count).map(word).collect()
    }

    pub fn bytes(&self, at: u64, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.platform.memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }

    /// A well-formed RTAS call of vCPU `vcpu`: status, the other results, what happens beside.
    pub fn rtas_of(&self, vcpu: usize, name: &str, args: &[u32], nrets: u32) -> (i32, Vec<u32>, Effect) {
        const BLOCK: u64 = 0x8000;
        let token = token(name);
        self.write_words(BLOCK, &[token, args.len() as u32, nrets]);
        self.write_words(BLOCK + 12, args);
        let answer = self.hcall_of(vcpu, nr::H_RTAS, &[BLOCK]);
        assert_eq!(answer.ret, 0, "{name}");
        let rets = self.words(BLOCK + 12 + 4 * args.len() as u64, nrets as usize);
        (rets[0] as i32, rets[1..].to_vec(), answer.effect)
    }

    pub fn rtas(&self, name: &str, args: &[u32], nrets: u32) -> (i32, Vec<u32>, Effect) {
        self.rtas_of(0, name, args, nrets)
    }
}

/// The token of an RTAS call.
pub fn token(name: &str) -> u32 {
    let tokens = rtas::tokens(true, true);
    tokens.iter().find(|(n, _)| *n == name).unwrap_or_else(|| panic!("no RTAS call {name}")).1
}
