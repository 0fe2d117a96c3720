//! The card against a driver, with a socket of datagrams for a tap; [`host`] has a real one.

mod around;
mod host;
mod hostile;
mod vhost;

use super::*;
use crate::dma::Memory;
use crate::virtio::testing::{BUFFERS, Driver, RAM, ram};
use std::os::unix::net::UnixDatagram;
use virtio_queue::QueueT;
use vm_memory::{Bytes, GuestAddress};

/// Merged receive buffers, as every driver of today has them.
const MERGED: u64 = bit(VIRTIO_NET_F_MRG_RXBUF);

/// A card's queues, their driver, and the other end of what stands in for the tap.
pub struct Bench {
    drivers: [Driver; 2],
    /// Where the next chain's descriptors go.
    next: [u16; 2],
    queues: Box<dyn Backend>,
    net: Net,
    wire: UnixDatagram,
}

impl Bench {
    fn new(size: u16, features: u64) -> Self {
        Self::with(size, features, false)
    }

    fn with(size: u16, features: u64, event_idx: bool) -> Self {
        Self::in_memory(ram(), (size, event_idx), features)
    }

    fn in_memory(memory: Memory, queues: (u16, bool), features: u64) -> Self {
        let (ours, wire) = UnixDatagram::pair().unwrap();
        for end in [&ours, &wire] {
            end.set_nonblocking(true).unwrap();
            nix::sys::socket::setsockopt(end, nix::sys::socket::sockopt::SndBuf, &(1 << 20)).unwrap();
        }
        Self::at((Tap::stand_in(ours), wire), memory, queues, features)
    }

    /// `wire` is nothing where `tap` is a real one.
    fn at(
        (tap, wire): (Tap, UnixDatagram),
        memory: Memory,
        (size, event_idx): (u16, bool),
        features: u64,
    ) -> Self {
        let net = Net::new("tap0", tap, [0x52, 0x54, 0, 0x12, 0x34, 0x56]);
        let drivers = [RX, TX].map(|queue| Driver::new(queue, size, event_idx, memory.clone()));
        let rings = drivers.iter().map(|driver| Some(driver.ring())).collect();
        let interrupts = drivers[0].told.clone();
        let queues = net.activate(Activation { memory, features, rings, interrupts }).unwrap();
        Self { drivers, next: [0; 2], queues, net, wire }
    }

    /// Makes a chain available, and says its head.
    fn add(&mut self, queue: usize, chain: &[(u64, u32, bool)]) -> u16 {
        let (driver, next) = (&mut self.drivers[queue], &mut self.next[queue]);
        let head = *next;
        driver.chain(head, chain);
        *next = (head + chain.len() as u16) % driver.queue().size();
        head
    }

    /// What came back since the last time.
    fn used(&mut self, queue: usize) -> Vec<(u16, u32)> {
        std::iter::from_fn(|| self.drivers[queue].take()).collect()
    }

    fn told(&self, queue: usize) -> usize {
        self.drivers[queue].told.used.load(Ordering::Relaxed)
    }

    fn write(&self, address: u64, data: &[u8]) {
        self.drivers[0].memory.write_slice(data, GuestAddress(address)).unwrap();
    }

    fn read(&self, address: u64, length: usize) -> Vec<u8> {
        let mut data = vec![0; length];
        self.drivers[0].memory.read_slice(&mut data, GuestAddress(address)).unwrap();
        data
    }

    /// What the worker does as long as there is something to do.
    fn run(&mut self) -> Result<(), NeedsReset> {
        while self.queues.listens(0) && is_readable(self.queues.sources()[0]) {
            self.queues.ready(0)?;
        }
        while self.queues.unfinished() {
            self.queues.notified(RX)?;
            self.queues.notified(TX)?;
        }
        Ok(())
    }

    /// The driver notifies of a queue.
    fn notify(&mut self, queue: u16) {
        self.queues.notified(queue).unwrap();
        self.run().unwrap();
    }

    fn arrives(&mut self, packet: &[u8]) {
        self.wire.send(packet).unwrap();
        self.run().unwrap();
    }

    fn counted(&self, of: impl Fn(&Counters) -> &std::sync::atomic::AtomicU64) -> u64 {
        of(self.net.counters()).load(Ordering::Relaxed)
    }
}

pub fn is_readable(file: BorrowedFd<'_>) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    poll(&mut [PollFd::new(file, PollFlags::POLLIN)], PollTimeout::ZERO).unwrap() > 0
}

fn readable(address: u64, length: u32) -> (u64, u32, bool) {
    (address, length, false)
}

fn writable(address: u64, length: u32) -> (u64, u32, bool) {
    (address, length, true)
}

/// A packet with its header, of `length` bytes without it.
fn packet(length: usize) -> Vec<u8> {
    let header = [0; 12].into_iter();
    header.chain((0..length).map(|n| (n * 7 + n / 256) as u8)).collect()
}

/// What the guest finds: the packet, and in its header how many buffers it has.
fn with_buffers(mut packet: Vec<u8>, buffers: u16) -> Vec<u8> {
    packet[10..12].copy_from_slice(&buffers.to_le_bytes());
    packet
}

#[test]
fn a_packet_is_sent_from_all_its_buffers() {
    let mut bench = Bench::new(16, MERGED);
    let sent = packet(1000);
    bench.write(BUFFERS, &sent[..12]);
    bench.write(BUFFERS + 0x1000, &sent[12..500]);
    // Up to the end of memory.
    let last = RAM - 512;
    bench.write(last, &sent[500..]);
    let chain = [readable(BUFFERS, 12), readable(BUFFERS + 0x1000, 488), readable(last, 512)];
    let head = bench.add(1, &chain);
    bench.notify(TX);
    let mut got = [0; 2000];
    let length = bench.wire.recv(&mut got).unwrap();
    assert_eq!(got[..length], sent);
    assert_eq!(bench.used(1), [(head, 0)]);
    assert_eq!(bench.told(1), 1);
    assert!(bench.drivers[1].device_wants(0));
    assert_eq!((bench.counted(|c| &c.tx_packets), bench.counted(|c| &c.tx_bytes)), (1, 1000));
}

#[test]
fn a_packet_comes_in_one_buffer() {
    for features in [0, MERGED] {
        let mut bench = Bench::new(16, features);
        let head = bench.add(0, &[writable(BUFFERS, 12), writable(BUFFERS + 0x1000, 1600)]);
        bench.notify(RX);
        bench.arrives(&packet(1000));
        assert_eq!(bench.used(0), [(head, 1012)]);
        let expected = with_buffers(packet(1000), 1);
        assert_eq!(bench.read(BUFFERS, 12), expected[..12]);
        assert_eq!(bench.read(BUFFERS + 0x1000, 1000), expected[12..]);
        assert_eq!(bench.told(0), 1);
    }
}

#[test]
fn a_large_packet_comes_in_several_chains() {
    let mut bench = Bench::new(64, MERGED);
    let heads: Vec<u16> = (0..60).map(|n| bench.add(0, &[writable(BUFFERS + n * 1536, 1536)])).collect();
    bench.notify(RX);
    for round in 0..2 {
        let sent = packet(20_000);
        bench.arrives(&sent);
        let used = bench.used(0);
        assert_eq!(used.len(), 20_012usize.div_ceil(1536));
        let first = round * used.len();
        let same = used.iter().zip(&heads[first..]).all(|(used, head)| used.0 == *head);
        assert!(same, "buffers are used in order");
        assert_eq!(used.iter().map(|used| used.1 as usize).sum::<usize>(), sent.len());
        let got = bench.read(BUFFERS + first as u64 * 1536, sent.len());
        assert_eq!(got, with_buffers(sent, used.len() as u16));
    }
}

#[test]
fn without_buffers_the_tap_is_left_alone_until_there_are_some() {
    let mut bench = Bench::new(16, MERGED);
    bench.notify(RX);
    assert!(!bench.queues.listens(0));
    bench.arrives(&packet(100));
    assert!(bench.drivers[0].device_wants(0));
    let head = bench.add(0, &[writable(BUFFERS, 2048)]);
    bench.notify(RX);
    assert_eq!(bench.used(0), [(head, 112)]);
    assert!(!bench.queues.listens(0), "that was the only one");
}

#[test]
fn a_packet_waits_for_the_rest_of_its_buffers() {
    let mut bench = Bench::new(16, MERGED);
    for n in 0..3 {
        bench.add(0, &[writable(BUFFERS + n * 1024, 1024)]);
    }
    bench.notify(RX);
    let sent = packet(5000);
    bench.arrives(&sent);
    bench.arrives(&packet(64));
    assert_eq!(bench.used(0), []);
    assert!(!bench.queues.listens(0));
    for n in 3..6 {
        bench.add(0, &[writable(BUFFERS + n * 1024, 1024)]);
        bench.notify(RX);
    }
    let lengths: Vec<u32> = bench.used(0).iter().map(|used| used.1).collect();
    assert_eq!(lengths, [1024, 1024, 1024, 1024, 5012 - 4096, 76]);
    assert_eq!(bench.read(BUFFERS, 5012), with_buffers(sent, 5));
    assert_eq!(bench.counted(|c| &c.rx_dropped), 0);
}

#[test]
fn a_packet_that_no_buffers_can_hold_is_dropped() {
    let mut bench = Bench::new(4, MERGED);
    for n in 0..4 {
        bench.add(0, &[writable(BUFFERS + n * 1024, 1024)]);
    }
    bench.notify(RX);
    bench.arrives(&packet(5000));
    bench.arrives(&packet(500));
    assert_eq!(bench.used(0), [(0, 512)]);
    assert_eq!(bench.counted(|c| &c.rx_dropped), 1);
}

#[test]
fn without_merging_a_packet_has_one_chain_or_is_dropped() {
    let mut bench = Bench::new(16, 0);
    for n in 0..2 {
        bench.add(0, &[writable(BUFFERS + n * 2048, 1526)]);
    }
    bench.notify(RX);
    bench.arrives(&packet(1600));
    assert_eq!(bench.used(0), []);
    bench.arrives(&packet(1514));
    assert_eq!(bench.used(0), [(0, 1526)]);
    assert_eq!(bench.counted(|c| &c.rx_dropped), 1);
}

#[test]
fn a_turn_is_limited_and_the_rest_follows() {
    let mut bench = Bench::new(256, MERGED);
    for _ in 0..256 {
        bench.add(0, &[writable(BUFFERS, 2048)]);
    }
    bench.queues.notified(RX).unwrap();
    for _ in 0..100 {
        bench.wire.send(&packet(60)).unwrap();
    }
    bench.queues.ready(0).unwrap();
    assert_eq!(bench.used(0).len(), 64);
    assert!(bench.queues.listens(0));
    bench.run().unwrap();
    assert_eq!(bench.used(0).len(), 36);
    for _ in 0..256 {
        bench.add(1, &[readable(BUFFERS, 0)]);
    }
    bench.queues.notified(TX).unwrap();
    assert!(bench.queues.unfinished(), "it has not looked whether there are more");
    bench.run().unwrap();
    assert!(!bench.queues.unfinished());
    assert_eq!(bench.used(1).len(), 256);
}

#[test]
fn what_came_before_the_driver_is_not_for_it() {
    let (ours, wire) = UnixDatagram::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    wire.send(&packet(100)).unwrap();
    let tap = Tap::stand_in(ours);
    tap.begin(0).unwrap();
    assert!(!is_readable(tap.as_fd()));
}

#[test]
fn the_config_space_is_as_the_driver_reads_it() {
    let bench = Bench::new(16, 0);
    let read = |offset, length| {
        let mut data = vec![0xee; length];
        bench.net.config(offset, &mut data);
        data
    };
    assert_eq!(read(0, 14), [0x52, 0x54, 0, 0x12, 0x34, 0x56, 1, 0, 1, 0, 0xdc, 0x05, 0, 0]);
    assert_eq!(read(10, 2), 1500u16.to_le_bytes());
    assert_eq!(read(u64::MAX, 4), [0; 4]);
    assert_eq!(
        (bench.net.name(), bench.net.kind(), bench.net.queues()),
        ("net tap0", Kind::Net, &QUEUES[..])
    );
}

#[test]
fn offloads_are_what_the_kernel_takes() {
    let guest = |features: &[u32]| offloads(features.iter().fold(0, |all, feature| all | bit(*feature)));
    assert_eq!(guest(&[VIRTIO_NET_F_GUEST_TSO4]), 0, "nothing goes without checksums");
    assert_eq!(guest(&[VIRTIO_NET_F_GUEST_CSUM]), libc::TUN_F_CSUM);
    assert_eq!(guest(&[VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN]), libc::TUN_F_CSUM);
    assert_eq!(guest(&[VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_USO4]), libc::TUN_F_CSUM);
    let tso = [VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_ECN];
    assert_eq!(guest(&tso), libc::TUN_F_CSUM | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN);
    // What the driver may send is its own affair.
    assert_eq!(guest(&[VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_TSO4]), 0);
}
