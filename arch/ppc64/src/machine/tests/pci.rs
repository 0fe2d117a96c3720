//! PCI functions of the machine: loads and stores, interrupts, doorbells, and their end.

use super::*;
use crate::fake::function::{COMMAND, DOORBELL, LOADED, MEMORY};
use crate::layout::{IRQ_MSI, IRQ_PCI_LSI, PCI_BUID, PCI_MEM32, PCI_MEM64};
use crate::plan::PlaneKind;
use std::time::{Duration, Instant};

const BUID: [u32; 2] = [(PCI_BUID >> 32) as u32, PCI_BUID as u32];

fn set_config(rig: &mut Rig, slot: u32, offset: u32, value: u32) {
    let args = [slot << 11 | offset, BUID[0], BUID[1], 4, value];
    rig.rtas(0, "ibm,write-pci-config", &args, 1);
}

/// Has function `slot` decode memory at this bus address.
fn place(rig: &mut Rig, slot: u32, address: u64) {
    set_config(rig, slot, 0x10, address as u32);
    set_config(rig, slot, 0x14, (address >> 32) as u32);
    set_config(rig, slot, COMMAND.into(), MEMORY.into());
}

fn load(rig: &mut Rig, addr: u64, len: usize) -> [u8; 8] {
    match rig.machine.handle(0, &mut rig.vcpus[0], Exit::MmioRead { addr, len }).unwrap() {
        Action::Resume(Reply::Mmio(data)) => data,
        action => panic!("{action:?}"),
    }
}

fn store(rig: &mut Rig, addr: u64, len: usize) {
    let data = [1, 2, 3, 4, 5, 6, 7, 8];
    let action = rig.machine.handle(0, &mut rig.vcpus[0], Exit::MmioWrite { addr, data, len }).unwrap();
    assert!(matches!(action, Action::Resume(Reply::None)), "{action:?}");
}

/// H_XIRR when nothing is pending and everything accepted.
const NOTHING: u64 = 0xff00_0000;

/// What comes of something that another thread does: pins have one.
fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "it does not come");
        std::thread::yield_now();
    }
}

fn unclaimed(rig: &Rig) -> u64 {
    rig.machine.platform.mmio.unclaimed()
}

#[test]
fn loads_and_stores_reach_the_function_through_either_window() {
    let mut rig = Rig::booted();
    for (bus, cpu) in [(PCI_MEM64 + 0x8000, PCI_MEM64 + 0x8000), (0x9000_0000, PCI_MEM32 + 0x1000_0000)] {
        place(&mut rig, 1, bus);
        for len in [1, 2, 4, 8] {
            assert_eq!(load(&mut rig, cpu + 8, len)[..len], [LOADED; 8][..len]);
            store(&mut rig, cpu + 16, len);
            assert_eq!(rig.functions[1].stores(), [(16, vec![1, 2, 3, 4, 5, 6, 7, 8][..len].to_vec())]);
        }
    }
    assert_eq!(unclaimed(&rig), 0);
}

#[test]
fn where_nothing_answers_a_load_reads_ones_and_a_store_is_dropped() {
    let mut rig = Rig::booted();
    place(&mut rig, 0, PCI_MEM64);
    let places =
        [0x4000_0000, PCI_MEM32, PCI_MEM64 + 0x4000, PCI_MEM64 + 0x3ffe, layout::XIVE_TIMA, u64::MAX - 1];
    for (count, addr) in (0..).zip(places) {
        assert_eq!(load(&mut rig, addr, 4)[..4], [0xff; 4], "{addr:#x}");
        store(&mut rig, addr, 4);
        assert_eq!(unclaimed(&rig), 2 * count + 2);
    }
    assert_eq!(rig.functions[0].stores(), []);
}

#[test]
fn a_doorbell_is_the_hypervisors_while_its_window_is_there() {
    let mut rig = Rig::booted();
    place(&mut rig, 2, 0x9000_0000);
    let address = PCI_MEM32 + 0x1000_0000 + DOORBELL;
    let bindings = |rig: &Rig| {
        let asked = rig.machine.vm.asked().into_iter();
        let bindings = asked.filter_map(|asked| match asked {
            Asked::Ioeventfd { address, length, bind, .. } => Some((address, length, bind)),
            _ => None,
        });
        bindings.collect::<Vec<_>>()
    };
    assert_eq!(bindings(&rig), [(address, 0, Bind::Add)]);
    rig.machine.quiesce();
    assert_eq!(bindings(&rig), [(address, 0, Bind::Remove)]);
}

#[test]
fn messages_and_pins_reach_the_hypervisors_sources() {
    let mut rig = Rig::booted();
    rig.functions[0].raise(0);
    assert_eq!(rig.machine.vm.asked(), [], "no message was granted");
    rig.rtas(0, "ibm,change-msi", &[0, BUID[0], BUID[1], 4, 3, 1], 3);
    rig.functions[0].raise(2);
    let asked = |rig: &Rig| eventually(|| Some(rig.machine.vm.asked()).filter(|asked| !asked.is_empty()));
    assert_eq!(asked(&rig), [Asked::Irq { source: IRQ_MSI + 2, level: true }]);
    for level in [true, false] {
        rig.functions[1].pull(level);
        assert_eq!(asked(&rig), [Asked::Irq { source: IRQ_PCI_LSI + 1, level }]);
    }
}

#[test]
fn on_the_vmm_plane_they_reach_our_own_controller() {
    let wish = Wish { plane: Some(PlaneKind::Vmm), ..wish() };
    let mut rig = Rig::with(wish, Generation::Power9, Console::file(Path::new("/dev/null")).unwrap()).boot();
    rig.hcall(0, nr::H_CPPR, &[0xff]);
    rig.rtas(0, "ibm,change-msi", &[0, BUID[0], BUID[1], 4, 1, 1], 3);
    for source in [IRQ_MSI, IRQ_PCI_LSI + 1] {
        rig.rtas(0, "ibm,set-xive", &[source, 0, 5], 1);
    }
    let taken = |rig: &mut Rig| match rig.hcall(0, nr::H_XIRR, &[]) {
        Action::Resume(Reply::Hcall { ret: 0, args }) => args[0],
        action => panic!("{action:?}"),
    };
    let ended = |rig: &mut Rig, xirr| assert!(matches!(rig.hcall(0, nr::H_EOI, &[xirr]), Action::Resume(_)));
    rig.functions[0].raise(0);
    let xirr = taken(&mut rig);
    assert_eq!(xirr, 0xff00_0000 | u64::from(IRQ_MSI));
    ended(&mut rig, xirr);
    assert_eq!(taken(&mut rig), NOTHING, "an edge");

    rig.functions[1].pull(true);
    let pin = 0xff00_0000 | u64::from(IRQ_PCI_LSI + 1);
    for _ in 0..3 {
        let xirr = eventually(|| Some(taken(&mut rig)).filter(|xirr| *xirr != NOTHING));
        assert_eq!(xirr, pin, "as long as it is pulled");
        ended(&mut rig, xirr);
    }
    rig.functions[1].pull(false);
    eventually(|| match taken(&mut rig) {
        NOTHING => Some(()),
        xirr => {
            ended(&mut rig, xirr);
            None
        }
    });
}

#[test]
fn the_next_boot_finds_functions_messages_and_window_as_the_first_did() {
    let mut rig = Rig::booted();
    place(&mut rig, 0, PCI_MEM64);
    rig.rtas(0, "ibm,change-msi", &[0, BUID[0], BUID[1], 4, 3, 1], 3);
    rig.hcall(0, nr::H_PUT_TCE, &[layout::PCI_LIOBN.into(), 0x1000, 0x7003]);
    rig.machine.quiesce();
    assert!(rig.functions.iter().all(|function| function.resets() == 1));
    rig = rig.boot();
    assert_eq!(load(&mut rig, PCI_MEM64, 4)[..4], [0xff; 4]);
    let phb = rig.machine.platform.phb.as_ref().unwrap();
    assert_eq!((phb.messages().granted(0, 0), phb.tces().get(1)), (None, 0));
}

/// What it does late it would do to the next guest.
#[test]
fn there_is_no_next_boot_while_a_function_hangs() {
    let rig = Rig::booted();
    rig.functions[1].hang(true);
    rig.machine.quiesce();
    let Err(Fatal::Reset(error)) = rig.machine.reset() else { panic!("it boots") };
    assert_eq!(error.to_string(), "no end within 10 s of: a fake");
    rig.functions[1].hang(false);
    rig.machine.quiesce();
    rig.machine.reset().unwrap();
}

#[test]
fn a_machine_without_functions_has_no_host_bridge() {
    let console = Console::file(Path::new("/dev/null")).unwrap();
    let mut rig = Rig::on(wish(), Generation::Power9, console, Bus::new(Vec::new())).boot();
    assert!(rig.machine.platform.phb.is_none());
    rig.machine.quiesce();
    assert_eq!(load(&mut rig, PCI_MEM64, 8), [0xff; 8]);
}
