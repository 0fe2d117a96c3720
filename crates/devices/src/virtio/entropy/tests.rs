//! The queue is filled, and nobody waits for the host.

use super::*;
use crate::virtio::hostile;
use crate::virtio::testing::{BUFFERS, Driver, RAM, ram};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

fn start(source: Source, entries: u16) -> (Driver, Box<dyn Backend>) {
    let driver = Driver::new(0, entries, false, ram());
    let backend = Entropy::new(source)
        .activate(Activation {
            memory: driver.memory.clone(),
            features: 0,
            rings: vec![Some(driver.ring())],
            interrupts: Arc::clone(&driver.told) as _,
        })
        .unwrap();
    (driver, backend)
}

/// Its bytes count, in pieces that fit nothing.
fn counting(bytes: &mut [u8]) -> io::Result<usize> {
    std::thread_local!(static NEXT: std::cell::Cell<u8> = const { std::cell::Cell::new(0) });
    let count = bytes.len().min(1000);
    bytes[..count].fill_with(|| {
        let next = NEXT.get();
        NEXT.set(next.wrapping_add(1));
        next
    });
    Ok(count)
}

#[test]
fn buffers_are_filled_and_no_byte_comes_twice() {
    let (mut driver, mut backend) = start(counting, 16);
    driver.chain(0, &[(BUFFERS, 100, true), (BUFFERS + 0x1000, 28, true)]);
    driver.chain(2, &[(BUFFERS + 0x2000, 8, true)]);
    backend.notified(0).unwrap();
    assert_eq!((driver.take(), driver.take(), driver.take()), (Some((0, 128)), Some((2, 8)), None));
    assert_eq!(driver.told.used.load(SeqCst), 1);
    for (address, first) in [(BUFFERS, 0), (BUFFERS + 0x1000, 100), (BUFFERS + 0x2000, 128)] {
        let found: [u8; 8] = driver.get(address);
        assert_eq!(found, std::array::from_fn(|n| first + n as u8));
    }
    assert!(!backend.unfinished());
}

#[test]
fn a_turn_is_bounded() {
    let (mut driver, mut backend) = start(host, 64);
    for head in 0..40 {
        driver.chain(head, &[(BUFFERS, 1 << 20, true)]);
    }
    backend.notified(0).unwrap();
    let mut chains = 0;
    while let Some((_, written)) = driver.take() {
        assert_eq!(written, 4096, "a device may give less than there is room for");
        chains += 1;
    }
    assert!(chains == 16 && backend.unfinished());
    while backend.unfinished() {
        backend.notified(0).unwrap();
    }
    assert_eq!(std::iter::from_fn(|| driver.take()).count(), 24);
    assert_ne!(driver.get::<[u8; 32]>(BUFFERS), [0; 32]);
}

#[test]
fn a_host_without_random_numbers_is_asked_again() {
    static HAS: AtomicBool = AtomicBool::new(false);
    let (mut driver, mut backend) = start(
        |bytes| match HAS.load(SeqCst) {
            true => counting(bytes),
            false => Err(io::ErrorKind::WouldBlock.into()),
        },
        16,
    );
    driver.chain(0, &[(BUFFERS, 16, true)]);
    let begin = std::time::Instant::now();
    backend.notified(0).unwrap();
    backend.notified(0).unwrap();
    assert!(begin.elapsed() < AGAIN && driver.take().is_none() && !backend.unfinished());
    HAS.store(true, SeqCst);
    backend.notified(0).unwrap();
    assert!(driver.take().is_none(), "the alarm decides when");
    let sources = backend.sources();
    let mut fds = [PollFd::new(sources[0], PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::from(10_000_u16)), Ok(1));
    drop(sources);
    backend.ready(0).unwrap();
    assert_eq!(driver.take(), Some((0, 16)));
    let mut fds = [PollFd::new(backend.sources()[0], PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::ZERO), Ok(0), "the alarm is over");
}

#[test]
fn a_request_that_is_none_is_told() {
    for (buffers, message) in [
        (&[(BUFFERS, 16, false)][..], "has no room for random bytes, or brings some"),
        (&[(BUFFERS, 16, false), (BUFFERS, 16, true)], "has no room for random bytes, or brings some"),
        (&[(BUFFERS, 0, true)], "has no room for random bytes, or brings some"),
        (&[(RAM - 8, 16, true)], "not in memory"),
    ] {
        let (mut driver, mut backend) = start(counting, 16);
        driver.chain(0, buffers);
        let error = backend.notified(0).unwrap_err().to_string();
        assert!(error.starts_with("queue 0: ") && error.contains(message), "{error}");
        assert_eq!(driver.take(), None);
    }
}

proptest! {
    #[test]
    fn a_hostile_driver_gets_nothing_but_a_reset(steps in prop::collection::vec(any::<u8>(), 0..800)) {
        _ = hostile::drive(&Entropy::new(counting), 0, &steps);
    }
}
