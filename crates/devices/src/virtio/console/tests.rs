//! Bytes in both directions, over a pty.

use super::*;
use crate::virtio::hostile;
use crate::virtio::testing::{BUFFERS, Driver, RAM, ram};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use proptest::prelude::*;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::Ordering::SeqCst;
use vm_memory::{Bytes, GuestAddress};

struct Running {
    receive: Driver,
    transmit: Driver,
    backend: Box<dyn Backend>,
    /// The other side of the pty.
    peer: File,
}

fn start() -> Running {
    let pty = console::Console::pty().unwrap();
    let peer = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
        .open(pty.pty_path().unwrap())
        .unwrap();
    let memory = ram();
    let (receive, transmit) =
        (Driver::new(0, 64, false, memory.clone()), Driver::new(1, 64, false, memory.clone()));
    let activation = Activation {
        memory,
        features: 0,
        rings: vec![Some(receive.ring()), Some(transmit.ring())],
        interrupts: Arc::clone(&receive.told) as _,
    };
    let backend = Console::new(pty, "console pty".into()).activate(activation).unwrap();
    Running { receive, transmit, backend, peer }
}

impl Running {
    /// Waits for a source and lets the backend see to it.
    fn wait(&mut self, source: usize) {
        let mut fds = [PollFd::new(self.backend.sources()[source], PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(10_000_u16)), Ok(1));
        self.backend.ready(source).unwrap();
    }

    fn read(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 1 << 16];
        let count = self.peer.read(&mut bytes).unwrap_or(0);
        bytes[..count].to_vec()
    }

    fn bytes(&self, address: u64, length: u32) -> Vec<u8> {
        let mut bytes = vec![0; length as usize];
        self.receive.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }
}

#[test]
fn output_goes_out() {
    let mut running = start();
    running.transmit.memory.write_slice(b"hello world", GuestAddress(BUFFERS)).unwrap();
    running.transmit.chain(0, &[(BUFFERS, 6, false), (BUFFERS + 6, 5, false)]);
    running.transmit.chain(2, &[(BUFFERS, 0, false)]);
    running.backend.notified(TRANSMIT).unwrap();
    assert_eq!(running.read(), b"hello world");
    assert_eq!((running.transmit.take(), running.transmit.take()), (Some((0, 0)), Some((2, 0))));
    assert_eq!(running.transmit.told.used.load(SeqCst), 1);
}

#[test]
fn input_waits_for_buffers_and_is_not_lost() {
    let mut running = start();
    running.peer.write_all(b"typed before").unwrap();
    running.wait(INPUT);
    assert_eq!(running.receive.take(), None);
    running.receive.chain(0, &[(BUFFERS, 5, true)]);
    running.receive.chain(1, &[(BUFFERS + 0x1000, 4, true), (BUFFERS + 0x2000, 100, true)]);
    running.backend.notified(RECEIVE).unwrap();
    assert_eq!((running.receive.take(), running.receive.take()), (Some((0, 5)), Some((1, 7))));
    assert_eq!(running.bytes(BUFFERS, 5), b"typed");
    assert_eq!(running.bytes(BUFFERS + 0x1000, 4), b" bef");
    assert_eq!(running.bytes(BUFFERS + 0x2000, 3), b"ore");
    running.receive.chain(3, &[(BUFFERS, 5, true)]);
    running.backend.notified(RECEIVE).unwrap();
    assert_eq!(running.receive.take(), None);
    running.peer.write_all(b"x").unwrap();
    running.wait(INPUT);
    assert_eq!(running.receive.take(), Some((3, 1)));
}

/// More than a pty takes while nobody reads, then all of it in its order.
#[test]
fn a_busy_host_is_offered_output_again() {
    let mut running = start();
    let pattern: Vec<u8> = (0..1_u32 << 18).map(|n| (n % 251) as u8).collect();
    running.transmit.memory.write_slice(&pattern, GuestAddress(BUFFERS)).unwrap();
    running.transmit.chain(0, &[(BUFFERS, pattern.len() as u32, false)]);
    running.backend.notified(TRANSMIT).unwrap();
    while running.backend.unfinished() {
        running.backend.notified(TRANSMIT).unwrap();
    }
    assert_eq!(running.transmit.take(), None, "nobody has read");
    let mut got = Vec::new();
    while got.len() < pattern.len() {
        let bytes = running.read();
        if bytes.is_empty() {
            running.wait(1);
            while running.backend.unfinished() {
                running.backend.notified(TRANSMIT).unwrap();
            }
        }
        got.extend(bytes);
    }
    assert!(got == pattern);
    while running.transmit.take().is_none() {
        running.backend.notified(TRANSMIT).unwrap();
    }
}

#[test]
fn buffers_that_are_none_are_told() {
    let mut running = start();
    running.transmit.chain(0, &[(RAM, 5, false)]);
    let error = running.backend.notified(TRANSMIT).unwrap_err().to_string();
    assert!(error.starts_with("queue 1: "), "{error}");
    for buffer in [(RAM - 1, 5, true), (BUFFERS, 0, true), (BUFFERS, 5, false)] {
        let mut running = start();
        running.receive.chain(0, &[buffer]);
        running.peer.write_all(b"typed").unwrap();
        let mut fds = [PollFd::new(running.backend.sources()[INPUT], PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(10_000_u16)), Ok(1));
        let error = running.backend.ready(INPUT).unwrap_err().to_string();
        assert!(error.starts_with("queue 0: "), "{error}");
    }
}

proptest! {
    #[test]
    fn a_hostile_driver_gets_nothing_but_a_reset(steps in prop::collection::vec(any::<u8>(), 0..400)) {
        let pty = console::Console::pty().unwrap();
        let path = pty.pty_path().unwrap().to_owned();
        let mut peer =
            OpenOptions::new().write(true).custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK).open(path).unwrap();
        peer.write_all(&[b'x'; 300]).unwrap();
        _ = hostile::drive(&Console::new(pty, "console".into()), 0, &steps);
    }
}
