//! The card behind its transport, with a kernel that does what the test says.

use super::*;
use crate::virtio::net::{Net, Tap};
use crate::virtio::transport::testing::{
    DRIVER_OK, Driver, MEMORY, Machine, NEEDS_RESET, PIN, VERSION_1, WINDOW, eventually,
};
use crate::virtio::{Device, Threads, Workers};
use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

const MRG_RXBUF: u64 = 1 << VIRTIO_NET_F_MRG_RXBUF;

/// The sources of the queues' vectors.
const RX_SOURCE: u32 = PIN + 2;
const TX_SOURCE: u32 = PIN + 3;

const NO_QUEUE: [u16; 0] = [];
const NO_SOURCE: [u32; 0] = [];

/// A ring that the kernel runs, with descriptors of its own.
struct Running {
    size: u16,
    table: u64,
    kick: EventFd,
    call: OwnedFd,
    error: OwnedFd,
}

#[derive(Default)]
struct Fake {
    rings: Mutex<BTreeMap<u16, Running>>,
    features: Mutex<u64>,
    /// The call that it refuses.
    refuses: Mutex<Option<&'static str>>,
    stops: AtomicUsize,
}

impl Fake {
    fn answer(&self, call: &'static str) -> Result<(), Refused> {
        match *self.refuses.lock().unwrap() {
            Some(refused) if refused == call => {
                Err(Refused { call, source: io::Error::from_raw_os_error(libc::ENOBUFS) })
            }
            _ => Ok(()),
        }
    }

    fn running(&self) -> Vec<u16> {
        self.rings.lock().unwrap().keys().copied().collect()
    }

    fn calls(&self, queue: u16) {
        write(&self.rings.lock().unwrap()[&queue].call);
    }

    fn finds_it_broken(&self, queue: u16) {
        write(&self.rings.lock().unwrap()[&queue].error);
    }
}

fn write(event: &OwnedFd) {
    rustix::io::write(event, &1u64.to_ne_bytes()).unwrap();
}

impl Kernel for Fake {
    fn begin(&self, features: u64, memory: &GuestMemoryMmap) -> Result<(), Refused> {
        use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};
        assert_eq!(self.running(), NO_QUEUE, "no ring runs");
        assert_eq!(memory.iter().map(GuestMemoryRegion::len).sum::<u64>(), MEMORY);
        *self.features.lock().unwrap() = features;
        self.answer("begin")
    }

    fn start(&self, vring: &Vring<'_>, _tap: BorrowedFd<'_>) -> Result<(), Refused> {
        let running = Running {
            size: vring.ring.size(),
            table: vring.ring.desc_table(),
            kick: vring.kick.try_clone().unwrap(),
            call: vring.call.try_clone_to_owned().unwrap(),
            error: vring.error.try_clone_to_owned().unwrap(),
        };
        let before = self.rings.lock().unwrap().insert(vring.queue, running);
        assert!(before.is_none(), "it runs already");
        self.answer(if vring.queue == 0 { "start 0" } else { "start 1" })
    }

    fn stop(&self, queue: u16) -> Result<u16, Refused> {
        assert!(self.rings.lock().unwrap().remove(&queue).is_some(), "it does not run");
        self.stops.fetch_add(1, Ordering::Relaxed);
        self.answer("stop").map(|()| 7)
    }
}

struct Bench {
    machine: Machine,
    kernel: Arc<Fake>,
    driver: Driver,
}

impl Bench {
    fn new() -> Self {
        Self::on(Machine::new)
    }

    fn on(machine: impl FnOnce(Arc<dyn Device>, Arc<dyn Workers>) -> Machine) -> Self {
        let kernel = Arc::<Fake>::default();
        let tap = UnixDatagram::unbound().unwrap();
        tap.set_nonblocking(true).unwrap();
        let net = Net::new("tap0", Tap::stand_in(tap), [0x52, 0x54, 0, 0, 0, 1]);
        let net = Net { vhost: Some(kernel.clone()), ..net };
        let machine = machine(Arc::new(net), Arc::new(Threads::for_each(0)));
        let driver = Driver::probe(&machine);
        driver.enable_msix(&machine);
        Self { machine, kernel, driver }
    }

    /// Up to DRIVER_OK.
    fn go(&self) {
        assert!(self.driver.negotiate(VERSION_1 | MRG_RXBUF));
        self.driver.set_common(0x10, &0u16.to_le_bytes());
        self.driver.enable(&self.machine, 0, 64, 0x1000);
        self.driver.enable(&self.machine, 1, 16, 0x4000);
        self.driver.ready();
    }

    fn raised(&self, source: u32) -> usize {
        self.machine.controller.raised(source)
    }

    /// Vector 1, the receive queue's, in the table.
    fn mask(&self, masked: bool) {
        use crate::pci::Function;
        self.machine.function.write(2, 16 + 12, &u32::from(masked).to_le_bytes());
    }

    fn is_pending(&self) -> bool {
        use crate::pci::Function;
        let mut bits = [0; 4];
        self.machine.function.read(2, 2048, &mut bits);
        bits[0] & 2 != 0
    }
}

#[test]
fn the_kernel_runs_the_rings_from_driver_ok_to_the_reset() {
    let bench = Bench::new();
    for round in 1..4 {
        bench.go();
        assert_eq!(*bench.kernel.features.lock().unwrap(), VERSION_1 | MRG_RXBUF);
        {
            let rings = bench.kernel.rings.lock().unwrap();
            assert_eq!((rings[&0].size, rings[&0].table), (64, 0x1000));
            assert_eq!((rings[&1].size, rings[&1].table), (16, 0x4000));
            for ring in rings.values() {
                assert_eq!(ring.kick.read().unwrap(), 1, "it looks once by itself");
            }
        }
        bench.driver.kick(1);
        // The thread does not take it away.
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!(bench.kernel.rings.lock().unwrap()[&1].kick.read().unwrap(), 1);
        bench.driver.reset();
        assert_eq!((bench.kernel.running(), bench.kernel.stops.load(Ordering::Relaxed)), (vec![], 2 * round));
    }
}

#[test]
fn what_the_driver_did_not_enable_does_not_run() {
    let bench = Bench::new();
    assert!(bench.driver.negotiate(VERSION_1));
    bench.driver.enable(&bench.machine, 1, 16, 0x4000);
    bench.driver.ready();
    assert_eq!(bench.kernel.running(), [1]);
    bench.driver.reset();
    assert_eq!(bench.kernel.running(), NO_QUEUE);
}

#[test]
fn the_thread_raises_where_the_controller_hears_no_eventfd() {
    let bench = Bench::new();
    bench.go();
    for round in 1..4 {
        bench.kernel.calls(0);
        eventually(|| bench.raised(RX_SOURCE) == round);
        bench.kernel.calls(1);
        eventually(|| bench.raised(TX_SOURCE) == round);
    }
    bench.mask(true);
    bench.kernel.calls(0);
    eventually(|| bench.is_pending());
    assert_eq!(bench.raised(RX_SOURCE), 3);
    bench.mask(false);
    assert_eq!((bench.raised(RX_SOURCE), bench.is_pending()), (4, false));
}

#[test]
fn an_eventfd_is_bound_to_where_its_vector_leads() {
    use crate::pci::Function;
    use irq::Message;
    let bench = Bench::new();
    let controller = &bench.machine.controller;
    controller.hears.store(true, Ordering::Relaxed);
    assert_eq!(controller.bound(), NO_SOURCE);
    bench.go();
    assert_eq!(controller.bound(), [RX_SOURCE, TX_SOURCE]);
    // Behind a mask it is the thread that keeps it.
    bench.mask(true);
    assert_eq!(controller.bound(), [TX_SOURCE]);
    bench.kernel.calls(0);
    eventually(|| bench.is_pending());
    bench.mask(false);
    assert_eq!((controller.bound(), bench.raised(RX_SOURCE)), (vec![RX_SOURCE, TX_SOURCE], 1));
    // Another message, another source; a message that leads nowhere.
    let function = &bench.machine.function;
    function.set_message(1, Message { address: 0x1_0000_0000, data: 500 });
    assert_eq!(controller.bound(), [TX_SOURCE, 500]);
    function.set_message(1, Message::default());
    assert_eq!(controller.bound(), [TX_SOURCE]);
    // Another vector; both queues have the same then.
    bench.driver.select(0);
    bench.driver.set_common(0x1a, &2u16.to_le_bytes());
    assert_eq!(controller.bound(), [TX_SOURCE, TX_SOURCE]);
    function.enable_messages(false);
    assert_eq!(controller.bound(), NO_SOURCE);
    function.enable_messages(true);
    assert_eq!(controller.bound(), [TX_SOURCE, TX_SOURCE]);
    bench.driver.reset();
    assert_eq!(controller.bound(), NO_SOURCE);
    bench.driver.enable_msix(&bench.machine);
    bench.go();
    assert_eq!(controller.bound(), [RX_SOURCE, TX_SOURCE]);
    bench.machine.reset();
    assert_eq!((controller.bound(), bench.kernel.running()), (vec![], vec![]));
}

/// Vectors that come and go on one thread, calls on another, and the device's whole life on a third.
#[test]
fn changes_at_once_end_as_the_last_one_says() {
    use std::sync::atomic::AtomicBool;
    let bench = Bench::new();
    bench.machine.controller.hears.store(true, Ordering::Relaxed);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                bench.mask(true);
                bench.mask(false);
            }
        });
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                bench.kernel.rings.lock().unwrap().values().for_each(|ring| write(&ring.call));
                std::thread::yield_now();
            }
        });
        for _ in 0..100 {
            bench.go();
            bench.driver.reset();
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!((bench.kernel.running(), bench.machine.controller.bound()), (vec![], vec![]));
    bench.go();
    assert_eq!(bench.machine.controller.bound(), [RX_SOURCE, TX_SOURCE]);
}

#[test]
fn without_messages_it_is_the_pin() {
    use crate::pci::Function;
    let bench = Bench::new();
    bench.machine.controller.hears.store(true, Ordering::Relaxed);
    bench.machine.function.enable_messages(false);
    bench.go();
    assert_eq!(bench.machine.controller.bound(), NO_SOURCE);
    bench.kernel.calls(1);
    eventually(|| bench.machine.controller.level(PIN));
}

#[test]
fn a_broken_ring_needs_a_reset() {
    let bench = Bench::new();
    for _ in 0..3 {
        bench.go();
        let told = bench.raised(PIN + 1);
        bench.kernel.finds_it_broken(1);
        eventually(|| bench.driver.status() & NEEDS_RESET != 0);
        assert_eq!(bench.kernel.running(), NO_QUEUE, "it has stopped before");
        eventually(|| bench.raised(PIN + 1) == told + 1);
        bench.driver.reset();
        assert_eq!(bench.driver.status(), 0);
    }
}

#[test]
fn what_the_kernel_refuses_needs_a_reset() {
    let bench = Bench::new();
    bench.machine.controller.hears.store(true, Ordering::Relaxed);
    for refused in ["begin", "start 0", "start 1"] {
        *bench.kernel.refuses.lock().unwrap() = Some(refused);
        bench.go();
        assert_eq!(bench.driver.status() & (NEEDS_RESET | DRIVER_OK), NEEDS_RESET | DRIVER_OK, "{refused}");
        assert_eq!((bench.kernel.running(), bench.machine.controller.bound()), (vec![], vec![]));
        bench.driver.reset();
    }
    // What cannot be stopped is no reason not to go on.
    *bench.kernel.refuses.lock().unwrap() = Some("stop");
    bench.go();
    assert_eq!(bench.driver.status() & NEEDS_RESET, 0);
    bench.driver.reset();
    bench.go();
    assert_eq!(bench.kernel.running(), [0, 1]);
}

#[test]
fn a_ring_outside_memory_is_never_the_kernels() {
    let bench = Bench::new();
    for base in [MEMORY, u64::MAX - 0xffff, WINDOW] {
        assert!(bench.driver.negotiate(VERSION_1));
        bench.driver.enable_through(base, &bench.machine, 0, 64, 0x1000);
        bench.driver.ready();
        assert_eq!((bench.driver.status() & NEEDS_RESET, bench.kernel.running()), (NEEDS_RESET, vec![]));
    }
}

#[test]
fn translated_addresses_are_not_for_the_kernel() {
    let bench = Bench::on(Machine::translated);
    assert!(bench.driver.negotiate(VERSION_1 | 1 << VIRTIO_F_ACCESS_PLATFORM));
    bench.driver.enable_through(WINDOW, &bench.machine, 0, 64, 0x1000);
    bench.driver.ready();
    assert_eq!((bench.driver.status() & NEEDS_RESET, bench.kernel.running()), (NEEDS_RESET, vec![]));
}

#[test]
fn a_refusal_is_one_line_that_says_which_call_it_was() {
    let refused = Refused { call: "VHOST_SET_MEM_TABLE", source: io::Error::from_raw_os_error(libc::E2BIG) };
    let text = io::Error::from(refused).to_string();
    assert_eq!(text, "vhost: VHOST_SET_MEM_TABLE: Argument list too long (os error 7)");
}
