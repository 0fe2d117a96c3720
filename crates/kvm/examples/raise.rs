//! From KVM_IRQ_LINE, from a write to a KVM_IRQFD, and from a worker's KVM_IRQ_LINE, to the guest's handler: for
//! `cargo xtask bench irq --host HOST`, which runs it in a host of the lab. It needs KVM on POWER9 or later.
//!
//! ```text
//!  device's thread ─ raise ─▶ KVM's XICS ─▶ guest: H_XIRR, an hcall that leaves KVM ─▶ vCPU's thread: the time
//!         ▲                                        H_EOI, then it cedes, or spins              │
//!         └─────────────────────────────────── unpark ─────────────────────────────────────────┘
//! ```
//!
//! The vCPU's thread has a CPU of its own; the device's and the worker share the other.
//! The guest is a page of instructions in real mode. After the figures it shows, without saying so where it is right, that
//! a removed irqfd interrupts no more, and that the guest's stores signal an ioeventfd until that is removed.
//!
//! `raise --rounds N --turns N` prints a record a line, in JSON.

use arch_api::ppc64::{
    Bind, Irqchip, Mmu, Partition, Plane, Regs, Trigger, Vcpu as _, Vm as _, VmSpec, XivePages,
};
use arch_api::{Exit, Reply, Vcpu as _};
use kvm::Kvm;
use kvm::Signals;
use kvm::ppc64::{Vcpu, Vm, VmFd, probe};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const SOURCE: u32 = 0x1000;
const TOKEN: u32 = 0x2000;
const ARGUMENTS: u64 = 0x2000;
const RAM: usize = 16 << 20;
/// Where no RAM is.
const DOORBELL: u64 = 0x2000_0000;

/// How long the guest has been at rest before it is interrupted.
const REST: Duration = Duration::from_millis(3);

/// Who runs on which CPU.
const DEVICES: usize = 0;
const VCPU: usize = 1;

/// r20 of the guest.
const CEDES: u64 = 0;
const SPINS: u64 = 1;

const fn li(to: u32, value: u32) -> u32 {
    14 << 26 | to << 21 | value
}

const fn b(from: u32, to: u32) -> u32 {
    18 << 26 | to.wrapping_sub(from) & 0x3ff_fffc
}

const SC_1: u32 = 0x4400_0022;
const LOOP: u32 = 0x120;

/// Routes its source, opens its CPPR, and rests.
const ENTRY: [u32; 18] = [
    li(3, 0),
    24 << 26 | 3 << 21 | 3 << 16 | 0xf000, // ori r3,r3,H_RTAS
    li(4, ARGUMENTS as u32),
    SC_1,
    li(3, 0x68), // H_CPPR
    li(4, 0xff),
    SC_1,
    24 << 26, // nop
    // LOOP
    11 << 26 | 20 << 16,               // cmpwi r20,CEDES
    16 << 26 | 4 << 21 | 2 << 16 | 16, // bne, over the next three
    li(3, 0xe0),                       // H_CEDE, which enables interrupts
    SC_1,
    b(0x130, LOOP),
    31 << 26 | 5 << 21 | 83 << 1,            // mfmsr r5
    24 << 26 | 5 << 21 | 5 << 16 | 0x8000,   // ori r5,r5,MSR_EE
    31 << 26 | 5 << 21 | 1 << 16 | 178 << 1, // mtmsrd r5,1
    b(0, 0),
    b(0, 0),
];

/// The external interrupt.
const EXTERNAL: [u32; 14] = [
    li(3, 0x74), // H_XIRR
    SC_1,
    31 << 26 | 4 << 21 | 21 << 16 | 4 << 11 | 444 << 1, // mr r21,r4
    21 << 26 | 21 << 21 | 5 << 16 | 8 << 6 | 31 << 1 | 1, // rlwinm. r5,r21,0,8,31
    16 << 26 | 12 << 21 | 2 << 16 | 32,                 // beq: spurious
    38 << 26 | 5 << 21 | 22 << 16,                      // stb r5,0(r22)
    li(3, 0x54),                                        // H_GET_TERM_CHAR
    SC_1,
    li(3, 0x64),                                         // H_EOI
    31 << 26 | 21 << 21 | 4 << 16 | 21 << 11 | 444 << 1, // mr r4,r21
    SC_1,
    b(0x52c, LOOP),
    b(0x530, LOOP),
    b(0x534, LOOP),
];

/// The decrementer: as far away as it goes.
const DECREMENTER: [u32; 3] =
    [15 << 26 | 5 << 21 | 0x7fff, 31 << 26 | 5 << 21 | 22 << 16 | 467 << 1, b(0x908, LOOP)];

fn memory() -> GuestMemoryMmap {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM)]).expect("there is memory");
    let write = |at: u64, words: &[u32]| {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        memory.write_slice(&bytes, GuestAddress(at)).expect("it is in RAM");
    };
    write(0x100, &ENTRY);
    write(0x500, &EXTERNAL);
    write(0x900, &DECREMENTER);
    // ibm,set-xive: source, server 0, priority 5.
    write(ARGUMENTS, &[TOKEN, 3, 1, SOURCE, 0, 5, u32::MAX]);
    memory
}

fn machine() -> Vm {
    let kvm = Kvm::open().expect("KVM");
    let empty = VmFd::create(&kvm).expect("a VM");
    let host = probe(&kvm, &empty).expect("POWER");
    let spec = VmSpec {
        threads: 1,
        servers: vec![0],
        mmu: Mmu::Radix,
        plane: Plane::Kernel,
        irqchip: Irqchip::Xics,
        compat: None,
        hcalls: Vec::new(),
        rtas: vec![("ibm,set-xive", TOKEN)],
        xive: XivePages { tima: 0, esb: 0, sources: 0 },
    };
    let vm = Vm::build(empty, spec, &host, Signals { kick: libc::SIGUSR1 }).expect("a machine");
    vm.set_memory(&memory()).expect("memory slots");
    vm
}

/// What the threads share.
#[derive(Default)]
struct Bench {
    begun: Option<Instant>,
    raised: AtomicU64,
    handled: AtomicU64,
    stores: AtomicU64,
    over: AtomicBool,
}

impl Bench {
    fn now(&self) -> u64 {
        self.begun.map_or(0, |begun| begun.elapsed().as_nanos() as u64)
    }

    /// The vCPU's life; what each interrupt took.
    fn vcpu(&self, vcpu: &mut Vcpu, device: &thread::Thread) -> Vec<u64> {
        let mut took = Vec::new();
        let mut reply = Reply::None;
        while !self.over.load(Ordering::Acquire) {
            reply = match vcpu.run(reply).expect("the guest runs") {
                Exit::Hcall { args, .. } => {
                    took.push(self.now() - self.raised.load(Ordering::Relaxed));
                    self.handled.fetch_add(1, Ordering::Release);
                    device.unpark();
                    Reply::Hcall { ret: 0, args }
                }
                Exit::MmioWrite { addr: DOORBELL, .. } => {
                    self.stores.fetch_add(1, Ordering::Release);
                    Reply::None
                }
                Exit::Interrupted => Reply::None,
                exit => panic!("the guest left with {exit:?}"),
            };
        }
        took
    }

    fn turn(&self, raise: &dyn Fn()) -> u64 {
        thread::sleep(REST);
        let (handled, begin) = (self.handled.load(Ordering::Relaxed), self.now());
        self.raised.store(begin, Ordering::Relaxed);
        raise();
        let took = self.now() - begin;
        while self.handled.load(Ordering::Acquire) == handled {
            thread::park();
        }
        took
    }
}

fn pin(cpu: usize) {
    // SAFETY: an all-zero cpu_set_t is the empty set, the CPU is within it, and the call gets its size and a valid address.
    unsafe {
        let mut one: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut one);
        assert_eq!(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &one), 0, "CPU {cpu}");
    }
}

/// A guest and the thread that runs it.
struct Guest {
    vm: Arc<Vm>,
    bench: Arc<Bench>,
    thread: thread::JoinHandle<Vec<u64>>,
}

impl Guest {
    /// `doorbell` is where its handler stores a byte.
    fn start(rests: u64, doorbell: u64) -> Self {
        let bench = Arc::new(Bench { begun: Some(Instant::now()), ..Bench::default() });
        let vm = Arc::new(machine());
        let (device, (ready, started)) = (thread::current(), mpsc::channel());
        let thread = {
            let (vm, bench) = (Arc::clone(&vm), Arc::clone(&bench));
            thread::spawn(move || {
                pin(VCPU);
                let mut vcpu = vm.create_vcpu(0).expect("a vCPU");
                vm.create_sources(&[(SOURCE, Trigger::Edge)]).expect("a source");
                let mut regs = Regs { pc: 0x100, msr: 0x8000_0000_0000_1000, ..Regs::default() };
                (regs.gpr[20], regs.gpr[22]) = (rests, doorbell);
                vcpu.set_regs(&regs).expect("registers");
                vcpu.set_online(true).expect("an online vCPU");
                ready.send(()).expect("the device listens");
                bench.vcpu(&mut vcpu, &device)
            })
        };
        started.recv().expect("the vCPU has started");
        thread::sleep(Duration::from_millis(100));
        Self { vm, bench, thread }
    }

    /// Ends, by one more interrupt if need be, which is not counted.
    fn end(self) -> Vec<u64> {
        let handled = self.bench.handled.load(Ordering::Acquire);
        self.bench.over.store(true, Ordering::Release);
        self.vm.set_irq(SOURCE, true).expect("a source");
        let mut took = self.thread.join().expect("the vCPU does not panic");
        took.truncate(handled as usize);
        took
    }
}

fn eventfd() -> File {
    // SAFETY: no pointers; the descriptor is checked and nobody else's.
    unsafe {
        let fd = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
        assert!(fd >= 0, "an eventfd");
        File::from_raw_fd(fd)
    }
}

fn signal(mut event: &File) {
    event.write_all(&1u64.to_ne_bytes()).expect("an eventfd takes a one");
}

/// The eventfd's count, which is 0 from here on.
fn take(mut event: &File) -> u64 {
    let mut count = [0; 8];
    event.read_exact(&mut count).map_or(0, |()| u64::from_ne_bytes(count))
}

#[derive(Clone, Copy)]
enum Way {
    IrqLine,
    Irqfd,
    Worker,
}

const WAYS: [(&str, Way); 3] =
    [("KVM_IRQ_LINE", Way::IrqLine), ("KVM_IRQFD", Way::Irqfd), ("worker", Way::Worker)];

/// One batch: figures with their units and values.
fn batch(way: Way, rests: u64, turns: u32) -> Vec<(String, &'static str, f64)> {
    let guest = Guest::start(rests, RAM as u64 - 8);
    let (vm, bench) = (&guest.vm, &guest.bench);
    let (event, over, raised) = (eventfd(), AtomicBool::new(false), AtomicBool::new(false));
    let (mut raises, mut switched) = (Vec::new(), 0);
    thread::scope(|scope| {
        let worker = matches!(way, Way::Worker).then(|| {
            // On the CPU of who starts it.
            scope.spawn(|| {
                while !over.load(Ordering::Acquire) {
                    if raised.swap(false, Ordering::AcqRel) {
                        vm.set_irq(SOURCE, true).expect("a source");
                    }
                    thread::park();
                }
            })
        });
        if let Way::Irqfd = way {
            vm.irqfd(SOURCE, &event, Bind::Add).expect("an irqfd");
        }
        let raise = || match (way, &worker) {
            (Way::Worker, Some(worker)) => {
                raised.store(true, Ordering::Release);
                worker.thread().unpark();
            }
            (Way::Irqfd, _) => signal(&event),
            _ => vm.set_irq(SOURCE, true).expect("a source"),
        };
        let before = switches();
        raises = (0..turns).map(|_| bench.turn(&raise)).collect();
        switched = switches() - before;
        over.store(true, Ordering::Release);
        worker.inspect(|worker| worker.thread().unpark());
    });
    let took = guest.end();
    assert_eq!(took.len(), turns as usize, "each interrupt is handled once");
    let state = if rests == CEDES { "ceded" } else { "in the guest" };
    let us = "microseconds";
    vec![
        (format!("{state}: to handler, median"), us, quantile(&took, 0.5)),
        (format!("{state}: to handler, p90"), us, quantile(&took, 0.9)),
        (format!("{state}: raise, median"), us, quantile(&raises, 0.5)),
        (format!("{state}: switches per turn, whole host"), "number", switched as f64 / f64::from(turns)),
    ]
}

fn quantile(values: &[u64], quantile: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted[((sorted.len() - 1) as f64 * quantile) as usize] as f64
}

/// Context switches of the host since it booted.
fn switches() -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").expect("/proc is mounted");
    let count = stat.lines().find_map(|line| line.strip_prefix("ctxt "));
    count.and_then(|count| count.trim().parse().ok()).expect("the kernel counts context switches")
}

/// What bindings do, and what their removal does.
fn check_bindings() {
    let guest = Guest::start(CEDES, DOORBELL);
    let (vm, bench) = (&guest.vm, &guest.bench);
    let (interrupt, doorbell) = (eventfd(), eventfd());
    let by_line = || vm.set_irq(SOURCE, true).expect("a source");
    let stores = || bench.stores.load(Ordering::Acquire);
    bench.turn(&by_line);
    assert_eq!(stores(), 1, "a store is an exit");

    vm.irqfd(SOURCE, &interrupt, Bind::Add).expect("an irqfd");
    assert!(vm.irqfd(SOURCE, &interrupt, Bind::Add).is_err(), "bound already");
    for length in [0, 1] {
        vm.ioeventfd(DOORBELL, length, &doorbell, Bind::Add).expect("an ioeventfd");
        let before = stores();
        bench.turn(&|| signal(&interrupt));
        assert_eq!((stores(), take(&doorbell)), (before, 1), "length {length}: it signals, and is no exit");
        assert!(vm.ioeventfd(DOORBELL, 4, &doorbell, Bind::Remove).is_err(), "another length");
        vm.ioeventfd(DOORBELL, length, &doorbell, Bind::Remove).expect("it was there");
        bench.turn(&|| signal(&interrupt));
        assert_eq!((stores(), take(&doorbell)), (before + 1, 0), "length {length}: an exit again");
    }
    vm.irqfd(SOURCE, &interrupt, Bind::Remove).expect("it was there");
    let handled = bench.handled.load(Ordering::Acquire);
    signal(&interrupt);
    thread::sleep(Duration::from_millis(100));
    assert_eq!(bench.handled.load(Ordering::Acquire), handled, "removed, and it interrupted");
    bench.turn(&by_line);
    guest.end();
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let after = |flag: &str| {
        args.iter().position(|arg| arg == flag).and_then(|at| args.get(at + 1)?.parse::<u32>().ok())
    };
    let (Some(rounds), Some(turns)) = (after("--rounds"), after("--turns")) else {
        eprintln!("usage: raise --rounds N --turns N");
        std::process::exit(2);
    };
    pin(DEVICES);
    check_bindings();
    let mut ways = WAYS;
    for round in 0..=rounds {
        for (subject, way) in ways {
            for rests in [CEDES, SPINS] {
                for (title, unit, value) in batch(way, rests, turns) {
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
