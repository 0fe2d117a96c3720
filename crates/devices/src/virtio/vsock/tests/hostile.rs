//! A guest that keeps to no rule, and clients that come and go.

use super::*;
use proptest::prelude::*;

/// Plays `data`: sixteen bytes are what happens next.
pub fn play(data: &[u8]) {
    let mut bench = Bench::new();
    let listener = UnixListener::bind(bench.path("_1")).unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut clients: Vec<UnixStream> = Vec::new();
    for act in data.chunks_exact(16) {
        let long = |at: usize| u32::from_le_bytes([act[at], act[at + 1], act[at + 2], act[at + 3]]);
        let result = match act[0] % 8 {
            // A packet, its length told rightly or not.
            0..4 => {
                let length = u32::from(act[2]) * 8;
                let header = Header {
                    source_cid: if act[3] == 0 { 9 } else { CID.into() },
                    destination_cid: if act[3] == 1 { 9 } else { HOST },
                    // Ports of listeners, of connections that there are, and others.
                    destination_port: if act[4] & 1 == 0 { 1 } else { (1 << 30) + u32::from(act[4] >> 5) },
                    source_port: u32::from(act[5] & 3),
                    length: if act[3] == 2 { long(12) } else { length },
                    kind: if act[3] == 3 { 2 } else { STREAM },
                    op: u16::from(act[1] % 9),
                    flags: u32::from(act[6] & 3),
                    buffer: long(8),
                    forwarded: if act[7] & 1 == 0 { 0 } else { long(12) },
                };
                let memory = bench.drivers[1].memory.clone();
                memory.write_slice(&header.to_bytes(), GuestAddress(SEND)).unwrap();
                let whole = 44 + length;
                let cut = if act[7] & 0x80 == 0 { whole } else { u32::from(act[7]) };
                bench.drivers[1].chain(0, &[(SEND, cut.min(whole), false)]);
                bench.queues.notified(1)
            }
            4 => {
                let mut client = client(&bench.path(""));
                client.set_nonblocking(true).unwrap();
                let _ = writeln!(client, "CONNECT {}", act[1] & 3);
                clients.push(client);
                if is_ready(&*bench.queues) { bench.queues.ready(0) } else { Ok(()) }
            }
            5 => {
                clients.extend(listener.accept().ok().map(|(stream, _)| stream));
                let Some(at) = usize::from(act[1]).checked_rem(clients.len()) else { continue };
                if act[2] & 1 == 0 {
                    drop(clients.swap_remove(at));
                } else {
                    clients[at].set_nonblocking(true).unwrap();
                    let _ = clients[at].write(&[0; 300]);
                    let _ = clients[at].read(&mut [0; 3000]);
                }
                if is_ready(&*bench.queues) { bench.queues.ready(0) } else { Ok(()) }
            }
            6 => {
                let buffer = (long(4) as u64 % (RAM + 4096), long(8) % 8192, act[1] & 7 != 0);
                bench.drivers[0].chain(u16::from(act[2]) % SIZE, &[buffer]);
                bench.queues.notified(0)
            }
            _ => {
                while bench.drivers[0].take().is_some_and(|(head, _)| {
                    bench.drivers[0].offer(head);
                    act[1] & 1 == 0
                }) {}
                bench.queues.notified(0)
            }
        };
        if result.is_err() {
            return;
        }
    }
    for _ in 0..10_000 {
        let result = match (is_ready(&*bench.queues), bench.queues.unfinished()) {
            (true, _) => bench.queues.ready(0),
            (_, true) => bench.queues.notified(1),
            _ => return,
        };
        if result.is_err() {
            return;
        }
    }
    panic!("the device never comes to rest");
}

proptest! {
    #[test]
    fn whatever_the_guest_does(data in prop::collection::vec(any::<u8>(), 0..2000)) {
        play(&data);
    }

    /// The driver that all devices are tried with.
    #[test]
    fn whatever_is_in_the_queues(steps in prop::collection::vec(any::<u8>(), 0..800)) {
        let directory = tempfile::tempdir().unwrap();
        let vsock = Vsock::new(CID, &directory.path().join("v")).unwrap();
        let mut client = client(&vsock.path);
        client.write_all(b"CONNECT 1\n").unwrap();
        _ = crate::virtio::hostile::drive(&vsock, 0, &steps);
    }
}

/// What the device says to one chain from the guest.
fn says(chain: &[(u64, u32, bool)], length: u32) -> String {
    let mut bench = Bench::new();
    let header = Header { length, ..bench.packet((80, 1), Op::Data) };
    bench.drivers[1].memory.write_slice(&header.to_bytes(), GuestAddress(SEND)).unwrap();
    bench.drivers[1].chain(0, chain);
    bench.queues.notified(1).err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn packets_that_are_none_break_the_queue() {
    let short = "queue 1: a buffer is too short, or not in memory";
    assert_eq!(says(&[(SEND, 43, false)], 0), short);
    assert_eq!(says(&[(SEND, 44, true)], 0), short);
    assert_eq!(says(&[(RAM - 20, 44, false)], 0), short);
    let lies = "queue 1: a packet is shorter than it says, or longer than 64 KiB";
    assert_eq!(says(&[(SEND, 100, false)], 57), lies);
    assert_eq!(says(&[(SEND, 0x2_0000, false)], 0x1_0001), lies);
    assert_eq!(says(&[(SEND, 100, false)], u32::MAX), lies);
    assert_eq!(says(&[(SEND, 44, false), (RAM - 8, 16, false)], 16), short);
    assert_eq!(says(&[(SEND, 20, false), (SEND + 20, 80, false)], 56), "");
}

#[test]
fn receive_buffers_that_are_none_break_the_queue() {
    for (buffer, what) in [
        ((BUFFERS, 44, true), "queue 0: a receive buffer has no room for a packet"),
        ((BUFFERS, 4096, false), "queue 0: a receive buffer has no room for a packet"),
        ((RAM - 64, 4096, true), "queue 0: a buffer is too short, or not in memory"),
    ] {
        let mut bench = Bench::new();
        for n in 0..u32::from(SIZE) {
            bench.send((1, n), Op::Data, &[]);
        }
        bench.drivers[0].chain(0, &[buffer]);
        bench.send((1, 1), Op::Reset, &[]);
        let header = bench.packet((1, 1), Op::Data);
        bench.drivers[1].memory.write_slice(&header.to_bytes(), GuestAddress(SEND)).unwrap();
        bench.drivers[1].chain(0, &[(SEND, 44, false)]);
        assert_eq!(bench.queues.notified(1).unwrap_err().to_string(), what);
    }
}
