//! The card at a real tap, in a network namespace of the test's own. That needs /dev/net/tun and CAP_SYS_ADMIN (as
//! root, or under `unshare -Urn` where the node is everybody's); elsewhere these tests say that they did nothing.

use super::*;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket;
use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};

const GUEST: [u8; 4] = [10, 99, 0, 2];
pub const HOST: [u8; 4] = [10, 99, 0, 1];
const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
pub const PORT: u16 = 5001;

/// What a driver of today negotiates.
const FEATURES: u64 = MERGED
    | bit(VIRTIO_NET_F_CSUM)
    | bit(VIRTIO_NET_F_GUEST_CSUM)
    | bit(VIRTIO_NET_F_GUEST_TSO4)
    | bit(VIRTIO_NET_F_GUEST_TSO6)
    | bit(VIRTIO_NET_F_GUEST_USO4)
    | bit(VIRTIO_NET_F_GUEST_USO6)
    | bit(VIRTIO_NET_F_HOST_USO);

/// Runs `test` on a thread in a new network namespace, or says why not.
pub fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET) {
            return eprintln!("skipped: no network namespace of its own ({errno})");
        }
        match Tap::open("probe0") {
            Err(error @ (TapError::NoTun(_) | TapError::Closed(_))) => eprintln!("skipped: {error}"),
            opened => {
                drop(opened.unwrap());
                test();
            }
        }
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// ip(8); `false` if there is none.
pub fn ip(arguments: &str) -> bool {
    match Command::new("ip").args(arguments.split(' ')).status() {
        Ok(status) => {
            assert!(status.success(), "ip {arguments}");
            true
        }
        Err(error) => {
            eprintln!("skipped: ip(8) does not run ({error})");
            false
        }
    }
}

/// A card at tap `t0`, on whose host's side there is [`HOST`].
fn bench(features: u64) -> Option<Bench> {
    let tap = Tap::open("t0").unwrap();
    if !(ip("addr add 10.99.0.1/24 dev t0") && ip("link set lo up")) {
        return None;
    }
    ip("neigh add 10.99.0.2 lladdr 52:54:00:12:34:56 dev t0");
    let mut bench = Bench::at((tap, UnixDatagram::unbound().unwrap()), ram(), (256, true), features);
    for n in 0..200 {
        bench.add(0, &[writable(BUFFERS + n * 2048, 1536)]);
    }
    bench.notify(RX);
    Some(bench)
}

fn sum(data: &[u8]) -> u16 {
    let words = data.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    ((folded & 0xffff) + (folded >> 16)) as u16
}

/// A UDP packet to the host with virtio's header; its checksum is left to the other end, and if `segment` is not 0,
/// so are segments of that many bytes.
pub fn udp(to: [u8; 6], payload: &[u8], segment: u16) -> Vec<u8> {
    let length = 8 + payload.len() as u16;
    let mut ip = vec![0x45, 0];
    ip.extend((20 + length).to_be_bytes());
    ip.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    ip.extend([GUEST, HOST].concat());
    let checksum = !sum(&ip);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let pseudo = [&GUEST[..], &HOST, &[0, 17], &length.to_be_bytes()].concat();
    // VIRTIO_NET_HDR_F_NEEDS_CSUM from byte 34, to be put 6 bytes behind.
    let gso = if segment == 0 { 0 } else { 5 };
    let mut packet = vec![1, gso, 42, 0];
    packet.extend(segment.to_le_bytes());
    packet.extend([34, 0, 6, 0, 0, 0]);
    packet.extend([&to[..], &MAC, &[8, 0], &ip].concat());
    packet.extend([PORT, PORT].map(u16::to_be_bytes).concat());
    packet.extend(length.to_be_bytes());
    packet.extend(sum(&pseudo).to_be_bytes());
    packet.extend(payload);
    packet
}

impl Bench {
    fn send(&mut self, packet: &[u8]) {
        self.write(0x30_0000, packet);
        self.add(1, &[readable(0x30_0000, packet.len() as u32)]);
        self.notify(TX);
    }

    /// The next UDP packet to the guest, virtio's header included, and in how many buffers it came.
    fn receive_udp(&mut self, buffer: &mut u64) -> (Vec<u8>, usize) {
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            self.run().unwrap();
            let Some((_, first)) = self.drivers[0].take() else { continue };
            let at = |buffer: u64| BUFFERS + buffer * 2048;
            let mut packet = self.read(at(*buffer), first as usize);
            let buffers = u16::from_le_bytes([packet[10], packet[11]]).into();
            *buffer += 1;
            for _ in 1..buffers {
                let (_, length) = self.drivers[0].take().expect("all buffers of a packet come at once");
                packet.extend(self.read(at(*buffer), length as usize));
                *buffer += 1;
            }
            // IPv6 has things to say on any new interface.
            if packet[24..26] == [8, 0] && packet[35] == 17 {
                return (packet, buffers);
            }
        }
        panic!("no packet for the guest in 10 s");
    }
}

/// The address of the host's end.
fn host_mac() -> [u8; 6] {
    let text = Command::new("ip").args(["-o", "link", "show", "t0"]).output().unwrap().stdout;
    let text = String::from_utf8(text).unwrap();
    let mut bytes = text.split("link/ether ").nth(1).unwrap()[..17].split(':');
    [(); 6].map(|()| u8::from_str_radix(bytes.next().unwrap(), 16).unwrap())
}

#[test]
fn packets_go_both_ways() {
    in_namespace(|| {
        let Some(mut bench) = bench(FEATURES) else { return };
        assert_eq!(bench.net.shared.tap.mtu(), 1500);
        let host = UdpSocket::bind((std::net::Ipv4Addr::from(HOST), PORT)).unwrap();
        host.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        bench.send(&udp(host_mac(), b"from the guest", 0));
        let mut got = [0; 4096];
        let (length, from) = host.recv_from(&mut got).unwrap();
        assert_eq!(&got[..length], b"from the guest");
        assert_eq!(from.to_string(), "10.99.0.2:5001");

        host.send_to(b"from the host", from).unwrap();
        let mut buffer = 0;
        let (packet, buffers) = bench.receive_udp(&mut buffer);
        assert_eq!((&packet[12 + 42..], buffers), (&b"from the host"[..], 1));
        assert_eq!(packet[12..18], MAC);
        assert_eq!(packet[0], 1, "the guest is to do the checksum, as it offered");
    });
}

#[test]
fn large_packets_go_in_one_piece_both_ways() {
    in_namespace(|| {
        let Some(mut bench) = bench(FEATURES) else { return };
        if bench.net.features() & bit(VIRTIO_NET_F_HOST_USO) == 0 {
            return eprintln!("skipped: this kernel has no UDP segmentation for taps");
        }
        let host = UdpSocket::bind((std::net::Ipv4Addr::from(HOST), PORT)).unwrap();
        host.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let payload: Vec<u8> = (0..5000).map(|n| (n / 7) as u8).collect();
        bench.send(&udp(host_mac(), &payload, 1000));
        let mut got = [0; 8192];
        for part in payload.chunks(1000) {
            let length = host.recv(&mut got).unwrap();
            assert_eq!(&got[..length], part);
        }
        socket::setsockopt(&host, socket::sockopt::UdpGsoSegment, &1000).unwrap();
        host.send_to(&payload, (std::net::Ipv4Addr::from(GUEST), PORT)).unwrap();
        let mut buffer = 0;
        let (packet, buffers) = bench.receive_udp(&mut buffer);
        assert_eq!((&packet[12 + 42..], buffers), (&payload[..], 4));
        assert_eq!(packet[1] & !0x80, 5, "VIRTIO_NET_HDR_GSO_UDP_L4");
    });
}

#[test]
fn wrong_headers_are_dropped_packets() {
    in_namespace(|| {
        let Some(mut bench) = bench(FEATURES) else { return };
        let mut packet = udp([0xff; 6], &[0; 100], 0);
        // A kind of segments that there is not.
        packet[1] = 0x7f;
        bench.send(&packet);
        // A checksum behind the packet's end.
        (packet[1], packet[7]) = (0, 0xff);
        bench.send(&packet);
        // Segments of no bytes.
        (packet[1], packet[4], packet[5], packet[7]) = (1, 0, 0, 0);
        bench.send(&packet);
        assert_eq!(bench.counted(|c| &c.tx_dropped), 3);
        assert_eq!(bench.used(1).len(), 3);
        bench.send(&udp([0xff; 6], &[0; 100], 0));
        assert_eq!((bench.counted(|c| &c.tx_dropped), bench.counted(|c| &c.tx_packets)), (3, 1));
    });
}

#[test]
fn a_tap_is_one_vms() {
    in_namespace(|| {
        let first = Tap::open("t0").unwrap();
        assert!(matches!(Tap::open("t0"), Err(TapError::Busy(_))));
        drop(first);
        assert!(Tap::open("t0").is_ok());
        assert!(matches!(Tap::open("lo"), Err(TapError::Kind(_))));
        if ip("tuntap add dev many mode tap multi_queue") {
            assert!(matches!(Tap::open("many"), Err(TapError::Kind(_))));
            ip("tuntap add dev kept mode tap");
            assert!(Tap::open("kept").is_ok());
            assert!(Tap::open("kept").is_ok(), "it is still there, and nobody's");
        }
    });
}

#[test]
fn a_tap_that_goes_away_takes_the_link_down_and_nothing_else() {
    in_namespace(|| {
        let Some(mut bench) = bench(FEATURES) else { return };
        assert!(ip("link del t0"));
        assert!(is_readable(bench.queues.sources()[0]), "it has an error, which wakes the thread");
        bench.run().unwrap();
        assert!(!bench.queues.listens(0));
        let mut status = [0xff; 2];
        bench.net.config(6, &mut status);
        assert_eq!(status, [0, 0]);
        bench.send(&udp([0xff; 6], &[0; 100], 0));
        assert_eq!(bench.counted(|c| &c.tx_dropped), 1);
    });
}
