//! The transport as a driver finds it, also one that keeps to no rule.

use super::testing::{
    ACKNOWLEDGE, ByHand, DRIVER, DRIVER_OK, Driver, FEATURES_OK, Hand, Machine, NEEDS_RESET, PIN, VERSION_1,
    Vring, eventually,
};
mod hostile;

use super::*;
use crate::pci::ResetError;
use crate::virtio::{Activation, Backend, Interrupts, NeedsReset, Ring, Threads};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// A feature of the device's kind.
const FEATURE: u64 = 1 << 5;
const EVENT_IDX: u64 = 1 << 29;
const INDIRECT: u64 = 1 << 28;
const ACCESS_PLATFORM: u64 = 1 << 33;

/// A device that gives every chain back.
#[derive(Default)]
struct Echo {
    alive: Arc<AtomicUsize>,
    refuse: AtomicBool,
    interrupts: Mutex<Option<Arc<dyn Interrupts>>>,
    config: Mutex<[u8; 8]>,
    features: Mutex<u64>,
}

struct Echoes {
    rings: Vec<Option<Ring>>,
    alive: Arc<AtomicUsize>,
}

impl Drop for Echoes {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Device for Echo {
    fn kind(&self) -> Kind {
        Kind::Block
    }

    fn name(&self) -> &str {
        "echo"
    }

    fn features(&self) -> u64 {
        FEATURE
    }

    fn queues(&self) -> &[u16] {
        &[256, 8]
    }

    fn config(&self, offset: u64, data: &mut [u8]) {
        let config = self.config.lock().unwrap();
        for (byte, held) in data.iter_mut().zip(config.iter().skip(offset as usize)) {
            *byte = *held;
        }
    }

    fn set_config(&self, offset: u64, data: &[u8]) {
        let mut config = self.config.lock().unwrap();
        for (held, byte) in config.iter_mut().skip(offset as usize).zip(data) {
            *held = *byte;
        }
    }

    fn activate(&self, activation: Activation) -> io::Result<Box<dyn Backend>> {
        if self.refuse.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        *self.features.lock().unwrap() = activation.features;
        *self.interrupts.lock().unwrap() = Some(activation.interrupts);
        self.alive.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(Echoes { rings: activation.rings, alive: self.alive.clone() }))
    }
}

impl Backend for Echoes {
    fn notified(&mut self, queue: u16) -> Result<(), NeedsReset> {
        let ring = self.rings[usize::from(queue)].as_mut().expect("an enabled queue");
        while let Some(chain) = ring.pop()? {
            let head = chain.head_index();
            ring.push(head, 7)?;
        }
        ring.signal()
    }
}

struct Bench {
    machine: Machine,
    device: Arc<Echo>,
    hand: Arc<ByHand>,
    driver: Driver,
}

impl Bench {
    fn new() -> Self {
        Self::on(Machine::new)
    }

    fn on(machine: impl FnOnce(Arc<dyn Device>, Arc<dyn Workers>) -> Machine) -> Self {
        let device = Arc::<Echo>::default();
        let hand = Arc::<ByHand>::default();
        let machine = machine(device.clone(), Arc::new(Hand(hand.clone())));
        let driver = Driver::probe(&machine);
        Self { machine, device, hand, driver }
    }

    /// Brings the device to work with one queue, and gives the queue a chain.
    fn go(&self) -> Vring {
        assert!(self.driver.negotiate(VERSION_1 | FEATURE));
        let vring = self.driver.enable(&self.machine, 0, 16, 0x1000);
        self.driver.ready();
        vring
    }

    fn alive(&self) -> usize {
        self.device.alive.load(Ordering::Relaxed)
    }

    /// One chain there and back.
    fn round_trip(&self, vring: &mut Vring) {
        vring.offer(3, &[(0x8000, 16, false), (0x9000, 16, true)]);
        self.driver.kick(0);
        self.hand.turn();
        assert_eq!(vring.take(), Some((3, 7)));
    }

    /// From whatever state it is in.
    fn works_after_a_reset(&self) {
        self.driver.reset();
        assert_eq!(self.alive(), 0);
        self.driver.enable_msix(&self.machine);
        let mut vring = self.go();
        assert_eq!(self.driver.status(), ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
        let before = self.machine.controller.raised(PIN + 2);
        self.round_trip(&mut vring);
        assert_eq!(self.machine.controller.raised(PIN + 2), before + 1);
    }
}

#[test]
fn a_driver_finds_what_it_looks_for() {
    let bench = Bench::new();
    let driver = &bench.driver;
    assert_eq!(driver.config_u32(0), 0x1042_1af4);
    assert_eq!(driver.config_u32(8), 0x0100_0001);
    assert!(driver.config_u32(0x2c) >> 16 >= 0x40);
    assert_eq!((driver.common.length, driver.notify.length), (0x40, 8));
    assert_eq!(driver.common16(0x12), 2);
    assert_eq!((driver.select(0), driver.select(1), driver.select(2)), (256, 8, 0));
    assert_eq!(driver.offered(), VERSION_1 | EVENT_IDX | INDIRECT | FEATURE);
    assert_eq!(driver.config::<2>(driver.msix + 2), [2, 0], "three vectors");
}

#[test]
fn chains_go_there_and_back_with_messages() {
    let bench = Bench::new();
    bench.driver.enable_msix(&bench.machine);
    let mut vring = bench.go();
    assert_eq!(*bench.device.features.lock().unwrap(), VERSION_1 | FEATURE);
    let before = bench.machine.controller.raised(PIN + 2);
    for round in 1..=5 {
        bench.round_trip(&mut vring);
        assert_eq!(bench.machine.controller.raised(PIN + 2), before + round);
    }
    assert_eq!(bench.machine.controller.raised(PIN), 0);
}

#[test]
fn the_pin_is_high_until_the_status_is_read() {
    let bench = Bench::new();
    let mut vring = bench.go();
    // The first look at the queue found nothing, and said so.
    bench.driver.read::<1>(bench.driver.isr.address);
    bench.round_trip(&mut vring);
    let (driver, controller) = (&bench.driver, &bench.machine.controller);
    assert!(controller.level(PIN));
    assert_eq!(driver.config::<2>(6)[0] & 8, 8);
    driver.set_config(4, &[6, 4]);
    assert!(!controller.level(PIN), "switched off");
    driver.set_config(4, &[6, 0]);
    assert!(controller.level(PIN));
    assert_eq!(driver.read(driver.isr.address), [1]);
    assert!(!controller.level(PIN));
    assert_eq!(driver.read(driver.isr.address), [0]);
    assert_eq!(driver.config::<2>(6)[0] & 8, 0);
}

#[test]
fn a_changed_configuration_has_a_new_generation() {
    let bench = Bench::new();
    let driver = &bench.driver;
    driver.enable_msix(&bench.machine);
    driver.negotiate(VERSION_1);
    driver.set_common(0x10, &0u16.to_le_bytes());
    driver.ready();
    driver.write(driver.device.address + 2, &[1, 2]);
    assert_eq!(driver.device_config(0), [0, 0, 1, 2, 0, 0, 0, 0]);
    assert_eq!(driver.device_config(8), [0; 8], "zero beyond its end");
    let before = driver.common8(0x15);
    bench.device.interrupts.lock().unwrap().as_ref().unwrap().config_changed();
    assert_eq!(driver.common8(0x15), before + 1);
    assert_eq!(bench.machine.controller.raised(PIN + 1), 1);
}

#[test]
fn features_that_were_not_offered_are_refused() {
    let bench = Bench::new();
    for features in [0, FEATURE, VERSION_1 | 1 << 7, VERSION_1 | ACCESS_PLATFORM, u64::MAX] {
        assert!(!bench.driver.negotiate(features), "{features:#x}");
        bench.driver.ready();
        assert_eq!(bench.driver.status() & (DRIVER_OK | NEEDS_RESET), NEEDS_RESET);
        assert_eq!(bench.alive(), 0);
    }
    bench.driver.reset();
    bench.driver.set_common(8, &2u32.to_le_bytes());
    bench.driver.set_common(0xc, &1u32.to_le_bytes());
    bench.driver.set_common(8, &1u32.to_le_bytes());
    bench.driver.set_common(0xc, &1u32.to_le_bytes());
    bench.driver.add_status(FEATURES_OK);
    assert_eq!(bench.driver.status(), 0, "a 65th feature");
    bench.works_after_a_reset();
}

#[test]
fn accepted_features_stay() {
    let bench = Bench::new();
    assert!(bench.driver.negotiate(VERSION_1 | FEATURE));
    bench.driver.set_common(8, &0u32.to_le_bytes());
    bench.driver.set_common(0xc, &u32::MAX.to_le_bytes());
    assert_eq!(bench.driver.common32(0xc), FEATURE as u32);
}

#[test]
fn a_translated_device_is_translated_or_not_driven() {
    let bench = Bench::on(Machine::translated);
    assert!(!bench.driver.negotiate(VERSION_1));
    assert!(bench.driver.negotiate(VERSION_1 | ACCESS_PLATFORM));
    bench.driver.enable(&bench.machine, 0, 16, 0x1000);
    bench.driver.ready();
    assert_ne!(bench.driver.status() & NEEDS_RESET, 0, "the bridge has nothing there");
    assert_eq!(bench.alive(), 0);
    assert!(bench.driver.negotiate(VERSION_1 | ACCESS_PLATFORM));
    let mut vring = bench.driver.enable_through(testing::WINDOW, &bench.machine, 0, 16, 0x1000);
    bench.driver.ready();
    vring.offer(3, &[(testing::WINDOW + 0x8000, 16, true)]);
    bench.driver.kick(0);
    bench.hand.turn();
    assert_eq!(vring.take(), Some((3, 7)));
}

#[test]
fn queue_sizes_are_checked() {
    for size in [0u16, 3, 48, 512, 32768, 32769, 0xffff] {
        let bench = Bench::new();
        assert!(bench.driver.negotiate(VERSION_1));
        bench.driver.select(0);
        bench.driver.set_common(0x18, &size.to_le_bytes());
        assert_eq!(bench.driver.common16(0x18), 256, "{size}");
        assert_ne!(bench.driver.status() & NEEDS_RESET, 0, "{size}");
        bench.driver.set_common(0x1c, &[1, 0]);
        bench.driver.ready();
        assert_eq!(bench.alive(), 0, "a broken device does not start");
        bench.works_after_a_reset();
    }
}

#[test]
fn queue_addresses_are_checked() {
    let beyond = testing::MEMORY;
    for (register, address) in
        [(0x20, 0x1008), (0x28, 0x1001), (0x30, 0x1002), (0x20, beyond), (0x28, beyond - 8), (0x30, !3)]
    {
        let bench = Bench::new();
        bench.driver.enable_msix(&bench.machine);
        assert!(bench.driver.negotiate(VERSION_1));
        bench.driver.set_common(0x10, &0u16.to_le_bytes());
        bench.driver.select(0);
        for (register, address) in [(0x20, 0x1000u64), (0x28, 0x3000), (0x30, 0x4000), (register, address)] {
            bench.driver.write(bench.driver.common.address + register, &address.to_le_bytes());
        }
        bench.driver.set_common(0x1c, &[1, 0]);
        bench.driver.ready();
        assert_ne!(bench.driver.status() & NEEDS_RESET, 0, "{register:#x} {address:#x}");
        assert_eq!(bench.machine.controller.raised(PIN + 1), 1, "the driver is told");
        assert_eq!(bench.alive(), 0);
        bench.works_after_a_reset();
    }
}

#[test]
fn an_enabled_queue_stays_as_it_is() {
    let bench = Bench::new();
    let mut vring = bench.go();
    for (offset, data) in [(0x18, [8, 0]), (0x1c, [0, 0]), (0x20, [0, 0])] {
        bench.driver.set_common(offset, &data);
    }
    bench.driver.select(0);
    assert_eq!((bench.driver.common16(0x18), bench.driver.common16(0x1c)), (16, 1));
    bench.round_trip(&mut vring);
}

#[test]
fn a_status_bit_is_cleared_by_a_reset_only() {
    let bench = Bench::new();
    bench.go();
    bench.driver.set_common(0x14, &[ACKNOWLEDGE]);
    assert_ne!(bench.driver.status() & NEEDS_RESET, 0);
    bench.works_after_a_reset();
}

#[test]
fn the_status_is_not_zero_before_the_backend_is_gone() {
    let bench = Bench::new();
    bench.go();
    bench.hand.hold.store(true, Ordering::Relaxed);
    bench.driver.set_common(0x14, &[0]);
    assert_ne!(bench.driver.status(), 0);
    assert_eq!(bench.alive(), 1);
    bench.driver.set_common(0x14, &[0]);
    bench.driver.set_common(0x14, &[ACKNOWLEDGE]);
    bench.hand.let_go();
    assert_eq!(bench.alive(), 0);
    assert_eq!(bench.driver.status(), 0, "what was written meanwhile is lost");
    bench.hand.hold.store(false, Ordering::Relaxed);
    bench.works_after_a_reset();
}

#[test]
fn the_machines_reset_waits_for_the_backend() {
    let bench = Bench::new();
    bench.driver.enable_msix(&bench.machine);
    bench.go();
    bench.hand.hold.store(true, Ordering::Relaxed);
    std::thread::scope(|scope| {
        let reset = scope.spawn(|| bench.machine.reset());
        std::thread::sleep(Duration::from_millis(20));
        assert!(!reset.is_finished());
        // It may have yet to come to this point.
        while !reset.is_finished() {
            bench.hand.let_go();
        }
    });
    assert_eq!(bench.alive(), 0);
    assert!(bench.machine.port.doorbells.lock().unwrap().is_empty());
    assert_eq!(bench.driver.config::<2>(4), [0, 0]);
    bench.hand.hold.store(false, Ordering::Relaxed);
    let bench = Bench { driver: Driver::probe(&bench.machine), ..bench };
    bench.works_after_a_reset();
}

/// A backend that hangs costs the machine's reset its limit and no more; the device is as it was until it comes back.
#[test]
fn the_machines_reset_gives_up_a_backend_that_hangs() {
    let bench = Bench::new();
    bench.go();
    bench.hand.hold.store(true, Ordering::Relaxed);
    let limit = Duration::from_millis(20);
    let stuck = bench.machine.bus.reset(limit);
    assert_eq!(stuck, Err(ResetError { devices: vec!["echo".into()], limit }));
    assert_eq!(bench.alive(), 1);
    assert_ne!(bench.driver.status(), 0);
    bench.hand.let_go();
    bench.hand.hold.store(false, Ordering::Relaxed);
    bench.machine.reset();
    assert_eq!(bench.alive(), 0);
    let bench = Bench { driver: Driver::probe(&bench.machine), ..bench };
    bench.works_after_a_reset();
}

#[test]
fn a_device_that_cannot_start_needs_a_reset() {
    let bench = Bench::new();
    bench.device.refuse.store(true, Ordering::Relaxed);
    bench.go();
    assert_ne!(bench.driver.status() & NEEDS_RESET, 0);
    bench.device.refuse.store(false, Ordering::Relaxed);
    bench.hand.refuse.store(true, Ordering::Relaxed);
    bench.go();
    assert_ne!(bench.driver.status() & NEEDS_RESET, 0);
    assert_eq!(bench.alive(), 0);
    bench.hand.refuse.store(false, Ordering::Relaxed);
    bench.works_after_a_reset();
}

#[test]
fn a_broken_ring_needs_a_reset() {
    let bench = Bench::new();
    let vring = bench.go();
    use vm_memory::{Bytes, GuestAddress};
    bench.machine.memory.write_obj(0x1234u16, GuestAddress(vring.available + 2)).unwrap();
    bench.driver.kick(0);
    bench.hand.turn();
    assert!(!bench.hand.busy());
    assert_ne!(bench.driver.status() & NEEDS_RESET, 0);
    bench.works_after_a_reset();
}

#[test]
fn the_capability_window_reaches_the_registers() {
    let bench = Bench::new();
    let (driver, at) = (&bench.driver, bench.driver.window);
    let point = |offset: u32, length: u32| {
        driver.set_config(at + 4, &[0]);
        driver.set_config(at + 8, &offset.to_le_bytes());
        driver.set_config(at + 12, &length.to_le_bytes());
    };
    // Decoding may be off.
    driver.set_config(4, &[0, 0]);
    point(0x14, 1);
    driver.set_config(at + 16, &[ACKNOWLEDGE]);
    assert_eq!(driver.config_u32(at + 16) & 0xff, u32::from(ACKNOWLEDGE));
    point(0x18, 2);
    assert_eq!(driver.config_u32(at + 16) & 0xffff, 256);
    for (offset, length) in [(0x14, 3), (0x14, 8), (0x15, 2), (0x14, u32::MAX), (0x8000, 4), (u32::MAX, 1)] {
        point(offset, length);
        driver.config_u32(at + 16);
        driver.set_config(at + 16, &[0; 4]);
    }
    driver.set_config(4, &[6, 0]);
    assert_eq!(driver.status(), ACKNOWLEDGE);
}

#[test]
fn doorbells_follow_their_window() {
    let bench = Bench::new();
    let doorbells = || bench.machine.port.doorbells.lock().unwrap().iter().copied().collect::<Vec<_>>();
    let notify = bench.driver.notify.address;
    assert_eq!(doorbells(), [notify, notify + 4]);
    bench.driver.set_config(4, &[0, 0]);
    assert!(doorbells().is_empty());
    bench.driver.set_config(0x10, &0x10_0000u32.to_le_bytes());
    bench.driver.set_config(4, &[6, 0]);
    assert_eq!(doorbells(), [notify + 0x10_0000, notify + 0x10_0004]);
    bench.driver.set_config(0x14, &0u32.to_le_bytes());
    assert!(doorbells().is_empty(), "outside the bridge");
    assert!(!bench.machine.bus.write(0x10_4000, &[0, 0]));
    bench.machine.port.full.store(true, Ordering::Relaxed);
    let driver = Driver::probe(&bench.machine);
    assert!(doorbells().is_empty());
    let bench = Bench { driver, ..bench };
    bench.works_after_a_reset();
}

/// What a driver that is bound and unbound again and again does, with real threads.
#[test]
fn it_works_after_each_of_many_resets() {
    let own: Arc<dyn Workers> = Arc::new(Threads::for_each());
    let shared: Arc<dyn Workers> = Arc::new(Threads::pool(NonZeroUsize::MIN).unwrap());
    for workers in [own, shared] {
        let device = Arc::<Echo>::default();
        let machine = Machine::new(device.clone(), workers);
        let driver = Driver::probe(&machine);
        driver.enable_msix(&machine);
        for round in 0..50 {
            assert!(driver.negotiate(if round % 2 == 0 { VERSION_1 } else { VERSION_1 | EVENT_IDX }));
            assert_eq!(device.alive.load(Ordering::Relaxed), 0);
            let mut vrings = [(0, 16, 0x1000), (1, 8, 0x3000)]
                .map(|(queue, size, base)| (queue, driver.enable(&machine, queue, size, base)));
            driver.ready();
            for (queue, vring) in &mut vrings {
                let raised = machine.controller.raised(PIN + 2 + u32::from(*queue));
                vring.offer(5, &[(0x8000, 16, false), (0x9000, 16, true)]);
                driver.kick(*queue);
                eventually(|| machine.controller.raised(PIN + 2 + u32::from(*queue)) > raised);
                assert_eq!(vring.take(), Some((5, 7)));
            }
        }
        machine.reset();
        assert_eq!(device.alive.load(Ordering::Relaxed), 0);
    }
}

/// vCPUs that do not agree on who drives the device, and a worker that takes its time. There is never more than one backend:
/// [`Hand`] would say so.
#[test]
fn several_vcpus_start_and_stop_it_at_once() {
    let bench = Bench::new();
    bench.hand.hold.store(true, Ordering::Relaxed);
    let finished = AtomicBool::new(false);
    let starts = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !finished.load(Ordering::Relaxed) {
                bench.hand.turn();
                bench.hand.let_go();
            }
        });
        let vcpus = [0u8, 1, 2].map(|vcpu| {
            let (bench, starts) = (&bench, &starts);
            scope.spawn(move || {
                let driver = &bench.driver;
                for round in 0..2000 {
                    driver.set_common(0x14, &[0]);
                    driver.set_common(8, &1u32.to_le_bytes());
                    driver.set_common(0xc, &1u32.to_le_bytes());
                    driver.add_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
                    driver.set_common(0x16, &[vcpu & 1, 0]);
                    for (register, address) in [(0x20, 0x1000u64), (0x28, 0x3000), (0x30, 0x4000)] {
                        driver.write(driver.common.address + register, &address.to_le_bytes());
                    }
                    driver.set_common(0x1c, &[1, 0]);
                    driver.add_status(DRIVER_OK);
                    driver.kick(u16::from(vcpu & 1));
                    starts.fetch_add(bench.alive(), Ordering::Relaxed);
                    if round % 100 == 0 {
                        std::thread::yield_now();
                    }
                }
            })
        });
        for vcpu in vcpus {
            vcpu.join().unwrap();
        }
        bench.machine.reset();
        finished.store(true, Ordering::Relaxed);
    });
    assert!(starts.into_inner() > 0, "it was at work now and then");
    assert_eq!(bench.alive(), 0);
    bench.hand.hold.store(false, Ordering::Relaxed);
    let bench = Bench { driver: Driver::probe(&bench.machine), ..bench };
    bench.works_after_a_reset();
}
