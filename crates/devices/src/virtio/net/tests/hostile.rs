//! A driver that keeps to no rule: whatever it writes, and whenever, costs it its card until the reset, at most.

use super::*;
use proptest::prelude::*;

/// Bytes as a story of what driver and host do.
struct Story<'a>(&'a [u8]);

impl Story<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn word(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes([self.byte()?, self.byte()?]))
    }

    /// Mostly where buffers are, sometimes in the rings, at the end of memory, or nowhere.
    fn address(&mut self) -> Option<u64> {
        let near = u64::from(self.word()?);
        Some(match self.byte()? % 8 {
            0 => 0x1_0000 + near * 2,
            1 => RAM - near % 64,
            2 => u64::MAX - near,
            _ => BUFFERS + near * 16,
        })
    }

    /// Mostly a buffer's, sometimes far too long.
    fn length(&mut self) -> Option<u32> {
        let short = u32::from(self.word()?);
        Some(match self.byte()? % 8 {
            0 => u32::MAX - short,
            1 => short % 16,
            2 => short << 8,
            _ => short % 2048,
        })
    }
}

/// Plays `data`. The card's own rules are checked on the way: no turn without end, and no listening without buffers.
pub fn play(data: &[u8]) -> Result<(), NeedsReset> {
    let mut story = Story(data);
    let Some(first) = story.byte() else { return Ok(()) };
    let size = 1 << (first % 7);
    let mut bench = Bench::with(size, if first & 0x80 == 0 { 0 } else { MERGED }, first & 0x40 != 0);
    while let Some((act, queue)) = story.byte().map(|byte| (byte >> 1, byte & 1)) {
        let driver = &mut bench.drivers[usize::from(queue)];
        match act % 8 {
            0 | 1 => {
                let (Some(index), Some(address)) = (story.byte(), story.address()) else { break };
                let (Some(length), Some(flags)) = (story.length(), story.word()) else { break };
                let next = flags >> 8;
                driver.describe(driver.table(), u16::from(index) % size, (address, length, flags & 7, next));
            }
            2 => {
                let Some(head) = story.byte() else { break };
                driver.offer(u16::from(head) % (size + 1));
            }
            3 => {
                let (Some(first), Some(count)) = (story.byte(), story.byte()) else { break };
                // Chains that are right, so that what is wrong comes later too.
                let writable = queue == 0;
                for n in 0..u16::from(count) % size {
                    let slot = (u16::from(first) + n) % size;
                    driver.chain(slot, &[(BUFFERS + u64::from(slot) * 2048, 1536, writable)]);
                }
            }
            4 => {
                let Some(index) = story.word() else { break };
                driver.put(driver.avail() + 2, index.to_le());
            }
            5 => {
                let Some(length) = story.word() else { break };
                let _ = bench.wire.send(&packet(usize::from(length)));
            }
            6 => bench.queues.notified(queue.into())?,
            _ => {
                if bench.queues.listens(0) && is_readable(bench.queues.sources()[0]) {
                    bench.queues.ready(0)?;
                }
            }
        }
        let mut got = [0; 64];
        while bench.wire.recv(&mut got).is_ok() {}
    }
    bench.queues.notified(RX)?;
    bench.queues.notified(TX)?;
    // What is there is finite, and so is the work.
    for _ in 0..1000 {
        if bench.queues.listens(0) && is_readable(bench.queues.sources()[0]) {
            bench.queues.ready(0)?;
        } else if !bench.queues.unfinished() {
            return Ok(());
        }
        bench.queues.notified(TX)?;
    }
    panic!("the card never comes to rest");
}

proptest! {
    #[test]
    fn whatever_the_driver_does(data in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = play(&data);
    }
}

/// What the card says to one chain.
fn says(queue: usize, chain: &[(u64, u32, bool)]) -> Result<(), String> {
    let mut bench = Bench::new(16, MERGED);
    bench.add(queue, chain);
    bench.queues.notified(queue as u16).map_err(|error| error.to_string())
}

#[test]
fn receive_buffers_that_are_none_break_the_queue() {
    let short = Err("queue 0: a receive buffer is shorter than a packet's header".to_owned());
    assert_eq!(says(0, &[readable(BUFFERS, 2048)]), short);
    assert_eq!(says(0, &[writable(BUFFERS, 11)]), short);
    assert_eq!(says(0, &[writable(BUFFERS, 0)]), short);
    let nowhere = Err("queue 0: a buffer is not in memory, or may not be accessed".to_owned());
    assert_eq!(says(0, &[writable(RAM, 2048)]), nowhere);
    assert_eq!(says(0, &[writable(RAM - 1024, 2048)]), nowhere);
    assert_eq!(says(0, &[writable(u64::MAX - 16, 2048)]), nowhere);
    assert!(
        says(0, &[writable(BUFFERS, 16), writable(BUFFERS, u32::MAX)])
            .unwrap_err()
            .ends_with("longer than 4 GiB")
    );
    assert_eq!(says(0, &[writable(BUFFERS, 0x10_0000)]), Ok(()), "more than a packet needs");
}

#[test]
fn what_is_no_packet_is_not_sent() {
    let mut bench = Bench::new(16, MERGED);
    bench.add(1, &[readable(BUFFERS, 11)]);
    bench.add(1, &[readable(BUFFERS, 12)]);
    bench.add(1, &[readable(BUFFERS, 25)]);
    bench.add(1, &[writable(BUFFERS, 100)]);
    bench.add(1, &[readable(BUFFERS, 0x10_0000)]);
    bench.add(1, &[readable(BUFFERS, 12), readable(BUFFERS, 14)]);
    bench.notify(TX);
    assert_eq!(bench.used(1).len(), 6);
    assert_eq!((bench.counted(|c| &c.tx_dropped), bench.counted(|c| &c.tx_packets)), (5, 1));
    let nowhere = Err("queue 1: a buffer is not in memory, or may not be accessed".to_owned());
    assert_eq!(says(1, &[readable(RAM - 8, 64)]), nowhere);
}

#[test]
fn chains_of_very_many_buffers_break_the_queue() {
    for (queue, flags) in [(0, 2), (1, 0)] {
        let mut bench = Bench::new(16, MERGED);
        let driver = &mut bench.drivers[queue];
        let table = 0x30_0000;
        for n in 0..600 {
            driver.describe(table, n, (BUFFERS, 1, flags | u16::from(n < 599), n + 1));
        }
        driver.describe(driver.table(), 0, (table, 600 * 16, 4, 0));
        driver.offer(0);
        let error = bench.queues.notified(queue as u16).unwrap_err();
        assert_eq!(error.to_string(), format!("queue {queue}: a chain's buffers have more than 512 parts"));
    }
}

#[test]
fn very_many_small_buffers_are_taken_as_far_as_one_call_reaches() {
    let mut bench = Bench::new(256, MERGED);
    for n in 0..250 {
        let at = BUFFERS + n * 64;
        // Three chains of several parts are given over and over; the table has room for no more.
        bench.drivers[0].chain((n % 8 * 32) as u16, &[(at, 2, true); 30]);
    }
    bench.notify(RX);
    bench.arrives(&packet(3000));
    bench.arrives(&packet(700));
    assert_eq!(bench.counted(|c| &c.rx_dropped), 1, "in 1024 parts there is no room for 3000 bytes");
    assert_eq!(bench.counted(|c| &c.rx_packets), 1);
}

proptest! {
    /// The driver that all devices are tried with.
    #[test]
    fn whatever_is_in_the_queues(steps in prop::collection::vec(any::<u8>(), 0..800)) {
        let (ours, wire) = UnixDatagram::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let net = Net::new("tap0", Tap::stand_in(ours), [2, 0, 0, 0, 0, 1]);
        wire.set_nonblocking(true).unwrap();
        while wire.send(&packet(100)).is_ok() {}
        _ = crate::virtio::hostile::drive(&net, MERGED, &steps);
    }
}
