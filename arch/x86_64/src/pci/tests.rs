//! Configuration space by the two ports, the window, and interrupts.

use super::*;
use crate::fake::{Asked, FakeFunction, FakeVm};
use std::time::{Duration, Instant};

struct Rig {
    bridge: Bridge,
    function: Arc<FakeFunction>,
    vm: Arc<FakeVm>,
}

fn rig() -> Rig {
    let (vm, function) = (Arc::<FakeVm>::default(), Arc::<FakeFunction>::default());
    let mut bus = Bus::new(windows());
    bus.add(Arc::clone(&function) as _).unwrap();
    let bridge = Bridge::new(bus).unwrap();
    let partition: Arc<dyn Partition> = Arc::clone(&vm) as _;
    bridge.connect(&(Arc::new(Wires(Arc::clone(&partition))) as _), &partition).unwrap();
    Rig { bridge, function, vm }
}

impl Rig {
    fn select(&self, slot: u32, offset: u32) {
        self.bridge.write_port(PCI_ADDRESS, &(ENABLE | slot << 11 | offset).to_le_bytes());
    }

    fn config(&self, slot: u32, offset: u32) -> u32 {
        self.select(slot, offset);
        let mut data = [0; 4];
        self.bridge.read_port(PCI_DATA, &mut data);
        u32::from_le_bytes(data)
    }
}

#[test]
fn the_ports_reach_the_bridge_and_its_functions() {
    let rig = rig();
    assert_eq!(rig.config(0, 0), 0x0008_1b36);
    assert_eq!(rig.config(0, 8), 0x0600_0000, "a host bridge");
    assert_eq!(rig.config(0, 0x3c), 0);
    assert_eq!(rig.config(2, 0), u32::MAX, "nobody is there");
    rig.select(1, 0);
    rig.bridge.write_port(PCI_DATA + 1, &[0x12, 0x34]);
    assert_eq!(rig.config(1, 0), 0, "what is not aligned is ignored");
    rig.bridge.write_port(PCI_DATA + 2, &[0x12, 0xc0]);
    assert_eq!(rig.config(1, 0), 0xc012_0000);
    let mut byte = [0];
    rig.bridge.read_port(PCI_DATA + 3, &mut byte);
    assert_eq!(byte, [0xc0]);
    // What the address register holds can be read back, whole.
    let mut address = [0; 4];
    rig.bridge.read_port(PCI_ADDRESS, &mut address);
    assert_eq!(u32::from_le_bytes(address), ENABLE | 1 << 11);
}

#[test]
fn without_the_enable_bit_and_on_other_buses_nobody_answers() {
    let rig = rig();
    for address in [0, ENABLE | 1 << 16, ENABLE | 0xff << 16] {
        rig.bridge.write_port(PCI_ADDRESS, &address.to_le_bytes());
        let mut data = [0; 4];
        rig.bridge.read_port(PCI_DATA, &mut data);
        assert_eq!(data, [0xff; 4], "{address:#x}");
        rig.bridge.write_port(PCI_DATA, &[0; 4]);
    }
}

#[test]
fn the_window_leads_to_the_function_where_it_decodes() {
    let rig = rig();
    rig.select(1, 0);
    rig.bridge.write_port(PCI_DATA, &0xc012_0000_u32.to_le_bytes());
    let mut data = [0; 2];
    rig.bridge.read(0xc012_0034, &mut data);
    assert_eq!(data, [0x34; 2]);
    rig.bridge.read(0xc012_1000, &mut data);
    assert_eq!(data, [0xff; 2]);
    rig.bridge.write(0xc012_1000, &data);
    rig.bridge.quiesce();
    rig.bridge.read(0xc012_0034, &mut data);
    assert_eq!(data, [0xff; 2], "it was reset");
}

#[test]
fn messages_go_as_they_are_and_pins_are_levels() {
    let rig = rig();
    rig.function.send(0xfee0_100c, 0x4041);
    rig.function.send(0xfec0_0000, 0x41);
    assert_eq!(rig.vm.asked(), [Asked::Msi(0xfee0_100c, 0x4041)]);
    for level in [true, false] {
        rig.function.pin().set(level).unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        let mut asked = rig.vm.asked();
        while asked.is_empty() {
            assert!(Instant::now() < end, "the worker has told nothing");
            std::thread::yield_now();
            asked = rig.vm.asked();
        }
        assert_eq!(asked, [Asked::Irq(pin(1), level)]);
    }
}

#[test]
fn slots_share_the_last_pins() {
    assert_eq!([1, 7, 8, 31].map(pin), [17, 23, 16, 23]);
}
