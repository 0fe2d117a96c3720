//! The whole machine on a hypervisor of the test's own.

use super::*;
use crate::epow::EPOW_EVENTS;
use crate::fake::function::{self, FakeFunction};
use crate::fake::{Asked, Fake, FakeScheduler, FakeVcpu, token};
use crate::image::tests::{Elf, line};
use crate::papr::{nr, ret};
use crate::plan::Wish;
use crate::tree_spec::assumed_host;
use arch_api::Stop;
use arch_api::ppc64::Bind;
use arch_api::ppc64::Trigger;
use std::path::Path;
use tempfile::NamedTempFile;
use vm_memory::Bytes;

const MIB: u64 = 1 << 20;
const BLOCK: u64 = 8 * MIB;

mod pci;
mod vmm_plane;

struct Rig {
    machine: Machine<Fake>,
    vcpus: Vec<FakeVcpu>,
    memory: GuestMemoryMmap,
    kernel: NamedTempFile,
    scheduler: Arc<FakeScheduler>,
    functions: Vec<Arc<FakeFunction>>,
}

fn wish() -> Wish {
    Wish {
        name: "ada".into(),
        cpus: 2,
        threads: 1,
        memory: 16 * MIB,
        cpu: None,
        mmu: None,
        irqchip: None,
        plane: None,
        polls: false,
        cmdline: "quiet".into(),
    }
}

impl Rig {
    /// Two vCPUs with a XIVE.
    fn new() -> Self {
        Self::with(wish(), Generation::Power9, Console::file(Path::new("/dev/null")).unwrap())
    }

    fn with(wish: Wish, generation: Generation, console: Console) -> Self {
        let (bus, functions) = function::bus();
        Self { functions, ..Self::on(wish, generation, console, bus) }
    }

    /// Put together as the run loop does it.
    fn on(wish: Wish, generation: Generation, console: Console, bus: Bus) -> Self {
        let plan = Plan::choose(wish, &assumed_host(generation)).unwrap();
        let kernel = Elf::good().file();
        let images = BootImages::open(kernel.path(), None, plan.rma()).unwrap();
        let has_xive = plan.spec.irqchip == Irqchip::Xive;
        let fake = Fake::new(has_xive, &plan.spec.servers, &plan.sources());
        let mut machine = Machine::new(plan, fake, images, Arc::new(console), |_| Ok(bus));
        let ranges: Vec<_> = machine.ram().iter().map(|r| (r.start, r.size as usize)).collect();
        let memory = GuestMemoryMmap::from_ranges(&ranges).unwrap();
        let scheduler: Arc<FakeScheduler> = Arc::default();
        machine.attach(memory.clone(), Arc::clone(&scheduler) as _).unwrap();
        let vcpus = (0..machine.vcpu_count()).map(|index| machine.create_vcpu(index).unwrap()).collect();
        Self { machine, vcpus, memory, kernel, scheduler, functions: Vec::new() }
    }

    fn booted() -> Self {
        Self::new().boot()
    }

    fn boot(mut self) -> Self {
        let (boot, entry) = self.machine.reset().unwrap().remove(0);
        self.machine.enter(boot, &mut self.vcpus[boot], entry).unwrap();
        self.machine.vm.asked();
        self
    }

    fn hcall(&mut self, index: usize, nr: u64, given: &[u64]) -> Action<Entry> {
        let mut args = [0; 9];
        args[..given.len()].copy_from_slice(given);
        self.machine.handle(index, &mut self.vcpus[index], Exit::Hcall { nr, args }).unwrap()
    }

    fn rtas(&mut self, index: usize, name: &str, args: &[u32], nrets: u32) -> Action<Entry> {
        let words = [&[token(name), args.len() as u32, nrets][..], args].concat();
        for (word, at) in words.iter().zip((BLOCK..).step_by(4)) {
            self.memory.write_slice(&word.to_be_bytes(), GuestAddress(at)).unwrap();
        }
        self.hcall(index, nr::H_RTAS, &[BLOCK])
    }

    fn byte(&self, at: u64) -> u8 {
        self.memory.read_obj(GuestAddress(at)).unwrap()
    }
}

#[test]
fn the_hypervisor_is_asked_in_the_order_it_needs() {
    let rig = Rig::new();
    let edges = |numbers: &[u32]| numbers.iter().map(|&number| (number, Trigger::Edge)).collect::<Vec<_>>();
    let pins = [0x1200, 0x1201, 0x1202].map(|number| (number, Trigger::Level)).to_vec();
    let messages = edges(&[0x1300, 0x1301, 0x1302, 0x1303, 0x1304]);
    let sources = [edges(&[0, 1, 0x1000, 0x1100]), pins, messages].concat();
    let expected =
        [Asked::Memory(16 * MIB), Asked::CreateVcpu(0), Asked::CreateVcpu(1), Asked::CreateSources(sources)];
    assert_eq!(rig.machine.vm.asked(), expected);
}

#[test]
fn a_reset_loads_everything_and_starts_the_first_vcpu() {
    let mut rig = Rig::new();
    rig.machine.vm.asked();
    let (boot, entry) = rig.machine.reset().unwrap().remove(0);
    assert_eq!((boot, entry.pc), (0, 8));
    assert_eq!(rig.machine.vm.asked(), [Asked::Reset]);
    assert_eq!(rig.byte(0), 1, "the kernel");
    let magic: [u8; 4] = rig.memory.read_obj(GuestAddress(entry.r3)).unwrap();
    assert_eq!(magic, [0xd0, 0x0d, 0xfe, 0xed], "the device tree");
    let states = [0, 1].map(|index| rig.machine.platform.cpus.state(index));
    assert_eq!(states, [CpuState::Running, CpuState::Stopped]);

    rig.machine.enter(0, &mut rig.vcpus[0], entry).unwrap();
    let vcpu = &rig.vcpus[0];
    assert_eq!((vcpu.resets, vcpu.online), (1, true));
    assert_eq!((vcpu.regs.pc, vcpu.regs.msr, vcpu.regs.gpr[3]), (8, ENTRY_MSR, entry.r3));
    assert!(vcpu.regs.gpr.iter().enumerate().all(|(index, gpr)| index == 3 || *gpr == 0));
}

#[test]
fn a_reboot_forgets_what_the_guest_set() {
    let mut rig = Rig::booted();
    rig.hcall(0, nr::H_SET_MODE, &[1, 4]);
    rig.hcall(0, nr::H_INT_SET_SOURCE_CONFIG, &[2, 0x1000, 1, 6, 5]);
    rig.rtas(0, "start-cpu", &[1, 0x60, 0], 1);
    rig.machine.power_button().unwrap();
    for index in 0..2 {
        rig.machine.prepare(index, &mut rig.vcpus[index]).unwrap();
        assert_eq!(rig.vcpus[index].lpcr, lpcr::ILE);
    }

    rig.machine.reset().unwrap();
    for index in 0..2 {
        rig.machine.prepare(index, &mut rig.vcpus[index]).unwrap();
        assert_eq!(rig.vcpus[index].lpcr, 0);
    }
    assert_eq!(rig.machine.platform.cpus.state(1), CpuState::Stopped);
    assert_eq!(rig.machine.platform.xive.as_ref().unwrap().get(0x1000).unwrap().eisn, 0);
    assert!(rig.machine.platform.epow.take().is_none());
}

#[test]
fn a_reset_that_fails_says_why() {
    let rig = Rig::new();
    rig.kernel.as_file().set_len(100).unwrap();
    let error = rig.machine.reset().unwrap_err();
    assert_eq!(
        line(&error, rig.kernel.path()),
        "the machine could not be reset: cannot read kernel PATH: failed to fill whole buffer"
    );

    let rig = Rig::new();
    rig.machine.vm.refuse(true);
    let error = rig.machine.reset().unwrap_err();
    assert!(matches!(error, Fatal::Hv(HvError { call: "reset", .. })), "{error:?}");
}

#[test]
fn effects_become_actions() {
    let mut rig = Rig::booted();
    let reply = |ret, r4: u64| {
        let mut args = [0; 9];
        args[0] = r4;
        Reply::Hcall { ret, args }
    };
    let action = rig.hcall(0, 0x4, &[7]);
    assert!(matches!(action, Action::Resume(r) if r == reply(ret::H_FUNCTION, 7)), "{action:?}");
    let action = rig.hcall(0, nr::H_SET_MODE, &[1, 4]);
    assert!(matches!(action, Action::ResumeAndSync(Reply::Hcall { ret: 0, .. })), "{action:?}");
    let action = rig.rtas(0, "start-cpu", &[1, 0x60, 3], 1);
    let started = Entry { pc: 0x60, r3: 3 };
    assert!(
        matches!(action, Action::Start { vcpu: 1, entry, reply: r } if entry == started && r == reply(0, BLOCK)),
        "{action:?}"
    );
    let action = rig.rtas(1, "stop-self", &[], 1);
    assert!(matches!(action, Action::Park), "{action:?}");
    for (name, args, end) in [
        ("power-off", &[0, 0][..], Stop::PowerOff),
        ("system-reboot", &[], Stop::Reboot),
        ("ibm,os-term", &[0], Stop::Panic),
    ] {
        let action = rig.rtas(0, name, args, 1);
        assert!(matches!(action, Action::Stop(stop) if stop == end), "{name}: {action:?}");
    }
}

#[test]
fn a_started_cpu_takes_up_the_endianness_set_before() {
    let mut rig = Rig::booted();
    rig.hcall(0, nr::H_SET_MODE, &[1, 4]);
    let Action::Start { vcpu, entry, .. } = rig.rtas(0, "start-cpu", &[1, 0x60, 3], 1) else {
        panic!("not started")
    };
    rig.machine.enter(vcpu, &mut rig.vcpus[vcpu], entry).unwrap();
    rig.machine.prepare(vcpu, &mut rig.vcpus[vcpu]).unwrap();
    let state = &rig.vcpus[vcpu];
    assert_eq!((state.lpcr, state.regs.pc, state.regs.gpr[3], state.online), (lpcr::ILE, 0x60, 3, true));

    // It stops, and is stopped when its thread has left, not before.
    rig.rtas(1, "stop-self", &[], 1);
    assert_eq!(rig.machine.platform.cpus.state(1), CpuState::Stopping);
    rig.machine.leave(1, &mut rig.vcpus[1]).unwrap();
    assert!(!rig.vcpus[1].online);
    assert_eq!(rig.machine.platform.cpus.state(1), CpuState::Stopped);
}

#[test]
fn prepare_writes_what_changed_and_nothing_else() {
    let mut rig = Rig::booted();
    rig.machine.prepare(0, &mut rig.vcpus[0]).unwrap();
    rig.vcpus[0].lpcr = 0x55;
    rig.machine.prepare(0, &mut rig.vcpus[0]).unwrap();
    assert_eq!(rig.vcpus[0].lpcr, 0x55, "untouched");
    rig.hcall(0, nr::H_SET_MODE, &[3, 3]);
    rig.machine.prepare(0, &mut rig.vcpus[0]).unwrap();
    assert_eq!(rig.vcpus[0].lpcr, 0x55 | lpcr::AIL_3, "other bits stay");
}

#[test]
fn the_power_button_is_an_event_and_an_interrupt() {
    let mut rig = Rig::booted();
    rig.machine.power_button().unwrap();
    assert_eq!(rig.machine.vm.asked(), [Asked::Irq { source: layout::IRQ_EPOW, level: true }]);
    let args = [0x500, layout::IRQ_EPOW, EPOW_EVENTS, 0, BLOCK as u32 + 0x1000, 2048];
    rig.rtas(0, "check-exception", &args, 1);
    assert_eq!(rig.byte(BLOCK + 0x1000), 6, "a log of version 6");
    rig.machine.vm.refuse(true);
    assert!(rig.machine.power_button().is_err());
}

#[test]
fn other_exits_end_the_guest_with_the_place() {
    let mut rig = Rig::booted();
    rig.vcpus[1].regs = Regs { pc: 0x700, msr: 0x1000, lr: 0x1234, ..Regs::default() };
    let exits = [
        (Exit::EntryFailed { reason: 0x10 }, "EntryFailed { reason: 10 }"),
        (Exit::InternalError { suberror: 1 }, "InternalError { suberror: 1 }"),
        (Exit::MachineCheck, "MachineCheck"),
        (Exit::Unknown(0x2a), "Unknown(2a)"),
    ];
    for (exit, text) in exits {
        let error = rig.machine.handle(1, &mut rig.vcpus[1], exit).unwrap_err().to_string();
        assert_eq!(error, format!("vCPU 1 cannot continue: {text} at pc 0x700 msr 0x1000 lr 0x1234"));
    }
}
