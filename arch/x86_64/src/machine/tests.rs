//! The machine on a hypervisor that only writes down.

use super::*;
use crate::fake::{Asked, FakeFunction, FakeVcpu, FakeVm};
use crate::image::tests::{bz_image, file};
use crate::layout::*;
use crate::plan::Wish;
use arch_api::x86_64::{CpuidLeaf, Host};
use arch_api::{Look, Polled};

struct NoScheduler;

impl Scheduler for NoScheduler {
    fn interrupt(&self, _: usize) {}
    fn prod(&self, _: usize) {}
    fn confer(&self, _: usize, _: Option<usize>) {}

    fn polls(&self) -> bool {
        false
    }

    fn interval(&self, _: usize) -> u32 {
        0
    }

    fn poll(&self, _: usize, _: u64, _: &mut dyn FnMut() -> Look) -> Polled {
        unreachable!("nobody polls on the kernel plane")
    }

    fn slept(&self, _: usize) {}
}

struct Rig {
    machine: Machine<FakeVm>,
    vcpus: Vec<FakeVcpu>,
    output: tempfile::NamedTempFile,
}

fn rig(cpus: u32) -> Rig {
    let memory = 64 << 20;
    let wish = Wish { cpus, memory, cmdline: "quiet".into() };
    let host = Host {
        max_vcpus: 8,
        cpuid: vec![CpuidLeaf { function: 1, ..Default::default() }],
        ..Host::default()
    };
    let plan = Plan::choose(wish, &host).unwrap();
    let kernel = file(&bz_image(b"code"));
    let images = BootImages::open(kernel.path(), None, memory).unwrap();
    let output = tempfile::NamedTempFile::new().unwrap();
    let console = Arc::new(Console::file(output.path()).unwrap());
    let populate = |_| {
        let mut bus = Bus::new(crate::pci::windows());
        bus.add(Arc::<FakeFunction>::default()).map_err(io::Error::other)?;
        Ok(bus)
    };
    let mut machine = Machine::new(plan, FakeVm::default(), images, console, populate);
    let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), memory as usize)]).unwrap();
    machine.attach(ram, Arc::new(NoScheduler)).unwrap();
    let vcpus = (0..cpus as usize).map(|index| machine.create_vcpu(index).unwrap()).collect();
    machine.vm.asked();
    Rig { machine, vcpus, output }
}

impl Rig {
    fn handle(&mut self, exit: Exit) -> Action<Entry> {
        self.machine.handle(0, &mut self.vcpus[0], exit).unwrap()
    }

    fn out(&mut self, port: u16, value: u8) -> Action<Entry> {
        self.handle(Exit::PioWrite { port, data: [value, 0, 0, 0], len: 1 })
    }

    fn input(&mut self, port: u16) -> u8 {
        match self.handle(Exit::PioRead { port, len: 1 }) {
            Action::Resume(Reply::Pio([value, ..])) => value,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_reset_starts_every_vcpu_and_the_boot_cpu_last() {
    let mut rig = rig(3);
    let entries = rig.machine.reset().unwrap();
    assert_eq!(rig.machine.vm.asked(), [Asked::Reset]);
    let order: Vec<usize> = entries.iter().map(|(index, _)| *index).collect();
    assert_eq!(order, [1, 2, 0], "the others wait before somebody can call them");
    for (index, entry) in entries {
        rig.machine.enter(index, &mut rig.vcpus[index], entry).unwrap();
    }
    assert_eq!((rig.vcpus[0].regs.rip, rig.vcpus[0].regs.rsi), (KERNEL, ZERO_PAGE));
    assert_eq!(rig.vcpus[0].mode, Some(MODE));
    assert_eq!((rig.vcpus[1].mode, rig.vcpus[1].resets), (None, 0));
    rig.machine.leave(1, &mut rig.vcpus[1]).unwrap();
    assert_eq!(rig.vcpus[1].resets, 1);
    let ids: Vec<_> = rig.vcpus.iter().map(|vcpu| (vcpu.id, vcpu.cpuid[0].ebx >> 24)).collect();
    assert_eq!(ids, [(0, 0), (1, 1), (2, 2)]);
}

#[test]
fn the_guest_ends_by_its_registers() {
    let mut rig = rig(1);
    assert!(matches!(rig.out(SLEEP_CONTROL, 0x34), Action::Stop(Stop::PowerOff)));
    assert!(matches!(rig.out(SLEEP_CONTROL, 0x14), Action::Resume(Reply::None)), "without the enable bit");
    assert!(matches!(rig.out(RESET, RESET_VALUE), Action::Stop(Stop::Reboot)));
    assert!(matches!(rig.out(KEYBOARD, 0xfe), Action::Stop(Stop::Reboot)));
    assert!(matches!(rig.handle(Exit::Shutdown), Action::Stop(Stop::Reboot)));
}

#[test]
fn what_the_guest_writes_to_the_serial_port_is_on_the_console() {
    let mut rig = rig(1);
    for byte in *b"hello" {
        assert!(matches!(rig.out(COM1, byte), Action::Resume(Reply::None)));
    }
    assert_eq!(std::fs::read(rig.output.path()).unwrap(), b"hello");
    assert_eq!(rig.input(COM1 + 5) & 0x60, 0x60, "ready for more");
    // With its interrupts on the port says by an edge that it is.
    let edge = [Asked::Irq(PIN_COM1, true), Asked::Irq(PIN_COM1, false)];
    rig.out(COM1 + 1, 2);
    assert_eq!(rig.machine.vm.asked(), edge);
    assert_eq!(rig.input(COM1 + 2) & 0xf, 2, "why: it can take more");
    rig.out(COM1, b'!');
    assert_eq!(rig.machine.vm.asked(), edge);
}

#[test]
fn nowhere_reads_as_ones() {
    let mut rig = rig(1);
    assert_eq!((rig.input(0x80), rig.input(KEYBOARD)), (0xff, 0));
    for addr in [PCI_WINDOW.start, PCI_WINDOW.end, 0x1_0000_0000] {
        let action = rig.handle(Exit::MmioRead { addr, len: 4 });
        assert!(matches!(action, Action::Resume(Reply::Mmio([0xff, 0xff, 0xff, 0xff, ..]))), "{action:?}");
        let action = rig.handle(Exit::MmioWrite { addr, data: [0; 8], len: 4 });
        assert!(matches!(action, Action::Resume(Reply::None)));
    }
}

#[test]
fn the_power_button_is_an_edge() {
    let rig = rig(1);
    rig.machine.power_button().unwrap();
    assert_eq!(rig.machine.vm.asked(), [Asked::Irq(PIN_EVENTS, true), Asked::Irq(PIN_EVENTS, false)]);
}

#[test]
fn an_exit_that_is_none_of_ours_says_where_it_was() {
    let mut rig = rig(1);
    rig.vcpus[0].regs.rip = 0x1234;
    let error = rig.machine.handle(0, &mut rig.vcpus[0], Exit::InternalError { suberror: 1 }).unwrap_err();
    assert!(error.to_string().contains("rip 0x1234"), "{error}");
}
