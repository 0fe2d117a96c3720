use super::super::chain::Buffers;
use super::super::testing::{BUFFERS, Driver, INDIRECT, NEXT, RAM, WRITE, ram};
use super::*;
use vm_memory::Permissions;

const SIZE: u16 = 16;

fn driver(event_idx: bool) -> Driver {
    Driver::new(0, SIZE, event_idx, ram())
}

/// What the next chain is: readable and writable bytes, or what is wrong.
fn popped(driver: &Driver) -> Result<(usize, usize), String> {
    let mut buffers = Buffers::default();
    let with_buffers =
        driver.ring().pop_buffers(&mut buffers).map(|head| head.expect("a chain is available"));
    let mut ring = driver.ring();
    let alone = ring.pop().map(|chain| chain.expect("a chain is available").head_index());
    assert_eq!(with_buffers.as_ref().ok(), alone.as_ref().ok());
    match with_buffers {
        Ok(_) => Ok((buffers.readable.length(), buffers.writable.length())),
        Err(error) => Err(error.to_string()),
    }
}

fn one_chain(table: &[(u64, u32, u16, u16)]) -> Result<(usize, usize), String> {
    let mut driver = driver(false);
    for (index, descriptor) in (0..).zip(table) {
        driver.describe(driver.table(), index, *descriptor);
    }
    driver.offer(0);
    popped(&driver)
}

fn indirect(length: u32, table: &[(u64, u32, u16, u16)]) -> Result<(usize, usize), String> {
    let mut driver = driver(false);
    driver.describe(driver.table(), 0, (BUFFERS, length, INDIRECT, 0));
    for (index, descriptor) in (0..).zip(table) {
        driver.describe(BUFFERS, index, *descriptor);
    }
    driver.offer(0);
    popped(&driver)
}

const OPEN: &str = "queue 0: a chain loops, leads out of its table or out of memory, or is longer than 4 GiB";

#[test]
fn chains_that_are_right() {
    assert_eq!(one_chain(&[(BUFFERS, 8, 0, 0)]), Ok((8, 0)));
    assert_eq!(one_chain(&[(BUFFERS, 8, NEXT, 2), (0, 0, 0, 0), (BUFFERS, 5, WRITE, 0)]), Ok((8, 5)));
    assert_eq!(one_chain(&[(BUFFERS, 0, 0, 0)]), Ok((0, 0)));
    assert_eq!(indirect(32, &[(BUFFERS, 8, NEXT, 1), (BUFFERS, 5, WRITE, 0)]), Ok((8, 5)));
    // Where a buffer lies is not looked at before it is touched.
    assert_eq!(one_chain(&[(u64::MAX, 8, 0, 0)]), Ok((8, 0)));
}

#[test]
fn chains_that_do_not_end() {
    let open = Err(OPEN.to_owned());
    assert_eq!(one_chain(&[(BUFFERS, 8, NEXT, 0)]), open);
    assert_eq!(one_chain(&[(BUFFERS, 8, NEXT, 1), (BUFFERS, 8, NEXT, 0)]), open);
    assert_eq!(one_chain(&[(BUFFERS, 8, NEXT, SIZE)]), open);
    assert_eq!(one_chain(&[(BUFFERS, u32::MAX, NEXT, 1), (BUFFERS, 1, 0, 0)]), open);
    // A table in a table, one that is empty, one of a size that no table has, one that is nowhere.
    assert_eq!(indirect(32, &[(BUFFERS, 8, NEXT, 1), (BUFFERS, 32, INDIRECT, 0)]), open);
    assert_eq!(indirect(16, &[(BUFFERS, 16, INDIRECT, 0)]), open);
    assert_eq!(indirect(0, &[]), open);
    assert_eq!(indirect(17, &[(BUFFERS, 8, 0, 0)]), open);
    assert_eq!(indirect(16 * 0x1_0000, &[(BUFFERS, 8, 0, 0)]), open);
    assert_eq!(one_chain(&[(RAM, 16, INDIRECT, 0)]), open);
    assert_eq!(one_chain(&[(u64::MAX - 7, 16, INDIRECT, 0)]), open);
    // Loops in a table of a table's own.
    assert_eq!(indirect(32, &[(BUFFERS, 8, NEXT, 1), (BUFFERS, 8, NEXT, 0)]), open);
}

#[test]
fn a_loop_in_a_long_table_is_bounded() {
    let table: Vec<_> = (0..4096).map(|_| (BUFFERS, 1, NEXT, 0)).collect();
    assert_eq!(indirect(16 * 4096, &table), Err("queue 0: a chain has more than 1024 descriptors".into()));
}

#[test]
fn readable_after_writable_is_wrong() {
    let order = Err("queue 0: a chain has a device-readable descriptor after a device-writable one".into());
    assert_eq!(one_chain(&[(BUFFERS, 8, NEXT | WRITE, 1), (BUFFERS, 8, 0, 0)]), order);
}

#[test]
fn heads_and_indices_that_are_out_of_range() {
    let mut driver = driver(false);
    driver.offer(SIZE);
    assert_eq!(popped(&driver), Err(OPEN.into()));
    driver.put(driver.avail() + 2, (SIZE + 1).to_le());
    assert!(driver.ring().pop().is_err());
    assert!(driver.ring().push(SIZE, 0).is_err());
}

#[test]
fn a_ring_that_is_nowhere_is_an_error_at_each_step() {
    let driver = driver(true);
    for address in [RAM - 4, RAM, u64::MAX - 0xf] {
        let mut queue = driver.queue();
        queue.try_set_avail_ring_address(GuestAddress(address)).unwrap();
        queue.try_set_used_ring_address(GuestAddress(address)).unwrap();
        queue.set_next_avail(1);
        let mut ring = Ring::new(0, queue, driver.memory.clone(), Arc::clone(&driver.told) as _);
        // At the end of memory the index can be read, but no entry.
        assert!(ring.pop().is_err(), "{address:#x}");
        assert!(ring.push(0, 0).is_err());
        assert!(ring.enable_notification().is_err());
        ring.signalled -= 1;
        assert!(ring.signal().is_err());
    }
}

#[test]
fn the_driver_is_told_when_it_wants_to_be() {
    let mut driver = driver(false);
    let mut ring = driver.ring();
    let told = |driver: &Driver| driver.told.used.load(Ordering::SeqCst);
    driver.chain(0, &[(BUFFERS, 8, false)]);
    assert!(ring.pop().unwrap().is_some());
    ring.signal().unwrap();
    assert_eq!(told(&driver), 0, "nothing was pushed");
    ring.push(0, 0).unwrap();
    ring.signal().unwrap();
    ring.signal().unwrap();
    assert_eq!(told(&driver), 1);
    driver.put(driver.avail(), (VRING_AVAIL_F_NO_INTERRUPT as u16).to_le());
    ring.push(0, 0).unwrap();
    ring.signal().unwrap();
    assert_eq!(told(&driver), 1);
    assert_eq!(driver.take(), Some((0, 0)));
}

#[test]
fn with_event_idx_the_driver_is_told_once_for_what_it_waits_for() {
    let mut driver = driver(true);
    let mut ring = driver.ring();
    driver.put(driver.used_event(), 2_u16.to_le());
    for head in 0..6 {
        driver.chain(head, &[(BUFFERS, 8, false)]);
        ring.pop().unwrap().unwrap();
        ring.push(head, 0).unwrap();
        ring.signal().unwrap();
        assert_eq!(driver.told.used.load(Ordering::SeqCst), usize::from(head >= 2));
    }
}

#[test]
fn several_chains_are_given_back_at_once_around_the_rings_end() {
    let mut driver = driver(false);
    let mut ring = driver.ring();
    for head in 0..SIZE - 2 {
        ring.push(head, 0).unwrap();
        assert_eq!(driver.take(), Some((head, 0)));
    }
    ring.push_all(&[(SIZE - 2, 60), (SIZE - 1, 70), (0, 80)]).unwrap();
    let used = [driver.take(), driver.take(), driver.take(), driver.take()];
    assert_eq!(used, [Some((SIZE - 2, 60)), Some((SIZE - 1, 70)), Some((0, 80)), None]);
    assert!(ring.push_all(&[(0, 0); SIZE as usize + 1]).is_err());
    ring.push_all(&[]).unwrap();
}

#[test]
fn the_driver_is_told_when_it_waits_for_one_of_several() {
    let driver = driver(true);
    let mut ring = driver.ring();
    let mut told = |event: u16, used: &[(u16, u32)]| {
        driver.put(driver.used_event(), event.to_le());
        ring.push_all(used).unwrap();
        ring.signal().unwrap();
        driver.told.used.swap(0, Ordering::SeqCst)
    };
    assert_eq!(told(0, &[(0, 1), (1, 1), (2, 1)]), 1, "of the first");
    assert_eq!(told(0, &[(3, 1), (4, 1)]), 0, "it has been told");
    assert_eq!(told(6, &[(5, 1), (6, 1), (7, 1)]), 1, "of one in the middle");
    assert_eq!(told(9, &[(0, 1), (1, 1)]), 1, "of the last");
    assert_eq!(told(11, &[(2, 1)]), 0, "not yet");
}

/// A driver and a device on two threads. The driver rings only where the device wants it; whenever it does not, the
/// device must find the chain by itself.
#[test]
fn no_kick_is_lost() {
    const CHAINS: u32 = 20_000;
    for event_idx in [false, true] {
        let mut driver = driver(event_idx);
        let mut ring = driver.ring();
        let (bell, kicks) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut left = CHAINS;
                while left > 0 {
                    loop {
                        ring.disable_notification().unwrap();
                        while let Some(head) = ring.pop().unwrap().map(|chain| chain.head_index()) {
                            ring.push(head, 0).unwrap();
                            left -= 1;
                        }
                        if !ring.enable_notification().unwrap() {
                            break;
                        }
                    }
                    if left > 0 {
                        let patience = std::time::Duration::from_secs(20);
                        kicks.recv_timeout(patience).expect("the device waits for a kick that does not come");
                    }
                }
            });
            let mut in_flight = 0;
            for chain in 0..CHAINS {
                let from = driver.available();
                driver.chain(chain as u16 % SIZE, &[(BUFFERS, 8, false)]);
                std::sync::atomic::fence(Ordering::SeqCst);
                if driver.device_wants(from) {
                    // The device may have had its last chain by then.
                    let _ = bell.send(());
                }
                in_flight += 1;
                while in_flight == SIZE || (chain % 7 == 0 && in_flight > 0) {
                    match driver.take() {
                        Some(_) => in_flight -= 1,
                        None => std::thread::yield_now(),
                    }
                }
            }
        });
    }
}

#[test]
fn spans_are_taken_from_both_ends() {
    let mut driver = driver(false);
    driver.memory.write_slice(&[1, 2, 3, 4, 5], GuestAddress(BUFFERS)).unwrap();
    driver.chain(
        0,
        &[(BUFFERS, 2, false), (BUFFERS + 2, 3, false), (BUFFERS + 8, 4, true), (BUFFERS, 1, true)],
    );
    let mut buffers = Buffers::default();
    driver.ring().pop_buffers(&mut buffers).unwrap().unwrap();
    let mut head = [0; 3];
    buffers.readable.take(&driver.memory, &mut head).unwrap();
    assert_eq!(head, [1, 2, 3]);
    assert_eq!(buffers.readable.length(), 2);
    assert!(buffers.readable.take(&driver.memory, &mut head).is_err());
    assert_eq!(buffers.writable.take_last().unwrap(), GuestAddress(BUFFERS));
    assert_eq!(buffers.writable.take_last().unwrap(), GuestAddress(BUFFERS + 11));
    assert_eq!(buffers.writable.put(&driver.memory, &[9; 20]), Ok(3));
    assert_eq!(driver.get::<[u8; 4]>(BUFFERS + 8), [9, 9, 9, 0]);
}

#[test]
fn vectors_never_leave_memory() {
    use super::super::{Span, Vectors};
    let mut vectors = Vectors::new(ram());
    let mut fill = |address, length| {
        let span = Span { address: GuestAddress(address), length };
        vectors.fill([span].into_iter(), Permissions::Write).map(|()| vectors.length())
    };
    assert_eq!(fill(BUFFERS, 10), Ok(10));
    assert_eq!(fill(RAM - 10, 10), Ok(10));
    for (address, length) in [(RAM - 10, 11), (RAM, 1), (u64::MAX, 1), (u64::MAX - 3, 8), (0, usize::MAX)] {
        assert!(fill(address, length).is_err(), "{address:#x} {length:#x}");
    }
    assert_eq!(vectors.length(), 0);
}
