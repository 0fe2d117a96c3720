//! The device between a guest played here, and real sockets.

mod hostile;

use super::packet::{HEADER, HOST, Header, NO_RECEIVE, NO_SEND, Op, STREAM};
use super::*;
use crate::virtio::testing::{BUFFERS, Driver, RAM, ram};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{Read, Write};
use std::time::Duration;
use tempfile::TempDir;
use vm_memory::{Bytes, GuestAddress};

const CID: u32 = 3;
const SIZE: u16 = 32;

/// Receive buffers are of this many bytes; those to send lie behind them.
const BUFFER: u64 = 4096;
const SEND: u64 = BUFFERS + SIZE as u64 * BUFFER;

struct Bench {
    drivers: [Driver; 2],
    queues: Box<dyn Backend>,
    /// What the guest says of its room in each packet.
    room: (u32, u32),
    next: u16,
    // After the queues, as with a VM.
    _vsock: Vsock,
    directory: TempDir,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let vsock = Vsock::new(CID, &directory.path().join("v")).unwrap();
        let memory = ram();
        let mut drivers = [0, 1].map(|queue| Driver::new(queue, SIZE, true, memory.clone()));
        for n in 0..SIZE {
            drivers[0].chain(n, &[(BUFFERS + u64::from(n) * BUFFER, BUFFER as u32, true)]);
        }
        let rings = drivers.iter().map(|driver| Some(driver.ring())).chain([None]).collect();
        let interrupts = drivers[0].told.clone();
        let queues = vsock.activate(Activation { memory, features: 0, rings, interrupts }).unwrap();
        Self { drivers, queues, room: (1 << 20, 0), next: 0, _vsock: vsock, directory }
    }

    fn path(&self, port: &str) -> PathBuf {
        self.directory.path().join(format!("v{port}"))
    }

    /// What the worker does until nothing happens any more.
    fn run(&mut self) {
        while is_ready(&*self.queues) {
            self.queues.ready(0).unwrap();
        }
        while self.queues.unfinished() {
            self.queues.notified(0).unwrap();
        }
    }

    fn packet(&self, (host_port, guest_port): (u32, u32), op: Op) -> Header {
        Header {
            source_cid: CID.into(),
            destination_cid: HOST,
            source_port: guest_port,
            destination_port: host_port,
            kind: STREAM,
            op: op as u16,
            buffer: self.room.0,
            forwarded: self.room.1,
            ..Header::default()
        }
    }

    /// The guest sends a packet, its header and data in three pieces.
    fn send_packet(&mut self, header: Header, data: &[u8]) {
        let bytes = [&header.to_bytes()[..], data].concat();
        let memory = &self.drivers[1].memory;
        memory.write_slice(&bytes, GuestAddress(SEND)).unwrap();
        let half = (data.len() / 2) as u32;
        let rest = data.len() as u32 - half;
        let pieces = [(SEND, 44 + half, false), (SEND + 44 + u64::from(half), rest, false)];
        self.drivers[1].chain(self.next, &pieces);
        self.next = (self.next + 2) % SIZE;
        self.queues.notified(1).unwrap();
        self.run();
        assert!(self.drivers[1].take().is_some(), "it is taken");
    }

    fn send(&mut self, ports: (u32, u32), op: Op, data: &[u8]) {
        let length = data.len() as u32;
        self.send_packet(Header { length, ..self.packet(ports, op) }, data);
    }

    fn shutdown(&mut self, ports: (u32, u32), flags: u32) {
        self.send_packet(Header { flags, ..self.packet(ports, Op::Shutdown) }, &[]);
    }

    /// What the guest gets; its buffers are available again afterwards.
    fn received(&mut self) -> Vec<(Header, Vec<u8>)> {
        self.run();
        let mut packets = Vec::new();
        while let Some((head, length)) = self.drivers[0].take() {
            let at = BUFFERS + u64::from(head) * BUFFER;
            let mut bytes = vec![0; length as usize];
            self.drivers[0].memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
            let (header, data) = bytes.split_at(HEADER);
            let header = Header::from_bytes(header.try_into().unwrap());
            assert_eq!(header.length as usize, data.len());
            packets.push((header, data.to_vec()));
            self.drivers[0].offer(head);
        }
        self.queues.notified(0).unwrap();
        packets
    }

    /// The one packet that the guest gets.
    fn only(&mut self) -> (Header, Vec<u8>) {
        let mut packets = self.received();
        assert_eq!(packets.len(), 1, "{packets:?}");
        packets.remove(0)
    }

    fn ops(&mut self) -> Vec<Op> {
        self.received().iter().map(|(header, _)| header.op().unwrap()).collect()
    }

    /// A connection from the host to the guest's port 5000, and the host's port.
    fn connected(&mut self) -> (UnixStream, (u32, u32)) {
        let mut client = client(&self.path(""));
        client.write_all(b"CONNECT 5000\n").unwrap();
        let (request, _) = self.only();
        assert_eq!((request.op(), request.destination_port), (Some(Op::Request), 5000));
        assert_eq!((request.source_cid, request.destination_cid), (HOST, CID.into()));
        let ports = (request.source_port, 5000);
        self.send(ports, Op::Response, &[]);
        let line = format!("OK {}\n", ports.0);
        let mut answer = vec![0; line.len()];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(answer, line.as_bytes());
        (client, ports)
    }

    /// A connection from the guest's port 1234 to the host's port 80.
    fn asked(&mut self) -> (UnixStream, (u32, u32)) {
        let listener = UnixListener::bind(self.path("_80")).unwrap();
        self.send((80, 1234), Op::Request, &[]);
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_eq!(self.only().0.op(), Some(Op::Response));
        std::fs::remove_file(self.path("_80")).unwrap();
        (stream, (80, 1234))
    }
}

/// Whether the worker would call the device for its source.
fn is_ready(queues: &dyn Backend) -> bool {
    let mut source = [PollFd::new(queues.sources()[0], PollFlags::POLLIN)];
    queues.listens(0) && poll(&mut source, PollTimeout::ZERO).unwrap() > 0
}

fn client(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

#[test]
fn the_host_connects_and_talks() {
    let mut bench = Bench::new();
    let (mut client, ports) = bench.connected();
    client.write_all(b"ping").unwrap();
    let (header, data) = bench.only();
    assert_eq!((header.op(), &data[..]), (Some(Op::Data), &b"ping"[..]));
    assert_eq!((header.source_port, header.destination_port), ports);
    bench.send(ports, Op::Data, b"pong");
    let mut got = [0; 4];
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"pong");
    drop(client);
    let (header, _) = bench.only();
    assert_eq!((header.op(), header.flags), (Some(Op::Shutdown), NO_SEND | NO_RECEIVE));
    bench.send(ports, Op::Reset, &[]);
    assert_eq!(bench.ops(), []);
}

#[test]
fn the_guest_connects_and_closes() {
    let mut bench = Bench::new();
    let (mut host, ports) = bench.asked();
    bench.send(ports, Op::Data, b"last words");
    bench.shutdown(ports, NO_SEND | NO_RECEIVE);
    assert_eq!(bench.ops(), [Op::Reset]);
    let mut got = String::new();
    host.read_to_string(&mut got).unwrap();
    assert_eq!(got, "last words");
}

#[test]
fn what_follows_the_greeting_is_the_guests() {
    let mut bench = Bench::new();
    let mut client = client(&bench.path(""));
    client.write_all(b"CONNECT 7\nhello").unwrap();
    let (request, _) = bench.only();
    bench.send((request.source_port, 7), Op::Response, &[]);
    assert_eq!(bench.only().1, b"hello");
}

#[test]
fn one_side_stops_sending_and_the_other_goes_on() {
    let mut bench = Bench::new();
    let (mut client, ports) = bench.connected();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let (header, _) = bench.only();
    assert_eq!((header.op(), header.flags), (Some(Op::Shutdown), NO_SEND));
    bench.send(ports, Op::Data, b"still here");
    let mut got = [0; 10];
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"still here");
    bench.shutdown(ports, NO_SEND);
    assert_eq!(bench.ops(), [Op::Reset], "both have stopped");
    assert_eq!(client.read(&mut got).unwrap(), 0);
}

#[test]
fn nobody_is_there() {
    let mut bench = Bench::new();
    bench.send((81, 1234), Op::Request, &[]);
    let (header, _) = bench.only();
    assert_eq!((header.op(), header.source_port, header.destination_port), (Some(Op::Reset), 81, 1234));
    // The guest refuses, or breaks off.
    let mut client = client(&bench.path(""));
    client.write_all(b"CONNECT 5000\n").unwrap();
    let (request, _) = bench.only();
    bench.send((request.source_port, 5000), Op::Reset, &[]);
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn wrong_packets_are_refused() {
    let mut bench = Bench::new();
    let ports = (80, 1234);
    for op in [Op::Data, Op::Response, Op::Shutdown, Op::CreditUpdate, Op::CreditRequest] {
        bench.send(ports, op, &[]);
        assert_eq!(bench.ops(), [Op::Reset], "{op:?} without a connection");
    }
    bench.send(ports, Op::Reset, &[]);
    let packet = bench.packet(ports, Op::Request);
    bench.send_packet(Header { source_cid: 4, ..packet }, &[]);
    assert_eq!(bench.ops(), [], "nobody answers a reset, or a stranger");
    bench.send_packet(Header { destination_cid: 1, ..packet }, &[]);
    bench.send_packet(Header { kind: 2, ..packet }, &[]);
    bench.send_packet(Header { op: 99, ..packet }, &[]);
    assert_eq!(bench.ops(), [Op::Reset; 3]);
    // Of a connection, the wrong thing is its end.
    let (mut client, ports) = bench.connected();
    bench.send(ports, Op::Request, &[]);
    assert_eq!(bench.ops(), [Op::Reset]);
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn a_guest_without_room_gets_nothing_until_it_has_some() {
    let mut bench = Bench::new();
    bench.room = (6, 0);
    let (mut client, ports) = bench.connected();
    client.write_all(b"0123456789").unwrap();
    let packets = bench.received();
    assert_eq!(packets.len(), 2);
    assert_eq!((packets[0].1.as_slice(), packets[1].0.op()), (&b"012345"[..], Some(Op::CreditRequest)));
    assert_eq!(bench.ops(), [], "and it is asked once");
    bench.room.1 = 2;
    bench.send(ports, Op::CreditUpdate, &[]);
    assert_eq!(bench.received()[0].1, b"67");
    // It cannot have taken more than there was.
    bench.room.1 = 99;
    bench.send(ports, Op::CreditUpdate, &[]);
    assert_eq!(bench.ops(), []);
}

#[test]
fn a_guest_that_sends_more_than_it_may_is_cut_off() {
    let mut bench = Bench::new();
    let (_client, ports) = bench.connected();
    let mut sent = 0;
    let over = loop {
        bench.send(ports, Op::Data, &[7; 60_000]);
        sent += 60_000;
        if bench.ops().contains(&Op::Reset) {
            break sent;
        }
        assert!(sent < 10_000_000, "somebody holds all this");
    };
    assert!(over > connection::BUFFER);
}

#[test]
fn much_goes_through_in_both_directions() {
    const MUCH: usize = 3_000_000;
    let byte = |n: usize| (n * 31 + n / 251) as u8;
    let mut bench = Bench::new();
    bench.room = (100_000, 0);
    let (client, ports) = bench.connected();
    let (mut reader, mut writer) = (client.try_clone().unwrap(), client);
    let reading = std::thread::spawn(move || {
        let mut all = vec![0; MUCH];
        reader.read_exact(&mut all).unwrap();
        all
    });
    let writing = std::thread::spawn(move || {
        let all: Vec<u8> = (0..MUCH).map(byte).collect();
        writer.write_all(&all).unwrap();
        writer
    });
    let (mut got, mut sent) = (Vec::new(), 0);
    // What the host has room for, by what it says in its packets.
    let mut host_forwarded = 0;
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while got.len() < MUCH || sent < MUCH {
        assert!(std::time::Instant::now() < end, "{} of {MUCH} came, {sent} went", got.len());
        for (header, data) in bench.received() {
            host_forwarded = header.forwarded as usize;
            got.extend(data);
        }
        bench.room.1 = got.len() as u32;
        let room = connection::BUFFER - (sent - host_forwarded);
        let count = room.min(MUCH - sent).min(9000);
        let data: Vec<u8> = (sent..sent + count).map(byte).collect();
        let op = if count > 0 { Op::Data } else { Op::CreditUpdate };
        bench.send(ports, op, &data);
        sent += count;
    }
    assert!(got.iter().enumerate().all(|(n, value)| *value == byte(n)));
    while !reading.is_finished() {
        bench.run();
    }
    assert!(reading.join().unwrap().iter().enumerate().all(|(n, value)| *value == byte(n)));
    drop(writing.join().unwrap());
}

#[test]
fn there_are_only_so_many_connections() {
    let mut bench = Bench::new();
    let mut clients: Vec<UnixStream> = Vec::new();
    for _ in 0..table::MOST {
        clients.push(client(&bench.path("")));
        bench.run();
    }
    let mut one_more = client(&bench.path(""));
    bench.run();
    assert_eq!(one_more.read(&mut [0]).unwrap(), 0, "it is closed");
    UnixListener::bind(bench.path("_80")).unwrap();
    bench.send((80, 1), Op::Request, &[]);
    assert_eq!(bench.ops(), [Op::Reset]);
    clients.pop();
    bench.run();
    bench.connected();
}

#[test]
fn who_does_not_greet_is_not_let_in() {
    let mut bench = Bench::new();
    for greeting in [&b"HELLO 1\n"[..], b"CONNECT x\n", b"CONNECT 4294967296\n", &[b'9'; 40]] {
        let mut client = client(&bench.path(""));
        client.write_all(greeting).unwrap();
        bench.run();
        assert!(!matches!(client.read(&mut [0]), Ok(1..)), "{greeting:?}");
    }
    assert_eq!(bench.ops(), []);
}

#[test]
fn a_client_that_gives_up_before_the_guest_answers_is_forgotten() {
    let mut bench = Bench::new();
    let mut client = client(&bench.path(""));
    client.write_all(b"CONNECT 5000\n").unwrap();
    let (request, _) = bench.only();
    drop(client);
    assert_eq!(bench.ops(), [Op::Reset]);
    bench.send((request.source_port, 5000), Op::Response, &[]);
    assert_eq!(bench.ops(), [Op::Reset]);
}

#[test]
fn without_receive_buffers_the_guest_is_heard_until_answers_pile_up() {
    let mut bench = Bench::new();
    // All buffers are used up by answers that the guest does not look at.
    for n in 0..table::REPLIES + usize::from(SIZE) {
        bench.send((1, n as u32), Op::Data, &[]);
    }
    let header = bench.packet((1, 7), Op::Data);
    bench.drivers[1].memory.write_slice(&header.to_bytes(), GuestAddress(SEND)).unwrap();
    bench.drivers[1].chain(bench.next, &[(SEND, 44, false)]);
    bench.queues.notified(1).unwrap();
    assert_eq!(bench.drivers[1].take(), None, "it waits");
    assert!(!bench.queues.unfinished());
    // Clients that come and go would have more to answer.
    client(&bench.path("")).write_all(b"CONNECT 1\n").unwrap();
    assert!(!bench.queues.listens(0));
    let mut answers = 0;
    loop {
        let more = bench.received().len();
        answers += more;
        if more == 0 {
            break;
        }
    }
    assert_eq!(answers, table::REPLIES + usize::from(SIZE) + 2, "the client's, who hung up, too");
    assert!(bench.drivers[1].take().is_some());
}

#[test]
fn paths_and_addresses_that_cannot_be() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("v");
    for wrong in [0, 1, 2, u32::MAX] {
        assert!(matches!(Vsock::new(wrong, &path), Err(VsockError::Cid(_))));
    }
    let first = Vsock::new(CID, &path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(Vsock::new(CID, &path), Err(VsockError::Busy { .. })));
    drop(first);
    assert!(!path.exists());
    // A killed VM's.
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    drop(Vsock::new(CID, &path).unwrap());
    std::fs::write(&path, "a file").unwrap();
    assert!(matches!(Vsock::new(CID, &path), Err(VsockError::NoSocket { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"a file");
    let long = directory.path().join("x".repeat(100));
    assert!(matches!(Vsock::new(CID, &long), Err(VsockError::Long { .. })));
    let nowhere = directory.path().join("no/v");
    assert!(matches!(Vsock::new(CID, &nowhere), Err(VsockError::Host { .. })));
}

#[test]
fn the_config_space_is_the_address() {
    let bench = Bench::new();
    let mut data = [0xee; 12];
    bench._vsock.config(0, &mut data);
    assert_eq!(data, [3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bench._vsock.config(u64::MAX, &mut data);
    assert_eq!(data, [0; 12]);
    const { assert!(RAM > SEND + 70_000) };
}
