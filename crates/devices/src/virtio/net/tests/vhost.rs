//! The card with the kernel's own vhost at a real tap, behind its transport. Beside what [`host`](super::host) needs this needs
//! /dev/vhost-net; elsewhere these tests say that they did nothing.

use super::host::{HOST, PORT, in_namespace, ip, udp};
use super::*;
use crate::virtio::Threads;
use crate::virtio::transport::testing::{Driver, Machine, NEEDS_RESET, PIN, VERSION_1, Vring, eventually};
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

/// Where the receive buffers are, and the packets to send.
const RECEIVE: u64 = 0x10_0000;
const SEND: u64 = 0x20_0000;

struct Card {
    machine: Machine,
    driver: Driver,
}

/// A card at tap `t0`, on whose host's side there is [`HOST`].
fn card() -> Option<Card> {
    let vhost = match VhostNet::open() {
        Ok(vhost) => vhost,
        Err(error @ (VhostError::Missing(_) | VhostError::Permission(_))) => {
            eprintln!("skipped: {error}");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let tap = Tap::open("t0").unwrap();
    if !(ip("addr add 10.99.0.1/24 dev t0") && ip("link set lo up")) {
        return None;
    }
    let net = Net::new("t0", tap, [0x52, 0x54, 0, 0x12, 0x34, 0x56]).with_vhost(vhost);
    let machine = Machine::new(Arc::new(net), Arc::new(Threads::for_each(0)));
    let driver = Driver::probe(&machine);
    driver.enable_msix(&machine);
    Some(Card { machine, driver })
}

impl Card {
    fn go(&self) -> [Vring; 2] {
        assert!(self.driver.negotiate(VERSION_1 | MERGED | bit(VIRTIO_NET_F_CSUM)));
        let rings = [(RX, 0x1000), (TX, 0x8000)];
        let rings = rings.map(|(queue, base)| self.driver.enable(&self.machine, queue, 64, base));
        self.driver.ready();
        rings
    }

    fn raised(&self, queue: u16) -> usize {
        self.machine.controller.raised(PIN + 2 + u32::from(queue))
    }

    fn is_broken(&self) -> bool {
        self.driver.status() & NEEDS_RESET != 0
    }

    /// A packet there and one back.
    fn works(&self) {
        let [mut rx, mut tx] = self.go();
        for n in 0..32 {
            rx.offer(n, &[(RECEIVE + u64::from(n) * 2048, 2048, true)]);
        }
        self.driver.kick(RX);
        let host = UdpSocket::bind((Ipv4Addr::from(HOST), PORT)).unwrap();
        host.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let packet = udp([0xff; 6], b"from the guest", 0);
        self.machine.memory.write_slice(&packet, GuestAddress(SEND)).unwrap();
        let before = (self.raised(RX), self.raised(TX));
        tx.offer(0, &[(SEND, packet.len() as u32, false)]);
        self.driver.kick(TX);
        let mut got = [0; 64];
        let (length, _) = host.recv_from(&mut got).unwrap();
        assert_eq!(&got[..length], b"from the guest");
        eventually(|| self.raised(TX) > before.1);
        assert_eq!(tx.take(), Some((0, 0)));

        // To all, which needs no question for an address.
        host.set_broadcast(true).unwrap();
        host.send_to(b"from the host", (Ipv4Addr::from([10, 99, 0, 255]), PORT)).unwrap();
        eventually(|| self.raised(RX) > before.0);
        let mut found = false;
        for _ in 0..100 {
            while let Some((head, length)) = rx.take() {
                let mut packet = vec![0; length as usize];
                let at = RECEIVE + u64::from(head) * 2048;
                self.machine.memory.read_slice(&mut packet, GuestAddress(at)).unwrap();
                // IPv6 has things to say on any new interface.
                found |= packet.ends_with(b"from the host");
            }
            if found {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(found, "the host's packet has not come");
    }
}

#[test]
fn the_kernel_carries_packets_both_ways_after_each_reset() {
    in_namespace(|| {
        let Some(card) = card() else { return };
        for _ in 0..20 {
            card.works();
            card.driver.reset();
        }
        card.works();
        card.machine.reset();
        drop(card);
        assert!(Tap::open("t0").is_ok(), "it is nobody's any more");
    });
}

#[test]
fn what_a_driver_breaks_the_kernel_tells_and_a_reset_repairs() {
    in_namespace(|| {
        let Some(card) = card() else { return };
        type Break = fn(&Card, &mut Vring);
        let breaks: [(&str, Break); 5] = [
            ("a head that is no descriptor", |card, tx| {
                tx.offer(0, &[]);
                card.machine.memory.write_obj(640u16.to_le(), GuestAddress(tx.available + 4)).unwrap();
            }),
            ("more chains than there are entries", |card, tx| {
                card.machine.memory.write_obj(1000u16.to_le(), GuestAddress(tx.available + 2)).unwrap();
            }),
            ("a chain without an end", |_, tx| {
                tx.describe(0, (SEND, 16, false), Some(0));
                tx.offer(0, &[]);
            }),
            ("a packet with a buffer to be written", |_, tx| tx.offer(0, &[(SEND, 64, true)])),
            ("a buffer outside memory", |_, tx| tx.offer(0, &[(1 << 60, 64, false)])),
        ];
        for (what, break_it) in breaks {
            let [_, mut tx] = card.go();
            break_it(&card, &mut tx);
            card.driver.kick(TX);
            eprintln!("{what}");
            eventually(|| card.is_broken());
            card.driver.reset();
            card.works();
            card.driver.reset();
        }
    });
}
