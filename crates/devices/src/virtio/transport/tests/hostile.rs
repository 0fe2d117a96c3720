//! A guest that keeps to no rule: any access, anywhere, of any width, in any order.

use super::Bench;
use crate::pci::Function;
use crate::virtio::transport::testing::Driver;
use proptest::prelude::*;

/// An access of a guest that keeps to no rule. Addresses are near what is there.
#[derive(Debug, Clone)]
enum Access {
    ReadConfig(u16, usize),
    WriteConfig(u16, Vec<u8>),
    Read(u8, u64, usize),
    Write(u8, u64, Vec<u8>),
    Turn,
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(0), Just(1), Just(2), Just(4), Just(0xff), any::<u8>()];
    prop_oneof![Just(1usize), Just(2), Just(4), Just(8), 0..17usize]
        .prop_flat_map(move |length| proptest::collection::vec(byte.clone(), length))
}

fn place() -> impl Strategy<Value = u64> {
    let near = |start: u64| start..start + 0x44;
    prop_oneof![
        4 => near(0),
        4 => (0..0x1fu64).prop_map(|register| register * 2),
        1 => near(0x1000),
        1 => near(0x2000),
        2 => near(0x4000),
        1 => 0..0x8010u64,
        1 => any::<u64>(),
    ]
}

fn access() -> impl Strategy<Value = Access> {
    let config = prop_oneof![0..0x100u16, (0..0x40u16).prop_map(|word| word * 4), any::<u16>()];
    let bar = prop_oneof![6 => Just(0u8), 3 => Just(2), 1 => any::<u8>()];
    prop_oneof![
        1 => (config.clone(), 0..17usize).prop_map(|(offset, length)| Access::ReadConfig(offset, length)),
        1 => (config, bytes()).prop_map(|(offset, data)| Access::WriteConfig(offset, data)),
        1 => (bar.clone(), place(), 0..17usize).prop_map(|(bar, at, length)| Access::Read(bar, at, length)),
        4 => (bar, place(), bytes()).prop_map(|(bar, at, data)| Access::Write(bar, at, data)),
        1 => Just(Access::Turn),
    ]
}

proptest! {
    #[test]
    fn no_access_does_more_than_a_reset_repairs(
        accesses in proptest::collection::vec(access(), 0..200),
        through_the_bus: bool,
        started: bool,
    ) {
        let bench = Bench::new();
        if started {
            bench.go();
        }
        let function: &dyn Function = bench.machine.function.as_ref();
        let base = |bar| function.address(bar).unwrap_or(0);
        for access in accesses {
            match access {
                Access::ReadConfig(offset, length) => {
                    bench.machine.bus.config(0, offset, &mut vec![0; length]);
                }
                Access::WriteConfig(offset, data) => bench.machine.bus.set_config(0, offset, &data),
                Access::Read(bar, at, length) if through_the_bus => {
                    _ = bench.machine.bus.read(base(bar).wrapping_add(at), &mut vec![0; length]);
                }
                Access::Read(bar, at, length) => function.read(bar, at, &mut vec![0; length]),
                Access::Write(bar, at, data) if through_the_bus => {
                    _ = bench.machine.bus.write(base(bar).wrapping_add(at), &data);
                }
                Access::Write(bar, at, data) => function.write(bar, at, &data),
                Access::Turn => bench.hand.turn(),
            }
        }
        bench.machine.reset();
        prop_assert_eq!(bench.alive(), 0);
        let bench = Bench { driver: Driver::probe(&bench.machine), ..bench };
        bench.works_after_a_reset();
    }
}
