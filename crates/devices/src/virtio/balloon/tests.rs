//! Pages go in, and only those that were named.

use super::*;
use crate::dma::Memory;
use crate::virtio::hostile;
use crate::virtio::testing::{BUFFERS, Driver, RAM, Told, ram};
use proptest::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use vm_memory::Bytes;

/// A host that notes what it gets.
struct Host {
    page: u64,
    got: Mutex<Vec<(u64, u64)>>,
}

impl Host {
    fn new(page: u64) -> Arc<Self> {
        Arc::new(Self { page, got: Mutex::default() })
    }

    fn got(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.got.lock().unwrap())
    }
}

impl Release for Host {
    fn page_size(&self) -> u64 {
        self.page
    }

    fn release(&self, _: &GuestMemoryMmap, address: GuestAddress, length: u64) -> io::Result<()> {
        assert!(length > 0 && address.0 % self.page == 0 && length % self.page == 0);
        assert!(address.0 + length <= RAM, "only memory is released");
        self.got.lock().unwrap().push((address.0, length));
        Ok(())
    }
}

const ALL: Offer = Offer { deflate_on_oom: true, reporting: true };

fn start(balloon: &Balloon, features: u64, queues: &[u16]) -> (Vec<Driver>, Box<dyn Backend>) {
    let memory: Memory = ram();
    let drivers: Vec<_> = queues.iter().map(|index| Driver::new(*index, 64, false, memory.clone())).collect();
    let mut rings: Vec<_> = (0..5).map(|_| None).collect();
    for (index, driver) in queues.iter().zip(&drivers) {
        rings[usize::from(*index)] = Some(driver.ring());
    }
    let interrupts = Arc::new(Told::default());
    let activation = Activation { memory, features, rings, interrupts };
    (drivers, balloon.activate(activation).unwrap())
}

/// Puts page numbers where a chain can have them.
fn write(driver: &Driver, pages: &[u32]) -> (u64, u32, bool) {
    let bytes: Vec<u8> = pages.iter().flat_map(|page| page.to_le_bytes()).collect();
    driver.memory.write_slice(&bytes, GuestAddress(BUFFERS)).unwrap();
    (BUFFERS, bytes.len() as u32, false)
}

#[test]
fn pages_are_released_as_runs_of_whole_pages_of_the_host() {
    for (page, wanted) in
        [(4096, &[(0x10_0000, 0x2_1000), (0x20_0000, 0x1000)][..]), (65536, &[(0x10_0000, 0x2_0000)])]
    {
        let host = Host::new(page);
        let balloon = Balloon::new(host.clone(), ALL, 0);
        let (mut drivers, mut backend) = start(&balloon, balloon.features(), &[0, 1, 4]);
        let pages: Vec<u32> = (0x100..=0x120).rev().chain([0x200, 0x200]).collect();
        let buffer = write(&drivers[0], &pages);
        drivers[0].chain(0, &[buffer]);
        backend.notified(0).unwrap();
        assert_eq!(drivers[0].take(), Some((0, 0)));
        assert_eq!(host.got(), wanted);
        // What comes out of the balloon is there when it is touched.
        let buffer = write(&drivers[1], &pages);
        drivers[1].chain(0, &[buffer]);
        backend.notified(1).unwrap();
        assert_eq!((drivers[1].take(), host.got()), (Some((0, 0)), vec![]));
    }
}

/// Linux counts the queues that it uses, the specification all.
#[test]
fn free_pages_are_released_whichever_the_queue_is() {
    for queue in [2, 4] {
        let host = Host::new(4096);
        let balloon = Balloon::new(host.clone(), ALL, 0);
        let (mut drivers, mut backend) = start(&balloon, balloon.features(), &[0, 1, queue]);
        drivers[2]
            .chain(0, &[(0x10_0000, 0x1_0000, true), (0x20_0800, 0x1000, true), (0x30_0000, 0x1800, true)]);
        backend.notified(queue).unwrap();
        assert_eq!(drivers[2].take(), Some((0, 0)));
        assert_eq!(host.got(), [(0x10_0000, 0x1_0000), (0x30_0000, 0x1000)]);
    }
}

#[test]
fn long_work_is_done_in_turns() {
    let host = Host::new(4096);
    let balloon = Balloon::new(host.clone(), ALL, 0);
    let (mut drivers, mut backend) = start(&balloon, balloon.features(), &[0, 1, 4]);
    // Ten times the pages of a turn: 0 and 2, again and again.
    let pages: Vec<u32> = (0..40960).map(|n| n % 2 * 2).collect();
    let buffer = write(&drivers[0], &pages);
    drivers[0].chain(0, &[buffer]);
    for turn in 1..=10 {
        backend.notified(0).unwrap();
        assert_eq!(host.got(), [(0, 4096), (0x2000, 4096)]);
        assert_eq!(drivers[0].take().is_some(), turn == 10);
        assert_eq!(backend.unfinished(), turn < 10);
    }
    // The same gigabytes, in words.
    let spans = vec![(0, RAM as u32, true); 40];
    drivers[2].chain(0, &spans);
    let mut bytes = 0;
    for turn in 1..=3 {
        backend.notified(4).unwrap();
        let got: u64 = host.got().iter().map(|(_, length)| length).sum();
        assert!(got <= 64 << 20);
        bytes += got;
        assert_eq!(backend.unfinished(), turn < 3);
    }
    assert_eq!((bytes, drivers[2].take()), (40 * RAM, Some((0, 0))));
}

#[test]
fn pages_that_the_guest_does_not_have_are_told() {
    for (queue, buffer) in [
        (0, None),
        (4, Some((RAM - 0x1000, 0x2000, true))),
        (4, Some((u64::MAX - 0xfff, 0x1000, true))),
        (4, Some((u64::MAX - 0xfff, 0x2000, true))),
    ] {
        let host = Host::new(4096);
        let balloon = Balloon::new(host.clone(), ALL, 0);
        let (mut drivers, mut backend) = start(&balloon, balloon.features(), &[0, 1, 4]);
        let driver = &mut drivers[usize::from(queue) / 2];
        let buffer = buffer.unwrap_or_else(|| write(driver, &[1, (RAM >> 12) as u32]));
        driver.chain(0, &[buffer]);
        let error = backend.notified(queue).unwrap_err().to_string();
        assert!(error.ends_with("on are not in memory"), "{error}");
        assert_eq!((host.got(), driver.take()), (vec![], None));
    }
}

#[test]
fn configuration_space_says_what_is_wanted_and_takes_what_is_there() {
    let balloon = Balloon::new(Host::new(4096), ALL, (64 << 20) + 4095);
    let read = |offset| {
        let mut bytes = [0xff; 8];
        balloon.config(offset, &mut bytes);
        u64::from_le_bytes(bytes)
    };
    balloon.set_config(4, &77_u32.to_le_bytes());
    assert_eq!(read(0), 77 << 32 | 64 << 8);
    assert_eq!((read(6), read(8), read(u64::MAX)), (0, 0, 0));
    assert_eq!((balloon.target(), balloon.actual()), (64 << 20, 77 * 4096));
    for (offset, data) in
        [(0, &[1, 2, 3, 4][..]), (4, &[1, 2]), (5, &[1, 2, 3, 4]), (u64::MAX, &[1]), (4, &[])]
    {
        balloon.set_config(offset, data);
    }
    assert_eq!((balloon.target(), balloon.actual()), (64 << 20, 77 * 4096));
    balloon.set_target(u64::MAX);
    assert_eq!(balloon.target(), u64::from(u32::MAX) * 4096);
}

#[test]
fn a_driver_is_told_of_a_target_while_there_is_one() {
    #[derive(Default)]
    struct Changes(AtomicUsize);
    impl Interrupts for Changes {
        fn used(&self, _: u16) {}
        fn config_changed(&self) {
            self.0.fetch_add(1, SeqCst);
        }
        fn needs_reset(&self) {}
    }
    let balloon = Balloon::new(Host::new(4096), ALL, 0);
    let changes = Arc::new(Changes::default());
    balloon.set_config(4, &[1, 0, 0, 0]);
    balloon.set_target(1 << 20);
    let activation = |features| {
        let interrupts = Arc::clone(&changes) as Arc<dyn Interrupts>;
        Activation { memory: ram(), features, rings: vec![], interrupts }
    };
    let backend = balloon.activate(activation(0)).unwrap();
    assert_eq!(balloon.actual(), 0, "a new driver has given nothing");
    balloon.set_target(2 << 20);
    assert_eq!(changes.0.load(SeqCst), 1);
    drop(backend);
    balloon.set_target(3 << 20);
    assert_eq!((changes.0.load(SeqCst), balloon.target()), (1, 3 << 20));
    assert!(balloon.activate(activation(1 << VIRTIO_F_ACCESS_PLATFORM)).is_err());
}

#[test]
fn what_is_not_offered_is_no_feature() {
    for (offer, features) in [
        (ALL, 1 << 2 | 1 << 5),
        (Offer { reporting: false, ..ALL }, 1 << 2),
        (Offer { deflate_on_oom: false, ..ALL }, 1 << 5),
    ] {
        assert_eq!(Balloon::new(Host::new(4096), offer, 0).features(), features);
    }
}

proptest! {
    /// The host above checks what it gets.
    #[test]
    fn a_hostile_driver_gets_nothing_but_a_reset(
        steps in prop::collection::vec(any::<u8>(), 0..800),
        shift in 12..17_u32,
        features in any::<u64>(),
    ) {
        let balloon = Balloon::new(Host::new(1 << shift), ALL, 0);
        _ = hostile::drive(&balloon, features & !(1 << VIRTIO_F_ACCESS_PLATFORM), &steps);
    }
}
